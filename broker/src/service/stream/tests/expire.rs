//! Time to live: what is in use lives on, and what is over is nobody's any more.

use super::*;

async fn mortal() -> (House, ClockHand) {
    let (clock, hand) = Clock::manual(1_800_000_000_000);
    let house = House::new(clock);
    let request = CreateRequest { ttl_s: Some(10), ..new("s") };
    house.service.create(request, &house.room()).await.unwrap();
    (house, hand)
}

#[tokio::test]
async fn a_stream_does_not_expire_between_the_beginning_of_an_append_and_its_answer() {
    for request in [plain("s", "a"), turn("s", 0, "a"), closing("s")] {
        let (house, hand) = mortal().await;
        let held = house.stream("s").writers.clone().write_owned().await;
        let mut appending = Box::pin(house.service.append(request, &house.connection));
        begin(&mut appending);
        hand.advance(Duration::from_secs(60));
        assert_eq!(house.service.registry.streams_over(), []);
        drop(held);
        soon(appending).await.unwrap();
        hand.advance(Duration::from_secs(9));
        assert!(house.service.find("s", 0).is_ok(), "its time began anew with the answer");
        hand.advance(Duration::from_secs(1));
        assert_eq!(house.service.registry.streams_over().len(), 1);
    }
}

#[tokio::test]
async fn a_stream_does_not_expire_while_somebody_waits_for_its_data() {
    let (house, hand) = mortal().await;
    let (found, room) = (house.service.find("s", 0).unwrap(), house.room());
    let request = ReadRequest { from: ReadFrom::Start, wait: SOON, bytes_max: 1 };
    let mut reading = Box::pin(house.service.read(&found, request, &room));
    begin(&mut reading);
    hand.advance(Duration::from_secs(60));
    house.append(plain("s", "a")).await.unwrap();
    assert_eq!(soon(reading).await.unwrap().values, ["a"]);
    hand.advance(Duration::from_secs(10));
    assert_eq!(house.service.registry.streams_over().len(), 1);
}

#[tokio::test]
async fn a_stream_whose_time_is_over_is_not_there_also_where_it_cannot_be_removed() {
    let (house, hand) = mortal().await;
    hand.advance(Duration::from_secs(10));
    house.service.registry.log().partition().close().await.unwrap();
    let topic_id = house.service.registry.topic("s").unwrap().id;
    house.service.registry.remove_stream(topic_id).await.unwrap_err();
    let unknown = |result: Result<(), StreamError>| {
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), "topic `s` does not exist");
    };
    unknown(house.service.find("s", 0).map(drop));
    unknown(house.service.delete("s").await);
    unknown(house.append(plain("s", "a")).await.map(drop));
    unknown(house.append(turn("s", 0, "a")).await.map(drop));
    let refused = house.service.create(new("s"), &house.room()).await.unwrap_err();
    assert!(refused.to_string().contains("could not store the change"), "{refused}");
}

#[tokio::test]
async fn the_name_of_a_source_whose_time_is_over_stays_taken_while_forks_of_it_stand() {
    let (house, hand) = mortal().await;
    let fork = Some(ForkRequest { source: "s".into(), offset: None, sub_offset: 0 });
    let request = CreateRequest { fork, ttl_s: Some(3_600), ..new("f") };
    house.service.create(request, &house.room()).await.unwrap();
    hand.advance(Duration::from_secs(10));
    for is_removed in [false, true] {
        let gone = house.service.find("s", 0).unwrap_err();
        assert!(matches!(gone, StreamError::Gone { .. }), "{is_removed}: {gone}");
        let taken = house.service.create(new("s"), &house.room()).await.unwrap_err();
        assert!(matches!(taken, StreamError::Exists { .. }), "{is_removed}: {taken}");
        for topic_id in house.service.registry.streams_over() {
            house.service.registry.remove_stream(topic_id).await.unwrap();
        }
    }
    house.service.delete("f").await.unwrap();
    house.create("s").await;
}

//! Creations: what a stream begins with is there with it, and counted on its way.

use riverrun_proto::grpc::v1::TopicConfig;

use super::*;
use crate::topic::registry::TopicChange;

fn fork(source: &str, name: &str) -> CreateRequest {
    let fork = ForkRequest { source: source.into(), offset: None, sub_offset: 0 };
    CreateRequest { fork: Some(fork), ..new(name) }
}

#[tokio::test]
async fn what_a_stream_begins_with_is_counted_until_it_is_in_the_log() {
    let house = House::new(Clock::real());
    let share = house.connection.try_take(1_000).unwrap();
    let request = CreateRequest { body: "hello".into(), share, ..new("s") };
    let room = house.room();
    let mut creating = Box::pin(house.service.create(request, &room));
    begin(&mut creating);
    drop(creating);
    assert_eq!(house.connection.used(), 1_000, "nobody waits for it, and it is still there");
    until(|| house.connection.used() == 0).await;
    until(|| house.service.find("s", 0).is_ok()).await;
    assert_eq!(house.values("s").await, ["hello"]);
}

#[tokio::test]
async fn a_fork_copies_in_steps_and_each_is_counted_once() {
    let house = House::new(Clock::real());
    house.create("s").await;
    let values: Vec<_> = (0..5).map(|nth| Bytes::from(vec![b'0' + nth; MIB])).collect();
    for value in &values {
        house.append(plain("s", value.clone())).await.unwrap();
    }
    let request = fork("s", "f").fork.unwrap();
    let inherited = house.service.inherited(&request, &house.room()).await.unwrap();
    let bytes: usize = inherited.batches.iter().map(|(batch, _)| batch.as_bytes().len()).sum();
    assert_eq!((inherited.batches.len(), house.reading.used()), (5, bytes));
    drop(inherited);
    assert_eq!(house.reading.used(), 0);
    soon(house.service.create(fork("s", "f"), &house.room())).await.unwrap();
    assert_eq!(house.reading.used(), 0);
    assert_eq!(house.values("f").await, values);
}

#[tokio::test]
async fn a_fork_is_refused_when_it_is_too_large_or_there_is_no_memory_for_it() {
    let house = House::new(Clock::real());
    house.create("s").await;
    for _ in 0..16 {
        house.append(plain("s", vec![b'x'; 4 * MIB - 1024])).await.unwrap();
    }
    let others = house.reading.try_take(house.reading.limit() - 16 * MIB).unwrap();
    let refused = soon(house.service.create(fork("s", "f"), &house.room())).await.unwrap_err();
    assert!(matches!(refused, StreamError::Fetch(_)), "{refused}");
    drop(others);
    soon(house.service.create(fork("s", "f"), &house.room())).await.unwrap();
    house.append(plain("s", vec![b'x'; 64 << 10])).await.unwrap();
    let refused = soon(house.service.create(fork("s", "g"), &house.room())).await.unwrap_err();
    assert!(matches!(refused, StreamError::ForkTooLarge), "{refused}");
    assert_eq!(house.reading.used(), 0);
    house.service.find("g", 0).unwrap_err();
}

#[tokio::test]
async fn a_fork_has_records_as_large_as_its_source_may_have() {
    let house = House::new(Clock::real());
    house.create("s").await;
    let given = TopicConfig { message_bytes_max: Some(8 << 20), ..TopicConfig::default() };
    let change = TopicChange {
        name: "s".into(),
        partition_count: 0,
        given,
        reset: Vec::new(),
        validate_only: false,
    };
    house.service.registry.alter(change).await.unwrap();
    let large = Bytes::from(vec![b'x'; 5 * MIB]);
    house.append(plain("s", large.clone())).await.unwrap();
    let request = CreateRequest { body: large.clone(), ..fork("s", "f") };
    soon(house.service.create(request, &house.room())).await.unwrap();
    assert_eq!(house.values("f").await, [large.clone(), large]);
}

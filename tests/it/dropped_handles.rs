//! What a client drops gives its place on the connection back: a connection has room for so many calls at once, and one that never
//! ended would take its place from the next.

use std::time::Duration;

use riverrun_client::{Client, Mode, Record};

use crate::support::{
    broker::TestBroker,
    client::{client_with_topic, in_time},
};

/// Calls at once on one connection, few enough to be used up at once.
const STREAMS: u32 = 8;
/// Handles that are made and dropped, one after another.
const HANDLES: u32 = 4 * STREAMS;

async fn crowded() -> (TestBroker, Client) {
    let broker =
        TestBroker::start_with(|config| config.grpc.streams_per_connection_max = STREAMS).await;
    let mq = client_with_topic(&broker, 1).await;
    (broker, mq)
}

/// A call is still answered: the patience of a test is more than that of the call.
async fn still_answers(mq: &Client) {
    in_time(mq.admin().topic("t")).await.expect("the connection has room for a call");
}

#[tokio::test]
async fn a_producer_that_is_dropped_gives_its_stream_back() {
    let (_broker, mq) = crowded().await;
    for number in 0..HANDLES {
        let producer = in_time(mq.producer("t").build()).await.unwrap();
        in_time(producer.post(Record::new(number.to_string()))).await.unwrap();
        in_time(producer.flush()).await.unwrap();
    }
    still_answers(&mq).await;
}

#[tokio::test]
async fn a_producer_that_is_closed_gives_its_stream_back() {
    let (_broker, mq) = crowded().await;
    for _ in 0..HANDLES {
        let producer = in_time(mq.producer("t").build()).await.unwrap();
        let delivery = in_time(producer.send(Record::new("v"))).await.unwrap();
        in_time(delivery).await.unwrap();
        in_time(producer.close()).await.unwrap();
    }
    still_answers(&mq).await;
}

#[tokio::test]
async fn consumers_that_are_dropped_while_they_wait_give_their_streams_back() {
    let (_broker, mq) = crowded().await;
    for _ in 0..HANDLES {
        let builder = mq.consumer("t").group("g").max_wait(Duration::from_secs(60));
        let mut consumer = in_time(builder.build()).await.unwrap();
        // It waits for a record that does not come, and is dropped on the way.
        tokio::time::timeout(Duration::from_millis(20), consumer.next_batch()).await.ok();
    }
    still_answers(&mq).await;
}

#[tokio::test]
async fn subscribers_and_watches_that_are_dropped_give_their_streams_back() {
    let (_broker, mq) = crowded().await;
    for _ in 0..HANDLES {
        let builder = mq.subscribe("t").name("s").mode(Mode::Unordered);
        drop(in_time(builder.open()).await.unwrap());
        drop(in_time(mq.admin().watch(["t"])).await.unwrap());
    }
    still_answers(&mq).await;
}

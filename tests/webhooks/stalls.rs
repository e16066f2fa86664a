//! Endpoints that take a connection and go no further: what they hold of the broker is given back within the times of a request.

use std::sync::Arc;

use riverrun_proto::grpc::v1;
use tokio::sync::Semaphore;

use super::{
    allow_loopback, bodies, broker, dead, hook, hooked, posts_to, settled, standing_until, tls,
};
use crate::support::{
    broker::TestBroker,
    push::{PushStubs, spec, value},
    receiver::{Answer, Receiver},
    sockets::{Idler, Manner, none_connected_to},
};

/// Settings that post there with so little patience, and once.
fn once(url: &str, timeout_ms: u64) -> v1::SubscriptionSettings {
    let mut settings = v1::SubscriptionSettings { max_failures: Some(1), ..posts_to(url) };
    if let Some(webhook) = &mut settings.webhook {
        webhook.timeout_ms = Some(timeout_ms);
    }
    settings
}

/// A subscription, and for it a record that the system's buffers do not swallow.
async fn huge(broker: &TestBroker, settings: v1::SubscriptionSettings) -> PushStubs {
    const MIB: u32 = 1 << 20;
    let mut stubs = PushStubs::new(broker).await;
    let config = v1::TopicConfig { message_bytes_max: Some(14 * MIB), ..Default::default() };
    stubs.topics.create("t", 1, config).await;
    assert!(stubs.create("s", spec(settings)).await.unwrap());
    stubs.send(&[value(&"x".repeat(12 << 20))]).await;
    stubs
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_shakes_no_hands_keeps_no_socket() {
    let mut idler = Idler::start(Manner::Accepts);
    let broker = broker().await;
    let url = format!("https://{}/", idler.address);
    let mut stubs = PushStubs::with_subscription(&broker, once(&url, 1_000)).await;
    stubs.send(&[value("x")]).await;
    idler.connection().await;
    settled(&mut stubs).await;
    assert_eq!(dead(&mut stubs).await, [("x".into(), "no connection within 500 ms".into())]);
    none_connected_to(idler.address.port()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_stops_reading_keeps_no_socket() {
    for (scheme, manner) in
        [("http", Manner::Accepts), ("https", Manner::ShakesHands(tls::acceptor()))]
    {
        let mut idler = Idler::start(manner);
        let broker = TestBroker::start_with(|config| {
            allow_loopback(config);
            config.webhooks.ca_files = vec![tls::file("ca.pem")];
        })
        .await;
        let url = format!("{scheme}://{}/", idler.address);
        let mut stubs = huge(&broker, once(&url, 1_000)).await;
        idler.connection().await;
        let lane = settled(&mut stubs).await;
        assert_eq!(lane.dead, 1, "{scheme}");
        none_connected_to(idler.address.port()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_answers_before_it_reads_keeps_no_socket() {
    let mut idler = Idler::start(Manner::Answers("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    let broker = broker().await;
    let url = format!("http://{}/", idler.address);
    let mut stubs = huge(&broker, once(&url, 100_000)).await;
    idler.connection().await;
    let lane = settled(&mut stubs).await;
    assert_eq!(lane.dead, 0, "an answer is one, whenever it comes");
    none_connected_to(idler.address.port()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_the_head_of_an_answer_holds_nothing_up() {
    let endless = "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for answer in [
        Answer::Piece("HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\nhalf".into()),
        Answer::Endless(endless, "5\r\nagain\r\n".repeat(1_000)),
    ] {
        let receiver = Receiver::start(move |_| answer.clone()).await;
        let broker = broker().await;
        let settings = once(&receiver.url(), 100_000);
        let mut stubs = PushStubs::with_subscription(&broker, settings).await;
        let one = v1::WebhookSettings { concurrency: Some(1), ..Default::default() };
        stubs.alter(hook(one)).await;
        stubs.send_numbers(5).await;
        settled(&mut stubs).await;
        assert_eq!(bodies(&receiver.came()), ["0", "1", "2", "3", "4"]);
        assert_eq!(receiver.came().len(), 5);
        none_connected_to(receiver.address.port()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_is_no_answer() {
    let receiver = Receiver::start(|_| Answer::Piece("HTTP/1.1 200 X\r\nx: 1".into())).await;
    let broker = broker().await;
    let settings = once(&receiver.url(), 500);
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send(&[value("x")]).await;
    settled(&mut stubs).await;
    assert_eq!(dead(&mut stubs).await, [("x".into(), "no answer within 500 ms".into())]);
    none_connected_to(receiver.address.port()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_and_closed_when_nothing_comes() {
    let receiver = Receiver::start(|_| crate::support::receiver::status(200)).await;
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    let one = v1::WebhookSettings { concurrency: Some(1), ..Default::default() };
    stubs.alter(hook(one)).await;
    stubs.send_numbers(50).await;
    receiver.count(50).await;
    assert_eq!(receiver.connections(), 1);
    none_connected_to(receiver.address.port()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_holds_so_many_bytes_and_one_record_that_is_larger() {
    let permits = Arc::new(Semaphore::new(0));
    let held = permits.clone();
    let receiver = Receiver::start(move |_| Answer::When(held.clone(), 200)).await;
    let broker = TestBroker::start_with(|config| {
        allow_loopback(config);
        config.limits.connection_bytes = 256 << 10;
    })
    .await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    stubs.alter(hook(v1::WebhookSettings { timeout_ms: Some(60_000), ..Default::default() })).await;
    let (piece, large) = (value(&"x".repeat(100_000)), value(&"x".repeat(900_000)));
    stubs.send(&[piece.clone(), piece.clone(), piece.clone(), large, piece]).await;
    receiver.count(2).await;
    let told = stubs.describe().await;
    assert_eq!(told.partitions[0].in_flight, 2, "three of them are more than 256 KiB");
    let session = &told.sessions[0];
    let credit = (session.credit_messages, session.credit_bytes);
    assert_eq!(credit, (9, (256 << 10) - 200_000));
    permits.add_permits(3);
    receiver.count(4).await;
    let lane = stubs.lane().await;
    assert_eq!((lane.in_flight, lane.ready), (1, 1), "the large one is alone");
    permits.add_permits(2);
    settled(&mut stubs).await;
    assert_eq!(receiver.came().len(), 5);
    let session = &stubs.describe().await.sessions[0];
    assert_eq!((session.credit_messages, session.credit_bytes), (11, 256 << 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_takes_all_places_leaves_another_its_own() {
    let permits = Arc::new(Semaphore::new(0));
    let held = permits.clone();
    let slow = Receiver::start(move |_| Answer::When(held.clone(), 200)).await;
    let quick = Receiver::start(|_| crate::support::receiver::status(200)).await;
    let broker = TestBroker::start_with(|config| {
        allow_loopback(config);
        config.webhooks.requests_max = 2;
    })
    .await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&slow)).await;
    let patient = v1::WebhookSettings { timeout_ms: Some(60_000), ..Default::default() };
    stubs.alter(hook(patient)).await;
    stubs.send_numbers(6).await;
    slow.count(3).await;
    assert!(stubs.create("other", spec(hooked(&quick))).await.unwrap());
    quick.count(6).await;
    assert_eq!(bodies(&quick.came()), ["0", "1", "2", "3", "4", "5"]);
    // What waits in vain for a place is told, and has not failed.
    let told = standing_until(&mut stubs, |standing| standing.no_room > 0).await;
    assert_eq!((told.failed, told.delivered), (0, 0));
    permits.add_permits(6);
    settled(&mut stubs).await;
    assert_eq!((slow.busiest(), slow.came().len()), (3, 6));
}

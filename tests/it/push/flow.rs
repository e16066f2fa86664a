//! Flow control: credit in records and bytes, limits, pauses, and a reader that does not read.

use std::time::Duration;

use bytes::Bytes;
use riverrun_broker::Config;
use riverrun_proto::{
    Record,
    grpc::v1::{self, session_request::Frame as Ask},
};

use crate::support::{
    broker::TestBroker,
    push::{PushStubs, open},
};

fn large(bytes: usize) -> Record {
    Record { value: Some(Bytes::from(vec![b'x'; bytes])), ..Record::default() }
}

#[tokio::test]
async fn nothing_is_delivered_without_credit_and_no_more_than_granted() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(10).await;
    let mut session = stubs.session_with(open("a")).await.unwrap();
    session.rest().await;
    assert_eq!(session.came(), []);
    session.grant(3, 1_000).await;
    let got = session.take(3).await;
    session.rest().await;
    assert_eq!(session.came(), []);
    // An ack frees no credit: totals are what the client says.
    session.ack(&got).await;
    session.rest().await;
    assert_eq!(session.came(), []);
    let shrunk = v1::Credit { messages_total: 1, bytes_total: 1 };
    session.ask(Ask::Credit(shrunk)).await;
    session.ask(Ask::Credit(v1::Credit::default())).await;
    session.rest().await;
    assert_eq!(session.came(), [], "nothing is nothing, and no error");
    session.grant(2, 1_000).await;
    session.take(2).await;
    session.rest().await;
    assert_eq!(session.came(), [], "a smaller total took nothing back and gave nothing");
}

#[tokio::test]
async fn bytes_bound_what_is_under_way_but_a_large_record_always_gets_through() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send(&[large(1_000), large(1_000), large(500_000), large(1_000)]).await;
    let mut session = stubs.session_with(open("a")).await.unwrap();
    session.grant(1_000, 2_500).await;
    let got = session.take(2).await;
    session.rest().await;
    assert_eq!(session.came(), []);
    session.ack(&got).await;
    // Nothing is in hand: the next one comes although it is larger than what is left.
    let got = session.one().await;
    assert_eq!(got.value.len(), 500_000);
    session.rest().await;
    assert_eq!(session.came(), []);
}

#[tokio::test]
async fn a_session_holds_no_more_than_it_said() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(10).await;
    let small = v1::OpenSession { max_in_flight: 4, ..open("a") };
    let mut session = stubs.session_with(small).await.unwrap();
    assert_eq!(session.opened.max_in_flight, 4);
    session.grant(1_000, 1 << 20).await;
    let got = session.take(4).await;
    session.rest().await;
    assert_eq!(session.came(), []);
    session.ack(&got[..2]).await;
    session.take(2).await;
    session.rest().await;
    assert_eq!(session.came(), []);
}

#[tokio::test]
async fn a_paused_session_keeps_what_it_has_and_gets_nothing_new() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let mut session = stubs.session("a").await;
    session.ask(Ask::Pause(v1::PauseSession {})).await;
    session.rest().await;
    stubs.send_numbers(2).await;
    assert_eq!(stubs.explain().await.reason(), v1::IdleReason::SessionsPaused);
    session.rest().await;
    assert_eq!(session.came(), []);
    session.ask(Ask::Resume(v1::ResumeSession {})).await;
    session.take(2).await;
}

#[tokio::test]
async fn records_come_as_stored_batches_too() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let encoded = v1::OpenSession { format: v1::RecordFormat::Encoded as i32, ..open("a") };
    let mut session = stubs.session_with(encoded).await.unwrap();
    stubs.send_numbers(100).await;
    session.grant(30, 1 << 20).await;
    let got = session.take(30).await;
    session.grant(70, 1 << 20).await;
    let rest = session.take(70).await;
    let values: Vec<u64> = got.iter().chain(&rest).map(|got| got.value.parse().unwrap()).collect();
    assert_eq!(values, (0..100).collect::<Vec<u64>>());
    session.ack(&rest).await;
    session.ack(&got).await;
    assert_eq!(stubs.lane().await.floor, 100);
}

#[tokio::test]
async fn a_session_hears_what_credit_was_used_for_that_retention_took_on_the_way() {
    let cached = |config: &mut Config| config.subscriptions.cache_bytes_max = 1 << 20;
    let broker = TestBroker::start_with(cached).await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    // More than the connection takes while nobody reads.
    let records: Vec<Record> = (0..40).map(|_| large(40_000)).collect();
    for _ in 0..3 {
        stubs.send(&records).await;
    }
    let mut deaf_stubs = PushStubs::new(&broker).await;
    let mut deaf = deaf_stubs.session_with(open("deaf")).await.unwrap();
    assert_eq!(deaf.opened.credit_used, Some(v1::CreditUsed::default()));
    deaf.grant(120, 1 << 40).await;
    stubs.lane_until(|lane| lane.in_flight == 120).await;
    let delete = v1::DeleteRecordsRequest { topic: "t".into(), partition: 0, before_offset: 120 };
    stubs.topics.admin.delete_records(delete).await.unwrap();
    while deaf.heartbeats.is_empty() {
        assert!(deaf.pump().await);
    }
    assert!(deaf.came().len() < 120, "nothing was removed on its way");
    let used = v1::CreditUsed { messages_total: 120, bytes_total: 120 * 40_000 };
    assert_eq!(deaf.heartbeats[0].credit_used, Some(used));
}

#[tokio::test]
async fn what_there_is_no_room_to_read_is_given_back_and_is_no_failure() {
    let tight = |config: &mut Config| {
        // Every look at a record takes of what may be read at once.
        config.subscriptions.cache_bytes_max = 0;
        config.limits.quota_wait = Duration::from_millis(20);
    };
    let broker = TestBroker::start_with(tight).await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(3).await;
    let mut session = stubs.session_with(open("a")).await.unwrap();
    stubs.lane_until(|lane| lane.ready == 3).await;
    let reading = broker.inside().services().fetch.reading().clone();
    let held = reading.take(reading.limit()).await.unwrap();
    session.grant(3, 1 << 20).await;
    let used = |told: &v1::BrokerHeartbeat| told.credit_used.map_or(0, |used| used.messages_total);
    while !session.heartbeats.iter().any(|told| used(told) == 3) {
        assert!(session.pump().await);
    }
    assert_eq!(session.came(), [], "it used up credit and does not come");
    drop(held);
    let lane = stubs.lane().await;
    assert_eq!((lane.ready, lane.in_flight), (3, 0), "given back before their leases end");
    session.grant(3, 1 << 20).await;
    let got = session.take(3).await;
    let counts: Vec<(u32, u32)> = got.iter().map(|got| (got.attempts, got.failures)).collect();
    assert_eq!(counts, [(2, 0); 3]);
}

#[tokio::test]
async fn a_session_that_is_not_read_holds_up_nobody() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let records: Vec<Record> = (0..40).map(|_| large(50_000)).collect();
    // On a connection of its own; the client library reads as far as its window goes and no further.
    let mut deaf_stubs = PushStubs::new(&broker).await;
    let mut deaf = deaf_stubs.session_with(open("deaf")).await.unwrap();
    deaf.grant(1_000_000, 1 << 40).await;
    let mut live = stubs.session_with(open("live")).await.unwrap();
    live.grant(1_000_000, 1 << 40).await;
    live.rest().await;
    let mut handled = 0;
    for _ in 0..50 {
        stubs.send(&records).await;
        handled += live.work_off().await;
        // It reads nothing and is not silent.
        deaf.beat().await;
    }
    let mut held = stubs.lane().await;
    while held.ready > 0 {
        handled += live.work_off().await;
        deaf.beat().await;
        held = stubs.lane().await;
    }
    // It held no more than its limit.
    assert!(held.in_flight <= 1_000 + 200, "{held:?}");
    assert!(handled >= 900, "the other one got {handled}");
    drop(deaf);
    while handled < 2_000 {
        let got = live.take(1).await;
        handled += got.len();
        live.ack(&got).await;
    }
}

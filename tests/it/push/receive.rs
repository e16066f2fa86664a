//! The unary twins: `Receive` and `Settle` on the same subscription as sessions.

use std::{collections::BTreeSet, time::Duration};

use riverrun_broker::Config;
use riverrun_proto::grpc::v1::{self, SettleStatus};
use tonic::Code;

use crate::support::{
    broker::TestBroker,
    client::in_time,
    push::{Got, PushStubs, ack, nack, open, spec, value},
};

fn ask(id: &str, max_records: u32) -> v1::ReceiveRequest {
    v1::ReceiveRequest {
        subscription: "s".into(),
        session_id: id.into(),
        max_records,
        format: v1::RecordFormat::Structured as i32,
        ..v1::ReceiveRequest::default()
    }
}

fn patient(id: &str, max_records: u32) -> v1::ReceiveRequest {
    v1::ReceiveRequest { max_wait_ms: 30_000, ..ask(id, max_records) }
}

#[tokio::test]
async fn records_are_received_settled_and_not_received_again() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_topic(&broker).await;
    stubs.send_numbers(5).await;
    let create = Some(spec(v1::SubscriptionSettings::default()));
    let first = v1::ReceiveRequest { create, ..patient("w", 3) };
    let (response, got) = stubs.receive(first).await.unwrap();
    assert_eq!((response.session_id.as_str(), got.len()), ("w", 3));
    assert_eq!(response.ack_wait_ms, 30_000);
    let statuses = stubs.settle("w", got.iter().map(ack).collect()).await.unwrap();
    assert_eq!(statuses, [SettleStatus::Ok; 3]);
    let (_, got) = stubs.receive(patient("w", 10)).await.unwrap();
    let offsets: Vec<u64> = got.iter().map(|got| got.offset).collect();
    assert_eq!(offsets, [3, 4]);
    let (nothing, none) = stubs.receive(ask("w", 10)).await.unwrap();
    assert_eq!((none.len(), nothing.deliveries.len()), (0, 0));
    assert_eq!(nothing.idle_reason(), v1::IdleReason::NothingToDeliver);
    let statuses = stubs.settle("w", vec![nack(&got[0], 0), ack(&got[1])]).await.unwrap();
    assert_eq!(statuses, [SettleStatus::Ok; 2]);
    let (_, again) = stubs.receive(patient("w", 10)).await.unwrap();
    assert_eq!((again[0].offset, again[0].failures), (3, 1));
}

#[tokio::test]
async fn a_long_poll_answers_when_the_first_record_comes() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let mut waiting = stubs.clone();
    let waits = tokio::spawn(async move { waiting.receive(patient("w", 10)).await.unwrap() });
    // It waits once the subscription says that somebody asks.
    in_time(async {
        while stubs.describe().await.sessions.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stubs.send_numbers(1).await;
    let (_, got) = in_time(waits).await.unwrap();
    assert_eq!(got.len(), 1);
}

#[tokio::test]
async fn a_long_poll_goes_on_when_a_lease_of_its_session_ends() {
    let broker = TestBroker::start().await;
    let settings = v1::SubscriptionSettings {
        ack_wait_ms: Some(1_000),
        backoff_min_ms: Some(600_000),
        backoff_max_ms: Some(600_000),
        ..v1::SubscriptionSettings::default()
    };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send_numbers(1).await;
    let (_, kept) = stubs.receive(patient("w", 1)).await.unwrap();
    assert_eq!(kept[0].offset, 0);
    let mut waiting = stubs.clone();
    let waits = tokio::spawn(async move { waiting.receive(patient("w", 1)).await.unwrap() });
    stubs.lane_until(|lane| lane.retrying == 1).await;
    assert!(!waits.is_finished(), "the end of a lease is no record");
    stubs.send_numbers(1).await;
    let (_, got) = in_time(waits).await.unwrap();
    let offsets: Vec<u64> = got.iter().map(|got| got.offset).collect();
    assert_eq!(offsets, [1]);
}

#[tokio::test]
async fn a_try_repeated_under_its_name_gets_the_same_records() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(4).await;
    let named = v1::ReceiveRequest { attempt_id: "one".into(), ..patient("w", 2) };
    let (_, got) = stubs.receive(named.clone()).await.unwrap();
    let (_, again) = stubs.receive(named).await.unwrap();
    let replayed = |got: &Got| Got { replayed: true, ..got.clone() };
    assert_eq!(got.iter().map(replayed).collect::<Vec<Got>>(), again);
    let other = v1::ReceiveRequest { attempt_id: "two".into(), ..patient("w", 2) };
    let (_, others) = stubs.receive(other).await.unwrap();
    assert_eq!(others[0].offset, 2);
}

#[tokio::test]
async fn what_there_is_no_room_to_read_for_a_call_is_given_back() {
    let tight = |config: &mut Config| {
        // Every look at a record takes of what may be read at once.
        config.subscriptions.cache_bytes_max = 0;
        config.limits.quota_wait = Duration::from_millis(20);
    };
    let broker = TestBroker::start_with(tight).await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(3).await;
    // They are found for somebody who does not want them yet.
    let _idle = stubs.session_with(open("idle")).await.unwrap();
    stubs.lane_until(|lane| lane.ready == 3).await;
    let reading = broker.inside().services().fetch.reading().clone();
    let held = reading.take(reading.limit()).await.unwrap();
    let refused = stubs.receive(ask("w", 3)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(held);
    let lane = stubs.lane().await;
    assert_eq!((lane.ready, lane.in_flight), (3, 0), "given back before their leases end");
    let (_, got) = stubs.receive(ask("w", 3)).await.unwrap();
    let counts: Vec<(u32, u32)> = got.iter().map(|got| (got.attempts, got.failures)).collect();
    assert_eq!(counts, [(2, 0); 3]);
}

#[tokio::test]
async fn a_made_up_session_is_told_and_can_be_settled_with() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(1).await;
    let (response, got) = stubs.receive(patient("", 1)).await.unwrap();
    assert!(!response.session_id.is_empty());
    let statuses = stubs.settle(&response.session_id, vec![ack(&got[0])]).await.unwrap();
    assert_eq!(statuses, [SettleStatus::Ok]);
}

#[tokio::test]
async fn bytes_bound_a_reply_and_one_record_always_fits() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let text = "x".repeat(1_000);
    stubs.send(&[value(&text), value(&text), value(&text)]).await;
    let small = v1::ReceiveRequest { max_bytes: 2_100, ..patient("w", 100) };
    let (_, got) = stubs.receive(small).await.unwrap();
    assert_eq!(got.len(), 2);
    let tiny = v1::ReceiveRequest { max_bytes: 1, ..patient("v", 100) };
    let (_, got) = stubs.receive(tiny).await.unwrap();
    assert_eq!(got.len(), 1);
}

#[tokio::test]
async fn pushed_and_asked_for_share_one_position() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let mut settled = BTreeSet::new();
    let mut sent = 0;
    for round in 0..6 {
        stubs.send_numbers(20).await;
        sent += 20;
        if round % 2 == 0 {
            let mut session = stubs.session_with(open("pushed")).await.unwrap();
            session.grant(7, 1 << 20).await;
            let got = session.take(7).await;
            session.ack(&got).await;
            settled.extend(got.iter().map(|got| got.offset));
            session.half_close();
            session.until_ended().await.unwrap();
        } else {
            let (_, got) = stubs.receive(patient("asks", 9)).await.unwrap();
            let items = got.iter().map(ack).collect();
            let statuses = stubs.settle("asks", items).await.unwrap();
            assert!(statuses.iter().all(|one| *one == SettleStatus::Ok));
            for got in &got {
                assert!(settled.insert(got.offset), "{} came twice", got.offset);
            }
        }
    }
    while settled.len() < sent {
        let (_, got) = stubs.receive(patient("asks", 50)).await.unwrap();
        stubs.settle("asks", got.iter().map(ack).collect()).await.unwrap();
        for got in &got {
            assert!(settled.insert(got.offset), "{} came twice", got.offset);
        }
    }
    let lane = stubs.lane().await;
    assert_eq!((lane.floor, lane.lag), (120, 0));
}

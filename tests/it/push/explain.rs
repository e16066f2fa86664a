//! Explain: reasons why nothing is delivered, by name, as a broker comes to them. `SCHEDULED` is in `schedule.rs`,
//! `DEAD_LETTER_BLOCKED` in `dead_letters.rs`, a paused session in `flow.rs`. What lasts only for a moment (`NOT_VISIBLE`,
//! `READING`, `FILTER`) and what needs a crowd (`QUOTA`, `SCHEDULED_LIMIT`) is made in the tests of the engine.

use riverrun_proto::grpc::v1::{
    self, IdleReason, session_request::Frame as Ask, settle_item::Outcome,
};
use riverrun_storage::disk::sim::{Call, Fault, FaultError, SimDisk};

use crate::support::{
    broker::TestBroker,
    client::{client, in_time},
    damage::{first_segment, flip_first_record, partition_dir},
    push::{PushStubs, Session, ack, item, keyed, nack, open, spec},
    records::{append, code},
};

/// Every flush fails from now on.
const NO_FLUSH: Fault = Fault { call: Call::Sync, nth: 1, error: FaultError::Io, lasting: true };

/// The settings under which a case is made.
fn settings(order: v1::DeliveryOrder) -> v1::SubscriptionSettings {
    v1::SubscriptionSettings { order: Some(order as i32), ..v1::SubscriptionSettings::default() }
}

async fn house(settings: v1::SubscriptionSettings) -> (TestBroker, PushStubs) {
    let broker = TestBroker::start().await;
    let stubs = PushStubs::with_subscription(&broker, settings).await;
    (broker, stubs)
}

#[track_caller]
fn check(told: &v1::Explanation, reason: IdleReason, text: &str) {
    assert_eq!(told.reason(), reason, "{told:?}");
    assert!(told.message.contains(text), "{}", told.message);
}

/// Waits until the reason is this one.
async fn until(stubs: &mut PushStubs, reason: IdleReason) -> v1::Explanation {
    in_time(async {
        loop {
            let told = stubs.explain().await;
            if told.reason() == reason {
                return told;
            }
        }
    })
    .await
}

async fn limited(stubs: &mut PushStubs, id: &str, max_in_flight: u32) -> Session {
    stubs.session_with(v1::OpenSession { max_in_flight, ..open(id) }).await.unwrap()
}

#[tokio::test]
async fn sessions_credit_and_limits() {
    let (_broker, mut stubs) = house(settings(v1::DeliveryOrder::Unordered)).await;
    check(&stubs.explain().await, IdleReason::NoSession, "no session");
    stubs.send_numbers(4).await;
    check(&stubs.explain().await, IdleReason::NoSession, "no session");
    let mut session = limited(&mut stubs, "a", 2).await;
    check(&until(&mut stubs, IdleReason::NoCredit).await, IdleReason::NoCredit, "credit");
    session.grant(100, 1_000).await;
    let got = session.take(2).await;
    check(&stubs.explain().await, IdleReason::SessionLimit, "`max_in_flight`");
    session.ack(&got).await;
    let got = session.take(2).await;
    check(&stubs.explain().await, IdleReason::NothingToDeliver, "settled or in consumers' hands");
    session.ack(&got).await;
    let pause = v1::PauseSubscriptionRequest { subscription: "s".into() };
    stubs.subscriptions.pause_subscription(pause).await.unwrap();
    check(&stubs.explain().await, IdleReason::Paused, "paused");
}

#[tokio::test]
async fn a_drained_session_is_none_to_deliver_to() {
    let (_broker, mut stubs) = house(settings(v1::DeliveryOrder::Unordered)).await;
    stubs.send_numbers(2).await;
    let mut session = limited(&mut stubs, "a", 1).await;
    session.grant(10, 1_000).await;
    session.one().await;
    session.ask(Ask::Drain(v1::DrainSession {})).await;
    session.rest().await;
    check(&stubs.explain().await, IdleReason::SessionsPaused, "drains");
}

#[tokio::test]
async fn a_key_in_the_way_is_named_with_its_holder() {
    let (_broker, mut stubs) = house(settings(v1::DeliveryOrder::KeyFifo)).await;
    stubs.send(&[keyed("stuck", "0"), keyed("stuck", "1")]).await;
    let mut session = stubs.session("a").await;
    let got = session.one().await;
    let told = stubs.explain().await;
    check(&told, IdleReason::KeyBlocked, "held by session `a`");
    assert_eq!((told.offset, told.session_id.as_deref()), (Some(0), Some("a")));
    assert_eq!(told.key.as_deref(), Some(&b"stuck"[..]));
    assert!(told.until_ms.is_some());
    session.settle_one(nack(&got, 600_000)).await;
    let told = stubs.explain().await;
    check(&told, IdleReason::KeyBlocked, "tried again");
    assert_eq!((told.offset, told.session_id), (Some(0), None));
}

#[tokio::test]
async fn a_retry_and_the_open_limit_are_named() {
    let settings =
        v1::SubscriptionSettings { max_open: Some(2), ..settings(v1::DeliveryOrder::Unordered) };
    let (_broker, mut stubs) = house(settings).await;
    stubs.send_numbers(4).await;
    let mut session = stubs.session("a").await;
    let got = session.take(2).await;
    check(&stubs.explain().await, IdleReason::InFlightLimit, "`max_open`");
    session.ack(&got[..1]).await;
    let third = session.one().await;
    session.ack(&[third]).await;
    let fourth = session.one().await;
    session.ack(&[fourth]).await;
    session.settle_one(nack(&got[1], 600_000)).await;
    let told = stubs.explain().await;
    check(&told, IdleReason::RetryWait, "offset 1");
    assert_eq!(told.offset, Some(1));
}

#[tokio::test]
async fn holes_past_their_limit_are_named_and_delivery_goes_on_behind_or_with_a_larger_limit() {
    let settings = v1::SubscriptionSettings {
        max_ack_state_bytes: Some(4_096),
        max_open: Some(20_000),
        ..settings(v1::DeliveryOrder::Unordered)
    };
    let (_broker, mut stubs) = house(settings).await;
    stubs.send_numbers(60_000).await;
    let mut session = limited(&mut stubs, "a", 1_000_000).await;
    session.grant(1_000_000, 1 << 30).await;
    // Every other one stays open, which makes as many holes as there can be.
    let mut kept = Vec::new();
    loop {
        session.rest().await;
        let got = session.came();
        if got.is_empty() && stubs.explain().await.reason() == IdleReason::AckStateLimit {
            break;
        }
        let (even, odd): (Vec<_>, Vec<_>) = got.into_iter().partition(|one| one.offset % 2 == 0);
        for some in odd.chunks(5_000) {
            session.ack(some).await;
        }
        kept.extend(even);
    }
    assert!(kept.len() < 30_000, "it stopped before the end");
    let max_ack_state_bytes = Some(1 << 20);
    stubs.alter(v1::SubscriptionSettings { max_ack_state_bytes, ..Default::default() }).await;
    kept.push(session.one().await);
    for some in kept.chunks(5_000) {
        session.ack(some).await;
    }
    assert!(!session.take(1).await.is_empty());
}

#[tokio::test]
async fn what_a_filter_leaves_out_is_settled_and_nothing_is_left_to_deliver() {
    let filter = v1::SubscriptionFilter {
        key_equals: Some(bytes::Bytes::from_static(b"none")),
        ..Default::default()
    };
    let settings =
        v1::SubscriptionSettings { filter: Some(filter), ..settings(v1::DeliveryOrder::Unordered) };
    let (_broker, mut stubs) = house(settings).await;
    stubs.send_numbers(100).await;
    let mut session = stubs.session("a").await;
    session.rest().await;
    let told = in_time(async {
        loop {
            let told = stubs.explain().await;
            if !matches!(told.reason(), IdleReason::Reading | IdleReason::Filter) {
                return told;
            }
        }
    })
    .await;
    check(&told, IdleReason::NothingToDeliver, "settled");
    assert_eq!(stubs.lane().await.floor, 100);
}

#[tokio::test]
async fn the_one_who_stands_by_is_told_who_holds_it() {
    let (_broker, mut stubs) = house(settings(v1::DeliveryOrder::Exclusive)).await;
    stubs.send_numbers(1).await;
    let first = stubs.session_with(open("first")).await.unwrap();
    let mut second = stubs.session("second").await;
    second.rest().await;
    let told = until(&mut stubs, IdleReason::Standby).await;
    check(&told, IdleReason::Standby, "`first`");
    drop(first);
}

#[tokio::test]
async fn what_crashed_its_consumers_is_handed_out_alone() {
    let settings = v1::SubscriptionSettings {
        backoff_min_ms: Some(1),
        backoff_max_ms: Some(1),
        ..settings(v1::DeliveryOrder::Unordered)
    };
    let (_broker, mut stubs) = house(settings).await;
    stubs.send_numbers(2).await;
    let first = both_and_start_one(&mut stubs, "a").await;
    drop(first);
    let second = both_and_start_one(&mut stubs, "b").await;
    let mut session = stubs.session_with(open("c")).await.unwrap();
    session.grant(1, 1_000).await;
    session.rest().await;
    drop(second);
    let given_back = session.one().await;
    assert_eq!((given_back.offset, given_back.failures), (1, 0));
    // It is in its hands, so the one to be handed out alone waits.
    session.grant(1, 1_000).await;
    let told = until(&mut stubs, IdleReason::Isolated).await;
    check(&told, IdleReason::Isolated, "alone");
    assert_eq!(told.offset, Some(0));
    session.rest().await;
    assert_eq!(session.came(), []);
    session.ack(&[given_back]).await;
    let suspect = session.one().await;
    assert_eq!((suspect.offset, suspect.failures), (0, 2));
}

/// A session that holds both records and begins with the first.
async fn both_and_start_one(stubs: &mut PushStubs, id: &str) -> Session {
    let reports = v1::OpenSession { reports_started: true, ..open(id) };
    let mut session = stubs.session_with(reports).await.unwrap();
    session.grant(10, 1_000).await;
    let got = session.take(2).await;
    let poison = got.iter().find(|got| got.offset == 0).unwrap();
    session.settle_one(item(poison, Outcome::Started(v1::Started {}))).await;
    session
}

#[tokio::test]
async fn what_cannot_be_stored_is_confirmed_to_nobody_and_ends_every_session() {
    let disk = SimDisk::new(3);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(2).await;
    let ask = v1::ReceiveRequest {
        subscription: "s".into(),
        session_id: "w".into(),
        max_wait_ms: 30_000,
        format: v1::RecordFormat::Structured as i32,
        ..v1::ReceiveRequest::default()
    };
    let (_, got) = stubs.receive(ask).await.unwrap();
    let mut session = stubs.session("a").await;
    session.one().await;
    disk.inject(NO_FLUSH);
    let statuses = stubs.settle("w", vec![ack(&got[0])]).await.unwrap();
    assert_eq!(statuses, [v1::SettleStatus::Indeterminate]);
    let _end = session.until_ended().await;
    let goaway = session.goaway.clone().expect("told why");
    assert_eq!(goaway.error.unwrap().code(), v1::ErrorCode::Indeterminate);
    assert!(!goaway.released);
    check(&stubs.explain().await, IdleReason::StateFailed, "cannot be stored");
    disk.heal();
    check(&stubs.explain().await, IdleReason::StateFailed, "until the broker restarts");
}

#[tokio::test]
async fn a_partition_that_stopped_at_a_failed_flush_is_named_with_its_fault() {
    let disk = SimDisk::new(4);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let mut session = stubs.session("a").await;
    stubs.send_numbers(1).await;
    let got = session.one().await;
    session.ack(&[got]).await;
    disk.inject(NO_FLUSH);
    let lost = stubs.topics.produce.append(append("t", &["lost"])).await.unwrap_err();
    assert_eq!(code(&lost), v1::ErrorCode::Indeterminate);
    disk.heal();
    let told = stubs.explain().await;
    check(&told, IdleReason::PartitionError, "stopped after a storage fault");
    assert_eq!(told.until_ms, None, "nobody tries it again");
    assert_eq!(stubs.lane().await.lag, 0);
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_is_named_with_its_damage() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::new(&broker).await;
    stubs.topics.create("t", 1, v1::TopicConfig::default()).await;
    let id = client(&broker).await.admin().topic("t").await.unwrap().topic_id.0.to_string();
    assert!(stubs.create("s", spec(Default::default())).await.unwrap());
    stubs.send_numbers(3).await;
    let dir = broker.stop().await.unwrap();
    flip_first_record(&first_segment(&partition_dir(&dir.path().join("data"), &id, 0)));
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = PushStubs::new(&broker).await;
    let mut session = stubs.session("a").await;
    let told = until(&mut stubs, IdleReason::PartitionError).await;
    check(&told, IdleReason::PartitionError, "cannot be read until");
    assert!(told.until_ms.is_some());
    session.rest().await;
    assert_eq!(session.came(), []);
}

//! Operating a subscription: creating, listing, describing, altering, moving, looking, pausing.

use std::sync::mpsc;

use riverrun_broker::service::delivery::PushError;
use riverrun_proto::{
    Record,
    grpc::v1::{
        self, group_client::GroupClient, seek_subscription_request::To, settle_item::Outcome,
        subscription_start::Position,
    },
};
use riverrun_storage::disk::sim::SimDisk;

use crate::support::{
    broker::TestBroker,
    http::call,
    push::{Got, PushStubs, Session, ack, item, keyed, nack, open, spec},
    records::code,
};

fn named() -> String {
    "s".to_owned()
}

async fn seek(
    stubs: &mut PushStubs,
    to: To,
    change: impl FnOnce(&mut v1::SeekSubscriptionRequest),
) -> v1::SeekResult {
    let mut request = v1::SeekSubscriptionRequest {
        subscription: named(),
        to: Some(to),
        ..v1::SeekSubscriptionRequest::default()
    };
    change(&mut request);
    let moved = stubs.subscriptions.seek_subscription(request).await.unwrap().into_inner();
    moved.partitions.into_iter().next().unwrap()
}

#[tokio::test]
async fn creation_is_idempotent_and_refuses_another_of_that_name() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_topic(&broker).await;
    let settings = v1::SubscriptionSettings { max_failures: Some(3), ..Default::default() };
    assert!(stubs.create("s", spec(settings.clone())).await.unwrap());
    assert!(!stubs.create("s", spec(settings)).await.unwrap());
    let other = stubs.create("s", spec(Default::default())).await.unwrap_err();
    assert_eq!(code(&other), v1::ErrorCode::SubscriptionExists);
    let settings = stubs.describe().await.settings.unwrap();
    assert_eq!(settings.max_failures, Some(3));
    assert_eq!(settings.ack_wait_ms, Some(30_000), "defaults are shown");
    let nowhere = v1::SubscriptionSpec { topics: vec!["nowhere".into()], ..Default::default() };
    let refused = stubs.create("n", nowhere).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::UnknownTopicOrPartition);
}

#[tokio::test]
async fn a_subscription_begins_where_it_is_told_to() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_topic(&broker).await;
    stubs.send_numbers(10).await;
    let mut groups = GroupClient::new(broker.channel().await);
    let commit = v1::CommitOffsetsRequest {
        member: Some(v1::GroupMember { group: "g".into(), member_epoch: -1, ..Default::default() }),
        offsets: vec![v1::OffsetCommit { topic: "t".into(), offset: 6, ..Default::default() }],
    };
    // A group comes to be by a member that joins.
    let join = v1::HeartbeatRequest {
        group: "g".into(),
        member_id: "m".into(),
        subscription: Some(v1::TopicList { topics: vec!["t".into()] }),
        ..Default::default()
    };
    groups.heartbeat(join.clone()).await.unwrap();
    let start = Some(v1::SubscriptionStart { position: Some(Position::Group("g".into())) });
    let in_use = v1::SubscriptionSpec { start, ..spec(Default::default()) };
    let refused = stubs.create("s", in_use).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::GroupNotEmpty, "{refused:?}");
    groups.heartbeat(v1::HeartbeatRequest { member_epoch: -1, ..join }).await.unwrap();
    let committed = groups.commit_offsets(commit).await.unwrap().into_inner();
    assert_eq!(committed.results[0].error, None);
    for (position, floor) in [
        (None, 0),
        (Some(Position::Earliest(true)), 0),
        (Some(Position::Latest(true)), 10),
        (Some(Position::Offset(4)), 4),
        (Some(Position::Offset(400)), 10),
        (Some(Position::TimestampMs(i64::MAX)), 10),
        (Some(Position::TimestampMs(0)), 0),
        (Some(Position::Group("g".into())), 6),
    ] {
        let shown = format!("{position:?}");
        let start = Some(v1::SubscriptionStart { position });
        stubs
            .create("s", v1::SubscriptionSpec { start, ..spec(Default::default()) })
            .await
            .unwrap();
        assert_eq!(stubs.lane().await.floor, floor, "{shown}");
        let delete = v1::DeleteSubscriptionRequest { subscription: named(), force: false };
        stubs.subscriptions.delete_subscription(delete).await.unwrap();
    }
    let start = Some(v1::SubscriptionStart { position: Some(Position::Group("none".into())) });
    let unknown = v1::SubscriptionSpec { start, ..spec(Default::default()) };
    let refused = stubs.create("s", unknown).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::UnknownGroup);
}

#[tokio::test]
async fn a_description_counts_what_stands_where() {
    let broker = TestBroker::start().await;
    let settings = v1::SubscriptionSettings {
        order: Some(v1::DeliveryOrder::KeyFifo as i32),
        ..Default::default()
    };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    let keys = ["a", "a", "b", "c", "c", "d"];
    let records: Vec<_> = keys.iter().map(|key| keyed(key, "v")).collect();
    stubs.send(&records).await;
    let mut session = stubs.session_with(open("w")).await.unwrap();
    session.grant(3, 1_000).await;
    let got = session.take(3).await;
    session.settle_one(nack(&got[2], 600_000)).await;
    let lane = stubs.lane().await;
    assert_eq!((lane.floor, lane.high_watermark, lane.lag), (0, 6, 6));
    assert_eq!((lane.in_flight, lane.retrying, lane.blocked, lane.ready), (2, 1, 2, 1));
    session.ack(&got[..2]).await;
    let described = stubs.describe().await;
    let sessions = &described.sessions;
    assert_eq!((sessions.len(), sessions[0].session_id.as_str()), (1, "w"));
    assert_eq!((sessions[0].delivered, sessions[0].in_flight), (3, 0));
    assert_eq!((sessions[0].credit_messages, sessions[0].client_id.as_str()), (0, "test"));
    assert_eq!(sessions[0].host, "127.0.0.1");
    let listed = stubs.subscriptions.list_subscriptions(v1::ListSubscriptionsRequest {}).await;
    let listed = listed.unwrap().into_inner().subscriptions;
    assert_eq!((listed.len(), listed[0].sessions, listed[0].lag), (1, 1, 4));
    assert_eq!(listed[0].topics, ["t"]);
}

#[tokio::test]
async fn a_seek_goes_back_and_forth_and_revokes() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(10).await;
    let mut session = stubs.session_with(open("a")).await.unwrap();
    session.grant(5, 1_000).await;
    let got = session.take(5).await;
    session.ack(&got[..2]).await;
    let dry = seek(&mut stubs, To::Offset(1), |request| request.dry_run = true).await;
    assert_eq!((dry.from_offset, dry.to_offset), (2, 1));
    assert_eq!(stubs.lane().await.floor, 2);
    let moved = seek(&mut stubs, To::Offset(1), |_| ()).await;
    assert_eq!((moved.from_offset, moved.to_offset), (2, 1));
    let revoked = session.until_revoked().await;
    assert_eq!(revoked.reason(), v1::RevokeReason::Seek);
    session.grant(100, 1_000).await;
    let again = session.take(9).await;
    let offsets: Vec<u64> = again.iter().map(|got| got.offset).collect();
    assert_eq!(offsets, (1..10).collect::<Vec<u64>>());
    let latest = seek(&mut stubs, To::Latest(true), |_| ()).await;
    assert_eq!(latest.to_offset, 10);
    assert_eq!(stubs.lane().await.lag, 0);
    let earliest = seek(&mut stubs, To::Earliest(true), |_| ()).await;
    assert_eq!(earliest.to_offset, 0);
    let past = seek(&mut stubs, To::Offset(11), |_| ()).await;
    assert_eq!(past.error.unwrap().code(), v1::ErrorCode::OffsetOutOfRange);
}

#[tokio::test]
async fn a_time_means_the_first_record_at_or_after_it() {
    const FIRST_MS: i64 = 1_700_000_000_000;
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_topic(&broker).await;
    for n in 0..5 {
        stubs.send(&[Record { timestamp_ms: FIRST_MS + n * 1_000, ..keyed("k", "v") }]).await;
    }
    let start =
        Some(v1::SubscriptionStart { position: Some(Position::TimestampMs(FIRST_MS + 2_000)) });
    stubs.create("s", v1::SubscriptionSpec { start, ..spec(Default::default()) }).await.unwrap();
    assert_eq!(stubs.lane().await.floor, 2);
    for (time_ms, offset) in [
        (FIRST_MS - 1, 0),
        (FIRST_MS + 2_000, 2),
        (FIRST_MS + 1_999, 2),
        (FIRST_MS + 2_001, 3),
        (FIRST_MS + 4_001, 5),
    ] {
        let moved = seek(&mut stubs, To::TimestampMs(time_ms), |_| ()).await;
        assert_eq!((moved.to_offset, moved.error), (offset, None), "{time_ms}");
        assert_eq!(stubs.lane().await.floor, offset);
    }
    let web = broker.web_address();
    let body = format!("{{\"to\": {{\"timestamp_ms\": {}}}}}", FIRST_MS + 3_000);
    let told = call(web, "POST /v1/subscriptions/s/seek", body.as_bytes()).await.ok(200);
    assert_eq!(told["partitions"][0]["to_offset"], 3);
    let mut session = stubs.session("a").await;
    assert_eq!(session.one().await.offset, 3);
}

#[tokio::test]
async fn a_reader_that_pulls_stores_its_position_by_advancing() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(10).await;
    let advance = |request: &mut v1::SeekSubscriptionRequest| request.advance = true;
    let moved = seek(&mut stubs, To::Offset(4), advance).await;
    assert_eq!((moved.from_offset, moved.to_offset, moved.error), (0, 4, None));
    let back = seek(&mut stubs, To::Offset(2), advance).await;
    assert_eq!((back.to_offset, back.error), (4, None), "never back");
    let mut session = stubs.session("a").await;
    let got = session.take(6).await;
    assert_eq!(got[0].offset, 4);
    let held = seek(&mut stubs, To::Offset(8), advance).await;
    assert!(held.error.is_some(), "a consumer holds it");
    session.ack(&got).await;
    assert_eq!(stubs.lane().await.floor, 10);
}

#[tokio::test]
async fn a_pause_holds_over_a_restart() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let pause = v1::PauseSubscriptionRequest { subscription: named() };
    stubs.subscriptions.pause_subscription(pause).await.unwrap();
    let dir = broker.stop().await.unwrap();
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = PushStubs::new(&broker).await;
    stubs.send_numbers(1).await;
    let mut session = stubs.session("a").await;
    session.rest().await;
    assert_eq!(session.came(), []);
    assert!(stubs.describe().await.paused);
    let resume = v1::ResumeSubscriptionRequest { subscription: named() };
    stubs.subscriptions.resume_subscription(resume).await.unwrap();
    session.one().await;
}

#[tokio::test]
async fn settings_change_while_sessions_are_open() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let mut session = stubs.session_with(open("w")).await.unwrap();
    let filter = v1::SubscriptionFilter {
        key_equals: Some(bytes::Bytes::from_static(b"a")),
        ..Default::default()
    };
    stubs.alter(v1::SubscriptionSettings { filter: Some(filter), ..Default::default() }).await;
    session.grant(10, 1_000).await;
    stubs.send(&[keyed("a", "0"), keyed("b", "1"), keyed("a", "2")]).await;
    stubs.send(&[keyed("b", "3"), keyed("a", "4")]).await;
    let got = session.take(3).await;
    let values: Vec<&str> = got.iter().map(|got| got.value.as_str()).collect();
    assert_eq!(values, ["0", "2", "4"]);
    let settings = stubs.describe().await.settings.unwrap();
    assert!(settings.filter.is_some());
    let order = Some(v1::DeliveryOrder::KeyFifo as i32);
    let alter = v1::AlterSubscriptionRequest {
        subscription: named(),
        settings: Some(v1::SubscriptionSettings { order, ..Default::default() }),
        add_topics: Vec::new(),
    };
    let refused = stubs.subscriptions.alter_subscription(alter.clone()).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::SubscriptionInUse);
    session.ack(&got).await;
    session.half_close();
    session.until_ended().await.unwrap();
    stubs.subscriptions.alter_subscription(alter).await.unwrap();
}

/// A session of subscription `s` with these settings, and all the credit there is. Topic `t` holds six records of one key.
async fn at_work(settings: v1::SubscriptionSettings) -> (TestBroker, PushStubs, Session) {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    let records: Vec<Record> = (0..6).map(|n| keyed("k", &n.to_string())).collect();
    stubs.send(&records).await;
    let session = stubs.session("w").await;
    (broker, stubs, session)
}

/// Asserts that nothing else was delivered.
async fn nothing_more(session: &mut Session) {
    session.rest().await;
    assert_eq!(session.came(), []);
}

#[tokio::test]
async fn limits_change_under_a_session_that_stands_at_them() {
    let none = v1::SubscriptionSettings::default;
    let key_fifo = v1::SubscriptionSettings {
        order: Some(v1::DeliveryOrder::KeyFifo as i32),
        key_pipeline: Some(2),
        ..none()
    };
    // `max_ack_state_bytes` is in `explain.rs`, where the holes are made.
    for (before, after) in [
        (
            v1::SubscriptionSettings { max_open: Some(2), ..none() },
            v1::SubscriptionSettings { max_open: Some(5), ..none() },
        ),
        (key_fifo, v1::SubscriptionSettings { key_pipeline: Some(5), ..none() }),
    ] {
        let (_broker, mut stubs, mut session) = at_work(before).await;
        session.take(2).await;
        nothing_more(&mut session).await;
        stubs.alter(after).await;
        session.take(3).await;
        nothing_more(&mut session).await;
    }
}

#[tokio::test]
async fn leases_retries_and_dead_letters_follow_settings_that_change_meanwhile() {
    let none = v1::SubscriptionSettings::default;
    let patient = v1::SubscriptionSettings {
        backoff_min_ms: Some(600_000),
        backoff_max_ms: Some(600_000),
        ..none()
    };
    let (_broker, mut stubs, mut session) = at_work(patient).await;
    stubs.topics.create("graves", 1, Default::default()).await;
    let got = session.take(6).await;
    let failed = |got: &Got| item(got, Outcome::Nack(v1::Nack::default()));
    let extend = |got: &Got| item(got, Outcome::Extend(v1::Extend { lease_ms: 600_000 }));
    let statuses = session.settle(vec![failed(&got[0]), extend(&got[2])]).await;
    assert_eq!(statuses, [v1::SettleStatus::Ok; 2]);
    nothing_more(&mut session).await;
    stubs
        .alter(v1::SubscriptionSettings {
            backoff_min_ms: Some(1),
            backoff_max_ms: Some(1),
            dead_letter_topic: Some("graves".into()),
            max_lease_ms: Some(30_000),
            ..none()
        })
        .await;
    // A failure from now on is tried again at once; the earlier one waits as it was told to.
    session.settle_one(failed(&got[1])).await;
    let again = session.one().await;
    assert_eq!((again.offset, again.failures), (1, 1));
    let reject = item(&again, Outcome::Reject(v1::Reject { reason: "never".into() }));
    session.settle_one(reject).await;
    stubs.lane_until(|lane| lane.dead == 1).await;
    assert_eq!(stubs.topics.read("graves").await, ["1"]);
    let status = session.settle_one(extend(&got[2])).await;
    assert_eq!(status, v1::SettleStatus::LeaseLimit, "its lease is longer than is allowed now");
    session.ack(&got[2..]).await;
}

#[tokio::test]
async fn peek_shows_what_is_not_settled_and_takes_nothing() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(4).await;
    let mut session = stubs.session_with(open("w")).await.unwrap();
    session.grant(3, 1_000).await;
    let got = session.take(3).await;
    session.settle(vec![ack(&got[0]), nack(&got[1], 600_000)]).await;
    let peek = v1::PeekSubscriptionRequest { subscription: named(), max_records: 0 };
    let peeked = stubs.subscriptions.peek_subscription(peek).await.unwrap().into_inner().records;
    let seen: Vec<_> = peeked
        .iter()
        .map(|one| (one.record.as_ref().unwrap().offset, one.state(), one.failures))
        .collect();
    let expected = [
        (1, v1::RecordState::RetryWait, 1),
        (2, v1::RecordState::InFlight, 0),
        (3, v1::RecordState::Ready, 0),
    ];
    assert_eq!(seen, expected);
    assert_eq!(peeked[1].session_id.as_deref(), Some("w"));
    assert!(peeked[0].until_ms.is_some() && peeked[1].until_ms.is_some());
    assert_eq!(stubs.lane().await.in_flight, 1);
}

/// Lets the tasks of this runtime go as far as they get.
async fn rest() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Runs this change on a thread of its own up to where its answer is waited for; the thread goes on with it when it is told to.
fn begin_and_rest<T: Send + 'static>(
    change: impl Future<Output = T> + Send + 'static,
) -> (mpsc::Sender<()>, std::thread::JoinHandle<T>) {
    let (go, told_to_go) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let changing = tokio::spawn(change);
            rest().await;
            tell.send(()).unwrap();
            told_to_go.recv().unwrap();
            changing.await.unwrap()
        })
    });
    told.recv().unwrap();
    (go, thread)
}

#[tokio::test]
async fn of_two_changes_at_once_the_one_stored_last_counts() {
    let disk = SimDisk::new(12);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let delivery = broker.inside().services().delivery.clone();
    let held = disk.hold_flushes();
    let first = delivery.clone();
    let (go, pausing) = begin_and_rest(async move { first.pause("s", true).await });
    let resuming = tokio::spawn(async move { delivery.pause("s", false).await });
    rest().await;
    drop(held);
    // The task of the first change cannot run yet; the second must not overtake it. What is stored is stored in turn, so once something
    // asked for later is, nothing but the first change can hold up the second.
    assert!(stubs.create("later", spec(v1::SubscriptionSettings::default())).await.unwrap());
    rest().await;
    go.send(()).unwrap();
    pausing.join().unwrap().unwrap();
    resuming.await.unwrap().unwrap();
    assert!(!stubs.describe().await.paused);
    let listed = stubs.subscriptions.list_subscriptions(v1::ListSubscriptionsRequest {}).await;
    let listed = listed.unwrap().into_inner().subscriptions;
    let stored = listed.iter().find(|one| one.subscription == "s").unwrap();
    assert!(!stored.paused, "as it is stored");
}

#[tokio::test]
async fn of_two_changes_of_order_at_once_none_is_stored_that_does_not_count() {
    let disk = SimDisk::new(13);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let ordered = |order: v1::DeliveryOrder| v1::SubscriptionSettings {
        order: Some(order as i32),
        ..Default::default()
    };
    let delivery = broker.inside().services().delivery.clone();
    let held = disk.hold_flushes();
    let first = delivery.clone();
    let by_key = ordered(v1::DeliveryOrder::KeyFifo);
    let first = tokio::spawn(async move { first.alter("s", by_key, Vec::new()).await });
    rest().await;
    let by_partition = ordered(v1::DeliveryOrder::PartitionFifo);
    let second = async move { delivery.alter("s", by_partition, Vec::new()).await };
    let (go, second) = begin_and_rest(second);
    drop(held);
    first.await.unwrap().unwrap();
    let _session = stubs.session("w").await;
    go.send(()).unwrap();
    let refused = second.join().unwrap().expect_err("a session is there");
    assert!(matches!(refused, PushError::InUse { .. }), "{refused}");
    let order = stubs.describe().await.settings.unwrap().order();
    assert_eq!(order, v1::DeliveryOrder::KeyFifo);
}

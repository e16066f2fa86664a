//! The life of sessions: creation on first use, drain, half-close, restart, shutdown, deletion, many partitions.

use std::collections::BTreeSet;

use riverrun_proto::grpc::v1::{self, SettleStatus, session_request::Frame as Ask};

use crate::support::{
    broker::TestBroker,
    client::in_time,
    push::{PushStubs, nack, open, spec, value},
};

#[tokio::test]
async fn a_session_that_falls_silent_is_ended_and_its_records_go_to_another() {
    let broker = TestBroker::start().await;
    let settings = v1::SubscriptionSettings {
        ack_wait_ms: Some(600_000),
        backoff_min_ms: Some(1),
        backoff_max_ms: Some(1),
        ..v1::SubscriptionSettings::default()
    };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send_numbers(1).await;
    let mut silent = stubs.session("silent").await;
    let got = silent.one().await;
    // It hears the broker and says nothing: that takes three heartbeats.
    let _end = in_time(silent.until_ended()).await;
    let goaway = silent.goaway.clone().expect("told why");
    let error = goaway.error.unwrap();
    assert_eq!(error.code(), v1::ErrorCode::UnknownSession);
    assert!(error.message.contains("no frame came for"), "{}", error.message);
    assert!(!silent.heartbeats.is_empty(), "the broker was not silent");
    let mut other = stubs.session("other").await;
    let again = other.one().await;
    assert_eq!((again.offset, again.attempts, again.failures), (got.offset, 2, 1));
}

#[tokio::test]
async fn a_subscription_is_made_on_first_use_and_begins_at_the_beginning() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_topic(&broker).await;
    stubs.send_numbers(2).await;
    let create = Some(spec(v1::SubscriptionSettings::default()));
    let mut session =
        stubs.session_with(v1::OpenSession { create: create.clone(), ..open("a") }).await.unwrap();
    session.grant(10, 1_000).await;
    let got = session.take(2).await;
    session.ack(&got).await;
    // Once more: it exists, so what is to be created is ignored.
    let mut other = stubs.session_with(v1::OpenSession { create, ..open("b") }).await.unwrap();
    other.grant(10, 1_000).await;
    stubs.send_numbers(1).await;
    let lane = stubs.lane_until(|lane| lane.in_flight == 1).await;
    assert_eq!(lane.floor, 2);
}

#[tokio::test]
async fn what_was_acknowledged_and_what_failed_is_known_after_a_restart() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(6).await;
    let mut session = stubs.session("a").await;
    let got = session.take(6).await;
    session.ack(&[got[0].clone(), got[1].clone(), got[4].clone()]).await;
    assert_eq!(session.settle_one(nack(&got[2], 0)).await, SettleStatus::Ok);
    let dir = broker.stop().await.unwrap();
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = PushStubs::new(&broker).await;
    let mut session = stubs.session("a").await;
    let mut again = session.take(3).await;
    again.sort_by_key(|got| got.offset);
    let stood: Vec<(u64, u32)> = again.iter().map(|got| (got.offset, got.failures)).collect();
    assert_eq!(stood, [(2, 1), (3, 0), (5, 0)]);
    session.ack(&again).await;
    session.rest().await;
    assert_eq!(session.came(), []);
    assert_eq!(stubs.lane().await.lag, 0);
}

#[tokio::test]
async fn a_drained_session_ends_once_everything_is_settled() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(2).await;
    let mut session = stubs.session("a").await;
    let got = session.take(2).await;
    session.ask(Ask::Drain(v1::DrainSession {})).await;
    session.ack(&got[..1]).await;
    stubs.send_numbers(1).await;
    session.rest().await;
    assert_eq!(session.came(), [], "nothing new");
    session.ack(&got[1..]).await;
    session.until_ended().await.unwrap();
    let mut next = stubs.session("b").await;
    assert_eq!(next.one().await.offset, 2);
}

#[tokio::test]
async fn what_a_drained_session_leaves_is_given_back_and_did_not_fail() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(1).await;
    let mut session = stubs.session("a").await;
    session.one().await;
    session.ask(Ask::Drain(v1::DrainSession {})).await;
    session.rest().await;
    drop(session);
    let mut next = stubs.session("b").await;
    let got = next.one().await;
    assert_eq!((got.attempts, got.failures), (2, 0));
}

#[tokio::test]
async fn the_end_of_the_clients_half_is_a_drain() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let mut idle = stubs.session("idle").await;
    idle.half_close();
    idle.until_ended().await.unwrap();
    stubs.send_numbers(1).await;
    let mut session = stubs.session("a").await;
    let got = session.one().await;
    session.half_close();
    // What it holds can be settled by the unary call; then the stream ends.
    let statuses = stubs.settle("a", vec![crate::support::push::ack(&got)]).await.unwrap();
    assert_eq!(statuses, [SettleStatus::Ok]);
    session.until_ended().await.unwrap();
}

#[tokio::test]
async fn a_broker_that_stops_says_so_and_gives_everything_back() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(1).await;
    let mut session = stubs.session("a").await;
    session.one().await;
    let stopping = tokio::spawn(broker.stop());
    let _end = session.until_ended().await;
    let goaway = session.goaway.clone().expect("told why");
    assert_eq!(goaway.error.unwrap().code(), v1::ErrorCode::Unavailable);
    let dir = in_time(stopping).await.unwrap().unwrap();
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = PushStubs::new(&broker).await;
    let got = stubs.session("a").await.one().await;
    assert_eq!(got.failures, 0);
}

#[tokio::test]
async fn a_deleted_subscription_ends_its_sessions() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let mut session = stubs.session("a").await;
    let delete = |force| v1::DeleteSubscriptionRequest { subscription: "s".into(), force };
    let refused = stubs.subscriptions.delete_subscription(delete(false)).await.unwrap_err();
    assert_eq!(crate::support::records::code(&refused), v1::ErrorCode::SubscriptionInUse);
    stubs.subscriptions.delete_subscription(delete(true)).await.unwrap();
    let _end = session.until_ended().await;
    let goaway = session.goaway.clone().expect("told why");
    assert_eq!(goaway.error.unwrap().code(), v1::ErrorCode::UnknownSubscription);
    assert!(goaway.released);
    // Made anew it begins anew.
    stubs.send_numbers(1).await;
    assert!(stubs.create("s", spec(Default::default())).await.unwrap());
    assert_eq!(stubs.session("a").await.one().await.offset, 0);
}

#[tokio::test]
async fn a_subscription_whose_topics_were_deleted_says_so_and_takes_no_topic_for_another() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let mut session = stubs.session("a").await;
    let delete = v1::DeleteTopicRequest { topic: "t".into(), ..Default::default() };
    stubs.topics.admin.delete_topic(delete).await.unwrap();
    let _end = session.until_ended().await;
    let error = session.goaway.clone().expect("told why").error.unwrap();
    assert_eq!(error.code(), v1::ErrorCode::UnknownTopicOrPartition);
    assert!(error.message.contains("all topics of subscription `s` were deleted"), "{error:?}");
    // One of the same name is another one.
    stubs.topics.create("t", 1, Default::default()).await;
    stubs.send(&[value("new")]).await;
    let refused = stubs.session_with(open("a")).await.unwrap_err();
    let code = crate::support::records::code(&refused);
    assert_eq!(code, v1::ErrorCode::UnknownTopicOrPartition, "{refused}");
    let add_topics = vec!["t".into()];
    let add = v1::AlterSubscriptionRequest { subscription: "s".into(), settings: None, add_topics };
    stubs.subscriptions.alter_subscription(add).await.unwrap();
    assert_eq!(stubs.session("a").await.one().await.value, "new");
}

#[tokio::test]
async fn partitions_and_topics_come_and_go_while_it_lives() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let mut session = stubs.session("a").await;
    let grow = v1::AlterTopicRequest { topic: "t".into(), partitions: 3, ..Default::default() };
    stubs.topics.admin.alter_topic(grow).await.unwrap();
    stubs.send_to("t", 2, &[value("late partition")]).await;
    let got = session.one().await;
    assert_eq!((got.partition, got.value.as_str()), (2, "late partition"));
    session.ack(&[got]).await;
    stubs.topics.create("u", 1, Default::default()).await;
    stubs.send_to("u", 0, &[value("other topic")]).await;
    let add = v1::AlterSubscriptionRequest {
        subscription: "s".into(),
        settings: None,
        add_topics: vec!["u".into()],
    };
    stubs.subscriptions.alter_subscription(add).await.unwrap();
    let got = session.one().await;
    assert_eq!((got.topic.as_str(), got.value.as_str()), ("u", "other topic"));
    let delete = v1::DeleteTopicRequest { topic: "u".into(), ..Default::default() };
    stubs.topics.admin.delete_topic(delete).await.unwrap();
    in_time(async {
        while stubs.describe().await.partitions.len() > 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let status = session.settle_one(crate::support::push::ack(&got)).await;
    assert_eq!(status, SettleStatus::UnknownPartition);
    let topics: BTreeSet<String> =
        stubs.describe().await.partitions.into_iter().map(|one| one.topic).collect();
    assert_eq!(topics, ["t".to_owned()].into());
    stubs.send_numbers(1).await;
    assert_eq!(session.one().await.partition, 0);
}

#[tokio::test]
async fn a_silent_broker_gives_signs_of_life() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(2).await;
    let mut session = stubs.session_with(open("a")).await.unwrap();
    assert_eq!(session.opened.heartbeat_interval_ms, 5_000);
    while session.heartbeats.is_empty() {
        assert!(session.pump().await);
    }
    let heartbeat = session.heartbeats.pop_front().unwrap();
    assert_eq!((heartbeat.lag, heartbeat.idle_reason()), (2, v1::IdleReason::NoCredit));
}

#[tokio::test]
async fn what_retention_removed_is_told_as_lost() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(3).await;
    stubs.send_numbers(3).await;
    let mut session = stubs.session("a").await;
    let got = session.take(6).await;
    let delete = v1::DeleteRecordsRequest { topic: "t".into(), partition: 0, before_offset: 4 };
    stubs.topics.admin.delete_records(delete).await.unwrap();
    while session.lost.is_empty() {
        assert!(session.pump().await);
    }
    let lost = session.lost.pop_front().unwrap();
    assert_eq!(lost.ranges, [v1::OffsetRange { start_offset: 0, end_offset: 4 }]);
    session.ack(&got).await;
    assert_eq!(stubs.lane().await.floor, 6);
}

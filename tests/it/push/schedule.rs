//! Records with a time: withheld until then, over a restart too, and cancelled by their handle.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use riverrun_proto::{Header, Record, grpc::v1};
use riverrun_storage::disk::sim::SimDisk;

use crate::support::{
    broker::TestBroker,
    push::{PushStubs, value},
    records::code,
};

pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

pub(super) fn at(time_ms: i64, text: &str) -> Record {
    let header = Header {
        key: Bytes::from_static(b"riverrun-deliver-at"),
        value: Some(Bytes::from(time_ms.to_string())),
    };
    Record { headers: vec![header], ..value(text) }
}

pub(super) async fn cancel(stubs: &mut PushStubs, offset: u64) -> Result<bool, tonic::Status> {
    let request = v1::CancelScheduledRequest { topic: "t".into(), partition: 0, offset };
    Ok(stubs.subscriptions.cancel_scheduled(request).await?.into_inner().cancelled)
}

#[tokio::test]
async fn a_record_is_withheld_until_its_time_and_others_are_not() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let due = now_ms() + 1_500;
    stubs.send(&[at(due, "later"), value("now"), at(due - 100_000, "past")]).await;
    let mut session = stubs.session("w").await;
    let got = session.take(2).await;
    assert_eq!((got[0].value.as_str(), got[1].value.as_str()), ("now", "past"));
    session.ack(&got).await;
    let lane = stubs.lane().await;
    assert_eq!((lane.scheduled, lane.lag), (1, 1));
    let explained = stubs.explain().await;
    assert_eq!(explained.reason(), v1::IdleReason::Scheduled);
    assert_eq!((explained.offset, explained.until_ms), (Some(0), Some(due)));
    let got = session.one().await;
    assert!(now_ms() >= due, "not before its time");
    assert_eq!((got.value.as_str(), got.attempts), ("later", 1));
}

#[tokio::test]
async fn a_time_far_away_is_kept_over_a_restart_and_can_be_cancelled() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let days = 400 * 24 * 3_600_000;
    stubs.send(&[at(now_ms() + days, "far"), at(now_ms() + 60_000, "near"), value("plain")]).await;
    let mut session = stubs.session("w").await;
    let got = session.one().await;
    session.ack(&[got]).await;
    session.half_close();
    session.until_ended().await.unwrap();
    let dir = broker.stop().await.unwrap();
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = PushStubs::new(&broker).await;
    let mut session = stubs.session("w").await;
    let lane = stubs.lane_until(|lane| lane.scheduled == 2).await;
    assert_eq!(lane.lag, 2);
    assert!(cancel(&mut stubs, 0).await.unwrap());
    assert!(cancel(&mut stubs, 1).await.unwrap());
    let lane = stubs.lane().await;
    assert_eq!((lane.lag, lane.floor, lane.scheduled), (0, 3, 0));
    session.rest().await;
    assert_eq!(session.came(), []);
    // A subscription that comes later does not get it either.
    let start = v1::SubscriptionSpec { topics: vec!["t".into()], ..Default::default() };
    stubs.create("later", start).await.unwrap();
    let ask = v1::ReceiveRequest {
        subscription: "later".into(),
        max_records: 10,
        max_wait_ms: 30_000,
        format: v1::RecordFormat::Structured as i32,
        ..Default::default()
    };
    let (_, got) = stubs.receive(ask).await.unwrap();
    let values: Vec<&str> = got.iter().map(|got| got.value.as_str()).collect();
    assert_eq!(values, ["plain"]);
    let listed = stubs.subscriptions.list_subscriptions(v1::ListSubscriptionsRequest {}).await;
    let listed = listed.unwrap().into_inner().subscriptions;
    let lags: Vec<(&str, u64)> =
        listed.iter().map(|one| (one.subscription.as_str(), one.lag)).collect();
    assert_eq!(lags, [("later", 1), ("s", 0)], "what was cancelled waits for nobody");
}

#[tokio::test]
async fn what_cannot_be_cancelled_is_told_why() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send(&[value("plain"), at(now_ms() - 1, "due")]).await;
    let mut session = stubs.session("w").await;
    let got = session.take(2).await;
    assert!(!cancel(&mut stubs, 1).await.unwrap(), "it was delivered");
    session.ack(&got).await;
    let refused = cancel(&mut stubs, 0).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::InvalidArgument);
    let refused = cancel(&mut stubs, 9).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::OffsetOutOfRange);
}

/// The time comes while the cancellation is on its way to the disk.
#[tokio::test]
async fn a_record_that_is_delivered_while_its_cancellation_is_written_is_not_called_cancelled() {
    let disk = SimDisk::new(11);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let mut session = stubs.session("w").await;
    stubs.send(&[at(now_ms() + 1_000, "soon")]).await;
    let held = disk.hold_flushes();
    let mut asking = stubs.clone();
    let asked = tokio::spawn(async move { cancel(&mut asking, 0).await });
    let got = session.one().await;
    drop(held);
    assert!(!asked.await.unwrap().unwrap(), "`{}` was delivered", got.value);
    session.ack(&[got]).await;
}

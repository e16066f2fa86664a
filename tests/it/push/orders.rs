//! Orders of delivery: by key, by partition, one at a time.

use std::collections::{BTreeMap, BTreeSet};

use riverrun_proto::grpc::v1::{self, SettleStatus, settle_item::Outcome};

use crate::support::{
    broker::TestBroker,
    push::{Got, PushStubs, Session, item, keyed, nack, open},
};

fn ordered(order: v1::DeliveryOrder) -> v1::SubscriptionSettings {
    v1::SubscriptionSettings {
        order: Some(order as i32),
        backoff_min_ms: Some(1),
        backoff_max_ms: Some(1),
        ..v1::SubscriptionSettings::default()
    }
}

fn numbers(session_got: &[Got]) -> Vec<u64> {
    session_got.iter().map(|got| got.offset).collect()
}

#[tokio::test]
async fn a_key_is_handled_in_order_also_when_one_of_its_records_fails() {
    let broker = TestBroker::start().await;
    let settings = ordered(v1::DeliveryOrder::KeyFifo);
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    let records: Vec<_> = (0..60).map(|n| keyed(&format!("k{}", n % 5), &n.to_string())).collect();
    stubs.send(&records).await;
    let mut sessions = vec![stubs.session("a").await, stubs.session("b").await];
    let mut handled: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut failed = BTreeSet::new();
    let mut count = 0;
    while count < 60 {
        for session in &mut sessions {
            session.rest().await;
            // Every seventh fails once; others of its key must not overtake it.
            let mut fails = |got: &Got| got.offset % 7 == 3 && failed.insert(got.offset);
            let (bad, good): (Vec<Got>, Vec<Got>) =
                session.came().into_iter().partition(&mut fails);
            for got in bad {
                assert_eq!(session.settle_one(nack(&got, 20)).await, SettleStatus::Ok);
            }
            for got in good {
                session.ack(std::slice::from_ref(&got)).await;
                handled.entry(got.key.unwrap()).or_default().push(got.offset);
                count += 1;
            }
        }
    }
    for (key, offsets) in handled {
        assert!(offsets.is_sorted() && offsets.len() == 12, "{key}: {offsets:?}");
    }
    assert_eq!(failed.len(), 9);
}

#[tokio::test]
async fn a_key_that_is_stuck_holds_up_nobody_else() {
    let broker = TestBroker::start().await;
    let settings = ordered(v1::DeliveryOrder::KeyFifo);
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs
        .send(&[keyed("stuck", "0"), keyed("stuck", "1"), keyed("free", "2"), keyed("free", "3")])
        .await;
    let mut session = stubs.session("a").await;
    let got = session.take(2).await;
    assert_eq!(numbers(&got), [0, 2]);
    session.ack(&got[1..]).await;
    assert_eq!(session.one().await.offset, 3);
    session.rest().await;
    assert_eq!(session.came(), []);
    session.ack(&got[..1]).await;
    assert_eq!(session.one().await.offset, 1);
}

#[tokio::test]
async fn a_pipeline_of_a_key_goes_to_one_session_and_a_failure_takes_the_later_ones_back() {
    let broker = TestBroker::start().await;
    let settings =
        v1::SubscriptionSettings { key_pipeline: Some(3), ..ordered(v1::DeliveryOrder::KeyFifo) };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    let records: Vec<_> = (0..5).map(|n| keyed("k", &n.to_string())).collect();
    stubs.send(&records).await;
    let mut a = stubs.session("a").await;
    let got = a.take(3).await;
    let mut b = stubs.session("b").await;
    b.rest().await;
    assert_eq!(b.came(), [], "a key is never in two hands");
    drop(b);
    a.settle_one(nack(&got[0], 0)).await;
    let revoked = a.until_revoked().await;
    assert_eq!(revoked.reason(), v1::RevokeReason::Order);
    let mut handled = Vec::new();
    while handled.len() < 5 {
        let got = a.one().await;
        assert_eq!(got.failures, u32::from(got.offset == 0), "the later ones did not fail");
        a.ack(std::slice::from_ref(&got)).await;
        handled.push(got.offset);
    }
    assert_eq!(handled, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn what_comes_back_in_a_pipeline_is_told_before_it_is_given_again() {
    let broker = TestBroker::start().await;
    let settings =
        v1::SubscriptionSettings { key_pipeline: Some(3), ..ordered(v1::DeliveryOrder::KeyFifo) };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    let records: Vec<_> = (0..3).map(|n| keyed("k", &n.to_string())).collect();
    stubs.send(&records).await;
    let mut a = stubs.session("a").await;
    let got = a.take(3).await;
    a.settle_one(item(&got[0], Outcome::Release(v1::Release {}))).await;
    // A client takes what is revoked out of all its leases: behind the new one this would be lost to it.
    let log: Vec<&str> = a.order.drain(..).collect();
    assert_eq!(log, ["deliver", "revoked", "deliver"]);
    let revoked = a.until_revoked().await;
    assert_eq!((revoked.reason(), revoked.ranges[0].start_offset), (v1::RevokeReason::Order, 1));
    let again = a.take(3).await;
    assert_eq!(numbers(&again), [0, 1, 2]);
    a.ack(&again).await;
    assert_eq!(stubs.lane().await.floor, 3);
}

#[tokio::test]
async fn a_partition_is_handled_one_record_after_another() {
    let broker = TestBroker::start().await;
    let settings = ordered(v1::DeliveryOrder::PartitionFifo);
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send_numbers(4).await;
    let mut session = stubs.session("a").await;
    let mut order = Vec::new();
    for round in 0..5 {
        session.rest().await;
        let got = session.one().await;
        assert_eq!(session.came(), []);
        order.push(got.offset);
        match round {
            1 => assert_eq!(session.settle_one(nack(&got, 0)).await, SettleStatus::Ok),
            _ => session.ack(&[got]).await,
        }
    }
    assert_eq!(order, [0, 1, 1, 2, 3]);
}

#[tokio::test]
async fn one_session_gets_everything_and_the_next_one_takes_over() {
    let broker = TestBroker::start().await;
    let settings = ordered(v1::DeliveryOrder::Exclusive);
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send_numbers(3).await;
    let mut first = stubs.session("a").await;
    let got = first.take(3).await;
    assert_eq!(numbers(&got), [0, 1, 2]);
    let mut second = stubs.session("b").await;
    stubs.send_numbers(2).await;
    let more = first.take(2).await;
    first.ack(&got).await;
    second.rest().await;
    assert_eq!(second.came(), []);
    let _end = end(first).await;
    assert_eq!(numbers(&second.take(2).await), numbers(&more));
}

/// Ends a session in order: what it holds is given back.
async fn end(session: Session) {
    use v1::session_request::Frame::Drain;
    session.ask(Drain(v1::DrainSession {})).await;
    drop(session);
}

#[tokio::test]
async fn sixteen_workers_share_a_burst() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    let mut sessions = Vec::new();
    for number in 0..16 {
        let mut session = stubs.session_with(open(&format!("w{number}"))).await.unwrap();
        session.grant(1_000, 1 << 30).await;
        session.rest().await;
        sessions.push(session);
    }
    stubs.send_numbers(1_600).await;
    let mut seen = BTreeSet::new();
    for session in &mut sessions {
        let got = session.take(1).await;
        session.rest().await;
        let rest = session.came();
        assert!(got.len() + rest.len() <= 400, "one took {} of 1,600", rest.len());
        for got in got.iter().chain(&rest) {
            assert!(seen.insert(got.offset), "{} is in two hands", got.offset);
        }
    }
    assert!(seen.len() >= 16);
}

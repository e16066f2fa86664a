//! The rules of delivery, one test each: what counts as a failure, leases, late acks, lost sessions, replay,
//! dead letters, extension.

use riverrun_proto::grpc::v1::{self, SettleStatus, settle_item::Outcome};

use crate::support::{
    broker::TestBroker,
    client::in_time,
    push::{Got, PushStubs, ack, item, nack, open},
};

fn short_lease() -> v1::SubscriptionSettings {
    v1::SubscriptionSettings {
        ack_wait_ms: Some(1_000),
        backoff_min_ms: Some(1),
        backoff_max_ms: Some(1),
        ..v1::SubscriptionSettings::default()
    }
}

fn release(got: &Got) -> v1::SettleItem {
    item(got, Outcome::Release(v1::Release {}))
}

fn started(got: &Got) -> v1::SettleItem {
    item(got, Outcome::Started(v1::Started {}))
}

#[tokio::test]
async fn rule_1_a_release_is_no_failure_a_nack_and_an_expiry_are() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, short_lease()).await;
    stubs.send_numbers(1).await;
    let mut session = stubs.session("a").await;
    let got = session.one().await;
    assert_eq!((got.attempts, got.failures), (1, 0));
    assert_eq!(session.settle_one(release(&got)).await, SettleStatus::Ok);
    let got = session.one().await;
    assert_eq!((got.attempts, got.failures), (2, 0));
    assert_eq!(session.settle_one(nack(&got, 0)).await, SettleStatus::Ok);
    let got = session.one().await;
    assert_eq!((got.attempts, got.failures), (3, 1));
    // Nobody settles it: its lease ends.
    let revoked = session.until_revoked().await;
    assert_eq!(revoked.reason(), v1::RevokeReason::LeaseExpired);
    let got = session.one().await;
    assert_eq!((got.attempts, got.failures), (4, 2));
    session.ack(&[got]).await;
    assert_eq!(stubs.lane().await.lag, 0);
}

#[tokio::test]
async fn rule_1_a_crash_counts_for_what_was_started() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, short_lease()).await;
    stubs.alter(v1::SubscriptionSettings { ack_wait_ms: Some(60_000), ..short_lease() }).await;
    stubs.send_numbers(3).await;
    let mut first =
        stubs.session_with(v1::OpenSession { reports_started: true, ..open("a") }).await.unwrap();
    first.grant(1_000, 1 << 20).await;
    let got = first.take(3).await;
    assert_eq!(first.settle_one(started(&got[1])).await, SettleStatus::Ok);
    drop(first);
    let mut second = stubs.session("b").await;
    let mut again = second.take(3).await;
    again.sort_by_key(|got| got.offset);
    let failures: Vec<u32> = again.iter().map(|got| got.failures).collect();
    assert_eq!(failures, [0, 1, 0]);
    // A session that never reports is taken to have begun with everything.
    drop(second);
    let mut third = stubs.session("c").await;
    let mut failures = [0; 3];
    for _ in 0..3 {
        // One after another: what crashed its consumers twice is handed out alone.
        let got = third.one().await;
        failures[usize::try_from(got.offset).unwrap()] = got.failures;
        third.ack(&[got]).await;
    }
    assert_eq!(failures, [1, 2, 1]);
}

#[tokio::test]
async fn rule_2_a_stale_lease_is_told_by_item_and_an_ack_twice_is_fine() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, short_lease()).await;
    stubs.send_numbers(2).await;
    let mut session = stubs.session("a").await;
    let got = session.take(2).await;
    assert_eq!(session.settle_one(nack(&got[0], 0)).await, SettleStatus::Ok);
    let again = session.one().await;
    let statuses = session
        .settle(vec![nack(&got[0], 0), ack(&got[1]), ack(&again), ack(&again), nack(&again, 0)])
        .await;
    let expected = [
        SettleStatus::StaleLease,
        SettleStatus::Ok,
        SettleStatus::Ok,
        SettleStatus::Ok,
        SettleStatus::AlreadySettled,
    ];
    assert_eq!(statuses, expected);
    let foreign = Got { epoch: again.epoch + 7, ..again.clone() };
    assert_eq!(session.settle_one(ack(&foreign)).await, SettleStatus::Ok, "settled is settled");
}

#[tokio::test]
async fn rule_3_a_late_ack_counts_until_the_record_is_in_another_hand() {
    let broker = TestBroker::start().await;
    let settings = v1::SubscriptionSettings {
        backoff_min_ms: Some(600_000),
        backoff_max_ms: Some(600_000),
        ..short_lease()
    };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send_numbers(1).await;
    let mut session = stubs.session("a").await;
    let got = session.one().await;
    session.until_revoked().await;
    // It waits for its retry: nobody else has it.
    assert_eq!(session.settle_one(ack(&got)).await, SettleStatus::Ok);
    assert_eq!(stubs.lane().await.lag, 0);
}

#[tokio::test]
async fn rule_3_a_late_ack_takes_the_record_out_of_another_hand_where_order_does_not_matter() {
    for order in [v1::DeliveryOrder::Unordered, v1::DeliveryOrder::KeyFifo] {
        let broker = TestBroker::start().await;
        let settings = v1::SubscriptionSettings { order: Some(order as i32), ..short_lease() };
        let mut stubs = PushStubs::with_subscription(&broker, settings).await;
        let mut first = stubs.session_with(open("a")).await.unwrap();
        first.grant(1, 1 << 20).await;
        stubs.send(&[crate::support::push::keyed("k", "v")]).await;
        let got = first.one().await;
        let mut second = stubs.session_with(open("b")).await.unwrap();
        second.grant(1, 1 << 20).await;
        first.until_revoked().await;
        let again = second.one().await;
        assert_eq!(again.offset, got.offset);
        let late = first.settle_one(ack(&got)).await;
        if order == v1::DeliveryOrder::KeyFifo {
            assert_eq!(late, SettleStatus::StaleLease);
            continue;
        }
        assert_eq!(late, SettleStatus::Ok);
        let revoked = second.until_revoked().await;
        assert_eq!(revoked.reason(), v1::RevokeReason::SettledElsewhere);
        assert_eq!(stubs.lane().await.lag, 0);
    }
}

#[tokio::test]
async fn rule_3_a_second_delivery_is_another_hand_also_in_the_same_session() {
    for order in [v1::DeliveryOrder::Unordered, v1::DeliveryOrder::KeyFifo] {
        let broker = TestBroker::start().await;
        let settings = v1::SubscriptionSettings { order: Some(order as i32), ..short_lease() };
        let mut stubs = PushStubs::with_subscription(&broker, settings).await;
        stubs.send(&[crate::support::push::keyed("k", "v")]).await;
        let mut session = stubs.session("a").await;
        let got = session.one().await;
        session.until_revoked().await;
        let again = session.one().await;
        assert_eq!((again.offset, again.epoch), (got.offset, got.epoch));
        assert!(again.seq > got.seq);
        let late = session.settle_one(ack(&got)).await;
        if order == v1::DeliveryOrder::KeyFifo {
            assert_eq!(late, SettleStatus::StaleLease);
            continue;
        }
        assert_eq!(late, SettleStatus::Ok);
        let revoked = session.until_revoked().await;
        assert_eq!(revoked.reason(), v1::RevokeReason::SettledElsewhere);
        assert_eq!(stubs.lane().await.lag, 0);
        assert_eq!(session.settle_one(nack(&again, 0)).await, SettleStatus::AlreadySettled);
    }
}

#[tokio::test]
async fn rule_4_a_lost_session_gives_its_records_back_long_before_their_lease_ends() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(3).await;
    let mut first = stubs.session("a").await;
    assert_eq!(first.take(3).await.len(), 3);
    let mut second = stubs.session("b").await;
    second.rest().await;
    assert_eq!(second.came(), []);
    drop(first);
    // The lease would last 30 s; a test that waits for it fails by its deadline elsewhere.
    let again = second.take(3).await;
    assert!(again.iter().all(|got| got.attempts == 2));
}

#[tokio::test]
async fn rule_4_a_session_opened_anew_fences_the_old_stream() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(1).await;
    let mut old = stubs.session("a").await;
    let got = old.one().await;
    let mut new = stubs.session("a").await;
    assert!(new.opened.session_epoch > old.opened.session_epoch);
    let _end = old.until_ended().await;
    let goaway = old.goaway.clone().expect("told why");
    assert_eq!(goaway.error.unwrap().code(), v1::ErrorCode::SessionReplaced);
    let again = new.one().await;
    assert_eq!((again.offset, again.epoch), (got.offset, new.opened.session_epoch));
}

#[tokio::test]
async fn rule_5_a_resumed_session_keeps_its_leases_and_gets_again_what_it_missed() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, Default::default()).await;
    stubs.send_numbers(2).await;
    let mut first = stubs.session("a").await;
    let got = first.take(2).await;
    stubs.send_numbers(2).await;
    let missed = first.take(2).await;
    let last_delivery_seq = got.iter().map(|got| got.seq).max().unwrap();
    assert!(missed.iter().all(|got| got.seq > last_delivery_seq));
    let session_epoch = first.opened.session_epoch;
    drop(first);
    let resume_from = Some(v1::ResumePoint { session_epoch, last_delivery_seq });
    let mut again = stubs.session_with(v1::OpenSession { resume_from, ..open("a") }).await.unwrap();
    assert!(again.opened.resumed);
    assert!(again.opened.session_epoch > session_epoch);
    let replayed = again.take(2).await;
    for (replayed, missed) in replayed.iter().zip(&missed) {
        assert!(replayed.replayed);
        assert_eq!(replayed, &Got { replayed: true, ..missed.clone() }, "the same lease");
    }
    // The leases of the first stream are good on the second.
    again.ack(&got).await;
    again.ack(&replayed).await;
    assert_eq!(stubs.lane().await.lag, 0);
}

#[tokio::test]
async fn rule_6_what_fails_too_often_becomes_one_dead_letter() {
    let broker = TestBroker::start().await;
    let settings = v1::SubscriptionSettings { max_failures: Some(2), ..short_lease() };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send_numbers(2).await;
    let mut session = stubs.session("a").await;
    let mut got = session.take(2).await;
    let poison = got.remove(0);
    session.ack(&got).await;
    session.settle_one(nack(&poison, 0)).await;
    let again = session.one().await;
    session.settle_one(nack(&again, 0)).await;
    let lane = stubs.lane_until(|lane| lane.dead == 1).await;
    assert_eq!((lane.lag, lane.dead_pending, lane.floor), (0, 0, 2));
    assert_eq!(stubs.topics.read("s.dead").await, ["0"]);
    assert_eq!(session.settle_one(ack(&again)).await, SettleStatus::Ok);
}

#[tokio::test]
async fn rule_7_a_lease_is_extended_only_when_asked_and_only_so_far() {
    let broker = TestBroker::start().await;
    let settings = v1::SubscriptionSettings { max_lease_ms: Some(2_500), ..short_lease() };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send_numbers(2).await;
    let mut session = stubs.session("a").await;
    let got = session.take(2).await;
    let extend = |got: &Got| item(got, Outcome::Extend(v1::Extend { lease_ms: 60_000 }));
    assert_eq!(session.settle_one(extend(&got[0])).await, SettleStatus::Ok);
    // The other one's lease ends first; what was extended is still held then.
    let revoked = session.until_revoked().await;
    assert_eq!(revoked.ranges[0].start_offset, got[1].offset);
    let lane = stubs.lane().await;
    assert!(lane.in_flight >= 1, "{lane:?}");
    let revoked = in_time(async {
        loop {
            let revoked = session.until_revoked().await;
            if revoked.ranges.iter().any(|range| range.start_offset == got[0].offset) {
                return revoked;
            }
        }
    })
    .await;
    assert_eq!(revoked.reason(), v1::RevokeReason::LeaseExpired);
    assert_eq!(session.settle_one(extend(&got[0])).await, SettleStatus::StaleLease);
}

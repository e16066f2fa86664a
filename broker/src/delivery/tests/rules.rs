//! The rules of delivery, one table each.

use std::time::Duration;

use super::{
    Rig,
    rig::{lane, settings},
};
use crate::delivery::{
    FailureCause, Order, Outcome, ResumePoint, Run, Settings, SettleItem, SettleStatus, Used,
};

fn rig(keys: &str) -> Rig {
    let mut rig = Rig::new(settings());
    rig.append(keys);
    rig.open("a");
    rig
}

#[test]
fn records_go_out_as_far_as_the_credit_goes_and_an_ack_moves_the_floor() {
    let mut rig = rig("........");
    rig.expect("");
    rig.credit("a", 5);
    rig.expect("a 0..5");
    assert_eq!(rig.ack("a", 1, 3), SettleStatus::Ok);
    assert_eq!(rig.floor(), 0);
    assert_eq!(rig.ack("a", 0, 1), SettleStatus::Ok);
    assert_eq!(rig.floor(), 3);
    rig.expect("");
    rig.credit("a", 4);
    rig.expect("");
    rig.credit("a", 6);
    rig.expect("a 5");
    assert_eq!(rig.ack("a", 3, 5), SettleStatus::Ok);
    assert_eq!(rig.ack("a", 5, 6), SettleStatus::Ok);
    rig.credit("a", 100);
    rig.expect("a 6..8");
    assert_eq!(rig.ack("a", 6, 8), SettleStatus::Ok);
    rig.expect("");
    assert_eq!((rig.floor(), rig.image.floor), (8, 8));
}

#[test]
fn rule_1_failures_count_and_other_returns_do_not() {
    let mut rig = rig("....");
    rig.credit("a", 100);
    rig.expect("a 0..4");
    rig.release("a", 0, 1);
    rig.expect("a 0");
    assert_eq!(rig.counts[&0], (2, 0));
    rig.nack("a", 1, 500);
    rig.expect("");
    rig.pass_ms(499);
    rig.expect("");
    rig.pass_ms(1);
    rig.expect("a 1");
    assert_eq!(rig.counts[&1], (2, 1));
    // A restart of the broker counts nothing, and loses no failure.
    let mut rig = Rig::restarted(settings(), rig.image.clone(), rig.now);
    rig.append("....");
    rig.open("a");
    rig.credit("a", 100);
    rig.expect("a 0..4");
    assert_eq!((rig.counts[&0], rig.counts[&1]), ((1, 0), (1, 1)));
    // The lease ends: what is in hands failed, extended leases last longer.
    rig.settle("a", Run::new(2, 4), Outcome::Extend { lease: Duration::from_secs(40) });
    rig.pass(Duration::from_secs(30));
    rig.expect("a loses 0..2 LeaseExpired; a 0..2");
    assert_eq!((rig.counts[&0], rig.counts[&1]), ((2, 1), (2, 2)));
    rig.pass(Duration::from_secs(10));
    rig.expect("a loses 2..4 LeaseExpired; a 2..4");
}

#[test]
fn rule_1_a_failure_is_not_shown_before_it_is_stored() {
    let mut rig = rig("...");
    rig.delivery.set_failures_stored(0);
    rig.credit("a", 100);
    rig.expect("a 0..3");
    rig.nack("a", 0, 0);
    rig.nack("a", 1, 20);
    rig.pass_ms(10);
    rig.expect("");
    rig.delivery.set_failures_stored(1);
    rig.pass_ms(10);
    rig.expect("a 0");
    rig.pass_ms(100);
    rig.expect("");
    assert!(matches!(rig.explain(), crate::delivery::Reason::RetryWait { offset: 1, .. }));
    rig.delivery.set_failures_stored(2);
    rig.pass_ms(10);
    rig.expect("a 1");
    assert_eq!((rig.counts[&0], rig.counts[&1]), ((2, 1), (2, 1)));
}

#[test]
fn rule_1_a_crash_counts_for_what_was_started_only() {
    let mut rig = rig("......");
    rig.credit("a", 100);
    rig.expect("a 0..6");
    rig.started("a", 1);
    rig.settle("a", Run::new(4, 6), Outcome::Started);
    rig.open("b");
    rig.credit("b", 100);
    rig.lost("a");
    rig.pass_ms(1_999);
    rig.expect("");
    rig.pass_ms(1);
    rig.expect("b 0..6");
    for (offset, counts) in [(0, (2, 0)), (1, (2, 1)), (2, (2, 0)), (4, (2, 1)), (5, (2, 1))] {
        assert_eq!(rig.counts[&offset], counts, "offset {offset}");
    }
    assert_eq!(rig.image.failures[&1].history[0].cause, FailureCause::Crashed);
    assert_eq!(&*rig.image.failures[&1].history[0].session, "a");
}

#[test]
fn rule_1_a_session_that_reports_no_starts_fails_everything_it_held() {
    let mut rig = Rig::new(settings());
    rig.append("...");
    rig.try_open("a", None, false, 10).unwrap();
    rig.credit("a", 100);
    rig.expect("a 0..3");
    rig.ack("a", 0, 1);
    rig.lost("a");
    rig.pass(Duration::from_secs(2));
    rig.expect("");
    assert_eq!(rig.image.failures.keys().copied().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn rule_1_drain_and_close_give_back_uncounted() {
    let mut rig = rig("......");
    rig.credit("a", 3);
    rig.expect("a 0..3");
    rig.open("b");
    rig.delivery.drain(rig.sessions["a"], rig.now);
    rig.credit("a", 100);
    rig.expect("");
    rig.ack("a", 0, 2);
    rig.started("a", 2);
    rig.delivery.lost(rig.sessions["a"], rig.now);
    rig.credit("b", 2);
    rig.expect("b 2..4");
    assert_eq!(rig.counts[&2], (2, 0));
    rig.delivery.drain(rig.sessions["b"], rig.now);
    rig.ack("b", 2, 4);
    rig.expect("b gone Drained");
    rig.open("c");
    rig.credit("c", 1);
    rig.expect("c 4");
    rig.started("c", 4);
    rig.delivery.closed(rig.sessions["c"], rig.now);
    rig.open("d");
    rig.credit("d", 9);
    rig.expect("d 4..6");
    assert_eq!((rig.counts[&4], rig.image.failures.len()), ((2, 0), 0));
}

#[test]
fn rule_1_a_record_that_crashed_two_handlers_is_handed_out_alone() {
    let mut rig = rig("......");
    rig.credit("a", 100);
    rig.expect("a 0..6");
    rig.started("a", 2);
    rig.lost("a");
    rig.pass(Duration::from_secs(2));
    rig.open("b");
    rig.credit("b", 100);
    rig.expect("b 0..6");
    rig.started("b", 2);
    rig.lost("b");
    rig.pass(Duration::from_secs(2));
    rig.open("c");
    rig.credit("c", 100);
    rig.expect("c 2");
    rig.open("d");
    rig.credit("d", 100);
    rig.expect("d 0..2 3..6");
    // The session of the suspect gets nothing else, also when it is given back.
    rig.append("..");
    rig.expect("d 6..8");
    rig.release("c", 2, 3);
    rig.expect("c 2");
    rig.ack("c", 2, 3);
    rig.append("..");
    rig.delivery.closed(rig.sessions["d"], rig.now);
    assert!(rig.told().contains("c "));
}

#[test]
fn an_isolated_record_waits_until_a_session_holds_nothing() {
    let mut rig = rig("....");
    for id in ["b", "c"] {
        rig.try_open(id, None, true, 1).unwrap();
        rig.credit(id, 1);
        rig.expect(&format!("{id} 0"));
        rig.started(id, 0);
        rig.lost(id);
        rig.pass(Duration::from_secs(2));
    }
    rig.told();
    rig.credit("a", 3);
    rig.expect("a 0");
    rig.ack("a", 0, 1);
    rig.expect("a 1..3");
}

#[test]
fn rule_2_a_token_of_another_epoch_settles_nothing_that_is_in_hands() {
    let mut rig = rig("..");
    rig.credit("a", 100);
    rig.expect("a 0..2");
    let (epoch, seq) = rig.tokens[&("a", 0)];
    for foreign in [epoch - 1, epoch + 1, 0] {
        rig.tokens.insert(("a", 0), (foreign, seq));
        assert_eq!(rig.ack("a", 0, 2), SettleStatus::StaleLease, "{foreign}");
        assert_eq!(rig.nack("a", 0, 0), SettleStatus::StaleLease, "{foreign}");
    }
    rig.tokens.insert(("a", 0), (epoch, seq));
    assert_eq!(rig.ack("a", 0, 2), SettleStatus::Ok);
}

#[test]
fn rule_2_a_stale_token_is_refused_and_an_ack_of_what_is_done_is_fine() {
    let mut rig = rig("....");
    rig.credit("a", 100);
    rig.expect("a 0..4");
    assert_eq!(rig.ack("a", 0, 1), SettleStatus::Ok);
    assert_eq!(rig.ack("a", 0, 1), SettleStatus::Ok);
    assert_eq!(rig.nack("a", 0, 0), SettleStatus::AlreadySettled);
    let old = rig.tokens[&("a", 1)];
    rig.release("a", 1, 2);
    rig.expect("a 1");
    rig.tokens.insert(("a", 1), old);
    for outcome in [
        Outcome::Nack { delay: None, reason: "".into() },
        Outcome::Release,
        Outcome::Started,
        Outcome::Extend { lease: Duration::from_secs(9) },
        Outcome::Reject { reason: "".into() },
        Outcome::Ack,
    ] {
        assert_eq!(rig.settle("a", Run::one(1), outcome), SettleStatus::StaleLease);
    }
    rig.expect("");
    assert_eq!(rig.ack("a", 4, 5), SettleStatus::NotDelivered);
    assert_eq!(rig.ack("a", 5, 5), SettleStatus::Invalid);
    let foreign = SettleItem {
        lane: crate::delivery::LaneKey { partition: 1, ..lane() },
        run: Run::one(0),
        epoch: 1,
        seq: 1,
        outcome: Outcome::Ack,
    };
    let session = Some(rig.sessions["a"]);
    let results = rig.delivery.settle(session, &[foreign], rig.now);
    assert_eq!(results[0].status, SettleStatus::UnknownPartition);
    // Another session cannot settle by the token of this one.
    rig.open("b");
    rig.tokens.insert(("b", 2), rig.tokens[&("a", 2)]);
    assert_eq!(rig.ack("b", 2, 3), SettleStatus::StaleLease);
    assert_eq!(rig.ack("a", 2, 3), SettleStatus::Ok);
}

#[test]
fn rule_2_only_the_records_of_the_delivery_are_settled_by_a_range() {
    let mut rig = rig("....");
    rig.open("b");
    rig.credit("a", 1);
    rig.credit("b", 2);
    rig.expect("a 0; b 1..3");
    rig.credit("a", 2);
    rig.expect("a 3");
    rig.release("b", 2, 3);
    rig.credit("a", 3);
    rig.expect("a 2");
    // The delivery of 0 had nothing else.
    assert_eq!(rig.ack("a", 0, 4), SettleStatus::Ok);
    assert_eq!((rig.floor(), rig.delivery.counts(&lane()).unwrap().in_flight), (1, 3));
}

#[test]
fn rule_3_a_late_ack_counts_while_nobody_else_has_the_record() {
    let mut rig = rig("...");
    rig.credit("a", 3);
    rig.expect("a 0..3");
    rig.pass(Duration::from_secs(30));
    rig.expect("a loses 0..3 LeaseExpired");
    assert_eq!(rig.ack("a", 0, 1), SettleStatus::Ok);
    assert_eq!(rig.nack("a", 1, 0), SettleStatus::StaleLease);
    rig.open("b");
    rig.credit("b", 1);
    rig.expect("b 1");
    // Unordered: the work is done, so the second delivery is taken back.
    assert_eq!(rig.ack("a", 1, 3), SettleStatus::Ok);
    rig.expect("b loses 1 SettledElsewhere");
    assert_eq!(rig.floor(), 3);
}

#[test]
fn rule_3_a_late_ack_of_what_is_to_be_a_dead_letter_is_refused() {
    let mut rig = Rig::new(Settings { failures_max: 1, ..settings() });
    rig.append("..");
    rig.open("a");
    rig.credit("a", 2);
    rig.expect("a 0..2");
    rig.pass(Duration::from_secs(30));
    rig.expect("a loses 0..2 LeaseExpired; dead 0 FailuresMax 1; dead 1 FailuresMax 1");
    assert_eq!(rig.ack("a", 0, 2), SettleStatus::AlreadySettled);
    rig.delivery.dead_stored(&lane(), 0, rig.now);
    assert_eq!(rig.ack("a", 0, 1), SettleStatus::Ok);
    assert_eq!(rig.floor(), 1);
}

#[test]
fn rule_3_a_late_ack_is_refused_in_an_order_once_the_record_was_handed_on() {
    let order = Order::PartitionFifo;
    let mut rig = Rig::new(Settings { order, ..settings() });
    rig.append("..");
    rig.open("a");
    rig.credit("a", 1);
    rig.pass(Duration::from_secs(30));
    rig.open("b");
    rig.credit("b", 9);
    rig.expect("a 0; a loses 0 LeaseExpired; b 0");
    assert_eq!(rig.ack("a", 0, 1), SettleStatus::StaleLease);
    rig.pass(Duration::from_secs(30));
    rig.delivery.closed(rig.sessions["b"], rig.now);
    rig.expect("b 0");
    assert_eq!(rig.ack("a", 0, 1), SettleStatus::Ok);
    assert_eq!(rig.floor(), 1);
}

#[test]
fn rule_4_a_lost_session_keeps_its_records_for_the_grace_and_the_old_stream_is_fenced() {
    let mut rig = rig("..");
    rig.credit("a", 1);
    rig.expect("a 0");
    let old = rig.sessions["a"];
    rig.try_open("a", None, true, 10).unwrap();
    rig.expect("? gone Replaced");
    rig.delivery.credit(old, 100, 100_000, rig.now);
    rig.expect("");
    rig.credit("a", 1);
    rig.expect("a 0");
    assert_ne!(old.epoch(), rig.sessions["a"].epoch());
    // A session that ends for good returns its records at once, not after the lease.
    rig.lost("a");
    rig.pass(Duration::from_secs(2));
    rig.open("b");
    rig.credit("b", 9);
    rig.expect("b 0..2");
}

#[test]
fn rule_5_a_resumed_session_gets_what_it_missed_under_the_same_lease() {
    let mut rig = rig("...");
    rig.credit("a", 1);
    rig.expect("a 0");
    rig.credit("a", 3);
    rig.expect("a 1..3");
    let (epoch, first_seq) = rig.tokens[&("a", 0)];
    rig.pass(Duration::from_secs(28));
    rig.lost("a");
    rig.pass_ms(1_000);
    rig.ack("a", 2, 3);
    let point = ResumePoint { epoch, last_seq: first_seq };
    assert_eq!(rig.try_open("a", Some(point), true, 10).unwrap(), "resumed, 1");
    assert_eq!(rig.counts[&1], (1, 0));
    assert_eq!(rig.tokens[&("a", 1)].0, epoch);
    assert!(rig.sessions["a"].epoch() > epoch);
    // Credit goes on counting, and the lease ends when it would have.
    rig.credit("a", 3);
    rig.expect("");
    assert_eq!(rig.ack("a", 1, 2), SettleStatus::Ok);
    rig.pass_ms(999);
    rig.expect("");
    rig.pass_ms(1);
    rig.expect("a loses 0 LeaseExpired");
    // An epoch of somebody else resumes nothing.
    let point = ResumePoint { epoch: epoch - 1, last_seq: 0 };
    assert_eq!(rig.try_open("a", Some(point), true, 10).unwrap(), "new");
}

#[test]
fn rule_5_a_resumed_session_hears_what_credit_was_used_for_that_does_not_come_again() {
    let mut rig = rig("...");
    rig.credit("a", 1);
    rig.expect("a 0");
    let (epoch, _) = rig.tokens[&("a", 0)];
    rig.pass(Duration::from_secs(28));
    rig.credit("a", 3);
    rig.expect("a 1..3");
    rig.pass(Duration::from_secs(2));
    rig.expect("a loses 0 LeaseExpired");
    rig.lost("a");
    let point = ResumePoint { epoch, last_seq: 0 };
    assert_eq!(rig.try_open("a", Some(point), true, 10).unwrap(), "resumed, 1..3");
    assert_eq!(rig.used, Used { records: 1, bytes: 100 });
    rig.pass(Duration::from_secs(60));
    rig.expect("a loses 1..3 LeaseExpired");
    // All of it is used, and the session knows.
    rig.lost("a");
    let point = ResumePoint { epoch, last_seq: 0 };
    assert_eq!(rig.try_open("a", Some(point), true, 10).unwrap(), "resumed");
    assert_eq!(rig.used, Used { records: 3, bytes: 300 });
    rig.open("b");
    assert_eq!(rig.used, Used::default());
}

#[test]
fn a_stream_that_takes_over_a_session_of_calls_counts_its_credit_from_zero() {
    let mut rig = Rig::new(settings());
    rig.append("...");
    rig.ask("a", 2, "");
    rig.expect("a 0..2");
    rig.open("a");
    assert_eq!(rig.used, Used::default());
    rig.expect("");
    rig.credit("a", 1);
    rig.expect("a 2");
}

#[test]
fn rule_6_a_worn_out_record_is_parked_until_its_dead_letter_is_stored() {
    let mut rig = Rig::new(Settings { failures_max: 2, ..settings() });
    rig.append("...");
    rig.open("a");
    rig.credit("a", 100);
    rig.expect("a 0..3");
    rig.nack("a", 0, 0);
    rig.pass_ms(0);
    rig.expect("a 0");
    rig.nack("a", 0, 0);
    rig.expect("dead 0 FailuresMax 2");
    assert_eq!(
        rig.settle("a", Run::one(1), Outcome::Reject { reason: "bad".into() }),
        SettleStatus::Ok
    );
    rig.expect("dead 1 Rejected 0");
    rig.ack("a", 2, 3);
    assert_eq!(rig.floor(), 0);
    let retry_at = rig.now.elapsed + Duration::from_secs(5);
    rig.delivery.dead_failed(&lane(), 0, ("full".into(), retry_at), rig.now);
    rig.pass(Duration::from_secs(5));
    rig.expect("dead 0 FailuresMax 2");
    rig.delivery.dead_stored(&lane(), 1, rig.now);
    rig.expect("");
    assert_eq!(rig.floor(), 0);
    // After a crash before it was stored, it is asked for again.
    let mut rig = Rig::restarted(settings(), rig.image.clone(), rig.now);
    rig.append("...");
    rig.open("a");
    rig.credit("a", 100);
    rig.expect("dead 0 FailuresMax 2");
    rig.delivery.dead_stored(&lane(), 0, rig.now);
    rig.delivery.dead_stored(&lane(), 0, rig.now);
    rig.expect("");
    assert_eq!((rig.floor(), rig.image.dead_count), (3, 2));
}

#[test]
fn rule_7_a_lease_is_extended_for_the_records_named_up_to_its_limit() {
    let lease_max = Duration::from_secs(60);
    let mut rig = Rig::new(Settings { lease_max, ..settings() });
    rig.append("..");
    rig.open("a");
    rig.credit("a", 2);
    rig.expect("a 0..2");
    let extend = |secs| Outcome::Extend { lease: Duration::from_secs(secs) };
    rig.pass(Duration::from_secs(20));
    assert_eq!(rig.settle("a", Run::one(0), extend(30)), SettleStatus::Ok);
    rig.pass(Duration::from_secs(10));
    rig.expect("a loses 1 LeaseExpired");
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.settle("a", Run::one(0), extend(90)), SettleStatus::Ok);
    assert_eq!(rig.settle("a", Run::one(0), extend(90)), SettleStatus::LeaseLimit);
    rig.pass(Duration::from_secs(19));
    rig.expect("");
    rig.pass(Duration::from_secs(1));
    rig.expect("a loses 0 LeaseExpired");
}

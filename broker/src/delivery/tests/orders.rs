//! The orders of delivery, one table each.

use std::time::Duration;

use super::{
    Rig,
    rig::{lane, settings},
};
use crate::delivery::{
    Order, Outcome, Reason, RecordState, Run, Scanned, Settings, SettleItem, SettleResult,
    SettleStatus,
};

fn rig(order: Order, keys: &str) -> Rig {
    let mut rig = Rig::new(Settings { order, ..settings() });
    rig.append(keys);
    rig.open("a");
    rig.open("b");
    rig
}

#[test]
fn a_key_is_in_one_hand_and_its_records_follow_one_another() {
    let mut rig = rig(Order::KeyFifo, "xxyx.");
    rig.credit("a", 10);
    rig.expect("a 0 2 4");
    rig.credit("b", 10);
    rig.expect("");
    assert_eq!(rig.ack("a", 0, 1), SettleStatus::Ok);
    rig.expect("b 1");
    assert_eq!(rig.ack("a", 2, 3), SettleStatus::Ok);
    rig.expect("");
    assert_eq!(rig.ack("b", 1, 2), SettleStatus::Ok);
    assert!(rig.told().ends_with('3'));
}

#[test]
fn a_retry_blocks_its_key_only() {
    let mut rig = rig(Order::KeyFifo, "xxyyx");
    rig.credit("a", 10);
    rig.expect("a 0 2");
    rig.nack("a", 0, 1_000);
    rig.ack("a", 2, 3);
    rig.expect("a 3");
    rig.append("z");
    rig.expect("a 5");
    rig.pass_ms(1_000);
    rig.expect("a 0");
    rig.ack("a", 0, 1);
    rig.expect("a 1");
}

#[test]
fn a_dead_letter_is_out_of_the_order() {
    let mut rig = rig(Order::KeyFifo, "xx");
    rig.credit("a", 10);
    rig.expect("a 0");
    rig.settle("a", Run::one(0), Outcome::Reject { reason: "no".into() });
    rig.expect("a 1; dead 0 Rejected 0");
}

#[test]
fn a_pipeline_gives_the_next_records_of_a_key_to_its_holder_only() {
    let order = Order::KeyFifo;
    let mut rig = Rig::new(Settings { order, key_pipeline: 3, ..settings() });
    rig.append("xxxxxy");
    rig.open("a");
    rig.open("b");
    rig.credit("a", 2);
    rig.expect("a 0..2");
    rig.credit("b", 10);
    rig.expect("b 5");
    rig.credit("a", 10);
    rig.expect("a 2");
    // A failure takes the later ones back, uncounted.
    rig.nack("a", 1, 1_000);
    rig.expect("a loses 2 Order");
    rig.ack("a", 0, 1);
    rig.expect("");
    rig.pass_ms(1_000);
    assert!(rig.told().ends_with("1..4"));
    assert_eq!((rig.counts[&1], rig.counts[&2], rig.counts[&3]), ((2, 1), (2, 0), (1, 0)));
}

#[test]
fn a_range_given_back_fails_or_returns_as_a_whole() {
    let order = Order::KeyFifo;
    let mut rig = Rig::new(Settings { order, key_pipeline: 3, ..settings() });
    rig.append("xxx");
    rig.open("a");
    rig.credit("a", 3);
    rig.expect("a 0..3");
    assert_eq!(rig.release("a", 0, 3), SettleStatus::Ok);
    rig.credit("a", 6);
    rig.expect("a 0..3");
    let delay = Some(Duration::ZERO);
    let nack = Outcome::Nack { delay, reason: "".into() };
    assert_eq!(rig.settle("a", Run::new(0, 3), nack), SettleStatus::Ok);
    assert_eq!(rig.image.failures.len(), 0);
    rig.told();
    assert_eq!(rig.image.failures.len(), 3);
}

#[test]
fn what_comes_back_is_revoked_before_it_is_given_again() {
    let order = Order::KeyFifo;
    let mut rig = Rig::new(Settings { order, key_pipeline: 3, ..settings() });
    rig.append("xxx");
    rig.open("a");
    rig.credit("a", 10);
    rig.expect("a 0..3");
    assert_eq!(rig.release("a", 0, 1), SettleStatus::Ok);
    rig.expect("a loses 1..3 Order; a 0..3");
}

#[test]
fn an_expired_lease_counts_for_the_first_of_a_key_only() {
    let order = Order::KeyFifo;
    let mut rig = Rig::new(Settings { order, key_pipeline: 3, ..settings() });
    rig.append("xxxy");
    rig.open("a");
    rig.credit("a", 4);
    rig.expect("a 0..4");
    rig.pass(Duration::from_secs(30));
    rig.expect("a loses 0 LeaseExpired; a loses 1..3 Order; a loses 3 LeaseExpired");
    assert_eq!(rig.image.failures.keys().copied().collect::<Vec<_>>(), [0, 3]);
    // Nobody got any of them since: a late ack of all counts for all.
    assert_eq!(rig.ack("a", 0, 4), SettleStatus::Ok);
    rig.told();
    assert_eq!((rig.floor(), rig.image.failures.len()), (4, 0));
}

#[test]
fn a_crash_takes_late_acks_of_all_that_was_held() {
    let mut rig = rig(Order::Exclusive, "xyz");
    rig.credit("a", 3);
    rig.expect("a 0..3");
    for offset in 0..3 {
        rig.started("a", offset);
    }
    rig.lost("a");
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.ack("a", 0, 3), SettleStatus::Ok);
    assert_eq!(rig.floor(), 3);
}

#[test]
fn a_late_ack_is_refused_where_a_record_of_its_range_is_open() {
    let order = Order::KeyFifo;
    let mut rig = Rig::new(Settings { order, key_pipeline: 2, ..settings() });
    rig.append("xxy");
    rig.open("a");
    rig.credit("a", 1);
    rig.expect("a 0");
    rig.credit("a", 3);
    rig.expect("a 1..3");
    // 1 comes back because of 0, long before the lease ends by which 2 comes back.
    rig.nack("a", 0, 3_600_000);
    rig.expect("a loses 1 Order");
    rig.pass(Duration::from_secs(30));
    rig.expect("a loses 2 LeaseExpired");
    let (epoch, seq) = rig.tokens[&("a", 1)];
    let outcome = Outcome::Ack;
    let item = SettleItem { lane: lane(), run: Run::new(1, 3), epoch, seq, outcome };
    let result = rig.delivery.settle(Some(rig.sessions["a"]), &[item], rig.now);
    let refused = SettleResult { status: SettleStatus::StaleLease, run: Some(Run::one(1)) };
    assert_eq!(result, [refused]);
    rig.told();
    assert!(rig.image.is_settled(2) && !rig.image.is_settled(1));
}

#[test]
fn a_partition_goes_one_by_one() {
    let mut rig = rig(Order::PartitionFifo, "x.y");
    rig.credit("a", 10);
    rig.credit("b", 10);
    rig.expect("a 0");
    rig.nack("a", 0, 10);
    rig.expect("");
    rig.pass_ms(10);
    rig.expect("b 0");
    rig.ack("b", 0, 1);
    rig.expect("a 1");
    rig.ack("a", 1, 2);
    rig.expect("b 2");
}

#[test]
fn an_exclusive_session_gets_everything_and_another_takes_over_when_it_holds_nothing() {
    let mut rig = rig(Order::Exclusive, "x.y.");
    rig.credit("b", 10);
    rig.expect("");
    assert_eq!(rig.explain(), Reason::Standby { session: "a".into() });
    rig.credit("a", 3);
    rig.expect("a 0..3");
    rig.nack("a", 1, 1_000);
    rig.expect("a loses 2 Order");
    rig.delivery.drain(rig.sessions["a"], rig.now);
    rig.pass_ms(1_000);
    rig.expect("");
    rig.ack("a", 0, 1);
    rig.expect("b 1..4; a gone Drained");
}

#[test]
fn a_hot_key_that_is_stuck_fills_neither_memory_nor_the_lane() {
    let (order, key_open_max) = (Order::KeyFifo, 10);
    let mut rig = Rig::new(Settings { order, key_open_max, open_max: 100, ..settings() });
    rig.open("a");
    rig.credit("a", 1_000_000);
    rig.append("x");
    rig.expect("a 0");
    for _ in 0..500 {
        rig.append("xxxxyx");
        let free = rig.log.len() as u64 - 2;
        rig.expect(&format!("a {free}"));
        assert_eq!(rig.ack("a", free, free + 1), SettleStatus::Ok);
    }
    let counts = rig.delivery.counts(&lane()).unwrap();
    assert_eq!((counts.in_flight, counts.blocked, rig.floor()), (1, 2_500, 0));
    assert!(rig.delivery.peek(&lane(), 100, rig.now).len() <= 100);
    // Once it moves again, everything comes in order.
    let mut next = 0;
    while next < rig.log.len() as u64 {
        if rig.delivery.counts(&lane()).unwrap().in_flight == 0 {
            panic!("stuck at {next}: {:?}", rig.explain());
        }
        assert_eq!(rig.ack("a", next, next + 1), SettleStatus::Ok);
        let told = rig.told();
        let Some(given) = told.strip_prefix("a ") else { break };
        let given: u64 = given.parse().unwrap();
        assert!(given > next);
        next = given;
    }
    assert_eq!(rig.floor(), rig.log.len() as u64);
}

#[test]
fn blocked_records_leave_room_for_others() {
    let order = Order::KeyFifo;
    let mut rig = Rig::new(Settings { order, open_max: 20, ..settings() });
    rig.open("a");
    rig.credit("a", 1_000);
    rig.append(&"x".repeat(100));
    rig.expect("a 0");
    rig.append("y");
    rig.expect("a 100");
    rig.ack("a", 100, 101);
    for offset in 0..100 {
        assert_eq!(rig.ack("a", offset, offset + 1), SettleStatus::Ok, "{offset}");
        rig.told();
    }
    assert_eq!(rig.floor(), 101);
}

#[test]
fn what_is_put_off_and_vanishes_is_settled() {
    let (order, key_open_max) = (Order::KeyFifo, 4);
    let mut rig = Rig::new(Settings { order, key_open_max, ..settings() });
    rig.open("a");
    rig.credit("a", 1_000);
    rig.append(&"x".repeat(20));
    rig.told();
    // Compaction takes the records that were put off.
    rig.log[6..20].fill(None);
    for offset in 0..6 {
        rig.ack("a", offset, offset + 1);
        rig.told();
    }
    assert_eq!((rig.floor(), rig.explain()), (20, Reason::Nothing));
    rig.append("x");
    rig.expect("a 20");
}

#[test]
fn a_record_that_comes_due_behind_a_pass_is_not_put_off_for_ever() {
    let (order, key_open_max) = (Order::KeyFifo, 4);
    let mut rig = Rig::new(Settings { order, key_open_max, ..settings() });
    rig.append("xxxxxxxxx");
    rig.log[5].as_mut().unwrap().not_before_ms = Some(rig.now.wall_ms + 1_000);
    rig.open("a");
    rig.credit("a", 100);
    rig.expect("a 0");
    rig.scans_held = true;
    rig.ack("a", 0, 1);
    rig.expect("a 1");
    rig.ack("a", 1, 2);
    let scan = rig.delivery.next_scan().unwrap();
    assert_eq!((scan.from, scan.until), (4, 9));
    let records = vec![rig.log[4].unwrap(), rig.log[6].unwrap()];
    let scanned = Scanned { id: scan.id, from: 4, next: 7, records };
    rig.delivery.scanned(&lane(), &scanned, rig.now);
    rig.pass_ms(1_000);
    rig.scans_held = false;
    rig.scan();
    for offset in [2, 3, 4, 5, 6, 7, 8] {
        assert!(rig.told().ends_with(&offset.to_string()), "{offset}");
        assert_eq!(rig.ack("a", offset, offset + 1), SettleStatus::Ok);
    }
    assert_eq!(rig.floor(), 9);
}

#[test]
fn another_order_takes_over_when_nobody_is_there() {
    let mut rig = rig(Order::KeyFifo, "xxyx");
    rig.credit("a", 10);
    rig.expect("a 0 2");
    let unordered = std::sync::Arc::new(settings());
    assert!(rig.delivery.set_settings(unordered.clone(), rig.now).is_err());
    for id in ["a", "b"] {
        rig.delivery.closed(rig.sessions[id], rig.now);
    }
    rig.delivery.set_settings(unordered, rig.now).unwrap();
    rig.open("c");
    rig.credit("c", 10);
    rig.expect("c 0..4");
    let peeked = rig.delivery.peek(&lane(), 2, rig.now);
    assert_eq!(
        peeked.iter().map(|record| record.state).collect::<Vec<_>>(),
        [RecordState::InFlight; 2]
    );
}

//! Why nothing is delivered: one row for every reason.

use std::{sync::Arc, time::Duration};

use super::{
    Rig,
    rig::{lane, settings},
};
use crate::delivery::{
    Order, Outcome, Reason, Run, ScanFailure, ScanFailureCause, Scanned, Settings, Visible,
};

/// A subscription with session `a` in which `given` records are in its hands and `more` follow.
fn rig(settings: Settings, keys: &str, credit: u64) -> Rig {
    let mut rig = Rig::new(settings);
    rig.append(keys);
    rig.open("a");
    rig.credit("a", credit);
    rig.told();
    rig
}

fn wall(rig: &Rig, ms: i64) -> i64 {
    rig.now.wall_ms + ms
}

#[test]
fn nobody_is_there_or_wants_anything() {
    let mut rig = Rig::new(settings());
    rig.append("..");
    assert_eq!(rig.explain(), Reason::NoSession);
    rig.open("a");
    assert_eq!(rig.explain(), Reason::NoCredit);
    rig.credit("a", 1);
    assert_eq!(rig.explain(), Reason::NoCredit);
    rig.delivery.pause_session(rig.sessions["a"], rig.now);
    assert_eq!(rig.explain(), Reason::SessionsPaused);
    rig.delivery.resume_session(rig.sessions["a"], rig.now);
    rig.lost("a");
    assert_eq!(rig.explain(), Reason::SessionsPaused);
    rig.delivery.set_paused(true, rig.now);
    assert_eq!(rig.explain(), Reason::Paused);
    rig.delivery.set_state_failed();
    assert_eq!(rig.explain(), Reason::StateFailed);
    assert_eq!(
        rig.delivery.explain(&crate::delivery::LaneKey { partition: 9, ..lane() }, rig.now),
        None
    );
}

#[test]
fn a_session_holds_all_it_may_or_its_bytes_do_not_suffice() {
    let mut rig = Rig::new(settings());
    rig.append("...");
    rig.try_open("a", None, true, 2).unwrap();
    rig.credit("a", 9);
    rig.expect("a 0..2");
    assert_eq!(rig.explain(), Reason::SessionLimit);
    let mut rig = Rig::new(settings());
    rig.append("...");
    rig.open("a");
    rig.credit_bytes("a", 9, 150);
    rig.expect("a 0");
    assert_eq!(rig.explain(), Reason::NoCredit);
    // A record larger than all credit goes to empty hands.
    rig.ack("a", 0, 1);
    rig.expect("a 1");
}

#[test]
fn everything_is_settled_or_in_hands_or_not_visible() {
    let mut rig = rig(settings(), "...", 9);
    assert_eq!(rig.explain(), Reason::Nothing);
    let visible = Visible { log_start: 0, high_watermark: 3, log_end: 5 };
    rig.delivery.set_visible(&lane(), visible, rig.now);
    assert_eq!(rig.explain(), Reason::NotVisible);
}

#[test]
fn the_lane_holds_all_it_may() {
    let rig = rig(Settings { open_max: 2, ..settings() }, "....", 9);
    assert_eq!(rig.explain(), Reason::OpenLimit);
}

#[test]
fn what_is_settled_has_too_many_holes() {
    let open_max = 100_000;
    let mut rig = Rig::new(Settings { ack_state_bytes_max: 900, open_max, ..settings() });
    rig.try_open("a", None, true, open_max).unwrap();
    rig.credit("a", 100_000);
    for _ in 0..100 {
        rig.append(&".".repeat(100));
        rig.told();
        let last = rig.log.len() as u64;
        rig.ack("a", last - 1, last);
    }
    assert_eq!(rig.explain(), Reason::AckStateLimit);
    let lag = rig.delivery.counts(&lane()).unwrap().lag;
    assert!(lag < 9_990, "{lag}");
    // Settling the records that are in the way frees it.
    for offset in 0..rig.log.len() as u64 {
        rig.ack("a", offset, offset + 1);
        rig.told();
    }
    assert_eq!((rig.explain(), rig.floor()), (Reason::Nothing, 10_000));
}

#[test]
fn a_key_is_held_up_by_a_session_or_by_a_retry() {
    let mut rig = rig(Settings { order: Order::KeyFifo, ..settings() }, "xx", 9);
    let session: Option<Arc<str>> = Some("a".into());
    let until_ms = wall(&rig, 30_000);
    assert_eq!(rig.explain(), Reason::KeyBlocked { offset: 0, session, until_ms });
    rig.nack("a", 0, 700);
    let until_ms = wall(&rig, 700);
    assert_eq!(rig.explain(), Reason::KeyBlocked { offset: 0, session: None, until_ms });
}

#[test]
fn what_is_left_waits_for_its_next_try() {
    let mut rig = rig(settings(), "..", 9);
    rig.nack("a", 1, 700);
    rig.nack("a", 0, 800);
    let until_ms = wall(&rig, 700);
    assert_eq!(rig.explain(), Reason::RetryWait { offset: 1, until_ms });
}

#[test]
fn what_is_left_waits_for_its_time() {
    for ahead in [5_000, 50_000_000] {
        let mut rig = rig(settings(), "-", 9);
        rig.append(".");
        let due_ms = wall(&rig, ahead);
        rig.log[1].as_mut().unwrap().not_before_ms = Some(due_ms);
        let mut rig = Rig { now: rig.now, log: rig.log, ..Rig::new(settings()) };
        rig.open("a");
        rig.credit("a", 9);
        rig.show();
        rig.told();
        let Reason::Scheduled { offset: 1, until_ms } = rig.explain() else {
            panic!("{:?}", rig.explain());
        };
        assert!(until_ms <= due_ms && due_ms - until_ms < 3_600_000);
        rig.pass_ms(u64::try_from(ahead - 1).unwrap());
        rig.expect("");
        rig.pass_ms(1);
        rig.expect("a 1");
    }
}

#[test]
fn too_many_wait_for_their_time() {
    let mut rig = Rig::new(Settings { scheduled_bytes_max: 64, ..settings() });
    rig.append("....");
    let due_ms = wall(&rig, 5_000);
    rig.log.iter_mut().flatten().for_each(|found| found.not_before_ms = Some(due_ms));
    rig.open("a");
    rig.credit("a", 9);
    rig.append("..");
    // They came in one read, so the limit is seen behind them.
    rig.append("..");
    assert_eq!(rig.explain(), Reason::ScheduledLimit);
    rig.pass_ms(5_000);
    rig.told();
    assert_eq!(rig.explain(), Reason::Nothing);
}

#[test]
fn records_are_read_fail_to_be_read_or_do_not_match() {
    let mut rig = Rig::new(settings());
    rig.open("a");
    rig.credit("a", 9);
    let visible = Visible { log_start: 0, high_watermark: 5_000, log_end: 5_000 };
    rig.delivery.set_visible(&lane(), visible, rig.now);
    assert_eq!(rig.explain(), Reason::Reading);
    let scan = rig.delivery.next_scan().unwrap();
    assert_eq!(rig.delivery.next_scan(), None);
    let none = Scanned { id: scan.id, from: 0, next: 2_000, records: Vec::new() };
    rig.delivery.scanned(&lane(), &none, rig.now);
    assert_eq!((rig.explain(), rig.floor()), (Reason::Filter, 2_000));
    let scan = rig.delivery.next_scan().unwrap();
    let retry_at = rig.now.elapsed + Duration::from_secs(1);
    let error: Arc<str> = "damaged".into();
    let failure =
        ScanFailure { cause: ScanFailureCause::Partition, error: error.clone(), retry_at };
    rig.delivery.scan_failed(&lane(), scan.id, failure, rig.now);
    let until_ms = wall(&rig, 1_000);
    assert_eq!(rig.explain(), Reason::PartitionError { error, until_ms: Some(until_ms) });
    assert_eq!(rig.delivery.next_scan(), None);
    // An answer nobody waits for any more changes nothing.
    rig.delivery.scanned(
        &lane(),
        &Scanned { id: scan.id, from: 2_000, next: 3_000, records: Vec::new() },
        rig.now,
    );
    assert_eq!(rig.floor(), 2_000);
    rig.now.elapsed = retry_at;
    rig.delivery.tick(rig.now);
    let scan = rig.delivery.next_scan().unwrap();
    let retry_at = rig.now.elapsed + Duration::from_secs(1);
    let error: Arc<str> = "too much at once".into();
    let failure = ScanFailure { cause: ScanFailureCause::Quota, error: error.clone(), retry_at };
    rig.delivery.scan_failed(&lane(), scan.id, failure, rig.now);
    let until_ms = wall(&rig, 1_000);
    assert_eq!(rig.explain(), Reason::Quota { error, until_ms });
}

#[test]
fn a_dead_letter_cannot_be_written() {
    let mut rig = rig(Settings { open_max: 1, ..settings() }, "..", 9);
    rig.settle("a", Run::one(0), Outcome::Reject { reason: "no".into() });
    assert_eq!(rig.explain(), Reason::OpenLimit);
    let retry_at = rig.now.elapsed + Duration::from_secs(1);
    rig.delivery.dead_failed(&lane(), 0, ("full".into(), retry_at), rig.now);
    assert_eq!(rig.explain(), Reason::DeadLetterBlocked { offset: 0, error: "full".into() });
    rig.delivery.dead_stored(&lane(), 0, rig.now);
    rig.scan();
    rig.expect("a 1; dead 0 Rejected 0");
}

#[test]
fn a_suspect_is_handed_out_alone() {
    let mut rig = rig(settings(), "..", 2);
    for id in ["b", "c"] {
        rig.release("a", 0, 1);
        rig.try_open(id, None, true, 1).unwrap();
        rig.credit(id, 1);
        rig.told();
        rig.started(id, 0);
        rig.lost(id);
        rig.pass(Duration::from_secs(2));
    }
    rig.credit("a", 9);
    rig.told();
    let session: Option<Arc<str>> = Some("a".into());
    assert_eq!(rig.explain(), Reason::Isolated { offset: 0, session });
}

#[test]
fn a_session_hears_its_own_reason_first() {
    let mut rig = rig(Settings { order: Order::Exclusive, ..settings() }, "...", 1);
    rig.open("b");
    rig.credit("b", 9);
    let reason = |rig: &Rig, id| rig.delivery.idle_reason(rig.sessions[id], rig.now);
    assert_eq!(reason(&rig, "b"), Reason::Standby { session: "a".into() });
    assert_eq!(reason(&rig, "a"), Reason::NoCredit);
    rig.credit("a", 9);
    rig.told();
    rig.ack("a", 0, 3);
    assert_eq!(reason(&rig, "a"), Reason::Nothing);
}

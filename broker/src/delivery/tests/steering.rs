//! Operators, retention, calls instead of streams, and restarts.

use std::{sync::Arc, time::Duration};

use super::{
    Rig,
    rig::{lane, settings},
};
use crate::delivery::{
    Ask, Change, LaneImage, LaneKey, Open, OpenError, Order, Outcome, Reason, RecordState, Run,
    Settings, SettleStatus, Visible,
};

fn rig(keys: &str) -> Rig {
    let mut rig = Rig::new(settings());
    rig.append(keys);
    rig.open("a");
    rig
}

#[test]
fn a_session_that_is_never_read_is_given_only_so_much() {
    let mut rig =
        Rig::new(Settings { ack_wait: Duration::from_secs(1), failures_max: 0, ..settings() });
    rig.unread = true;
    rig.try_open("deaf", None, false, 1_000_000).unwrap();
    rig.credit("deaf", u64::MAX >> 2);
    let (mut deliveries, mut records) = (0, 0);
    for round in 0..200 {
        rig.append(&".".repeat(if round < 20 { 1_000 } else { 1 }));
        rig.pass(Duration::from_secs(2));
        for (_, handout) in rig.delivery.take_effects().handouts() {
            deliveries += 1;
            records += handout.count();
        }
    }
    assert!(deliveries <= 64 && records <= 2 * 4_096, "{deliveries} of {records} records");
    assert_eq!(rig.explain(), Reason::SessionLimit);
    // It read a little, and another one is not held up.
    let deaf = rig.sessions["deaf"];
    rig.delivery.sent(deaf, 1, 4_096, rig.now);
    assert_ne!(rig.told(), "");
    rig.unread = false;
    rig.open("other");
    rig.credit("other", u64::MAX >> 2);
    assert!(rig.told().contains("other "));
    // On a new stream nothing waits.
    rig.try_open("deaf", None, false, 1_000_000).unwrap();
    rig.credit("deaf", u64::MAX >> 2);
    rig.pass(Duration::from_secs(2));
    assert!(rig.told().contains("deaf "));
}

#[test]
fn a_session_that_is_never_read_is_given_only_so_much_of_many_partitions_together() {
    for records in [1, 1_000] {
        let mut rig = Rig::new(settings());
        rig.unread = true;
        rig.try_open("deaf", None, false, 1_000_000).unwrap();
        rig.append(&".".repeat(records));
        let end = records as u64;
        let visible = Visible { log_start: 0, high_watermark: end, log_end: end };
        for partition in 1..200 {
            let key = LaneKey::new(lane().topic_id, partition);
            rig.delivery.add_lane(key, LaneImage::at(0), rig.now);
            rig.delivery.set_visible(&key, visible, rig.now);
        }
        rig.scan();
        assert!(rig.delivery.take_effects().handouts().next().is_none());
        // Until here it had no credit: all that it is given, it is given at once.
        rig.credit("deaf", u64::MAX >> 2);
        let effects = rig.delivery.take_effects();
        let given: Vec<u64> = effects.handouts().map(|(_, handout)| handout.count()).collect();
        let sum: u64 = given.iter().sum();
        assert!((1..=64).contains(&given.len()), "{} deliveries", given.len());
        assert!(sum <= 4_096 + 64, "{sum} records");
    }
}

#[test]
fn a_session_that_is_never_read_does_not_keep_the_place_of_the_only_one() {
    let order = Order::Exclusive;
    let mut rig = Rig::new(Settings { order, ack_wait: Duration::from_secs(1), ..settings() });
    rig.unread = true;
    rig.open("deaf");
    rig.credit("deaf", 1_000);
    rig.open("b");
    rig.credit("b", 1_000);
    for _ in 0..64 {
        rig.append(".");
    }
    assert!(rig.told().starts_with("deaf 0; deaf 1;"));
    rig.pass(Duration::from_secs(2));
    assert!(rig.told().ends_with("b 0..64"));
}

#[test]
fn a_burst_is_shared_and_one_alone_gets_everything() {
    let mut rig = rig("");
    rig.open("b");
    rig.credit("a", 1_000);
    rig.credit("b", 1_000);
    rig.append(&".".repeat(256));
    rig.expect("a 64..128 192..256; b 0..64 128..192");
    rig.delivery.drain(rig.sessions["b"], rig.now);
    rig.append(&".".repeat(300));
    rig.expect("a 256..556");
}

#[test]
fn a_call_gets_records_once_and_its_repetition_the_same_ones() {
    let mut rig = Rig::new(settings());
    rig.append(".....");
    assert_eq!(rig.ask("u", 2, "one"), "");
    rig.expect("u 0..2");
    let tokens = rig.tokens.clone();
    rig.append(".");
    rig.expect("");
    assert_eq!(rig.ask("u", 2, "one"), "0..2");
    assert_eq!(rig.tokens, tokens);
    rig.expect("");
    rig.ack("u", 0, 1);
    assert_eq!(rig.ask("u", 2, "one"), "1");
    assert_eq!(rig.ask("u", 9, "two"), "");
    rig.expect("u 2..6");
    assert_eq!(rig.ack("u", 1, 2), SettleStatus::Ok);
    // A waiting call that ends gets nothing that comes later.
    assert_eq!(rig.ask("u", 9, "three"), "");
    rig.delivery.stop_asking(rig.sessions["u"], rig.now);
    rig.append(".");
    rig.expect("");
    // A stream takes over what the calls got, and calls cannot while it is open.
    rig.open("u");
    assert_eq!(rig.ack("u", 2, 6), SettleStatus::Ok);
    rig.credit("u", 99);
    rig.expect("u 6");
    let ask = Ask {
        id: "u".into(),
        client_id: "".into(),
        host: "".into(),
        records_max: 1,
        bytes_max: 1,
        attempt: "".into(),
    };
    let refused = rig.delivery.receive(ask, rig.now).unwrap_err();
    assert_eq!(refused, OpenError::StreamOpen { id: "u".into() });
}

#[test]
fn push_calls_and_push_again_lose_and_repeat_nothing() {
    let mut rig = rig("......");
    rig.credit("a", 2);
    rig.expect("a 0..2");
    rig.ack("a", 0, 2);
    rig.delivery.closed(rig.sessions["a"], rig.now);
    rig.ask("u", 2, "");
    rig.expect("u 2..4");
    rig.ack("u", 2, 4);
    rig.open("a");
    rig.credit("a", 9);
    rig.expect("a 4..6");
    rig.ack("a", 4, 6);
    assert_eq!(rig.floor(), 6);
}

#[test]
fn an_idle_caller_is_forgotten() {
    let mut rig = Rig::new(settings());
    rig.append(".");
    rig.ask("u", 1, "");
    rig.expect("u 0");
    rig.pass(Duration::from_secs(200));
    assert_eq!(rig.delivery.session_count(), 0);
    assert_eq!(rig.delivery.next_deadline(), None);
}

#[test]
fn a_seek_revokes_and_delivers_again() {
    let mut rig = rig("....");
    rig.credit("a", 3);
    rig.expect("a 0..3");
    rig.ack("a", 0, 2);
    rig.nack("a", 2, 100);
    rig.credit("a", 4);
    rig.expect("a 3");
    rig.delivery.seek(&lane(), 1, rig.now);
    rig.expect("a loses 3 Seek");
    assert_eq!(rig.ack("a", 3, 4), SettleStatus::NotDelivered);
    rig.scan();
    rig.credit("a", 99);
    rig.expect("a 1..4");
    assert_eq!((rig.counts[&2], rig.image.floor, rig.image.failures.len()), ((1, 0), 1, 0));
    rig.delivery.seek(&lane(), 4, rig.now);
    rig.expect("a loses 1..4 Seek");
    assert_eq!((rig.floor(), rig.image.clone()), (4, LaneImage::at(4)));
}

#[test]
fn a_stored_position_settles_what_nobody_holds() {
    let mut rig = rig("......");
    rig.credit("a", 2);
    rig.expect("a 0..2");
    rig.nack("a", 0, 9_000);
    assert_eq!(rig.delivery.advance(&lane(), 4, rig.now), Some(1));
    rig.ack("a", 1, 2);
    assert_eq!(rig.floor(), 4);
    rig.credit("a", 9);
    rig.expect("a 4..6");
    assert_eq!(rig.delivery.advance(&lane(), 2, rig.now), Some(4));
    assert_eq!(rig.delivery.advance(&lane(), 99, rig.now), Some(4));
}

#[test]
fn what_retention_takes_is_lost_by_its_holder_and_settled() {
    let mut rig = rig("......");
    rig.credit("a", 4);
    rig.expect("a 0..4");
    rig.nack("a", 0, 9_000);
    rig.settle("a", Run::one(1), Outcome::Reject { reason: "".into() });
    rig.log_start = 3;
    rig.show();
    rig.expect("a lost 2; dead 1 Rejected 0");
    assert_eq!((rig.floor(), rig.image.dead.len(), rig.image.failures.len()), (3, 0, 0));
    rig.delivery.dead_stored(&lane(), 1, rig.now);
    assert_eq!(rig.ack("a", 2, 3), SettleStatus::Ok);
    rig.credit("a", 9);
    rig.expect("a 4..6");
    rig.delivery.remove_lane(&lane(), rig.now);
    rig.expect("a lost 3..6");
    assert_eq!(rig.delivery.sessions()[0].in_flight, 0);
}

/// As when a compaction took it.
#[test]
fn a_record_that_left_the_log_before_its_dead_letter_is_settled_and_not_counted_as_dead() {
    let mut rig = rig("..");
    rig.credit("a", 2);
    rig.expect("a 0..2");
    for (offset, is_written) in [(0, false), (1, true)] {
        rig.settle("a", Run::one(offset), Outcome::Reject { reason: "".into() });
        rig.expect(&format!("dead {offset} Rejected 0"));
        match is_written {
            true => rig.delivery.dead_stored(&lane(), offset, rig.now),
            false => rig.delivery.dead_lost(&lane(), offset, rig.now),
        }
        rig.expect("");
        let counts = rig.delivery.counts(&lane()).unwrap();
        assert_eq!((counts.dead, counts.dead_pending), (u64::from(is_written), 0));
        assert_eq!((rig.floor(), rig.image.floor), (offset + 1, offset + 1));
        assert_eq!((rig.image.dead.len(), rig.image.dead_count), (0, u64::from(is_written)));
    }
}

#[test]
fn settings_change_while_sessions_are_open() {
    let mut rig = rig("..");
    rig.credit("a", 9);
    rig.expect("a 0..2");
    let changed = Settings { failures_max: 1, ack_wait: Duration::from_secs(5), ..settings() };
    rig.delivery.set_settings(Arc::new(changed), rig.now).unwrap();
    rig.nack("a", 0, 0);
    rig.expect("dead 0 FailuresMax 1");
    rig.release("a", 1, 2);
    rig.expect("a 1");
    rig.pass(Duration::from_secs(5));
    rig.expect("a loses 1 LeaseExpired; dead 1 FailuresMax 1");
}

#[test]
fn a_scheduled_record_is_cancelled_while_it_waits() {
    for ahead in [5_000, 50_000_000] {
        let mut rig = rig("..");
        let due_ms = rig.now.wall_ms + ahead;
        rig.log[0].as_mut().unwrap().not_before_ms = Some(due_ms);
        rig.delivery.seek(&lane(), 0, rig.now);
        rig.scan();
        rig.credit("a", 9);
        rig.expect("a 1");
        let peeked = rig.delivery.peek(&lane(), 9, rig.now);
        assert_eq!(peeked[0].state, RecordState::Scheduled);
        assert_eq!(rig.delivery.counts(&lane()).unwrap().scheduled, 1);
        assert!(rig.delivery.cancel(&lane(), 0, rig.now));
        assert_eq!(rig.delivery.counts(&lane()).unwrap().scheduled, 0);
        assert!(!rig.delivery.cancel(&lane(), 0, rig.now));
        assert!(!rig.delivery.cancel(&lane(), 1, rig.now));
        rig.ack("a", 1, 2);
        rig.pass_ms(u64::try_from(ahead).unwrap());
        rig.expect("");
        assert_eq!(rig.floor(), 2);
    }
}

#[test]
fn a_restart_skips_long_settled_stretches_and_reads_the_gaps() {
    let mut image = LaneImage::at(0);
    for (start, end) in [(1, 5_000), (5_001, 5_003), (5_004, 9_000)] {
        image.apply(&Change::Done { lane: lane(), run: Run::new(start, end) });
    }
    let mut rig = Rig::restarted(settings(), image, Rig::new(settings()).now);
    rig.open("a");
    rig.credit("a", 99);
    rig.append(&".".repeat(9_002));
    rig.expect("a 0; a 5000 5003; a 9000..9002");
}

#[test]
fn there_is_a_limit_of_sessions() {
    let mut rig = Rig::new(settings());
    let open = |number: usize| Open {
        id: number.to_string().into(),
        client_id: "".into(),
        host: "".into(),
        in_flight_max: 1,
        in_flight_bytes_max: u64::MAX,
        reports_started: true,
        resume: None,
    };
    for number in 0..crate::delivery::open::SESSIONS_MAX {
        rig.delivery.open_session(open(number), rig.now).unwrap();
    }
    let refused = rig.delivery.open_session(open(usize::MAX), rig.now).unwrap_err();
    assert_eq!(refused, OpenError::TooManySessions);
    rig.delivery.open_session(open(0), rig.now).unwrap();
}

#[test]
fn a_million_open_records_take_less_than_64_bytes_each() {
    let mut rig = Rig::new(Settings { open_max: 1_000_000, ..settings() });
    rig.try_open("a", None, true, u32::MAX).unwrap();
    rig.credit("a", u64::MAX >> 1);
    for _ in 0..100 {
        rig.append(&".".repeat(10_000));
    }
    while !rig.told().is_empty() {
        rig.scan();
    }
    assert_eq!(rig.delivery.counts(&lane()).unwrap().in_flight, 1_000_000);
    let bytes = rig.delivery.open_bytes(&lane()).unwrap();
    assert!(bytes < 64_000_000, "{bytes}");
    // With holes as well.
    for start in (0..1_000_000).step_by(2) {
        rig.ack("a", start, start + 1);
    }
    let bytes = rig.delivery.open_bytes(&lane()).unwrap();
    assert!(bytes < 32_000_000, "{bytes}");
}

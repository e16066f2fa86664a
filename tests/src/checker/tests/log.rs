//! Senders, readers and final logs.

use std::time::Duration;

use super::{story::AT, *};
use crate::history::Part;

#[test]
fn lost_writes_are_told_by_their_place() {
    let mut story = Story::new();
    for counter in 1..=5 {
        story.sent(1, &[counter], counter - 1);
    }
    story.view("first", 1, &[(1, 2)]);
    check_story(&story, &[Anomaly::LostWrite]);
    let counts = check(&story.events, &Rules::default()).counts;
    assert_eq!((counts.lost, counts.lost_where), (4, [1, 0, 3]));
    story.view("first", 1, &[(1, 2), (2, 3), (4, 5)]);
    let findings = check(&story.events, &Rules::default());
    assert_eq!(findings.counts.lost_where, [1, 1, 0]);
    assert_eq!(findings.count(Anomaly::PollSkip), 1, "the hole");
}

#[test]
fn a_flushed_record_outlives_power_and_one_acknowledged_during_the_cut_may_be_gone() {
    let mut story = Story::new();
    story.sent(1, &[1], 0);
    story.send_begins(1, &[2]);
    story.send_begins(2, &[3]);
    story.fault("power-cut");
    story.send_ok(1, &[2], 1);
    story.after_ms(50).fault("start");
    story.send_ok(2, &[3], 2);
    let mut lossy = story.clone();
    story.views(&[(0, 1)]);
    check_story(&story, &[]);
    lossy.views(&[]);
    check_story(&lossy, &[Anomaly::LostWrite]);
}

#[test]
fn an_unflushed_end_may_go_with_the_power_and_not_with_a_kill() {
    let mut story = Story::of(Level::Os);
    for counter in 1..=3 {
        story.sent(1, &[counter], counter - 1);
    }
    story.polled(5, 0, &[(0, 1), (1, 2), (2, 3)]);
    let mut killed = story.clone();
    story.power_cycle();
    let mut middle = story.clone();
    story.sent(1, &[4], 1);
    story.views(&[(0, 1), (1, 4)]);
    check_by(&story, &lazy(Level::Os), &[]);
    let counts = check(&story.events, &lazy(Level::Os)).counts;
    assert_eq!((counts.lost, counts.lost_allowed), (2, 2));

    middle.views(&[(0, 1), (2, 3)]);
    check_by(&middle, &lazy(Level::Os), &[Anomaly::LostWrite, Anomaly::PollSkip]);

    killed.fault("kill");
    killed.fault("start");
    killed.views(&[(0, 1)]);
    check_by(&killed, &lazy(Level::Os), &[Anomaly::LostWrite]);
}

#[test]
fn a_record_that_was_seen_unacknowledged_and_sent_again_does_not_make_the_lost_ones_before_it_a_hole()
 {
    let mut story = Story::of(Level::Os);
    story.sent(1, &[1], 0);
    story.sent(1, &[2], 1);
    story.send_begins(2, &[3]);
    story.polled(5, 0, &[(0, 1), (1, 2), (2, 3)]);
    story.power_cycle();
    story.sent(1, &[4], 1);
    // Only the last answer tells sender 2 that it need not send it once more.
    for again in [2, 3] {
        let mut story = story.clone();
        if again == 3 {
            story.sent(1, &[5], 2);
        }
        story.send_ok(2, &[3], again);
        let log: &[_] = if again == 2 { &[(2, 3)] } else { &[(2, 5), (3, 3)] };
        story.views(&[&[(0, 1), (1, 4)], log].concat());
        check_by(&story, &lazy(Level::Os), &[]);
    }
}

#[test]
fn a_hole_below_what_outlived_the_cut_is_none_that_power_makes() {
    let mut story = Story::of(Level::Os);
    story.send_info(2, &[9]);
    for counter in 1..=3 {
        story.sent(1, &[counter], counter - 1);
    }
    story.power_cycle();
    story.sent(1, &[4], 3);
    story.views(&[(0, 1), (1, 9), (2, 3), (3, 4)]);
    check_by(&story, &lazy(Level::Os), &[Anomaly::LostWrite]);
}

#[test]
fn an_interval_bounds_the_age_of_what_power_takes() {
    let tell = |waited_ms| {
        let mut story = Story::of(Level::Interval);
        story.sent(1, &[1], 0);
        story.after_ms(waited_ms).power_cycle();
        story.views(&[]);
        story
    };
    let mut rules = lazy(Level::Interval);
    rules.interval_max = Some(Duration::from_millis(100));
    check_by(&tell(90), &rules, &[]);
    check_by(&tell(110), &rules, &[Anomaly::LostWrite]);
}

#[test]
fn unseen() {
    let mut story = Story::new();
    story.sent(1, &[1], 0);
    story.sent(1, &[2], 1);
    story.polled_to(5, 0, &[(0, 1)], Some(2));
    story.views(&[(0, 1), (1, 2)]);
    check_story(&story, &[]);
    let rules = Rules { readers_drain: true, ..Rules::default() };
    check_by(&story, &rules, &[Anomaly::Unseen]);
}

#[test]
fn vanish() {
    let mut story = Story::new();
    story.send_info(1, &[1]);
    story.polled(5, 0, &[(0, 1)]);
    story.power_cycle();
    story.views(&[]);
    check_story(&story, &[Anomaly::Vanish]);
    check_by(&story, &lazy(Level::Interval), &[]);
}

#[test]
fn inconsistent_offset() {
    let mut story = Story::new();
    story.send_info(1, &[1]);
    story.send_info(2, &[2]);
    story.polled(5, 0, &[(0, 1)]);
    story.polled(6, 0, &[(0, 2)]);
    check_story(&story, &[Anomaly::InconsistentOffset]);
}

#[test]
fn an_offset_names_another_record_after_power_took_the_unflushed_one() {
    let mut story = Story::of(Level::Os);
    story.sent(1, &[1], 0);
    story.power_cycle();
    story.sent(1, &[2], 0);
    story.views(&[(0, 2)]);
    check_by(&story, &lazy(Level::Os), &[]);
}

#[test]
fn duplicate() {
    let mut story = Story::new();
    story.send_info(1, &[1]);
    story.views(&[(0, 1), (1, 1)]);
    check_story(&story, &[Anomaly::Duplicate]);
    let rules = Rules { idempotent: false, ..Rules::default() };
    check_by(&story, &rules, &[]);
    assert_eq!(check(&story.events, &rules).counts.duplicated, 1);
}

#[test]
fn aborted_read() {
    let mut story = Story::new();
    story.send_fails(1, &[1]);
    story.polled(5, 0, &[(0, 1)]);
    check_story(&story, &[Anomaly::AbortedRead]);
}

#[test]
fn unexpected() {
    let mut story = Story::new();
    story.polled(5, 0, &[(0, 77)]);
    check_story(&story, &[Anomaly::Unexpected]);
    assert_eq!(check(&story.events, &Rules::default()).counts.unexpected, 1);
}

#[test]
fn wrong_bytes() {
    let mut story = Story::new();
    story.polled(5, 0, &[(0, Value::WRONG.0)]);
    check_story(&story, &[Anomaly::WrongBytes]);
}

#[test]
fn nonmonotonic_send() {
    let mut story = Story::new();
    story.sent(1, &[1], 1);
    story.sent(1, &[2], 0);
    story.views(&[(0, 2), (1, 1)]);
    check_story(&story, &[Anomaly::NonmonotonicSend]);
}

#[test]
fn sends_that_overlap_stand_in_the_order_in_which_they_were_begun() {
    let tell = |offsets: [u64; 2], log: &[(u64, u64)]| {
        let mut story = Story::new();
        story.send_begins(1, &[1]);
        story.send_begins(1, &[2]);
        story.send_ok(1, &[2], offsets[1]);
        story.send_ok(1, &[1], offsets[0]);
        story.views(log);
        story
    };
    check_story(&tell([0, 1], &[(0, 1), (1, 2)]), &[]);
    let swapped = tell([1, 0], &[(0, 2), (1, 1)]);
    check_story(&swapped, &[Anomaly::NonmonotonicSend]);
    let rules = Rules { idempotent: false, ..Rules::default() };
    check_by(&swapped, &rules, &[]);
}

#[test]
fn realtime_order() {
    let mut story = Story::new();
    story.sent(1, &[1], 1);
    story.sent(2, &[2], 0);
    story.views(&[(0, 2), (1, 1)]);
    check_story(&story, &[Anomaly::RealtimeOrder]);
    let mut overlapping = Story::new();
    overlapping.send_begins(2, &[2]);
    overlapping.sent(1, &[1], 1);
    overlapping.send_ok(2, &[2], 0);
    overlapping.views(&[(0, 2), (1, 1)]);
    check_story(&overlapping, &[]);
}

#[test]
fn a_batch_is_whole_and_together() {
    let mut part = Story::new();
    part.send_info(1, &[1, 2, 3]);
    part.views(&[(0, 1), (1, 2)]);
    check_story(&part, &[Anomaly::IntSendSkip]);
    let mut mixed = Story::new();
    mixed.send_info(1, &[1, 2]);
    mixed.send_info(2, &[3]);
    mixed.views(&[(0, 1), (1, 3), (2, 2)]);
    check_story(&mixed, &[Anomaly::IntSendSkip]);
}

#[test]
fn poll_skip_within_a_poll_and_between_two() {
    let mut within = Story::new();
    within.sent(1, &[1, 2, 3], 0);
    within.polled(5, 0, &[(0, 1), (2, 3)]);
    check_story(&within, &[Anomaly::PollSkip]);
    let mut between = Story::new();
    between.sent(1, &[1, 2, 3], 0);
    between.polled_to(5, 0, &[(0, 1)], Some(3));
    between.polled(5, 2, &[(2, 3)]);
    check_story(&between, &[Anomaly::PollSkip]);
}

#[test]
fn nonmonotonic_poll_unless_the_reader_went_back_itself() {
    let tell = |seeks: bool| {
        let mut story = Story::new();
        story.sent(1, &[1, 2], 0);
        story.polled(5, 0, &[(0, 1), (1, 2)]);
        if seeks {
            story.push(5, Phase::Ok, Operation::Seek { at: AT, to: 0 });
        }
        story.polled_to(5, 0, &[(0, 1)], Some(2));
        story
    };
    check_story(&tell(false), &[Anomaly::NonmonotonicPoll]);
    check_story(&tell(true), &[]);
}

#[test]
fn stale_end() {
    let mut story = Story::new();
    story.sent(1, &[1], 0);
    story.polled_to(5, 0, &[], None);
    check_story(&story, &[Anomaly::StaleEnd]);
    let mut told = Story::new();
    told.sent(1, &[1, 2], 0);
    told.polled_to(5, 0, &[(0, 1)], Some(1));
    check_story(&told, &[Anomaly::StaleEnd]);
}

#[test]
fn wrong_level() {
    let mut story = Story::new();
    story.send_begins(1, &[1]);
    story.push(
        1,
        Phase::Ok,
        Operation::Send {
            at: AT,
            values: vec![Value(1)],
            keys: Vec::new(),
            level: Level::Fsync,
            offset: Some(0),
            reached: Some(Level::Os),
        },
    );
    check_story(&story, &[Anomaly::WrongLevel]);
}

#[test]
fn views_differ() {
    let mut story = Story::new();
    story.sent(1, &[1], 0);
    story.send_info(1, &[2]);
    story.view("first", 0, &[(0, 1), (1, 2)]);
    story.view("second", 0, &[(0, 1)]);
    check_story(&story, &[Anomaly::ViewsDiffer]);
}

#[test]
fn partitions_are_judged_apart() {
    let mut story = Story::new();
    story.sent(1, &[1], 0);
    story.views(&[(0, 1)]);
    let other = Part(0, 1);
    let records = vec![(0, Value(1))];
    let view = Operation::Final { view: "first".into(), at: other, log_start: 0, end: 1, records };
    story.push(0, Phase::Ok, view);
    check_story(&story, &[Anomaly::Unexpected]);
}

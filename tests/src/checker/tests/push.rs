//! Push sessions: windows, leases, settlements, counts, dead letters, orders.

use super::{story::given, *};
use crate::history::Outcome::{Ack, Nack, Reject};

/// Ten records, values 1 to 10, and two sessions.
fn stage() -> Story {
    let mut story = Story::new();
    story.sent(1, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0);
    story.open(11, 3);
    story.open(12, 3);
    story
}

fn with_views(story: &mut Story) {
    let log: Vec<_> = (0..10).map(|offset| (offset, offset + 1)).collect();
    story.views(&log);
}

fn rules(order: Order) -> Rules {
    let settings = SubscriptionRules { order, max_failures: Some(2) };
    Rules { subscriptions: [(1, settings)].into(), ..Rules::default() }
}

#[test]
fn a_clean_subscription() {
    let mut story = stage();
    story.deliver(11, &[given(0, 1, 0, None), given(1, 1, 0, None), given(2, 1, 0, None)]);
    story.settle(11, 0, Ack, true);
    story.settle(11, 1, Nack, true);
    story.deliver(12, &[given(1, 2, 1, None)]);
    story.settle(12, 1, Reject, true);
    story.after_ms(31_000).deliver(12, &[given(2, 2, 1, None)]);
    story.settle(12, 2, Ack, false);
    story.fault("kill");
    story.after_ms(100).fault("start");
    story.open(12, 3);
    story.after_ms(2_000).deliver(12, &[given(2, 1, 1, None), given(3, 1, 0, None)]);
    story.settle(12, 2, Ack, false);
    with_views(&mut story);
    story.dead(&[1]);
    story.left(4, &[3]);
    check_by(&story, &rules(Order::Unordered), &[]);
}

#[test]
fn over_window() {
    let mut story = stage();
    story.deliver(11, &[given(0, 1, 0, None), given(1, 1, 0, None), given(2, 1, 0, None)]);
    let mut over = story.clone();
    over.deliver(11, &[given(3, 1, 0, None)]);
    check_story(&over, &[Anomaly::OverWindow]);
    // Leases that ended, and what was taken back, count no more.
    story.revoke(11, 1);
    story.deliver(11, &[given(3, 1, 0, None)]);
    story.after_ms(29_500);
    story.deliver(11, &[given(4, 1, 0, None), given(5, 1, 0, None), given(6, 1, 0, None)]);
    check_story(&story, &[]);
}

#[test]
fn early_redeliver_unless_the_first_holder_was_told() {
    let mut story = stage();
    story.deliver(11, &[given(0, 1, 0, None)]);
    story.after_ms(20_000).deliver(12, &[given(0, 2, 1, None)]);
    check_story(&story, &[Anomaly::EarlyRedeliver]);
    story.after_ms(500).revoke(11, 0);
    check_story(&story, &[]);
    let mut closed = stage();
    closed.deliver(11, &[given(0, 1, 0, None)]);
    closed.close(11);
    closed.after_ms(20_000).deliver(12, &[given(0, 2, 1, None)]);
    check_story(&closed, &[]);
    let mut repeated = stage();
    repeated.deliver(11, &[given(0, 1, 0, None)]);
    repeated.deliver(11, &[given(0, 1, 0, None)]);
    check_story(&repeated, &[]);
}

#[test]
fn ack_resurrect_late_or_after_a_start_or_open_at_the_end() {
    let mut late = stage();
    late.deliver(11, &[given(0, 1, 0, None)]);
    late.settle(11, 0, Ack, true);
    let mut at_end = late.clone();
    let mut restarted = late.clone();
    late.after_ms(2_000).deliver(12, &[given(0, 2, 0, None)]);
    check_story(&late, &[Anomaly::AckResurrect]);
    with_views(&mut at_end);
    at_end.left(10, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    check_story(&at_end, &[Anomaly::AckResurrect]);
    restarted.fault("kill");
    restarted.fault("start");
    restarted.open(12, 3);
    restarted.deliver(12, &[given(0, 1, 0, None)]);
    check_story(&restarted, &[Anomaly::AckResurrect]);
}

#[test]
fn an_ack_confirmed_during_a_power_cut_binds_nobody() {
    let mut story = stage();
    story.deliver(11, &[given(0, 1, 0, None)]);
    story.fault("power-cut");
    story.settle(11, 0, Ack, true);
    story.fault("start");
    story.open(12, 3);
    story.after_ms(3_000).deliver(12, &[given(0, 1, 0, None)]);
    check_story(&story, &[]);
}

#[test]
fn lost_inflight() {
    let mut story = stage();
    story.deliver(11, &[given(0, 1, 0, None), given(1, 1, 0, None)]);
    story.settle(11, 1, Ack, true);
    with_views(&mut story);
    story.left(2, &[]);
    check_story(&story, &[Anomaly::LostInflight]);
}

#[test]
fn attempt_regress() {
    let tell = |records: [_; 2]| {
        let mut story = stage();
        for (proc, record) in [11, 12].into_iter().zip(records) {
            story.deliver(proc, &[record]);
            story.settle(proc, 0, Nack, true);
            story.after_ms(2_000);
        }
        story
    };
    check_story(&tell([given(0, 1, 0, None), given(0, 2, 1, None)]), &[]);
    let regress = &[Anomaly::AttemptRegress];
    check_story(&tell([given(0, 2, 0, None), given(0, 1, 1, None)]), regress);
    check_story(&tell([given(0, 1, 0, None), given(0, 1, 1, None)]), regress);
    check_story(&tell([given(0, 1, 1, None), given(0, 2, 1, None)]), regress);
}

#[test]
fn confirmed_failures_outlive_a_start_and_attempts_begin_anew() {
    let tell = |failures| {
        let mut story = stage();
        story.deliver(11, &[given(0, 5, 1, None)]);
        story.settle(11, 0, Nack, true);
        story.fault("kill");
        story.fault("start");
        story.open(11, 3);
        story.after_ms(3_000).deliver(11, &[given(0, 1, failures, None)]);
        story
    };
    check_story(&tell(2), &[]);
    check_story(&tell(1), &[Anomaly::AttemptRegress]);
}

#[test]
fn failures_that_were_shown_outlive_a_kill() {
    let tell = |failures, fault: &'static str| {
        let mut story = stage();
        story.deliver(11, &[given(0, 5, 2, None)]);
        story.settle(11, 0, Nack, false);
        story.fault(fault);
        story.fault("start");
        story.open(11, 3);
        story.after_ms(3_000).deliver(11, &[given(0, 1, failures, None)]);
        story
    };
    check_story(&tell(2, "kill"), &[]);
    check_story(&tell(1, "kill"), &[Anomaly::AttemptRegress]);
    check_story(&tell(1, "power-cut"), &[]);
}

#[test]
fn dlq_dup() {
    let mut story = stage();
    story.deliver(11, &[given(0, 1, 0, None)]);
    story.settle(11, 0, Reject, true);
    story.dead(&[0, 0]);
    check_story(&story, &[Anomaly::DlqDup]);
}

#[test]
fn dlq_lost_after_a_reject_and_after_the_last_failure() {
    let mut rejected = stage();
    rejected.deliver(11, &[given(0, 1, 0, None)]);
    rejected.settle(11, 0, Reject, true);
    with_views(&mut rejected);
    rejected.dead(&[]);
    rejected.left(1, &[]);
    check_story(&rejected, &[Anomaly::DlqLost]);
    let mut worn = stage();
    worn.deliver(11, &[given(0, 2, 1, None)]);
    worn.settle(11, 0, Nack, true);
    worn.dead(&[]);
    check_by(&worn, &rules(Order::Unordered), &[Anomaly::DlqLost]);
    check_story(&worn, &[]);
}

#[test]
fn a_key_waits_for_its_earlier_record() {
    let tell = |first: Option<crate::history::Outcome>| {
        let mut story = stage();
        story.deliver(11, &[given(0, 1, 0, Some(7))]);
        story.deliver(12, &[given(1, 1, 0, Some(8))]);
        if let Some(outcome) = first {
            story.settle(11, 0, outcome, true);
        }
        story.deliver(12, &[given(2, 1, 0, Some(7))]);
        story
    };
    check_by(&tell(Some(Ack)), &rules(Order::Key), &[]);
    check_by(&tell(None), &rules(Order::Key), &[Anomaly::KeyOrder]);
    check_by(&tell(Some(Nack)), &rules(Order::Key), &[Anomaly::KeyOrder]);
    check_by(&tell(None), &rules(Order::Unordered), &[]);
    // It was the last failure of the first one: it is dead, and its key goes on.
    let mut dead = tell(Some(Nack));
    dead.dead(&[0]);
    check_by(&dead, &rules(Order::Key), &[]);
}

#[test]
fn a_key_is_never_taken_up_before_its_beginning() {
    let mut story = stage();
    story.deliver(11, &[given(2, 1, 0, Some(7))]);
    story.settle(11, 2, Ack, true);
    story.deliver(11, &[given(0, 1, 0, Some(7))]);
    check_by(&story, &rules(Order::Key), &[Anomaly::KeyOrder]);
    check_by(&story, &rules(Order::Partition), &[Anomaly::KeyOrder]);
    check_by(&story, &rules(Order::Exclusive), &[Anomaly::KeyOrder]);
}

#[test]
fn a_pipeline_of_one_session_keeps_its_order() {
    let mut story = stage();
    story.deliver(11, &[given(0, 1, 0, Some(7)), given(1, 1, 0, Some(7))]);
    story.settle(11, 0, Ack, true);
    story.settle(11, 1, Ack, true);
    check_by(&story, &rules(Order::Key), &[]);
}

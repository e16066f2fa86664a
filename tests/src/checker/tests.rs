//! A history by hand for each anomaly, which finds exactly that one, and histories that find none.

mod groups;
mod log;
mod push;
mod story;

use self::story::Story;
use super::*;
use crate::history::Level;

/// The checker finds exactly these anomalies in a story.
#[track_caller]
fn check_story(story: &Story, expected: &[Anomaly]) {
    check_by(story, &Rules::default(), expected);
}

#[track_caller]
fn check_by(story: &Story, rules: &Rules, expected: &[Anomaly]) {
    let findings = check(&story.events, rules);
    let found: Vec<_> = findings.anomalies.keys().copied().collect();
    assert_eq!(found, expected, "{}", findings.report());
}

/// Rules of a topic 0 that is flushed later.
fn lazy(level: Level) -> Rules {
    Rules { levels: [(0, level)].into(), ..Rules::default() }
}

#[test]
fn a_clean_run_has_counts_and_no_anomaly() {
    let mut story = Story::new();
    story.sent(1, &[1, 2], 0);
    story.send_info(1, &[3]);
    story.send_info(2, &[9]);
    story.polled(5, 0, &[(0, 1), (1, 2), (2, 3)]);
    story.after_ms(10).fault("kill");
    story.after_ms(300).fault("start");
    story.after_ms(40).sent(1, &[4], 3);
    story.polled(5, 3, &[(3, 4)]);
    story.views(&[(0, 1), (1, 2), (2, 3), (3, 4)]);
    check_story(&story, &[]);
    let findings = check(&story.events, &Rules::default());
    let counts = Counts { operations: 6, attempts: 5, acked: 3, recovered: 1, ..Counts::default() };
    assert_eq!(findings.counts, counts);
    let line = findings.to_string();
    let expected = "5 attempts, 3 acked, 0 lost, 0 duplicated, 0 unexpected, 1 recovered";
    assert!(line.starts_with(expected), "{line}");
    assert!(line.contains("gap after kill 340 ms, gap after start 40 ms"), "{line}");
}

#[test]
fn a_history_is_judged_from_its_lines_without_the_one_that_breaks_off() {
    let mut story = Story::new();
    story.sent(1, &[1, 2], 0);
    story.views(&[(0, 1)]);
    let lines: Vec<_> =
        story.events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
    let mut text = lines.join("\n");
    text.push_str("\n{\"i\":9,\"t_n");
    let findings = check_lines(text.as_bytes(), &Rules::default()).unwrap();
    assert_eq!(findings, check(&story.events, &Rules::default()));
    assert_eq!(findings.count(Anomaly::IntSendSkip), 1);
    assert!(check_lines(&b"no event\n{}\n"[..], &Rules::default()).is_err());
}

#[test]
fn every_anomaly_has_a_name_of_its_own() {
    let names: std::collections::HashSet<_> =
        Anomaly::ALL.iter().map(|anomaly| anomaly.name()).collect();
    assert_eq!(names.len(), Anomaly::ALL.len());
}

//! Stored offsets and owners.

use super::*;

#[test]
fn the_newest_confirmed_offset_is_there() {
    let mut story = Story::new();
    story.fetched(1, None);
    story.commit(1, 5, Phase::Ok);
    story.fetched(2, Some(5));
    story.commit(1, 7, Phase::Info);
    story.fetched(2, Some(5));
    story.fetched(2, Some(7));
    story.commit(1, 3, Phase::Ok);
    story.fetched(2, Some(3));
    story.power_cycle();
    story.fetched(2, Some(3));
    check_story(&story, &[]);
}

#[test]
fn commit_regress() {
    let mut story = Story::new();
    story.commit(1, 5, Phase::Ok);
    story.commit(1, 8, Phase::Ok);
    story.fault("kill");
    story.fault("start");
    story.fetched(2, Some(5));
    check_story(&story, &[Anomaly::CommitRegress]);
}

#[test]
fn a_commit_that_overlaps_the_question_may_or_may_not_count() {
    let mut story = Story::new();
    story.commit(1, 5, Phase::Ok);
    let commit = Operation::Commit { group: 1, at: story::AT, offset: 8, epoch: -1 };
    story.push(1, Phase::Invoke, commit.clone());
    story.fetched(2, Some(8));
    story.fetched(2, Some(5));
    story.push(1, Phase::Ok, commit);
    story.fetched(2, Some(8));
    check_story(&story, &[]);
    story.fetched(2, Some(5));
    check_story(&story, &[Anomaly::CommitRegress]);
}

#[test]
fn commit_lost_unless_it_was_confirmed_during_the_cut() {
    let mut story = Story::new();
    story.commit(1, 5, Phase::Ok);
    story.power_cycle();
    story.fetched(2, None);
    check_story(&story, &[Anomaly::CommitLost]);
    let mut cut = Story::new();
    cut.fault("power-cut");
    cut.commit(1, 5, Phase::Ok);
    cut.fault("start");
    cut.fetched(2, None);
    check_story(&cut, &[]);
}

#[test]
fn zombie_write() {
    let mut story = Story::new();
    story.own(1, 3);
    story.commit(1, 5, Phase::Ok);
    story.own(2, 4);
    story.commit(1, 6, Phase::Fail);
    story.commit(2, 6, Phase::Ok);
    story.own(1, 5);
    story.commit(1, 7, Phase::Ok);
    check_story(&story, &[]);
    story.commit(2, 8, Phase::Ok);
    check_story(&story, &[Anomaly::ZombieWrite]);
}

use super::{
    super::replicator::{Proposal, tests::Told},
    *,
};

fn facts(end_offset: u64, needs_flush: bool) -> AppendFacts {
    let needs = if needs_flush { Needs::CommitAndFlush } else { Needs::Append };
    AppendFacts { end_offset: Offset(end_offset), bytes: 100, needs }
}

fn ledger(durability: Durability) -> Ledger<char> {
    Ledger::new(durability, (Offset::ZERO, Offset::ZERO), Replicator::local())
}

fn visible(high_watermark: u64, bytes: u64) -> Visible {
    Visible { high_watermark: Offset(high_watermark), bytes }
}

#[test]
fn a_group_is_acknowledged_and_shown_by_its_flush() {
    let mut ledger = ledger(Durability::Fsync);
    assert_eq!(ledger.appended(facts(1, true), Some('a')), None);
    assert_eq!(ledger.appended(facts(3, true), Some('b')), None);
    assert!(ledger.begin_flush());
    assert_eq!(ledger.appended(facts(4, true), Some('c')), None, "appends go on meanwhile");
    assert!(!ledger.begin_flush(), "one flush in flight");
    assert_eq!(ledger.visible(), visible(0, 0));
    assert_eq!(ledger.flushed_to(Offset(3)), ['a', 'b']);
    assert_eq!(ledger.visible(), visible(3, 200));
    assert!(ledger.begin_flush(), "the next group waits");
    assert_eq!(ledger.flushed_to(Offset(4)), ['c']);
    assert_eq!(ledger.visible(), visible(4, 300));
    assert!(!ledger.begin_flush(), "nothing to do");
}

#[test]
fn a_flush_that_covers_more_than_it_was_asked_for_resolves_it_all() {
    let mut ledger = ledger(Durability::Fsync);
    ledger.appended(facts(1, true), Some('a'));
    assert!(ledger.begin_flush());
    ledger.appended(facts(2, true), Some('b'));
    assert_eq!(ledger.flushed_to(Offset(2)), ['a', 'b']);
    assert_eq!(ledger.visible(), visible(2, 200));
}

#[test]
fn page_cache_is_enough_where_it_is_asked_for() {
    let mut os = ledger(Durability::Os);
    assert_eq!(os.appended(facts(1, false), Some('a')), Some('a'));
    assert_eq!(os.visible(), visible(1, 100));
    assert!(!os.begin_flush());
    assert_eq!(os.appended(facts(2, true), Some('b')), None, "one caller asks for more");
    assert_eq!(os.visible(), visible(2, 200));
    assert!(os.begin_flush());
    assert_eq!(os.flushed_to(Offset(2)), ['b']);
    assert!(!os.is_dirty());

    let mut fsync = ledger(Durability::Fsync);
    assert_eq!(fsync.appended(facts(1, false), Some('a')), Some('a'), "one caller asks for less");
    assert_eq!(fsync.visible(), visible(0, 0), "and still nobody sees what can be lost");
    assert!(fsync.begin_flush());
    assert_eq!(fsync.flushed_to(Offset(1)), []);
    assert_eq!(fsync.visible(), visible(1, 100));
}

#[test]
fn a_duplicate_waits_for_the_flush_of_the_original() {
    let mut ledger = ledger(Durability::Fsync);
    ledger.appended(facts(5, true), Some('a'));
    assert!(ledger.begin_flush());
    let again = AppendFacts { end_offset: Offset(5), bytes: 0, needs: Needs::CommitAndFlush };
    assert_eq!(ledger.appended(again, Some('b')), None);
    assert_eq!(ledger.flushed_to(Offset(5)), ['a', 'b']);
    let again = AppendFacts { end_offset: Offset(5), bytes: 0, needs: Needs::CommitAndFlush };
    assert_eq!(ledger.appended(again, Some('c')), Some('c'), "on disk already");
    assert!(!ledger.begin_flush());
}

#[test]
fn a_failure_resolves_nothing_as_flushed() {
    let mut ledger = ledger(Durability::Fsync);
    ledger.appended(facts(1, true), Some('a'));
    assert!(ledger.begin_flush());
    ledger.appended(facts(2, true), Some('b'));
    assert_eq!(ledger.fail(), ['a', 'b']);
    assert_eq!(ledger.flushed_to(Offset(2)), [], "a flush that ends late changes nothing");
    assert_eq!(ledger.visible(), visible(0, 0));
    assert!(!ledger.begin_flush());
}

#[test]
fn the_high_watermark_never_goes_back_when_durability_changes() {
    let mut ledger = ledger(Durability::Os);
    ledger.appended(facts(7, false), None);
    ledger.set_durability(Durability::Fsync);
    assert_eq!(ledger.visible(), visible(7, 100));
    assert!(ledger.begin_flush(), "what is seen is made safe");
    ledger.appended(facts(9, true), Some('a'));
    assert_eq!(ledger.visible(), visible(7, 100));
    assert_eq!(ledger.flushed_to(Offset(7)), []);
    assert_eq!(ledger.visible(), visible(7, 100));
    ledger.set_durability(Durability::Interval);
    assert_eq!(ledger.visible(), visible(9, 200));
    assert!(ledger.begin_flush());
    assert_eq!(ledger.flushed_to(Offset(9)), ['a']);
    assert_eq!(ledger.visible(), visible(9, 200));
}

#[test]
fn a_flush_may_end_before_its_last_append_is_entered() {
    let mut ledger = ledger(Durability::Fsync);
    ledger.appended(facts(1, true), Some('a'));
    assert!(ledger.begin_flush());
    assert_eq!(ledger.flushed_to(Offset(2)), ['a']);
    assert_eq!(ledger.visible(), visible(2, 100));
    assert_eq!(ledger.appended(facts(2, true), Some('b')), Some('b'));
    assert_eq!(ledger.visible(), visible(2, 200));
    assert!(!ledger.begin_flush() && !ledger.is_dirty());
}

#[test]
fn what_nobody_waits_for_is_flushed_too_before_it_grows_large() {
    let mut ledger = ledger(Durability::Os);
    let half = |end_offset| AppendFacts {
        end_offset: Offset(end_offset),
        bytes: UNFLUSHED_BYTES_MAX / 2,
        needs: Needs::Append,
    };
    assert_eq!(ledger.appended(half(1), Some('a')), Some('a'));
    assert!(!ledger.begin_flush());
    assert_eq!(ledger.appended(half(2), Some('b')), Some('b'), "nobody waits for it");
    assert!(ledger.begin_flush());
    assert!(ledger.flushed_to(Offset(2)).is_empty());
    assert_eq!(ledger.appended(half(3), Some('c')), Some('c'));
    assert!(!ledger.begin_flush(), "the count began anew");
}

#[test]
fn what_this_node_holds_is_proposed_and_what_is_committed_is_shown_and_acknowledged() {
    let (told, votes) = Told::leader();
    let zero = (Offset::ZERO, Offset::ZERO);
    let mut ledger: Ledger<char> = Ledger::new(Durability::Fsync, zero, Replicator::Told(told));
    let commit =
        |end_offset, needs| AppendFacts { end_offset: Offset(end_offset), bytes: 100, needs };
    assert_eq!(ledger.appended(commit(1, Needs::CommitAndFlush), Some('a')), None);
    assert_eq!(ledger.appended(commit(2, Needs::Append), Some('b')), Some('b'));
    assert_eq!(votes.proposed(), Proposal { log_end: Offset(2), held: Offset(0) });
    assert!(ledger.begin_flush());
    assert_eq!(ledger.flushed_to(Offset(2)), [], "on this node's disk, and not committed");
    assert_eq!(votes.proposed(), Proposal { log_end: Offset(2), held: Offset(2) });
    assert_eq!(ledger.visible(), visible(0, 0));
    votes.commit(1);
    assert_eq!(ledger.settle(), ['a']);
    assert_eq!(ledger.visible(), visible(1, 100));
    votes.commit(9);
    assert_eq!(ledger.settle(), []);
    assert_eq!(ledger.visible(), visible(2, 200), "no further than the log");

    ledger.set_durability(Durability::Os);
    assert_eq!(ledger.appended(commit(10, Needs::Commit), Some('c')), None);
    assert_eq!(votes.proposed(), Proposal { log_end: Offset(10), held: Offset(10) });
    assert!(!ledger.begin_flush(), "other nodes are waited for, not the disk");
    assert_eq!(ledger.visible(), visible(9, 200));
    votes.commit(10);
    assert_eq!(ledger.settle(), ['c']);
    assert_eq!(ledger.visible(), visible(10, 300));
}

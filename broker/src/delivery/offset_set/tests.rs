use std::collections::BTreeSet;

use super::*;
use crate::test_random::Random;

/// Offsets of the random test: a few chunks.
const END: u64 = 3_000;

impl OffsetSet {
    #[track_caller]
    fn check_invariants(&self) {
        assert!(self.chunks.values().all(|words| *words != [0; 8] && *words != [u64::MAX; 8]));
        let full: Vec<_> = self.full.iter().map(|(start, end)| (*start, *end)).collect();
        assert!(full.iter().all(|(start, end)| start < end), "{full:?}");
        assert!(full.windows(2).all(|pair| pair[0].1 < pair[1].0), "{full:?}");
        assert!(self.chunks.keys().all(|chunk| self.full_run(*chunk).is_none()));
        let trees = full.last().map_or(0, |run| run.1 * CHUNK);
        assert!(trees <= self.trees_end);
        let words = self.chunks.last_key_value();
        assert!(words.is_none_or(|(chunk, words)| {
            (0..CHUNK).all(|at| {
                words[word_of(at)] & bit_of(at) == 0 || chunk * CHUNK + at < self.trees_end
            })
        }));
        assert!(self.top.is_empty() || self.trees_end <= self.top.start);
    }
}

fn runs_of(model: &BTreeSet<u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for offset in model {
        match runs.last_mut() {
            Some(run) if run.end == *offset => run.end += 1,
            Some(_) | None => runs.push(*offset..offset + 1),
        }
    }
    runs
}

#[track_caller]
fn check_same(set: &OffsetSet, model: &BTreeSet<u64>, random: &mut Random) {
    set.check_invariants();
    assert_eq!(set.len(), model.len() as u64);
    assert!((0..END + 10).all(|offset| set.contains(offset) == model.contains(&offset)));
    assert_eq!(set.runs().collect::<Vec<_>>(), runs_of(model));
    let from = random.below(END);
    assert_eq!(set.next_in(from), model.range(from..).next().copied());
    let end = (from..).find(|offset| !model.contains(offset)).unwrap();
    assert_eq!(set.run_end(from), end);
    let range = from..from + random.below(END);
    let missing = range.clone().filter(|offset| !model.contains(offset)).collect();
    assert_eq!(set.gaps(range.clone()).collect::<Vec<_>>(), runs_of(&missing), "{range:?}");
    let mut again = OffsetSet::new();
    for piece in set.pieces() {
        for run in piece.runs() {
            assert_eq!(again.insert(run.clone()), run.end - run.start);
        }
    }
    assert_eq!(again, *set);
}

fn random_range(random: &mut Random, last: u64) -> Range<u64> {
    let length = match random.below(10) {
        0 => random.below(2_000),
        1..4 => 1 + random.below(100),
        _ => 1,
    };
    let start = match random.below(4) {
        0 => last,
        1 => random.below(END) / CHUNK * CHUNK,
        _ => random.below(END),
    };
    start.min(END)..(start + length).min(END)
}

#[test]
fn it_is_a_set() {
    Random::each(60, |random| {
        let mut set = OffsetSet::new();
        let mut model = BTreeSet::new();
        let mut last = 0;
        for _ in 0..150 {
            if random.chance(12) {
                let below = random.below(END);
                set.remove_below(below);
                model = model.split_off(&below);
            } else if random.chance(8) {
                let floor = random.below(END);
                let end = (floor..).find(|offset| !model.contains(offset)).unwrap();
                assert_eq!(set.advance_floor(floor), end);
                model = model.split_off(&end);
            } else {
                let range = random_range(random, last);
                last = range.end;
                let before = model.len();
                model.extend(range.clone());
                assert_eq!(set.insert(range), (model.len() - before) as u64);
            }
            check_same(&set, &model, random);
        }
    });
}

#[test]
fn what_is_settled_in_order_takes_no_memory() {
    let mut set = OffsetSet::new();
    let mut floor = 7;
    for offset in 7..5_000 {
        set.insert(offset..offset + 1);
        floor = set.advance_floor(floor);
        assert_eq!((floor, set.len(), set.state_bytes()), (offset + 1, 0, size_of::<OffsetSet>()));
    }
    // One straggler: the floor stays, and all that is settled behind it is one run.
    for offset in 5_001..9_000 {
        set.insert(offset..offset + 1);
        floor = set.advance_floor(floor);
    }
    assert_eq!((floor, set.len(), set.state_bytes()), (5_000, 3_999, size_of::<OffsetSet>()));
    set.insert(5_000..5_001);
    assert_eq!((set.advance_floor(floor), set.len()), (9_000, 0));
}

#[test]
fn a_straggler_at_any_distance_costs_a_chunk() {
    let mut set = OffsetSet::new();
    set.insert(1..100_000_000);
    set.insert(100_000_001..u64::MAX);
    assert_eq!(set.len(), u64::MAX - 2);
    assert!(set.state_bytes() < 1_000, "{} bytes", set.state_bytes());
    assert_eq!(set.gaps(0..200_000_000).collect::<Vec<_>>(), [0..1, 100_000_000..100_000_001]);
    assert_eq!(set.advance_floor(1), 100_000_000);
    assert_eq!(set.insert(100_000_000..100_000_001), 1);
    assert_eq!(set.advance_floor(100_000_000), u64::MAX);
    assert!(set.is_empty());
}

#[test]
fn the_worst_case_is_a_third_of_a_byte_per_offset() {
    let mut set = OffsetSet::new();
    for offset in (1..1_000_000).step_by(2) {
        set.insert(offset..offset + 1);
    }
    let span = 1_000_000;
    assert!(set.state_bytes() < span / 3, "{} bytes", set.state_bytes());
    // And it goes away again.
    for offset in (0..1_000_000).step_by(2) {
        set.insert(offset..offset + 1);
    }
    assert_eq!(set.runs().collect::<Vec<_>>(), vec![0..1_000_000; 1]);
    assert!(set.state_bytes() < 1_000, "{} bytes", set.state_bytes());
}

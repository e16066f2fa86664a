//! Which records of a partition are done: only the contiguous prefix may be committed.
//!
//! Invariant: everything below `floor` is done; `done` holds disjoint ranges above it that do not touch.
//! Open records are bounded by who hands them out, and there is at most one range more than open records.

use std::collections::BTreeMap;

/// Progress of one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefix {
    /// Everything below is done.
    floor: u64,
    /// Done ranges above the floor: start to end.
    done: BTreeMap<u64, u64>,
    /// Records handed out and not done.
    open: usize,
}

impl Prefix {
    /// Nothing handed out yet; everything below `floor` counts as done.
    pub(super) fn new(floor: u64) -> Prefix {
        Prefix { floor, done: BTreeMap::new(), open: 0 }
    }

    /// Everything below is done.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Records handed out and not done.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Notes records handed out, of the offsets `from..next`. Offsets without a record (compaction
    /// leaves such gaps) count as done.
    pub(super) fn hand_out(&mut self, from: u64, offsets: impl Iterator<Item = u64>, next: u64) {
        let mut expected = from;
        for offset in offsets {
            self.cover(expected, offset);
            expected = offset + 1;
            self.open += 1;
        }
        self.cover(expected, next);
    }

    /// Marks a record as done; false when it was already.
    pub(super) fn done(&mut self, offset: u64) -> bool {
        let covered = self.done.range(..=offset).next_back().is_some_and(|(_, end)| *end > offset);
        if offset < self.floor || covered {
            return false;
        }
        self.open = self.open.saturating_sub(1);
        self.cover(offset, offset + 1);
        true
    }

    /// Adds `start..end` to what is done, joins neighbours and moves the floor.
    fn cover(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        if let Some((&before, &until)) = self.done.range(..=start).next_back()
            && until >= start
        {
            self.done.remove(&before);
            (start, end) = (before, end.max(until));
        }
        while let Some((&after, &until)) = self.done.range(start..=end).next() {
            self.done.remove(&after);
            end = end.max(until);
        }
        if start <= self.floor {
            self.floor = self.floor.max(end);
        } else {
            self.done.insert(start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Randomness;

    #[test]
    fn only_the_contiguous_prefix_counts() {
        let mut prefix = Prefix::new(10);
        prefix.hand_out(10, 10..15, 15);
        assert!(prefix.done(12) && prefix.done(11));
        assert_eq!((prefix.floor(), prefix.open()), (10, 3));
        assert!(prefix.done(10));
        assert_eq!(prefix.floor(), 13);
        assert!(!prefix.done(11) && !prefix.done(9), "done once");
        assert!(prefix.done(14) && prefix.done(13));
        assert_eq!((prefix.floor(), prefix.open()), (15, 0));
    }

    #[test]
    fn gaps_count_as_done() {
        let mut prefix = Prefix::new(0);
        prefix.hand_out(0, [2, 5].into_iter(), 9);
        assert_eq!(prefix.floor(), 2);
        assert!(prefix.done(5));
        assert_eq!(prefix.floor(), 2);
        assert!(prefix.done(2));
        assert_eq!((prefix.floor(), prefix.open()), (9, 0));
    }

    #[test]
    fn any_order_reaches_the_end_and_never_passes_an_open_record() {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| Randomness::from_system().next());
        println!("SEED={seed}");
        let mut randomness = Randomness::seeded(seed);
        let mut prefix = Prefix::new(0);
        prefix.hand_out(0, 0..500, 500);
        let mut left: Vec<u64> = (0..500).collect();
        while !left.is_empty() {
            let pick = randomness.next() % left.len() as u64;
            let offset = left.swap_remove(usize::try_from(pick).unwrap());
            assert!(prefix.done(offset));
            assert_eq!(prefix.floor(), left.iter().copied().min().unwrap_or(500));
            assert_eq!(prefix.open(), left.len());
        }
    }
}

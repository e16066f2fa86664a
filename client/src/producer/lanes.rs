//! The lanes of a producer, one per partition: a table that only grows and is read without a lock.
//!
//! Level `n` holds `2^n` lanes, so that a lane never moves once it is there.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use parking_lot::Mutex;
use riverrun_proto::limits::PARTITION_COUNT_MAX;

use super::lane::Lane;

/// Levels that hold [`PARTITION_COUNT_MAX`] lanes.
const LEVELS: usize = PARTITION_COUNT_MAX.ilog2() as usize + 1;

/// The lanes, numbered from 0 as the partitions are.
#[derive(Debug)]
pub(super) struct Lanes {
    levels: [OnceLock<Box<[OnceLock<Lane>]>>; LEVELS],
    /// Lanes there are. Raised after they are made.
    count: AtomicU32,
    /// One grower at a time.
    growing: Mutex<()>,
}

impl Lanes {
    pub(super) fn new() -> Lanes {
        Lanes {
            levels: [const { OnceLock::new() }; LEVELS],
            count: AtomicU32::new(0),
            growing: Mutex::new(()),
        }
    }

    /// Lanes there are.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Makes lanes until there are `count`; at most [`PARTITION_COUNT_MAX`].
    pub(super) fn grow(&self, count: u32, make: impl Fn(u32) -> Lane) {
        let _one = self.growing.lock();
        let count = count.min(PARTITION_COUNT_MAX);
        for index in self.count()..count {
            let (level, place) = place(index);
            let lanes = self.levels[level]
                .get_or_init(|| (0..1_usize << level).map(|_| OnceLock::new()).collect());
            lanes[place].get_or_init(|| make(index));
            self.count.store(index + 1, Ordering::Release);
        }
    }

    /// The lane of a partition, when the topic has it.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Lane> {
        if index >= self.count() {
            return None;
        }
        let (level, place) = place(index);
        self.levels[level].get()?.get(place)?.get()
    }

    /// Every lane.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        (0..self.count()).filter_map(|index| self.get(index))
    }
}

/// Level and place in it: 0 is (0, 0), 1 and 2 are (1, 0) and (1, 1), 3 is (2, 0).
#[inline]
fn place(index: u32) -> (usize, usize) {
    let level = (index + 1).ilog2();
    (level as usize, (index + 1 - (1 << level)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_a_place_of_its_own() {
        let lanes = Lanes::new();
        for count in [1, 2, 7, 8, 300, PARTITION_COUNT_MAX, PARTITION_COUNT_MAX + 1] {
            lanes.grow(count, |partition| Lane::new(partition, 0));
            assert_eq!(lanes.count(), count.min(PARTITION_COUNT_MAX));
        }
        let numbers: Vec<u32> = lanes.iter().map(|lane| lane.partition.0).collect();
        assert_eq!(numbers, (0..PARTITION_COUNT_MAX).collect::<Vec<u32>>());
        assert!(lanes.get(PARTITION_COUNT_MAX).is_none());
    }
}

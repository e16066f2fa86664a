//! Records that wait for their time.
//!
//! Those of the next hour stand with their time, the others by the hour only. Nothing else of them is kept: when the time
//! comes they are read from the log.

use std::collections::{BTreeMap, BTreeSet};

use super::offset_set::OffsetSet;

/// Milliseconds of an hour.
pub(super) const HOUR_MS: i64 = 3_600_000;
/// Bytes of one record of the next hour.
const NEAR_BYTES: usize = 32;

/// The waiting records of a lane.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    near: BTreeSet<(i64, u64)>,
    /// By hours since 1970. Some offsets may be settled meanwhile.
    far: BTreeMap<i64, OffsetSet>,
}

impl Schedule {
    /// A schedule as it is remembered, without what was settled meanwhile.
    pub(super) fn new(far: BTreeMap<i64, OffsetSet>, floor: u64, done: &OffsetSet) -> Schedule {
        let open = far.into_iter().map(|(hour, waiting)| {
            let mut open = OffsetSet::new();
            open_runs(&waiting, floor, done).for_each(|run| {
                open.insert(run);
            });
            (hour, open)
        });
        let far = open.filter(|(_, open)| !open.is_empty()).collect();
        Schedule { near: BTreeSet::new(), far }
    }

    /// Bytes of memory.
    pub(super) fn state_bytes(&self) -> usize {
        let far: usize = self.far.values().map(OffsetSet::state_bytes).sum();
        self.near.len() * NEAR_BYTES + far
    }

    /// Records that wait, without what was settled meanwhile.
    pub(super) fn count(&self, floor: u64, done: &OffsetSet) -> u64 {
        let far = self.far.values().flat_map(|waiting| open_runs(waiting, floor, done));
        self.near.len() as u64 + far.map(|run| run.end - run.start).sum::<u64>()
    }

    /// Takes a record that is due at `due_ms`. Returns the hour when that is far away.
    pub(super) fn add(&mut self, offset: u64, due_ms: i64, now_ms: i64) -> Option<i64> {
        let hour = due_ms.div_euclid(HOUR_MS);
        if hour.saturating_mul(HOUR_MS) <= now_ms.saturating_add(HOUR_MS) {
            self.near.insert((due_ms, offset));
            return None;
        }
        self.far.entry(hour).or_default().insert(offset..offset + 1);
        Some(hour)
    }

    /// The record waits for `due_ms`.
    pub(super) fn holds(&self, offset: u64, due_ms: i64) -> bool {
        let far = self.far.get(&due_ms.div_euclid(HOUR_MS));
        self.near.contains(&(due_ms, offset)) || far.is_some_and(|set| set.contains(offset))
    }

    /// When there is something to do next.
    pub(super) fn next_ms(&self) -> Option<i64> {
        let near = self.near.first().map(|(due_ms, _)| *due_ms);
        let far = self.far.keys().next().map(|hour| hour.saturating_sub(1).saturating_mul(HOUR_MS));
        near.into_iter().chain(far).min()
    }

    /// The first to come, and its time, of those that `waits` holds for.
    pub(super) fn first(&self, waits: impl Fn(u64) -> bool) -> Option<(i64, u64)> {
        let near = self.near.iter().copied().find(|(_, offset)| waits(*offset));
        near.or_else(|| {
            self.far.iter().find_map(|(hour, set)| {
                let offset = set.runs().flatten().find(|offset| waits(*offset));
                offset.map(|offset| (hour.saturating_mul(HOUR_MS), offset))
            })
        })
    }

    /// Takes a record that is due.
    pub(super) fn pop_due(&mut self, now_ms: i64) -> Option<u64> {
        let (due_ms, offset) = *self.near.first()?;
        (due_ms <= now_ms).then(|| {
            self.near.pop_first();
            offset
        })
    }

    /// Takes the records of an hour that is no longer far.
    pub(super) fn pop_hour(&mut self, now_ms: i64) -> Option<(i64, OffsetSet)> {
        let hour = *self.far.keys().next()?;
        let soon = now_ms.saturating_add(HOUR_MS);
        (hour.saturating_mul(HOUR_MS) <= soon).then(|| self.far.pop_first().expect("seen above"))
    }

    /// Forgets the records of `run`; returns how many waited. A record of a far hour can only be forgotten from below.
    pub(super) fn forget_below(&mut self, end: u64) -> bool {
        let before = self.near.len();
        self.near.retain(|(_, offset)| *offset >= end);
        let mut any = self.near.len() < before;
        self.far.retain(|_, set| {
            let len = set.len();
            set.remove_below(end);
            any |= set.len() < len;
            !set.is_empty()
        });
        any
    }

    /// The record is not to be delivered any more. Those of far hours stay until their hour, and are settled then.
    pub(super) fn forget(&mut self, offset: u64) -> bool {
        let near = self.near.iter().find(|(_, other)| *other == offset).copied();
        if let Some(found) = near {
            self.near.remove(&found);
        }
        near.is_some() || self.far.values().any(|set| set.contains(offset))
    }

    /// The lowest `count` records of the next hour, and of each hour after it, with their times.
    pub(super) fn lowest(&self, count: usize, waits: impl Fn(u64) -> bool) -> Vec<(u64, i64)> {
        let near = self.near.iter().map(|(due_ms, offset)| (*offset, *due_ms));
        let far = self.far.iter().flat_map(|(hour, set)| {
            let due_ms = hour.saturating_mul(HOUR_MS);
            let offsets = set.runs().flatten().filter(|offset| waits(*offset)).take(count);
            offsets.map(move |offset| (offset, due_ms)).collect::<Vec<_>>()
        });
        let mut all: Vec<(u64, i64)> = near.chain(far).collect();
        all.sort_unstable();
        all.truncate(count);
        all
    }

    /// What waits for hours far away.
    pub(super) fn far(&self) -> &BTreeMap<i64, OffsetSet> {
        &self.far
    }
}

/// The part of `waiting` that is not settled.
fn open_runs(
    waiting: &OffsetSet,
    floor: u64,
    done: &OffsetSet,
) -> impl Iterator<Item = std::ops::Range<u64>> {
    let runs = waiting.runs().map(move |run| run.start.max(floor)..run.end.max(floor));
    runs.flat_map(|run| done.gaps(run))
}

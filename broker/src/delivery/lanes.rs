//! The lanes of a subscription, and which of them have something to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use super::{
    entry::State, lane::Lane, lane_key::LaneKey, now::Now, sessions::Sessions, settings::Settings,
};

/// The lanes, by index.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_key: BTreeMap<LaneKey, u32>,
    /// Lanes with records for anybody.
    ready: BTreeSet<u32>,
    /// Lanes with records to be handed out alone.
    isolated: BTreeSet<u32>,
    /// Lanes that may be read.
    to_scan: BTreeSet<u32>,
    /// Lanes with something to remember.
    dirty: BTreeSet<u32>,
    wakes: BTreeSet<(Duration, u32)>,
}

#[derive(Debug)]
struct Slot {
    lane: Lane,
    wake: Option<Duration>,
}

impl Lanes {
    pub(super) fn insert(&mut self, lane: Lane) -> u32 {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).expect("lanes are bounded")
            }
        };
        self.by_key.insert(lane.key, index);
        self.slots[index as usize] = Some(Slot { lane, wake: None });
        index
    }

    pub(super) fn remove(&mut self, index: u32) {
        let Some(slot) = self.slots[index as usize].take() else { return };
        self.by_key.remove(&slot.lane.key);
        for set in [&mut self.ready, &mut self.isolated, &mut self.to_scan, &mut self.dirty] {
            set.remove(&index);
        }
        if let Some(wake) = slot.wake {
            self.wakes.remove(&(wake, index));
        }
        self.free.push(index);
    }

    pub(super) fn index_of(&self, key: &LaneKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub(super) fn indexes(&self) -> Vec<u32> {
        self.by_key.values().copied().collect()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = LaneKey> {
        self.by_key.keys().copied()
    }

    pub(super) fn get(&self, index: u32) -> &Lane {
        &self.slots[index as usize].as_ref().expect("a lane in use is here").lane
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut Lane {
        &mut self.slots[index as usize].as_mut().expect("a lane in use is here").lane
    }

    /// The next lane after `turn` with records for anybody.
    pub(super) fn next_ready(&self, turn: u32) -> Option<u32> {
        next(&self.ready, turn)
    }

    /// The next lane after `turn` that may be read.
    pub(super) fn next_to_scan(&self, turn: u32) -> Option<u32> {
        next(&self.to_scan, turn)
    }

    pub(super) fn to_scan_count(&self) -> usize {
        self.to_scan.len()
    }

    /// A lane is being read.
    pub(super) fn begin_scan(&mut self, index: u32) {
        self.to_scan.remove(&index);
    }

    /// Lanes with records to be handed out alone.
    pub(super) fn isolated(&self) -> Vec<u32> {
        self.isolated.iter().copied().collect()
    }

    /// A lane with something to remember.
    pub(super) fn pop_dirty(&mut self) -> Option<u32> {
        self.dirty.pop_first()
    }

    pub(super) fn first_wake(&self) -> Option<Duration> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// A lane that has something to do by itself.
    pub(super) fn pop_wake(&mut self, now: Duration) -> Option<u32> {
        let (at, index) = *self.wakes.first()?;
        (at <= now).then(|| {
            self.wakes.pop_first();
            self.slots[index as usize].as_mut().expect("a lane in use is here").wake = None;
            index
        })
    }

    /// Looks what a lane has to do, after something happened to it.
    pub(super) fn refresh(
        &mut self,
        index: u32,
        sessions: &mut Sessions,
        settings: &Settings,
        now: Now,
    ) {
        let Some(Slot { lane, wake }) = &mut self.slots[index as usize] else { return };
        for (session, offset) in lane.offers.drain(..) {
            sessions.own(session, index, offset);
        }
        put(&mut self.ready, index, lane.open.count(State::Ready) > lane.isolated.len());
        put(&mut self.isolated, index, !lane.isolated.is_empty());
        put(&mut self.to_scan, index, lane.may_scan(settings));
        put(&mut self.dirty, index, !lane.memory.is_empty());
        let next_wake = lane.next_wake(now);
        if *wake != next_wake {
            if let Some(old) = wake.take() {
                self.wakes.remove(&(old, index));
            }
            if let Some(new) = next_wake {
                self.wakes.insert((new, index));
            }
            *wake = next_wake;
        }
    }
}

fn next(set: &BTreeSet<u32>, turn: u32) -> Option<u32> {
    let after = set.range((Bound::Excluded(turn), Bound::Unbounded)).next();
    after.or_else(|| set.first()).copied()
}

fn put(set: &mut BTreeSet<u32>, index: u32, there: bool) {
    if there {
        set.insert(index);
    } else {
        set.remove(&index);
    }
}

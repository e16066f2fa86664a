//! Which open records of a lane have the same key, in order.
//!
//! ```text
//! key a:  7 9 12 31 | 40 ..     held 2: 7 and 9 are in the holder's hands, always the front of the queue
//!         ^^^         ^ deferred from here: not held here, read from the log again later
//! ```
//!
//! A key is told by 32 bits of its hash: two keys of the same print are kept in order together, which costs them a
//! little freedom and nothing else. Only keys with something open are here; a key with one open record costs 24 bytes
//! and its place in the map.
//!
//! Invariants: offsets past the held ones ascend; a key that nobody holds has no holder.

use std::collections::{HashMap, VecDeque};

use super::{entry::NONE, number_hasher::NumberHasher};

/// No offset.
const NOWHERE: u64 = u64::MAX;

/// The keys of a lane.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    slots: Vec<Key>,
    free: Vec<u32>,
    by_print: HashMap<u32, u32, NumberHasher>,
}

#[derive(Debug)]
struct Key {
    print: u32,
    /// Session that holds the front, or [`NONE`].
    holder: u32,
    /// First offset, or [`NOWHERE`].
    first: u64,
    /// What few keys have.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// Offsets after the first.
    rest: VecDeque<u64>,
    /// Held records after the first.
    held_more: u32,
    deferral: Option<Deferral>,
}

/// A key of which not all records found are held here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deferral {
    /// The first record that is not.
    pub(super) from: u64,
    /// It is read again when so few are held.
    pub(super) wake_at: usize,
    /// It asked for that.
    pub(super) waiting: bool,
}

impl KeyTable {
    /// The slot of the key with this print, made when it is new.
    pub(super) fn slot(&mut self, print: u32) -> u32 {
        if let Some(slot) = self.by_print.get(&print) {
            return *slot;
        }
        let key = Key { print, holder: NONE, first: NOWHERE, more: None };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = key;
                slot
            }
            None => {
                self.slots.push(key);
                u32::try_from(self.slots.len() - 1).expect("open records are bounded")
            }
        };
        self.by_print.insert(print, slot);
        slot
    }

    /// The 32 bits by which a key is told.
    pub(super) fn print(&self, slot: u32) -> u32 {
        self.slots[slot as usize].print
    }

    /// The slot of a print that is known.
    pub(super) fn find(&self, print: u32) -> Option<u32> {
        self.by_print.get(&print).copied()
    }

    /// Every key, in no order that means anything and in the same one for the same past.
    pub(super) fn slots(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = self.by_print.values().copied().collect();
        slots.sort_unstable();
        slots
    }

    /// Open records of the key.
    pub(super) fn len(&self, slot: u32) -> usize {
        let key = &self.slots[slot as usize];
        let rest = key.more.as_ref().map_or(0, |more| more.rest.len());
        usize::from(key.first != NOWHERE) + rest
    }

    /// The open record after `at` earlier ones.
    pub(super) fn nth(&self, slot: u32, at: usize) -> Option<u64> {
        let key = &self.slots[slot as usize];
        match at {
            0 => (key.first != NOWHERE).then_some(key.first),
            _ => key.more.as_ref()?.rest.get(at - 1).copied(),
        }
    }

    /// The last open record.
    pub(super) fn last(&self, slot: u32) -> Option<u64> {
        let more = self.slots[slot as usize].more.as_ref();
        more.and_then(|more| more.rest.back().copied()).or_else(|| self.nth(slot, 0))
    }

    /// Session that holds the front of the key.
    pub(super) fn holder(&self, slot: u32) -> Option<u32> {
        Some(self.slots[slot as usize].holder).filter(|holder| *holder != NONE)
    }

    /// Records in the holder's hands.
    pub(super) fn held(&self, slot: u32) -> usize {
        let key = &self.slots[slot as usize];
        let more = key.more.as_ref().map_or(0, |more| more.held_more as usize);
        usize::from(key.holder != NONE) + more
    }

    /// Adds an open record, behind all that are held.
    pub(super) fn insert(&mut self, slot: u32, offset: u64) {
        let held = self.held(slot);
        let key = &mut self.slots[slot as usize];
        if key.first == NOWHERE {
            key.first = offset;
            return;
        }
        let more = key.more.get_or_insert_default();
        if held == 0 && offset < key.first {
            more.rest.push_front(std::mem::replace(&mut key.first, offset));
            return;
        }
        let mut at = more.rest.len();
        while at > held.saturating_sub(1) && more.rest[at - 1] > offset {
            at -= 1;
        }
        more.rest.insert(at, offset);
    }

    /// The record after the held ones goes into the hands of `session`.
    pub(super) fn hold(&mut self, slot: u32, session: u32) {
        let key = &mut self.slots[slot as usize];
        if key.holder == NONE {
            key.holder = session;
        } else {
            debug_assert_eq!(key.holder, session, "a key is never in two hands");
            key.more.as_mut().expect("a second record is held").held_more += 1;
        }
    }

    /// The last held record is back.
    pub(super) fn let_go(&mut self, slot: u32) {
        let key = &mut self.slots[slot as usize];
        match key.more.as_mut().filter(|more| more.held_more > 0) {
            Some(more) => more.held_more -= 1,
            None => key.holder = NONE,
        }
    }

    /// Held records behind `offset`, which is held, the last first.
    pub(super) fn held_behind(&self, slot: u32, offset: u64) -> Vec<u64> {
        let held = self.held(slot);
        let all = (0..held).rev().filter_map(|at| self.nth(slot, at));
        all.take_while(|at| *at != offset).collect()
    }

    /// The record is settled; `held` says whether it was in hands. A key without anything is forgotten.
    pub(super) fn remove(&mut self, slot: u32, offset: u64, held: bool) {
        if held {
            self.let_go(slot);
        }
        let key = &mut self.slots[slot as usize];
        if key.first == offset {
            let next = key.more.as_mut().and_then(|more| more.rest.pop_front());
            key.first = next.unwrap_or(NOWHERE);
        } else if let Some(more) = &mut key.more
            && let Some(at) = more.rest.iter().position(|other| *other == offset)
        {
            more.rest.remove(at);
        }
        self.trim(slot);
    }

    /// What of the key is not held here.
    pub(super) fn deferral(&self, slot: u32) -> Option<Deferral> {
        self.slots[slot as usize].more.as_ref().and_then(|more| more.deferral)
    }

    /// Changes what of the key is not held here; without anything left the key is forgotten.
    pub(super) fn set_deferral(&mut self, slot: u32, deferral: Option<Deferral>) {
        let key = &mut self.slots[slot as usize];
        if deferral.is_some() || key.more.is_some() {
            key.more.get_or_insert_default().deferral = deferral;
        }
        self.trim(slot);
    }

    /// Bytes of memory, without the queues of keys with several open records.
    pub(super) fn state_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Key>() + self.by_print.capacity() * 8 / 7 * 9
    }

    /// Gives memory back.
    fn trim(&mut self, slot: u32) {
        let key = &mut self.slots[slot as usize];
        if let Some(more) = &key.more
            && more.rest.is_empty()
            && more.held_more == 0
            && more.deferral.is_none()
        {
            key.more = None;
        }
        if key.first == NOWHERE && key.more.is_none() {
            self.by_print.remove(&key.print);
            self.free.push(slot);
        }
    }
}

/// The print of a hashed key.
pub(super) fn print_of(hash: u64) -> u32 {
    u32::try_from((hash ^ (hash >> 32)) & 0xffff_ffff).expect("32 bits")
}

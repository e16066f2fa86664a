//! The open records of a lane, by offset.
//!
//! ```text
//! chunk (64 offsets)   present  1101..   which of them are open
//!                      ready    0100..   which may be handed out to anybody
//!                      entries  [e, e, e]  one per present bit, in order
//! ```
//!
//! Records that lie together cost 16 bytes and little more, one that stands alone in its 64 offsets about 150; but so
//! many holes cost the set of settled offsets more, whose limit comes first.
//!
//! A record is found by hashing, so that thousands that are stuck far behind do not slow down those that move; the order
//! of the chunks, which few calls ask for, stands in a tree of its own.
//!
//! Invariants: an entry's ready bit is set exactly when its state is ready and it is not isolated; `order` are the chunks
//! there are, `ready_chunks` those with a ready bit; the counts are those of the states.

use std::collections::{BTreeSet, HashMap};

use super::{
    entry::{Entry, State},
    number_hasher::NumberHasher,
    run::Run,
};

const CHUNK: u64 = 64;
/// Rough bytes of one chunk in the map and in the order, without its entries.
const CHUNK_BYTES: usize = 110;
/// Rooms for chunks that are not given back.
const CHUNKS_KEPT: usize = 256;

/// The open records of a lane.
#[derive(Debug, Default)]
pub(super) struct OpenTable {
    chunks: HashMap<u64, Chunk, NumberHasher>,
    order: BTreeSet<u64>,
    ready_chunks: BTreeSet<u64>,
    /// How many stand in each state, by [`State`].
    counts: [usize; 4],
}

#[derive(Debug, Default)]
struct Chunk {
    present: u64,
    ready: u64,
    entries: Vec<Entry>,
}

impl OpenTable {
    /// Number of open records.
    pub(super) fn len(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Number of records in `state`.
    pub(super) fn count(&self, state: State) -> usize {
        self.counts[state as usize]
    }

    /// Bytes of memory.
    pub(super) fn state_bytes(&self) -> usize {
        let entries: usize = self.chunks.values().map(|chunk| chunk.entries.capacity()).sum();
        self.chunks.len() * CHUNK_BYTES
            + entries * size_of::<Entry>()
            + self.ready_chunks.len() * 16
    }

    /// Adds a record that is not there.
    pub(super) fn insert(&mut self, offset: u64, entry: Entry) {
        let (number, bit) = place(offset);
        let chunk = self.chunks.entry(number).or_insert_with(|| {
            self.order.insert(number);
            Chunk::default()
        });
        debug_assert!(chunk.present & bit == 0, "{offset} is open already");
        let at = chunk.rank(bit);
        if chunk.entries.len() == chunk.entries.capacity() {
            chunk.entries.reserve_exact(chunk.entries.len().max(1));
        }
        chunk.entries.insert(at, entry);
        chunk.present |= bit;
        self.counts[entry.state() as usize] += 1;
        if offered(&entry) {
            self.mark_ready(number, bit);
        }
    }

    /// The record at `offset`.
    pub(super) fn get(&self, offset: u64) -> Option<Entry> {
        let (number, bit) = place(offset);
        let chunk = self.chunks.get(&number)?;
        (chunk.present & bit != 0).then(|| chunk.entries[chunk.rank(bit)])
    }

    /// Changes the record at `offset`, when it is there; returns it as it was.
    pub(super) fn update(&mut self, offset: u64, change: impl FnOnce(&mut Entry)) -> Option<Entry> {
        let (number, bit) = place(offset);
        let chunk = self.chunks.get_mut(&number)?;
        if chunk.present & bit == 0 {
            return None;
        }
        let at = chunk.rank(bit);
        let before = chunk.entries[at];
        change(&mut chunk.entries[at]);
        let after = chunk.entries[at];
        if before.state() != after.state() {
            self.counts[before.state() as usize] -= 1;
            self.counts[after.state() as usize] += 1;
        }
        match (offered(&before), offered(&after)) {
            (false, true) => self.mark_ready(number, bit),
            (true, false) => self.unmark_ready(number, bit),
            (true, true) | (false, false) => {}
        }
        Some(before)
    }

    /// Removes the record at `offset`.
    pub(super) fn remove(&mut self, offset: u64) -> Option<Entry> {
        let (number, bit) = place(offset);
        let chunk = self.chunks.get_mut(&number)?;
        if chunk.present & bit == 0 {
            return None;
        }
        let entry = chunk.entries.remove(chunk.rank(bit));
        chunk.present &= !bit;
        self.counts[entry.state() as usize] -= 1;
        if offered(&entry) {
            self.unmark_ready(number, bit);
        }
        self.trim(number);
        Some(entry)
    }

    /// Removes the records of `run` that fulfil `matches`, which is asked in order.
    pub(super) fn remove_where(&mut self, run: Run, mut matches: impl FnMut(u64, &Entry) -> bool) {
        let mut from = run.start;
        while from < run.end {
            let numbers = from / CHUNK..=(run.end - 1) / CHUNK;
            let Some(number) = self.order.range(numbers).next().copied() else { return };
            self.remove_in_chunk(number, run, &mut matches);
            from = (number + 1) * CHUNK;
        }
    }

    /// The lowest record that may be handed out to anybody.
    pub(super) fn first_ready(&self) -> Option<u64> {
        let number = self.ready_chunks.first()?;
        let ready = self.chunks.get(number).expect("a ready chunk is there").ready;
        Some(number * CHUNK + u64::from(ready.trailing_zeros()))
    }

    /// Changes ready records, the lowest first, until `change` says false for one, which it leaves as it is.
    pub(super) fn take_ready(&mut self, mut change: impl FnMut(u64, &mut Entry) -> bool) {
        while let Some(number) = self.ready_chunks.first().copied() {
            let chunk = self.chunks.get_mut(&number).expect("a ready chunk is there");
            let mut more = true;
            while chunk.ready != 0 && more {
                let bit = chunk.ready & chunk.ready.wrapping_neg();
                let offset = number * CHUNK + u64::from(bit.trailing_zeros());
                let at = chunk.rank(bit);
                more = change(offset, &mut chunk.entries[at]);
                let after = chunk.entries[at].state();
                if after != State::Ready {
                    chunk.ready &= !bit;
                    self.counts[State::Ready as usize] -= 1;
                    self.counts[after as usize] += 1;
                }
            }
            if chunk.ready == 0 {
                self.ready_chunks.remove(&number);
            }
            if !more {
                return;
            }
        }
    }

    /// The records at or past `from`, in order.
    pub(super) fn range(&self, from: u64) -> impl Iterator<Item = (u64, Entry)> {
        let numbers = self.order.range(from / CHUNK..);
        let all = numbers.flat_map(|number| self.chunks[number].iter(*number));
        all.skip_while(move |(offset, _)| *offset < from)
    }

    fn remove_in_chunk(
        &mut self,
        number: u64,
        run: Run,
        matches: &mut impl FnMut(u64, &Entry) -> bool,
    ) {
        let chunk = self.chunks.get_mut(&number).expect("asked for by number");
        let mut bits = chunk.present;
        let counts = &mut self.counts;
        let (present, ready) = (&mut chunk.present, &mut chunk.ready);
        chunk.entries.retain(|entry| {
            let bit = bits & bits.wrapping_neg();
            bits &= !bit;
            let offset = number * CHUNK + u64::from(bit.trailing_zeros());
            if !run.contains(offset) || !matches(offset, entry) {
                return true;
            }
            *present &= !bit;
            *ready &= !bit;
            counts[entry.state() as usize] -= 1;
            false
        });
        if chunk.ready == 0 {
            self.ready_chunks.remove(&number);
        }
        self.trim(number);
    }

    fn mark_ready(&mut self, number: u64, bit: u64) {
        let chunk = self.chunks.get_mut(&number).expect("it holds the record");
        if chunk.ready == 0 {
            self.ready_chunks.insert(number);
        }
        chunk.ready |= bit;
    }

    fn unmark_ready(&mut self, number: u64, bit: u64) {
        let chunk = self.chunks.get_mut(&number).expect("it holds the record");
        chunk.ready &= !bit;
        if chunk.ready == 0 {
            self.ready_chunks.remove(&number);
        }
    }

    /// Gives memory back after a removal.
    fn trim(&mut self, number: u64) {
        let chunk = self.chunks.get_mut(&number).expect("a record was removed from it");
        if chunk.present == 0 {
            self.chunks.remove(&number);
            self.order.remove(&number);
            let rooms = self.chunks.capacity();
            if rooms > CHUNKS_KEPT && self.chunks.len() * 8 < rooms {
                self.chunks.shrink_to(self.chunks.len() * 2);
            }
        } else if chunk.entries.len() * 4 <= chunk.entries.capacity() {
            chunk.entries.shrink_to(chunk.entries.len() * 2);
        }
    }
}

impl Chunk {
    /// Entries before the one of `bit`.
    fn rank(&self, bit: u64) -> usize {
        (self.present & (bit - 1)).count_ones() as usize
    }

    fn iter(&self, number: u64) -> impl Iterator<Item = (u64, Entry)> {
        let mut bits = self.present;
        self.entries.iter().map(move |entry| {
            let at = bits.trailing_zeros();
            bits &= bits - 1;
            (number * CHUNK + u64::from(at), *entry)
        })
    }
}

fn offered(entry: &Entry) -> bool {
    entry.state() == State::Ready && !entry.isolated()
}

fn place(offset: u64) -> (u64, u64) {
    (offset / CHUNK, 1 << (offset % CHUNK))
}

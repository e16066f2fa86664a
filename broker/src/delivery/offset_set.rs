//! A set of offsets, small where offsets lie together: which records of a lane are terminal.
//!
//! Offsets are grouped in chunks of 512.
//!
//! ```text
//! full:   whole chunks, as runs of chunk numbers       [3, 90) [92, 4000)
//! chunks: chunks with holes, one bit per offset        91: 0111..
//! top:    one run past all others, not in the trees    2048100..2048230
//! ```
//!
//! What is inserted in order only moves the end of `top`: no search, no memory. Nor is there a search for what lies
//! past the trees, which is where records are opened and settled while an old one is stuck. A stretch without holes
//! costs 16 bytes however long it is, a hole at any distance costs one chunk, and the worst case is one bit per
//! offset and the chunk's number.
//!
//! Invariants:
//! - A chunk with all bits is in `full`, one with no bits is nowhere; none is in both trees.
//! - Runs in `full` neither overlap nor touch.
//! - Offsets in the trees are smaller than `trees_end`, and `top` lies at or past it.
//! - `len` counts the offsets.
//!
//! It does not know a floor: the lane keeps it, and [`OffsetSet::advance_floor`] moves it over what is here.

use std::{collections::BTreeMap, fmt, ops::Range};

/// Offsets in one chunk.
const CHUNK: u64 = 512;
/// Words of one chunk.
const WORDS: usize = 8;
/// Bytes that a chunk with holes costs at most: a node of the tree has room for 11 and holds at least 5.
const CHUNK_BYTES: usize = (11 * (8 + 8 * WORDS) + 16) / 5;
/// Bytes that a run of full chunks costs at most.
const FULL_BYTES: usize = (11 * 16 + 16) / 5;

/// A set of offsets.
#[derive(Clone, Default)]
pub struct OffsetSet {
    /// Chunks with holes, by number.
    chunks: BTreeMap<u64, [u64; WORDS]>,
    /// Full chunks: first chunk of a run to the first one past it.
    full: BTreeMap<u64, u64>,
    /// The run past all others.
    top: Range<u64>,
    /// Every offset in the trees is smaller.
    trees_end: u64,
    /// Number of offsets.
    len: u64,
}

/// A part of a set, as it is best written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// All offsets of a range.
    Run(Range<u64>),
    /// A chunk with holes: its first offset, a multiple of 512, and one bit per offset, the lowest first.
    Bits(u64, [u64; 8]),
}

impl Piece {
    /// Its maximal ranges, in order.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let (mut whole, bits) = match self {
            Piece::Run(run) => (Some(run.clone()), None),
            Piece::Bits(first, words) => (None, Some((*first, words))),
        };
        let mut from = 0;
        std::iter::from_fn(move || {
            let Some((first, words)) = bits else { return whole.take() };
            let start = first_set(words, from)?;
            from = first_clear(words, start).unwrap_or(CHUNK);
            Some(first + start..first + from)
        })
    }
}

impl OffsetSet {
    /// An empty set.
    pub fn new() -> OffsetSet {
        OffsetSet::default()
    }

    /// Number of offsets.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no offset.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory at most, the bookkeeping of the trees included.
    pub fn state_bytes(&self) -> usize {
        size_of::<OffsetSet>() + self.chunks.len() * CHUNK_BYTES + self.full.len() * FULL_BYTES
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = OffsetSet::default();
    }

    /// Adds offsets; returns how many of them are new. The range may be of any size.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let before = self.len;
        if self.top.is_empty() {
            self.top = self.trees_end..self.trees_end;
        }
        if range.start < self.top.start {
            self.insert_below(range.start..range.end.min(self.top.start));
        }
        if range.end > self.top.start {
            self.insert_above(range.start.max(self.top.start)..range.end);
        }
        self.len - before
    }

    /// Whether `offset` is in the set.
    pub fn contains(&self, offset: u64) -> bool {
        if offset >= self.trees_end {
            return self.top.contains(&offset);
        }
        let chunk = offset / CHUNK;
        match self.chunks.get(&chunk) {
            Some(words) => words[word_of(offset)] & bit_of(offset) != 0,
            None => self.full_run(chunk).is_some(),
        }
    }

    /// Removes all offsets below `end`.
    pub fn remove_below(&mut self, end: u64) {
        let boundary = end / CHUNK;
        while let Some(entry) = self.full.first_entry().filter(|entry| *entry.key() <= boundary) {
            let run = entry.remove_entry();
            if run.1 > boundary {
                self.cut_full(run, end);
                break;
            }
            self.len -= (run.1 - run.0) * CHUNK;
        }
        while let Some(mut entry) = self.chunks.first_entry().filter(|at| *at.key() <= boundary) {
            if *entry.key() == boundary {
                let words = entry.get_mut();
                let cut = mask(0, end % CHUNK);
                self.len -= count(words, &cut);
                words.iter_mut().zip(cut).for_each(|(word, cut)| *word &= !cut);
                if *words == [0; WORDS] {
                    entry.remove();
                }
                break;
            }
            self.len -= count(&entry.remove(), &[u64::MAX; WORDS]);
        }
        let top_start = self.top.start.max(end).min(self.top.end);
        self.len -= top_start - self.top.start;
        self.top.start = top_start;
    }

    /// Everything below `floor` is settled: removes it, and what follows it without a hole. Returns the end of
    /// that, the new floor.
    pub fn advance_floor(&mut self, floor: u64) -> u64 {
        if self.len == 0 {
            return floor;
        }
        let end = self.run_end(floor);
        if self.len == self.top.end - self.top.start && end == self.top.end {
            self.top.start = end;
            self.len = 0;
        } else {
            self.remove_below(end);
        }
        end
    }

    /// The smallest offset in the set at or past `from`.
    pub fn next_in(&self, from: u64) -> Option<u64> {
        let top = Some(self.top.start.max(from)).filter(|at| self.top.contains(at));
        if from >= self.trees_end {
            return top;
        }
        let chunk = from / CHUNK;
        let full = self.full_run(chunk).map(|_| from);
        let full = full.or_else(|| self.full.range(chunk..).next().map(|(start, _)| start * CHUNK));
        let mut partial = self.chunks.range(chunk..).filter_map(|(number, words)| {
            let first = number * CHUNK;
            first_set(words, from.saturating_sub(first)).map(|at| first + at)
        });
        [full, partial.next(), top].into_iter().flatten().min()
    }

    /// The end of the stretch of offsets in the set that begins at `from`; `from` itself when it is not in it.
    pub fn run_end(&self, from: u64) -> u64 {
        let mut at = from;
        loop {
            let next = self.run_end_within(at);
            // Nothing lies past `top`, empty or not.
            if next == at || next == self.top.end {
                return next;
            }
            at = next;
        }
    }

    /// The maximal ranges of offsets in the set, in order.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = self.next_in(from)?;
            from = self.run_end(start);
            Some(start..from)
        })
    }

    /// The maximal ranges within `range` that are not in the set, in order.
    pub fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut from = range.start;
        std::iter::from_fn(move || {
            let start = if from < range.end { self.run_end(from) } else { from };
            if start >= range.end {
                return None;
            }
            from = self.next_in(start).map_or(range.end, |end| end.min(range.end));
            Some(start..from)
        })
    }

    /// The set in parts, in order: chunks with holes as bits, everything else as ranges. Neighbouring ranges may
    /// touch.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> {
        let mut chunks = self.chunks.iter().peekable();
        let mut full = self.full.iter().peekable();
        let mut top = Some(self.top.clone()).filter(|top| !top.is_empty());
        std::iter::from_fn(move || {
            let chunk_first = match (chunks.peek(), full.peek()) {
                (Some((chunk, _)), Some((run, _))) => chunk < run,
                (chunk, _) => chunk.is_some(),
            };
            if chunk_first {
                return chunks.next().map(|(chunk, words)| Piece::Bits(chunk * CHUNK, *words));
            }
            let run = full.next().map(|(start, end)| start * CHUNK..end * CHUNK);
            run.or_else(|| top.take()).map(Piece::Run)
        })
    }

    /// Adds a range that lies below `top`.
    fn insert_below(&mut self, range: Range<u64>) {
        self.trees_end = self.trees_end.max(range.end);
        let (first, last) = (range.start / CHUNK, (range.end - 1) / CHUNK);
        if first == last {
            self.insert_partial(first, mask(range.start % CHUNK, range.end - first * CHUNK));
            return;
        }
        self.insert_partial(first, mask(range.start % CHUNK, CHUNK));
        self.insert_partial(last, mask(0, range.end - last * CHUNK));
        self.insert_full(first + 1..last);
    }

    /// Adds a range that begins in or past `top`.
    fn insert_above(&mut self, range: Range<u64>) {
        if !self.top.is_empty() && range.start > self.top.end {
            let top = std::mem::take(&mut self.top);
            self.len -= top.end - top.start;
            self.insert_below(top);
        }
        if self.top.is_empty() {
            self.top = range.start..range.start;
        }
        let end = self.top.end.max(range.end);
        self.len += end - self.top.end;
        self.top.end = end;
    }

    fn insert_partial(&mut self, chunk: u64, bits: [u64; WORDS]) {
        if !self.chunks.contains_key(&chunk) && self.full_run(chunk).is_some() {
            return;
        }
        let words = self.chunks.entry(chunk).or_default();
        self.len += count(&bits, &[u64::MAX; WORDS]) - count(words, &bits);
        words.iter_mut().zip(bits).for_each(|(word, bits)| *word |= bits);
        if *words == [u64::MAX; WORDS] {
            self.insert_full(chunk..chunk + 1);
        }
    }

    /// Makes chunks full, whatever was in them.
    fn insert_full(&mut self, mut range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((chunk, words)) = self.chunks.range(range.clone()).next() {
            self.len -= count(words, &[u64::MAX; WORDS]);
            let chunk = *chunk;
            self.chunks.remove(&chunk);
        }
        let before = self.full.range(..range.start).next_back();
        if let Some((start, end)) = before.map(|(start, end)| (*start, *end))
            && end >= range.start
        {
            range = start..range.end.max(end);
        }
        while let Some((start, end)) = self.full.range(range.start..=range.end).next() {
            let (start, end) = (*start, *end);
            self.len -= (end - start) * CHUNK;
            self.full.remove(&start);
            range.end = range.end.max(end);
        }
        self.len += (range.end - range.start) * CHUNK;
        self.full.insert(range.start, range.end);
    }

    /// Puts back what lies at or past `end` of the full chunks `run`, which hold it.
    fn cut_full(&mut self, run: (u64, u64), end: u64) {
        let boundary = end / CHUNK;
        self.len -= end - run.0 * CHUNK;
        let mut start = boundary.max(run.0);
        if end > start * CHUNK {
            self.chunks.insert(start, mask(end % CHUNK, CHUNK));
            start += 1;
        }
        if start < run.1 {
            self.full.insert(start, run.1);
        }
    }

    /// As [`OffsetSet::run_end`], looking into one of the three places only.
    fn run_end_within(&self, from: u64) -> u64 {
        if from >= self.trees_end {
            return if self.top.contains(&from) { self.top.end } else { from };
        }
        let chunk = from / CHUNK;
        if let Some(words) = self.chunks.get(&chunk) {
            chunk * CHUNK + first_clear(words, from % CHUNK).unwrap_or(CHUNK)
        } else {
            self.full_run(chunk).map_or(from, |run| run.end * CHUNK)
        }
    }

    /// The run of full chunks that holds `chunk`.
    fn full_run(&self, chunk: u64) -> Option<Range<u64>> {
        let (start, end) = self.full.range(..=chunk).next_back()?;
        (chunk < *end).then_some(*start..*end)
    }
}

impl PartialEq for OffsetSet {
    fn eq(&self, other: &OffsetSet) -> bool {
        self.len == other.len && self.runs().eq(other.runs())
    }
}

impl Eq for OffsetSet {}

impl fmt::Debug for OffsetSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.runs()).finish()
    }
}

fn word_of(offset: u64) -> usize {
    usize::try_from(offset % CHUNK / 64).expect("below 8")
}

fn bit_of(offset: u64) -> u64 {
    1 << (offset % 64)
}

/// The bits `start..end` of a chunk.
fn mask(start: u64, end: u64) -> [u64; WORDS] {
    let below = |end: u64, word: u64| match end.saturating_sub(word * 64) {
        bits @ 0..64 => (1 << bits) - 1,
        _ => u64::MAX,
    };
    let mut words = [0; WORDS];
    for (index, word) in (0u64..).zip(&mut words) {
        *word = below(end, index) & !below(start, index);
    }
    words
}

/// Bits set in both.
fn count(words: &[u64; WORDS], bits: &[u64; WORDS]) -> u64 {
    words.iter().zip(bits).map(|(word, bits)| u64::from((word & bits).count_ones())).sum()
}

/// The first bit at or past `from` that is set.
fn first_set(words: &[u64; WORDS], from: u64) -> Option<u64> {
    let from_mask = mask(from, CHUNK);
    (0u64..).zip(words.iter().zip(from_mask)).find_map(|(index, (word, mask))| {
        let found = word & mask;
        (found != 0).then(|| index * 64 + u64::from(found.trailing_zeros()))
    })
}

/// The first bit at or past `from` that is clear.
fn first_clear(words: &[u64; WORDS], from: u64) -> Option<u64> {
    first_set(&words.map(|word| !word), from)
}

#[cfg(test)]
mod tests;

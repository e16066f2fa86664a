//! A set of offsets from which single ones are taken out again.

use std::collections::BTreeMap;

/// A set of offsets, one bit each in words of 64.
#[derive(Debug, Default)]
pub(super) struct BitSet {
    words: BTreeMap<u64, u64>,
    len: usize,
}

impl BitSet {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory.
    pub(super) fn state_bytes(&self) -> usize {
        self.words.len() * 32
    }

    /// Adds `offset`; returns whether it is new.
    pub(super) fn insert(&mut self, offset: u64) -> bool {
        let word = self.words.entry(offset / 64).or_default();
        let new = *word & bit(offset) == 0;
        *word |= bit(offset);
        self.len += usize::from(new);
        new
    }

    /// Takes `offset` out; returns whether it was there.
    pub(super) fn remove(&mut self, offset: u64) -> bool {
        let Some(word) = self.words.get_mut(&(offset / 64)) else { return false };
        let there = *word & bit(offset) != 0;
        *word &= !bit(offset);
        if *word == 0 {
            self.words.remove(&(offset / 64));
        }
        self.len -= usize::from(there);
        there
    }

    /// The smallest offset at or past `from`.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        self.words.range(from / 64..).find_map(|(number, word)| {
            let past = if *number == from / 64 { u64::MAX << (from % 64) } else { u64::MAX };
            let found = word & past;
            (found != 0).then(|| number * 64 + u64::from(found.trailing_zeros()))
        })
    }

    /// The largest offset.
    pub(super) fn last(&self) -> Option<u64> {
        let (number, word) = self.words.last_key_value()?;
        Some(number * 64 + 63 - u64::from(word.leading_zeros()))
    }
}

fn bit(offset: u64) -> u64 {
    1 << (offset % 64)
}

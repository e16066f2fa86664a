//! The newest offset of each key, in bounded memory.
//!
//! A key is remembered by a keyed 128-bit fingerprint, not by its bytes: two different keys are taken
//! for one with a chance of about `n * n / 2^129`, and no one can choose keys for which they are,
//! because the fingerprints' secret is drawn anew for each map.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use riverrun_proto::{Offset, ProducerId};

/// Bytes of memory that one key takes: fingerprint, offset, and the table's slack.
const KEY_BYTES: usize = 56;

/// Newest offsets of keys and of idempotent producers.
#[derive(Debug)]
pub(super) struct KeyMap {
    secrets: [RandomState; 2],
    newest: HashMap<(u64, u64), Offset>,
    /// Keys the map may hold.
    key_count_max: usize,
    /// First offset of each producer's newest batch; `None` once there were too many to remember.
    producers: Option<HashMap<ProducerId, Offset>>,
}

impl KeyMap {
    /// A map of at most about `bytes_max` bytes, and at least one key.
    pub(super) fn new(bytes_max: usize) -> KeyMap {
        KeyMap {
            secrets: [RandomState::new(), RandomState::new()],
            newest: HashMap::new(),
            key_count_max: (bytes_max / KEY_BYTES).max(1),
            producers: Some(HashMap::new()),
        }
    }

    /// Remembers that `offset`, higher than all before, has `key`. False when there is no room.
    #[must_use]
    pub(super) fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        let fingerprint = self.fingerprint(key);
        if self.newest.len() == self.key_count_max && !self.newest.contains_key(&fingerprint) {
            return false;
        }
        self.newest.insert(fingerprint, offset);
        true
    }

    /// Remembers that the batch at `base`, higher than all before, is of `producer`.
    pub(super) fn note_producer(&mut self, producer: ProducerId, base: Offset) {
        if let Some(producers) = &mut self.producers {
            producers.insert(producer, base);
            if producers.len() > self.key_count_max {
                self.producers = None;
            }
        }
    }

    /// Whether a later record than the one at `offset` is known to have `key`.
    pub(super) fn is_superseded(&self, key: &[u8], offset: Offset) -> bool {
        self.newest.get(&self.fingerprint(key)).is_some_and(|newest| *newest > offset)
    }

    /// Whether a later batch than the one at `base` is known to be of `producer`.
    pub(super) fn has_later_batch(&self, producer: ProducerId, base: Offset) -> bool {
        let newest = self.producers.as_ref().and_then(|producers| producers.get(&producer));
        newest.is_some_and(|newest| *newest > base)
    }

    /// Keys in the map.
    pub(super) fn key_count(&self) -> usize {
        self.newest.len()
    }

    fn fingerprint(&self, key: &[u8]) -> (u64, u64) {
        let [low, high] = &self.secrets;
        (low.hash_one(key), high.hash_one(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_counts_and_a_full_map_takes_known_keys_only() {
        let mut map = KeyMap::new(2 * KEY_BYTES);
        assert!(map.note(b"a", Offset(1)) && map.note(b"b", Offset(2)));
        assert!(!map.note(b"c", Offset(3)));
        assert!(map.note(b"a", Offset(4)));
        assert!(map.is_superseded(b"a", Offset(1)) && !map.is_superseded(b"a", Offset(4)));
        assert!(!map.is_superseded(b"b", Offset(2)) && !map.is_superseded(b"c", Offset(0)));
        assert_eq!(map.key_count(), 2);
    }

    #[test]
    fn too_many_producers_are_all_taken_for_newest() {
        let mut map = KeyMap::new(2 * KEY_BYTES);
        map.note_producer(ProducerId(1), Offset(1));
        map.note_producer(ProducerId(1), Offset(5));
        assert!(map.has_later_batch(ProducerId(1), Offset(1)));
        assert!(!map.has_later_batch(ProducerId(1), Offset(5)));
        map.note_producer(ProducerId(2), Offset(6));
        map.note_producer(ProducerId(3), Offset(7));
        assert!(!map.has_later_batch(ProducerId(1), Offset(1)));
    }
}

//! What each idempotent producer wrote last, so that a retry is told from a new batch.
//!
//! Per producer id: its epoch and its last five batches. A batch is
//! - a *duplicate* when it has the sequence range of one of them: its first offsets are the answer;
//! - *next* when its sequence follows the newest one, or is 0 in a higher epoch;
//! - refused otherwise: stale epoch, sequence gap, or a producer that is not known.
//!
//! Sequence numbers run from 0 to `i32::MAX` and then begin again at 0.
//!
//! The table is derived from the log. A snapshot beside the segments spares reading it all:
//!
//! ```text
//! 0 magic u64 | 8 version u32 | 12 crc u32 (over the rest) | 16 as of offset u64 | 24 count u32 | 28 complete u32
//! 32 producers {id i64, epoch i16, batch count u16, zero u32, last append time ms i64,
//!               batches {first sequence i32, last sequence i32, base offset u64}}
//! ```
//!
//! Bounded: past `producer_count_max` the producer silent for longest is forgotten, and whoever is silent
//! for longer than `producer_age_max` too. A forgotten producer that goes on is refused as unknown, never
//! guessed at. Only a table rebuilt from a log whose beginning is gone, and without a snapshot, takes an
//! unknown producer at its word: its state may have gone with the beginning.

use std::collections::HashMap;

use riverrun_proto::{Offset, ProducerEpoch, ProducerId, batch::BatchHeader};

use crate::{
    AppendError, Timestamp,
    fixed::{crc32, i64_at, put, u32_at, u64_at},
    planted::{Bug, planted},
};

/// Batches remembered of each producer.
const BATCH_COUNT: usize = 5;
/// First eight bytes of a snapshot.
const MAGIC: &[u8; 8] = b"RIVERPRD";
/// Layout of a snapshot.
const VERSION: u32 = 1;
/// Bytes before the producers.
const HEAD_BYTES: usize = 32;
/// Bytes of one producer with all its batches.
const PRODUCER_BYTES: usize = 24 + BATCH_COUNT * 16;

/// One batch of a producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Written {
    /// Sequence number of its first record.
    first: i32,
    /// Sequence number of its last record.
    last: i32,
    /// Offset of its first record.
    base: Offset,
}

/// What is remembered of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    /// Its newest epoch.
    epoch: ProducerEpoch,
    /// Batches of that epoch, oldest first; the first `count` are valid.
    batches: [Written; BATCH_COUNT],
    /// Valid batches.
    count: usize,
    /// When it last wrote.
    last_append_time: Timestamp,
}

impl Producer {
    /// The valid batches, oldest first.
    fn batches(&self) -> &[Written] {
        &self.batches[..self.count]
    }

    /// Adds its newest batch.
    fn push(&mut self, written: Written) {
        if self.count == BATCH_COUNT {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        self.batches[self.count] = written;
        self.count += 1;
    }
}

/// What a batch is to its producer's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequence {
    /// To be appended.
    Next,
    /// Already in the log, first at this offset.
    Duplicate {
        /// Offset it got then.
        base: Offset,
    },
}

/// All producers of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producers {
    /// By producer id.
    known: HashMap<ProducerId, Producer>,
    /// False when the beginning of the log was gone when the table was built from it.
    complete: bool,
}

impl Producers {
    /// A table that knows nobody. `complete` says that the log holds all that was ever in it.
    pub(crate) fn new(complete: bool) -> Producers {
        Producers { known: HashMap::new(), complete }
    }

    /// Says what `batch` is. Changes nothing.
    ///
    /// # Errors
    /// One of the producer errors of [`AppendError`].
    pub(crate) fn check(&self, batch: &BatchHeader) -> Result<Sequence, AppendError> {
        let (producer_id, got) = (batch.producer_id, batch.base_sequence);
        if !batch.is_idempotent() {
            return Ok(Sequence::Next);
        }
        if batch.producer_epoch.0 < 0 || got < 0 {
            let epoch = batch.producer_epoch;
            return Err(AppendError::InvalidProducer { producer_id, epoch, sequence: got });
        }
        let Some(producer) = self.known.get(&producer_id) else {
            let may_be_first = got == 0 || !self.complete;
            let unknown = AppendError::UnknownProducer { producer_id, sequence: got };
            return if may_be_first { Ok(Sequence::Next) } else { Err(unknown) };
        };
        if batch.producer_epoch < producer.epoch {
            let (got, current) = (batch.producer_epoch, producer.epoch);
            return Err(AppendError::Fenced { producer_id, got, current });
        }
        let expected = if batch.producer_epoch > producer.epoch {
            0
        } else {
            let last = last_sequence(batch);
            let same = |written: &&Written| written.first == got && written.last == last;
            if let Some(written) = producer.batches().iter().find(same) {
                if planted(Bug::NoDedup) {
                    return Ok(Sequence::Next);
                }
                return Ok(Sequence::Duplicate { base: written.base });
            }
            producer.batches().last().map_or(0, |newest| after(newest.last, 1))
        };
        if got == expected {
            return Ok(Sequence::Next);
        }
        Err(AppendError::OutOfOrderSequence { producer_id, expected, got })
    }

    /// Takes in a batch that is in the log at `base`.
    pub(crate) fn add(&mut self, batch: &BatchHeader, base: Offset, append_time: Timestamp) {
        if !batch.is_idempotent() {
            return;
        }
        let fresh = Producer {
            epoch: batch.producer_epoch,
            batches: [Written::default(); BATCH_COUNT],
            count: 0,
            last_append_time: append_time,
        };
        let producer = self.known.entry(batch.producer_id).or_insert_with(|| fresh.clone());
        if producer.epoch != batch.producer_epoch {
            *producer = fresh;
        }
        producer.last_append_time = append_time;
        let (first, last) = (batch.base_sequence, last_sequence(batch));
        producer.push(Written { first, last, base });
    }

    /// Forgets who was silent for longer than `age_max`, and the most silent past `count_max`.
    pub(crate) fn forget(
        &mut self,
        now: Timestamp,
        age_max: std::time::Duration,
        count_max: usize,
    ) {
        self.known.retain(|_, producer| now.since(producer.last_append_time) <= age_max);
        let excess = self.known.len().saturating_sub(count_max);
        if excess == 0 {
            return;
        }
        let mut by_age: Vec<_> =
            self.known.iter().map(|(id, producer)| (producer.last_append_time, *id)).collect();
        by_age.sort_unstable();
        for (_, id) in by_age.into_iter().take(excess) {
            self.known.remove(&id);
        }
    }

    /// Producers remembered.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// The snapshot of the table as of `as_of`.
    pub(crate) fn encode(&self, as_of: Offset) -> Vec<u8> {
        let mut file = vec![0; HEAD_BYTES];
        put(&mut file, 0, MAGIC);
        put(&mut file, 8, &VERSION.to_le_bytes());
        put(&mut file, 16, &as_of.0.to_le_bytes());
        let count = u32::try_from(self.known.len()).expect("a bounded table");
        put(&mut file, 24, &count.to_le_bytes());
        put(&mut file, 28, &u32::from(self.complete).to_le_bytes());
        let mut sorted: Vec<_> = self.known.iter().collect();
        sorted.sort_unstable_by_key(|(id, _)| **id);
        for (id, producer) in sorted {
            file.extend_from_slice(&producer.encode(*id));
        }
        let crc = crc32(&file[16..]);
        put(&mut file, 12, &crc.to_le_bytes());
        file
    }

    /// The table in a snapshot as of `as_of`, or `None` when it is not a valid one.
    pub(crate) fn decode(file: &[u8], as_of: Offset) -> Option<Producers> {
        if file.len() < HEAD_BYTES || !file.starts_with(MAGIC) || u32_at(file, 8) != VERSION {
            return None;
        }
        let count = usize::try_from(u32_at(file, 24)).ok()?;
        let file = file.get(..HEAD_BYTES.checked_add(count.checked_mul(PRODUCER_BYTES)?)?)?;
        if crc32(&file[16..]) != u32_at(file, 12) || u64_at(file, 16) != as_of.0 {
            return None;
        }
        let known = file[HEAD_BYTES..].chunks_exact(PRODUCER_BYTES).map(Producer::decode);
        let complete = u32_at(file, 28) == 1;
        let known: HashMap<ProducerId, Producer> = known.collect::<Option<_>>()?;
        // Nobody wrote what it tells at or past the offset it was made for.
        let is_before = |written: &Written| written.base < as_of;
        let is_possible = known.values().all(|producer| producer.batches().iter().all(is_before));
        is_possible.then_some(Producers { known, complete })
    }
}

impl Producer {
    /// Its bytes in a snapshot.
    fn encode(&self, id: ProducerId) -> [u8; PRODUCER_BYTES] {
        let mut block = [0; PRODUCER_BYTES];
        put(&mut block, 0, &id.0.to_le_bytes());
        put(&mut block, 8, &self.epoch.0.to_le_bytes());
        let count = u16::try_from(self.count).expect("at most five");
        put(&mut block, 10, &count.to_le_bytes());
        put(&mut block, 16, &self.last_append_time.0.to_le_bytes());
        for (at, written) in (24..).step_by(16).zip(self.batches()) {
            put(&mut block, at, &written.first.to_le_bytes());
            put(&mut block, at + 4, &written.last.to_le_bytes());
            put(&mut block, at + 8, &written.base.0.to_le_bytes());
        }
        block
    }

    /// The producer in those bytes.
    fn decode(block: &[u8]) -> Option<(ProducerId, Producer)> {
        let count = usize::from(u16::from_le_bytes([block[10], block[11]]));
        let mut producer = Producer {
            epoch: ProducerEpoch(i16::from_le_bytes([block[8], block[9]])),
            batches: [Written::default(); BATCH_COUNT],
            count: 0,
            last_append_time: Timestamp(i64_at(block, 16)),
        };
        for bytes in block[24..].chunks_exact(16).take(count) {
            producer.push(Written {
                first: i32::from_le_bytes(bytes[..4].try_into().expect("four bytes")),
                last: i32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")),
                base: Offset(u64_at(bytes, 8)),
            });
        }
        (count <= BATCH_COUNT).then(|| (ProducerId(i64_at(block, 0)), producer))
    }
}

/// Sequence number of the last record of `batch`.
fn last_sequence(batch: &BatchHeader) -> i32 {
    after(batch.base_sequence, batch.last_offset_delta)
}

/// The sequence number `count` after `sequence`.
fn after(sequence: i32, count: u32) -> i32 {
    let sum = (i64::from(sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1);
    i32::try_from(sum).expect("reduced to 31 bits")
}

#[cfg(test)]
mod tests;

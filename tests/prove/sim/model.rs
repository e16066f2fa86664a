//! What the clients were told, and whether that is still so.
//!
//! - A record that a client saw, by a receipt or by reading, stays where it was, with its bytes.
//! - Offsets are dense, a record is there once, and each producer's records stand in its order.
//! - A stored offset that was confirmed does not go back.

use std::collections::BTreeMap;

use super::step::PARTITIONS;

/// Something that must not be, for a person.
pub(super) type Broken = String;

/// Who a record is: its producer and its number among that producer's records of the partition.
pub(super) type Name = (usize, u32);

/// What is known of one partition.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Records by offset, of receipts and of reads.
    at: BTreeMap<u64, Name>,
    /// Offsets by record.
    place: BTreeMap<Name, u64>,
    /// The offset stored last for certain.
    confirmed: Option<u64>,
    /// Offsets sent since, of which each may have been stored.
    unsure: Vec<u64>,
}

/// What the clients were told.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    partitions: [Seen; PARTITIONS],
    /// Records acknowledged.
    pub(super) acked_count: u64,
    /// A sum over everything seen, in order: equal runs have equal sums.
    pub(super) sum: u64,
}

/// The bytes of a record.
pub(super) fn value(partition: usize, name: Name, bytes: u32) -> Vec<u8> {
    let mut value = format!("{partition}/{}/{}/{bytes}/", name.0, name.1).into_bytes();
    let mut next = name.1.to_le_bytes()[0];
    while value.len() < bytes as usize {
        value.push(next);
        next = next.wrapping_mul(31).wrapping_add(7);
    }
    value
}

/// Who a record is, if its bytes are whole.
fn name(partition: usize, found: &[u8]) -> Option<Name> {
    let head = &found[..found.len().min(64)];
    let mut parts = head.split(|byte| *byte == b'/');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u32>().ok();
    let (of, producer, sequence, bytes) = (number()?, number()?, number()?, number()?);
    let name = (producer as usize, sequence);
    (of as usize == partition && value(partition, name, bytes) == found).then_some(name)
}

impl Model {
    /// Folds something into the sum.
    pub(super) fn note(&mut self, what: u64) {
        self.sum = (self.sum ^ what).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
    }

    /// A client was told that a record stands at an offset.
    pub(super) fn placed(
        &mut self,
        partition: usize,
        offset: u64,
        name: Name,
    ) -> Result<(), Broken> {
        self.note(offset ^ (u64::from(name.1) << 20) ^ ((name.0 as u64) << 50));
        let seen = &mut self.partitions[partition];
        let before = *seen.at.entry(offset).or_insert(name);
        if before != name {
            return Err(format!(
                "inconsistent-offset: {partition}@{offset} was {before:?} and is {name:?}"
            ));
        }
        let place = *seen.place.entry(name).or_insert(offset);
        if place != offset {
            return Err(format!(
                "duplicate: {name:?} of partition {partition} is at {place} and at {offset}"
            ));
        }
        Ok(())
    }

    /// A client read a record.
    pub(super) fn read(
        &mut self,
        partition: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Broken> {
        let Some(name) = name(partition, bytes) else {
            return Err(format!("wrong-bytes: {partition}@{offset} is no record that was sent"));
        };
        self.placed(partition, offset, name)
    }

    /// First offset past everything seen.
    pub(super) fn end(&self, partition: usize) -> u64 {
        self.partitions[partition].at.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }

    /// Everything in a partition, as just read from its beginning, has been noted by [`Model::read`]; it ends at
    /// `end`.
    pub(super) fn all_read(&self, partition: usize, end: u64) -> Result<(), Broken> {
        let seen = &self.partitions[partition];
        if let Some((offset, name)) = seen.at.range(end..).next() {
            return Err(format!(
                "vanish: {name:?} was seen at {partition}@{offset}, the log ends at {end}"
            ));
        }
        if let Some(hole) = (0..end).find(|offset| !seen.at.contains_key(offset)) {
            return Err(format!("hole: {partition}@{hole} holds nothing below the end {end}"));
        }
        let mut last: BTreeMap<usize, u32> = BTreeMap::new();
        for (offset, (producer, number)) in &seen.at {
            let expected = last.get(producer).map_or(0, |last| last + 1);
            if *number != expected {
                return Err(format!(
                    "order: {partition}@{offset} is number {number} of producer {producer}, not {expected}"
                ));
            }
            last.insert(*producer, *number);
        }
        Ok(())
    }

    /// An offset was sent to be stored.
    pub(super) fn commit_sent(&mut self, partition: usize, offset: u64) {
        self.partitions[partition].unsure.push(offset);
    }

    /// It was confirmed.
    pub(super) fn commit_confirmed(&mut self, partition: usize, offset: u64) {
        let seen = &mut self.partitions[partition];
        seen.confirmed = Some(offset);
        seen.unsure.clear();
    }

    /// An offset was found stored, or none.
    pub(super) fn stored(&mut self, partition: usize, found: Option<u64>) -> Result<(), Broken> {
        let seen = &mut self.partitions[partition];
        let known = found == seen.confirmed || found.is_some_and(|at| seen.unsure.contains(&at));
        if !known {
            return Err(format!(
                "commit-regress: partition {partition} has {found:?} stored, confirmed was {:?}, sent were {:?}",
                seen.confirmed, seen.unsure
            ));
        }
        seen.confirmed = found;
        seen.unsure.clear();
        Ok(())
    }
}

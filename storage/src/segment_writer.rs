//! Appends entries to the active segment: room, copy, index. Publishing is the log's.
//!
//! Blocks are really allocated before they are written, in steps that double from 64 KiB up to 16 MiB, so a
//! small partition costs little disk and a full disk is met as an error before anything is written. Room for
//! the seal is always part of it: a segment that accepted an entry can be sealed.

use std::sync::Arc;

use riverrun_proto::{LeaderEpoch, Offset};

use crate::{
    IoFailure, Timestamp,
    disk::DiskFile,
    fixed::crc32,
    format::{
        ENTRY_BYTES, EntryHeader, EntryKind, HEADER_BLOCK_BYTES, Previous, SEAL_BYTES,
        SegmentFacts, entry::stride,
    },
    scan::Place,
    segment::Segment,
};

/// First allocation past the header block.
const STEP_BYTES_MIN: u64 = 64 << 10;
/// Largest step of allocation.
const STEP_BYTES_MAX: u64 = 16 << 20;
/// Padding after a payload.
const ZEROS: [u8; 8] = [0; 8];

/// What the log knows of an entry before it is placed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEntry {
    /// What the payload is.
    pub(crate) kind: EntryKind,
    /// Offsets covered.
    pub(crate) count: u32,
    /// Epoch of the leader.
    pub(crate) leader_epoch: LeaderEpoch,
    /// Offset known flushed now.
    pub(crate) durable_upto: Offset,
    /// Time of the append.
    pub(crate) append_time: Timestamp,
    /// Largest timestamp of its records.
    pub(crate) max_timestamp: Timestamp,
    /// Checksum of the payload.
    pub(crate) payload_crc: u32,
}

/// The writing end of the active segment.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    /// The segment as readers see it.
    pub(crate) segment: Arc<Segment>,
    /// The handle it is written through.
    file: Arc<dyn DiskFile>,
    /// The file never grows past this.
    bytes_max: u64,
    /// Where the next entry begins.
    place: Place,
    /// Sums over the entries so far.
    facts: SegmentFacts,
    /// Bytes since the last point of the index.
    unindexed_bytes: u64,
    /// Append time of the first entry.
    first_append_time: Option<Timestamp>,
}

impl SegmentWriter {
    /// A writer that goes on at `place` of `segment`, which holds `facts` so far.
    pub(crate) fn new(
        segment: Arc<Segment>,
        file: Arc<dyn DiskFile>,
        bytes_max: u64,
        (place, facts): (Place, SegmentFacts),
    ) -> SegmentWriter {
        SegmentWriter {
            // After a start the age of what is there counts from the segment's creation.
            first_append_time: (facts.entry_bytes > 0).then_some(segment.header.created),
            segment,
            file,
            bytes_max,
            place,
            facts,
            unindexed_bytes: 0,
        }
    }

    /// Where the next entry begins.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Sums over the entries so far.
    pub(crate) fn facts(&self) -> &SegmentFacts {
        &self.facts
    }

    /// True when it holds no offsets. Entries that cover none may stand in it all the same: a segment that followed would have its name.
    pub(crate) fn is_empty(&self) -> bool {
        self.place.offset == self.segment.base
    }

    /// Append time of the first entry, when there is one.
    pub(crate) fn first_append_time(&self) -> Option<Timestamp> {
        self.first_append_time
    }

    /// True when an entry of `payload_bytes` and a seal after it fit the file.
    pub(crate) fn fits(&self, payload_bytes: u64) -> bool {
        self.place.pos + stride(payload_bytes) + SEAL_BYTES <= self.bytes_max
    }

    /// Allocates room for an entry of `payload_bytes` and a seal after it.
    pub(crate) fn reserve(&self, payload_bytes: u64) -> Result<(), IoFailure> {
        let needed = self.place.pos + stride(payload_bytes) + SEAL_BYTES;
        let held = self.file.len();
        if needed <= held {
            return Ok(());
        }
        let len = allocation(held, needed, self.bytes_max);
        let allocated = self.file.allocate(len).or_else(|error| {
            // A disk that has no room for a whole step may have it for this entry.
            if len > needed { self.file.allocate(needed) } else { Err(error) }
        });
        allocated.map_err(|error| IoFailure::new("allocate", &self.segment.path, error))
    }

    /// Writes one entry whose payload is `parts` one after another, and indexes it. The room was reserved.
    pub(crate) fn write(&mut self, entry: NewEntry, parts: [&[u8]; 2]) -> Result<(), IoFailure> {
        let length = parts[0].len() + parts[1].len();
        let header = EntryHeader {
            kind: entry.kind,
            length: u32::try_from(length).expect("payloads are limited to 64 MiB"),
            base_offset: self.place.offset,
            count: entry.count,
            leader_epoch: entry.leader_epoch,
            durable_upto: entry.durable_upto,
            append_time: entry.append_time,
            max_timestamp: entry.max_timestamp,
            payload_crc: entry.payload_crc,
            salt: self.segment.salt,
            previous_crc: self.place.chain,
        };
        let (block, crc) = header.encode();
        let padding = (ENTRY_BYTES + length).next_multiple_of(8) - ENTRY_BYTES - length;
        self.file
            .write_at(self.place.pos, &[&block, parts[0], parts[1], &ZEROS[..padding]])
            .map_err(|error| IoFailure::new("write", &self.segment.path, error))?;
        self.index(&header);
        self.place = Place {
            pos: self.place.pos + header.stride(),
            offset: header.end_offset(),
            chain: crc,
        };
        if header.kind != EntryKind::Seal {
            self.facts.add(&header, crc);
        }
        self.first_append_time.get_or_insert(entry.append_time);
        Ok(())
    }

    /// Adds a point to the index when it is due.
    fn index(&mut self, header: &EntryHeader) {
        if self.unindexed_bytes >= self.segment.index_interval_bytes {
            let Place { pos, offset, .. } = self.place;
            self.segment.add_point(offset, pos, self.facts.max_timestamp);
            self.unindexed_bytes = 0;
        }
        self.unindexed_bytes += header.stride();
    }

    /// The seal that ends the segment now, and how a successor is tied to it.
    pub(crate) fn seal(&self, entry: NewEntry) -> (SealedEnd, Previous) {
        let payload = self.facts.encode();
        let header = EntryHeader {
            kind: EntryKind::Seal,
            length: u32::try_from(payload.len()).expect("48"),
            base_offset: self.place.offset,
            count: 0,
            leader_epoch: entry.leader_epoch,
            durable_upto: entry.durable_upto,
            append_time: entry.append_time,
            max_timestamp: Timestamp::MIN,
            payload_crc: crc32(&payload),
            salt: self.segment.salt,
            previous_crc: self.place.chain,
        };
        let (block, crc) = header.encode();
        let end_pos = self.place.pos + SEAL_BYTES;
        let previous = Previous {
            sealed: true,
            chain: crc,
            base: self.segment.base,
            end_pos,
            facts: self.facts,
        };
        (SealedEnd { block, payload: payload.to_vec(), end_pos, chain: crc }, previous)
    }

    /// Writes the seal made by [`SegmentWriter::seal`] and publishes the segment as sealed.
    pub(crate) fn write_seal(&self, end: &SealedEnd) -> Result<(), IoFailure> {
        self.file
            .write_at(self.place.pos, &[&end.block, &end.payload])
            .map_err(|error| IoFailure::new("write", &self.segment.path, error))?;
        self.segment.publish(end.end_pos, &self.facts);
        self.segment.set_sealed(end.chain);
        Ok(())
    }

    /// Makes the file durable before it has its name.
    pub(crate) fn sync(&self) -> Result<(), IoFailure> {
        self.file.sync().map_err(|error| IoFailure::new("sync", &self.segment.path, error))?;
        self.segment.set_flushed_pos(self.place.pos);
        Ok(())
    }

    /// Publishes everything written to readers.
    pub(crate) fn publish(&self) {
        self.segment.publish(self.place.pos, &self.facts);
    }
}

/// A seal ready to be written.
#[derive(Debug)]
pub(crate) struct SealedEnd {
    /// Its entry header.
    block: [u8; ENTRY_BYTES],
    /// Its payload.
    payload: Vec<u8>,
    /// Where it ends.
    end_pos: u64,
    /// Checksum of its header.
    chain: u32,
}

/// Length to allocate when `needed` bytes are needed and `held` are there.
fn allocation(held: u64, needed: u64, bytes_max: u64) -> u64 {
    let step = held.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
    let len = if held <= HEADER_BLOCK_BYTES as u64 { STEP_BYTES_MIN } else { held + step };
    len.max(needed).next_multiple_of(4096).min(bytes_max)
}

/// What decides whether the next entry goes to a new segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RollInput {
    /// True when the segment holds no offsets.
    pub(crate) is_empty: bool,
    /// Bytes the file would have with the next entry and a seal.
    pub(crate) bytes_after: u64,
    /// Size at which it is sealed.
    pub(crate) segment_bytes_max: u64,
    /// Time since its first entry.
    pub(crate) age: std::time::Duration,
    /// Age at which it is sealed.
    pub(crate) segment_age_max: std::time::Duration,
    /// Offsets since its base, which its index must be able to hold.
    pub(crate) offset_span: u64,
}

/// True when the next entry goes to a new segment. An empty segment takes any entry.
pub(crate) fn roll_is_due(input: &RollInput) -> bool {
    let full = input.bytes_after > input.segment_bytes_max;
    let wide = input.offset_span > u64::from(u32::MAX);
    !input.is_empty && (full || wide || input.age >= input.segment_age_max)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn allocation_grows_in_doubling_steps() {
        let max = 256 << 20;
        assert_eq!(allocation(4096, 5_000, max), 64 << 10);
        assert_eq!(allocation(64 << 10, 70_000, max), 128 << 10);
        assert_eq!(allocation(16 << 20, (16 << 20) + 1, max), 32 << 20);
        assert_eq!(allocation(32 << 20, (32 << 20) + 1, max), 48 << 20);
        assert_eq!(allocation(4096, 1 << 20, max), 1 << 20);
        assert_eq!(allocation(250 << 20, (250 << 20) + 1, max), max);
    }

    #[test]
    fn segments_roll_by_size_age_and_span() {
        let calm = RollInput {
            is_empty: false,
            bytes_after: 100,
            segment_bytes_max: 100,
            age: Duration::from_secs(9),
            segment_age_max: Duration::from_secs(10),
            offset_span: 5,
        };
        assert!(!roll_is_due(&calm));
        assert!(roll_is_due(&RollInput { bytes_after: 101, ..calm }));
        assert!(roll_is_due(&RollInput { age: Duration::from_secs(10), ..calm }));
        assert!(roll_is_due(&RollInput { offset_span: 1 << 32, ..calm }));
        assert!(!roll_is_due(&RollInput { is_empty: true, bytes_after: 101, ..calm }));
    }
}

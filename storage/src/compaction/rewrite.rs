//! Writes one segment anew without the records that a later one supersedes.
//!
//! ```text
//! records entry --all kept--> the same payload
//!               --some kept--> the batch with the others left out: base, span and producer stay
//!               --none kept--> part of a gap entry: the offsets it covers, and the batch headers that
//!                              still say something about an idempotent producer
//! gap entries side by side become one
//! ```
//!
//! Invariants: every offset stays covered, so offsets are never reused and the chain is unbroken; the
//! new file is complete, sealed and synced before it gets the segment's name.

use std::path::Path;

use bytes::Bytes;
use riverrun_proto::{
    BatchHeader, Offset, RecordBatch,
    batch::{HEADER_BYTES, RecordView},
    limits::INFLATED_BYTES_MAX,
};

use super::{CompactError, key_map::KeyMap};
use crate::{
    IoFailure, Timestamp,
    disk::Disk,
    fixed::crc32,
    format::{EntryHeader, EntryKind, SegmentHeader},
    segment_output::{SegmentOutput, WrittenSegment},
};

/// Batch headers that one gap entry carries at most.
const GAP_HEADERS_MAX: usize = 1024;

/// What decides about each record.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    /// Newest offsets of keys.
    pub(super) map: &'a KeyMap,
    /// The map knows all keys of offsets up to here.
    pub(super) upto: Offset,
    /// Tombstones appended before this go.
    pub(super) tombstones_before: Timestamp,
    /// What idempotent producers wrote before this is forgotten.
    pub(super) producers_before: Timestamp,
}

impl Rules<'_> {
    fn keeps(&self, record: &RecordView<'_>, append_time: Timestamp) -> bool {
        let Some(key) = record.key else { return true };
        let expired = record.value.is_none()
            && record.offset < self.upto
            && append_time < self.tombstones_before;
        !expired && !self.map.is_superseded(key, record.offset)
    }

    /// Whether something of this entry goes.
    pub(super) fn changes(&self, entry: &EntryHeader, payload: &[u8]) -> bool {
        let time = entry.append_time;
        match entry.kind {
            EntryKind::Seal | EntryKind::Control | EntryKind::Lost => false,
            EntryKind::Gap => payload.chunks_exact(HEADER_BYTES).any(|block| {
                !BatchHeader::peek(block).is_ok_and(|batch| self.remembers(&batch, time))
            }),
            EntryKind::Records => RecordBatch::decode(Bytes::copy_from_slice(payload))
                .is_ok_and(|batch| can_lose_records(&batch) && self.drops(&batch, time)),
        }
    }

    /// Whether records of `batch` go. One that can not be looked into stays whole.
    fn drops(&self, batch: &RecordBatch, append_time: Timestamp) -> bool {
        let Ok(records) = batch.records(INFLATED_BYTES_MAX) else { return false };
        let mut drops = batch.header().record_count == 0;
        for view in records.views() {
            let Ok(view) = view else { return false };
            drops |= !self.keeps(&view, append_time);
        }
        drops
    }

    /// Whether the header of a batch without records must be remembered.
    fn remembers(&self, batch: &BatchHeader, append_time: Timestamp) -> bool {
        batch.is_idempotent()
            && append_time >= self.producers_before
            && !self.map.has_later_batch(batch.producer_id, batch.base_offset)
    }
}

/// A finished new file.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// The segment it holds.
    pub(super) written: WrittenSegment,
    /// Records left out.
    pub(super) removed_count: u64,
}

/// The new file being written, and the gap that has not been written yet.
#[derive(Debug)]
pub(super) struct Rewriter<'a> {
    rules: &'a Rules<'a>,
    out: SegmentOutput<'a>,
    gap: Option<Gap>,
    removed_count: u64,
}

/// Offsets whose records are gone.
#[derive(Debug)]
struct Gap {
    /// Header of the last entry in it: epoch, times.
    last: EntryHeader,
    base: Offset,
    count: u32,
    /// Headers of batches that say something about a producer.
    batch_headers: Vec<u8>,
}

impl<'a> Rewriter<'a> {
    /// Begins a new file at `path` with `header`.
    pub(super) fn new(
        disk: &dyn Disk,
        path: &'a Path,
        header: SegmentHeader,
        rules: &'a Rules<'a>,
    ) -> Result<Rewriter<'a>, IoFailure> {
        let out = SegmentOutput::create(disk, path, header)?;
        Ok(Rewriter { rules, out, gap: None, removed_count: 0 })
    }

    /// Takes in the next entry of the old file.
    pub(super) fn entry(&mut self, entry: &EntryHeader, payload: &[u8]) -> Result<(), IoFailure> {
        match entry.kind {
            EntryKind::Seal => Ok(()),
            EntryKind::Control | EntryKind::Lost => self.copy(entry, payload),
            EntryKind::Gap => self.add_to_gap(entry, payload),
            EntryKind::Records => self.batch(entry, payload),
        }
    }

    /// Writes the seal and makes the file durable.
    pub(super) fn finish(mut self, now: Timestamp) -> Result<Rewritten, IoFailure> {
        self.write_gap()?;
        let removed_count = self.removed_count;
        let written = self.out.finish(now)?;
        Ok(Rewritten { written, removed_count })
    }

    fn batch(&mut self, entry: &EntryHeader, payload: &[u8]) -> Result<(), IoFailure> {
        // A batch that can not be looked into stays as it is: leaving records out is never needed.
        let Ok(batch) = RecordBatch::decode(Bytes::copy_from_slice(payload)) else {
            return self.copy(entry, payload);
        };
        if !can_lose_records(&batch) {
            return self.copy(entry, payload);
        }
        let keep = |record: &RecordView<'_>| self.rules.keeps(record, entry.append_time);
        let old_count = batch.header().record_count;
        match batch.retain(INFLATED_BYTES_MAX, keep) {
            Err(_) => self.copy(entry, payload),
            Ok(None) => {
                self.removed_count += u64::from(old_count);
                self.add_to_gap(entry, &payload[..HEADER_BYTES])
            }
            Ok(Some(kept)) => {
                self.removed_count += u64::from(old_count - kept.header().record_count);
                let bytes = kept.as_bytes();
                let header = EntryHeader {
                    length: length(bytes),
                    payload_crc: kept.header().crc,
                    max_timestamp: Timestamp(kept.header().max_timestamp_ms),
                    ..*entry
                };
                self.copy(&header, bytes)
            }
        }
    }

    fn copy(&mut self, entry: &EntryHeader, payload: &[u8]) -> Result<(), IoFailure> {
        self.write_gap()?;
        self.out.entry(entry, payload)
    }

    /// Adds the offsets of `entry` to the open gap, with those of `batch_headers` that still matter.
    fn add_to_gap(&mut self, entry: &EntryHeader, batch_headers: &[u8]) -> Result<(), IoFailure> {
        let fits = |gap: &Gap| {
            gap.count.checked_add(entry.count).is_some()
                && gap.batch_headers.len() < GAP_HEADERS_MAX * HEADER_BYTES
        };
        if !self.gap.as_ref().is_none_or(fits) {
            self.write_gap()?;
        }
        let base = entry.base_offset;
        let gap = self.gap.get_or_insert_with(|| Gap {
            last: *entry,
            base,
            count: 0,
            batch_headers: Vec::new(),
        });
        gap.last = *entry;
        gap.count += entry.count;
        for block in batch_headers.chunks_exact(HEADER_BYTES) {
            let batch = BatchHeader::peek(block);
            if batch.is_ok_and(|batch| self.rules.remembers(&batch, entry.append_time)) {
                gap.batch_headers.extend_from_slice(block);
            }
        }
        Ok(())
    }

    fn write_gap(&mut self) -> Result<(), IoFailure> {
        let Some(gap) = self.gap.take() else { return Ok(()) };
        let header = EntryHeader {
            kind: EntryKind::Gap,
            length: length(&gap.batch_headers),
            base_offset: gap.base,
            count: gap.count,
            max_timestamp: Timestamp::MIN,
            payload_crc: crc32(&gap.batch_headers),
            ..gap.last
        };
        self.out.entry(&header, &gap.batch_headers)
    }
}

/// Records of transactions and their markers stay.
fn can_lose_records(batch: &RecordBatch) -> bool {
    !batch.header().is_control() && !batch.header().is_transactional()
}

fn length(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).expect("payloads are limited to 64 MiB")
}

impl From<IoFailure> for CompactError {
    fn from(failure: IoFailure) -> CompactError {
        CompactError::Io(failure)
    }
}

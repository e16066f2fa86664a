//! Writes a whole segment to a new file, front to back, seal included: for compaction and for repairs.
//!
//! Invariants: every offset from the base on is covered, so the chain is unbroken; what [`SegmentOutput::finish`] returned is
//! durable and has no name yet that a start would look at. Names and renames are the caller's.

use std::{path::Path, sync::Arc};

use riverrun_proto::Offset;

use crate::{
    IoFailure, Timestamp,
    disk::{Disk, DiskFile, OpenMode},
    fixed::crc32,
    format::{EntryHeader, EntryKind, HEADER_BLOCK_BYTES, Previous, SegmentFacts, SegmentHeader},
    scan::Place,
    state::remove_if_present,
};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// A segment whose file is complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenSegment {
    /// Its header block.
    pub(crate) header: SegmentHeader,
    /// Checksum of the header block.
    pub(crate) header_crc: u32,
    /// Where it ends, the seal included.
    pub(crate) end_pos: u64,
    /// Header crc of the seal.
    pub(crate) chain: u32,
    /// What it holds.
    pub(crate) facts: SegmentFacts,
}

impl WrittenSegment {
    /// How it ends, as a successor tells it.
    pub(crate) fn end(&self) -> Previous {
        let WrittenSegment { header, end_pos, chain, facts, .. } = *self;
        Previous { sealed: true, chain, base: header.base, end_pos, facts }
    }
}

/// A new segment file, written front to back.
#[derive(Debug)]
pub(crate) struct SegmentOutput<'a> {
    file: Arc<dyn DiskFile>,
    path: &'a Path,
    header: SegmentHeader,
    header_crc: u32,
    /// Position of the buffer's first byte.
    start: u64,
    buffer: Vec<u8>,
    /// What the next entry continues.
    place: Place,
    facts: SegmentFacts,
}

impl<'a> SegmentOutput<'a> {
    /// Begins a new file at `path` with `header`, in place of one that an interrupted step left there.
    pub(crate) fn create(
        disk: &dyn Disk,
        path: &'a Path,
        header: SegmentHeader,
    ) -> Result<SegmentOutput<'a>, IoFailure> {
        remove_if_present(disk, path)?;
        let file = disk
            .open(path, OpenMode::CreateNew)
            .map_err(|error| IoFailure::new("create", path, error))?;
        let (block, header_crc) = header.encode();
        let pos = HEADER_BLOCK_BYTES as u64;
        Ok(SegmentOutput {
            file,
            path,
            header,
            header_crc,
            start: 0,
            buffer: block.to_vec(),
            place: Place { pos, offset: header.base, chain: header_crc },
            facts: SegmentFacts::empty(header.base),
        })
    }

    /// Writes `entry` behind what is there, with the salt and chain of this file.
    pub(crate) fn entry(&mut self, entry: &EntryHeader, payload: &[u8]) -> Result<(), IoFailure> {
        assert_eq!(entry.base_offset, self.place.offset, "every offset stays covered");
        let header =
            EntryHeader { salt: self.header.salt(), previous_crc: self.place.chain, ..*entry };
        let (block, crc) = header.encode();
        self.buffer.extend_from_slice(&block);
        self.buffer.extend_from_slice(payload);
        self.buffer.resize(self.buffer.len().next_multiple_of(8), 0);
        self.place = Place {
            pos: self.place.pos + header.stride(),
            offset: header.end_offset(),
            chain: crc,
        };
        if header.kind != EntryKind::Seal {
            self.facts.add(&header, crc);
        }
        if self.buffer.len() >= BUFFER_BYTES { self.write_buffer() } else { Ok(()) }
    }

    /// Writes the seal, appended `now`, and makes the file durable.
    pub(crate) fn finish(mut self, now: Timestamp) -> Result<WrittenSegment, IoFailure> {
        let facts = self.facts;
        let payload = facts.encode();
        let seal = EntryHeader {
            kind: EntryKind::Seal,
            length: length(&payload),
            base_offset: self.place.offset,
            count: 0,
            leader_epoch: self.header.leader_epoch,
            durable_upto: self.header.durable_upto,
            append_time: now,
            max_timestamp: Timestamp::MIN,
            payload_crc: crc32(&payload),
            salt: 0,
            previous_crc: 0,
        };
        self.entry(&seal, &payload)?;
        self.write_buffer()?;
        self.file.sync().map_err(|error| IoFailure::new("sync", self.path, error))?;
        Ok(WrittenSegment {
            header: self.header,
            header_crc: self.header_crc,
            end_pos: self.place.pos,
            chain: self.place.chain,
            facts,
        })
    }

    /// Offset that the next entry begins with.
    pub(crate) fn end_offset(&self) -> Offset {
        self.place.offset
    }

    fn write_buffer(&mut self) -> Result<(), IoFailure> {
        let path = self.path;
        let at = |op| move |error| IoFailure::new(op, path, error);
        let end = self.start + self.buffer.len() as u64;
        self.file.allocate(end).map_err(at("allocate"))?;
        self.file.write_at(self.start, &[&self.buffer]).map_err(at("write"))?;
        self.start = end;
        self.buffer.clear();
        Ok(())
    }
}

fn length(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).expect("payloads are limited to 64 MiB")
}

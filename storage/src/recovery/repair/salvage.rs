//! What of one damaged segment file is valid: runs of entries that continue each other, and what lies between them.
//!
//! An entry belongs to the segment when it carries the segment's salt. Where the header block is invalid the salt is taken from the entry with
//! which the file ends by the word of its successor or of the mark: its checksum is known from there. Where that is not there either, epoch and
//! creation time are read from the invalid block: a salt made of them is right when an entry carries it. A file that compaction or a repair
//! wrote anew ends otherwise than its successor says, and the seal in its last bytes tells the salt when it covers the same.
//!
//! Records of an epoch that ended before their offset, by the word of the state file, are not taken: a recovery cut the segment before them,
//! and others got their offsets.

use std::{io, ops::Range};

use riverrun_proto::{LeaderEpoch, Offset};

use super::super::{Site, survey::FoundSegment, walk::first_place};
use crate::{
    IoFailure, Timestamp,
    disk::OpenMode,
    format::{
        ENTRY_BYTES, EntryHeader, EntryKind, HEADER_BLOCK_BYTES, Previous, SEAL_BYTES,
        SegmentFacts, SegmentHeader, entry::ENTRY_ALIGN,
    },
    scan::{ChunkReader, Place, Scanned, Scanner},
    segment_read::behind,
    state::LogState,
};

/// Entries that continue each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Where the first one begins.
    pub(super) start: Place,
    /// Where the last one ends.
    pub(super) end: Place,
}

/// What lies between two runs, or before the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    /// Offsets lost; empty when it held none.
    pub(super) offsets: Range<Offset>,
    /// Where it lies.
    pub(super) bytes: Range<u64>,
}

/// What one segment file holds.
#[derive(Clone, Debug)]
pub(super) struct Salvage {
    /// Salt of its entries.
    pub(super) salt: u64,
    /// Valid entries, seals left out.
    pub(super) runs: Vec<Run>,
    /// What lies between.
    pub(super) holes: Vec<Hole>,
    /// How it ends; exact when there is no hole.
    pub(super) end: Previous,
    /// Highest `durable_upto` that any entry proves.
    pub(super) durable_upto: Offset,
    /// Epochs of entries and the first offset of each, rising. What is lost has none.
    pub(super) epochs: Vec<(LeaderEpoch, Offset)>,
    /// True when it has records of an epoch that the state file does not know at their offset.
    pub(super) is_strange: bool,
    /// What the seal tells, when it ends with one.
    pub(super) sealed_facts: Option<SegmentFacts>,
    /// Append time of the first valid entry.
    pub(super) first_append_time: Option<Timestamp>,
    /// Length of the file.
    pub(super) file_bytes: u64,
}

impl Salvage {
    /// First offset past the last valid entry.
    pub(super) fn end_offset(&self) -> Offset {
        self.end.facts.end_offset
    }

    /// Leaves out everything behind the first hole at or past `durable`, which is no damage but what a crash leaves. True when
    /// there is such a hole.
    pub(super) fn cut_torn(&mut self, durable: Offset) -> bool {
        let Some(first) = self.holes.iter().position(|hole| hole.offsets.start >= durable) else {
            return false;
        };
        let at = self.holes[first].clone();
        self.holes.truncate(first);
        self.runs.retain(|run| run.start.pos < at.bytes.start);
        self.end.sealed = false;
        self.end.end_pos = at.bytes.start;
        self.end.facts.end_offset = at.offsets.start;
        true
    }
}

/// How far the entries of a segment may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    /// First offset past the segment, when its successor tells it.
    pub(super) offset: Option<Offset>,
    /// Position where a recovery cut it.
    pub(super) cut: Option<u64>,
    /// The epochs of the log, when its state file is valid.
    pub(super) history: Option<&'a LogState>,
}

/// The salt of `found`, which by somebody's word ends at `end_pos` with an entry whose header has the checksum `chain`.
pub(super) fn salt_by_end(
    site: Site<'_>,
    found: &FoundSegment,
    (end_pos, chain): (u64, u32),
) -> Result<Option<u64>, IoFailure> {
    let at = |op| move |error| IoFailure::new(op, &found.path, error);
    let file = site.disk.open(&found.path, OpenMode::Read).map_err(at("open"))?;
    let mut reader = ChunkReader::new(file.as_ref(), end_pos);
    let mut pos = HEADER_BLOCK_BYTES as u64;
    while let Some(bytes) = reader.bytes(pos, ENTRY_BYTES).map_err(at("read"))? {
        let entry = EntryHeader::looks_like(bytes)
            .then(|| EntryHeader::decode(bytes.try_into().expect("as long as an entry header")));
        if let Some((header, crc)) = entry.flatten()
            && crc == chain
            && header.stride().checked_add(pos) == Some(end_pos)
        {
            return Ok(Some(header.salt));
        }
        pos += ENTRY_ALIGN;
    }
    Ok(None)
}

/// The salt of `found` by the fields of its invalid header block, when an entry carries it.
pub(super) fn salt_by_fields(
    site: Site<'_>,
    found: &FoundSegment,
) -> Result<Option<u64>, IoFailure> {
    let at = |op| move |error| IoFailure::new(op, &found.path, error);
    let file = site.disk.open(&found.path, OpenMode::Read).map_err(at("open"))?;
    let mut reader = ChunkReader::new(file.as_ref(), u64::MAX);
    let block = reader.bytes(0, HEADER_BLOCK_BYTES).map_err(at("read"))?;
    let Some(block) = block.and_then(|block| block.try_into().ok()) else { return Ok(None) };
    let (topic_id, partition) = (site.options.topic_id, site.options.partition);
    let salt = SegmentHeader::salt_of_invalid(block, (topic_id, partition), found.base);
    let carried = reader.find_entry(HEADER_BLOCK_BYTES as u64, salt).map_err(at("read"))?;
    Ok(carried.map(|_| salt))
}

/// The salt of `found` by the seal in its last bytes, when that covers what the successor tells by `told`: a file that was written
/// anew ends so.
pub(super) fn salt_by_seal(
    site: Site<'_>,
    found: &FoundSegment,
    told: &SegmentFacts,
) -> Result<Option<u64>, IoFailure> {
    let at = |op| move |error| IoFailure::new(op, &found.path, error);
    let file = site.disk.open(&found.path, OpenMode::Read).map_err(at("open"))?;
    let mut reader = ChunkReader::new(file.as_ref(), u64::MAX);
    let Some(pos) = reader.end().checked_sub(SEAL_BYTES) else { return Ok(None) };
    let Some(bytes) = reader.bytes(pos, ENTRY_BYTES).map_err(at("read"))? else { return Ok(None) };
    let block = bytes.try_into().expect("as long as an entry header");
    let seal = EntryHeader::decode(block).filter(|(header, _)| header.kind == EntryKind::Seal);
    let Some((header, _)) = seal else { return Ok(None) };
    if !reader.payload_holds(pos, &header).map_err(at("read"))? {
        return Ok(None);
    }
    let payload = reader.payload(pos, &header).map_err(at("read"))?;
    let facts = payload.and_then(|bytes| bytes.try_into().ok()).map(SegmentFacts::decode);
    Ok(facts.filter(|facts| covers(facts, told)).map(|_| header.salt))
}

/// True when a segment with the facts `one` may have been written in place of one with the facts `other`: both end with the same
/// offset at the same time.
pub(super) fn covers(one: &SegmentFacts, other: &SegmentFacts) -> bool {
    let span =
        |facts: &SegmentFacts| (facts.record_count, facts.end_offset, facts.last_append_time);
    span(one) == span(other)
}

/// Reads all of `found`, whose entries carry `salt`.
pub(super) fn salvage(
    site: Site<'_>,
    found: &FoundSegment,
    salt: u64,
    bounds: Bounds<'_>,
) -> Result<Salvage, IoFailure> {
    let at = |op| move |error| IoFailure::new(op, &found.path, error);
    let file = site.disk.open(&found.path, OpenMode::Read).map_err(at("open"))?;
    let mut reader = ChunkReader::new(file.as_ref(), bounds.cut.unwrap_or(u64::MAX));
    let pos = HEADER_BLOCK_BYTES as u64;
    let first = match found.header {
        Some(header) => first_place(header),
        None => {
            let entry = reader.entry_at(pos, salt).map_err(at("read"))?;
            let chain = entry.map_or(0, |(header, _)| header.previous_crc);
            Place { pos, offset: found.base, chain }
        }
    };
    let facts = SegmentFacts::empty(found.base);
    let end = Previous { sealed: false, chain: first.chain, base: found.base, end_pos: pos, facts };
    let salvage = Salvage {
        salt,
        runs: Vec::new(),
        holes: Vec::new(),
        end,
        durable_upto: Offset::ZERO,
        epochs: Vec::new(),
        is_strange: false,
        sealed_facts: None,
        first_append_time: None,
        file_bytes: file.len(),
    };
    let limit = bounds.offset.unwrap_or(Offset::MAX);
    let mut walk = Walk { limit, history: bounds.history, salvage };
    walk.run(Scanner::new(reader, salt, first)).map_err(at("read"))?;
    Ok(walk.salvage)
}

/// A walk over all runs of a file.
struct Walk<'a> {
    /// No entry ends past this offset.
    limit: Offset,
    /// The epochs of the log.
    history: Option<&'a LogState>,
    salvage: Salvage,
}

impl Walk<'_> {
    fn run(&mut self, mut scanner: Scanner<'_>) -> io::Result<()> {
        loop {
            let Some(place) = self.run_from(&mut scanner)? else { return Ok(()) };
            let reader = &mut scanner.reader;
            if self.salvage.holes.is_empty() {
                self.note_proofs(reader, place.pos)?;
            }
            let Some(next) = self.resume(reader, place)? else { return Ok(()) };
            self.note_hole(place.offset..next.offset, place.pos..next.pos);
            self.salvage.end.facts.end_offset = next.offset;
            self.salvage.end.end_pos = next.pos;
            scanner = Scanner::new(scanner.reader, self.salvage.salt, next);
        }
    }

    /// Takes in one run. Where it breaks; `None` when it ends with the seal.
    fn run_from(&mut self, scanner: &mut Scanner<'_>) -> io::Result<Option<Place>> {
        let start = scanner.place();
        let mut end = start;
        let mut is_sealed = false;
        while let Some(entry) = scanner.next()? {
            if !self.may_hold(&entry.header) {
                break;
            }
            self.salvage.durable_upto = self.salvage.durable_upto.max(entry.header.durable_upto);
            if entry.header.kind == EntryKind::Seal {
                let told = facts_of(&mut scanner.reader, &entry)?;
                // Behind a hole it cannot be known whether it tells what the segment holds.
                let holds = !self.salvage.holes.is_empty() || told == Some(self.salvage.end.facts);
                is_sealed = told.is_some() && holds;
                if is_sealed {
                    self.salvage.sealed_facts = told;
                    self.salvage.end.chain = entry.crc;
                    self.salvage.end.end_pos = scanner.place().pos;
                }
                break;
            }
            end = scanner.place();
            self.take(&entry, end);
        }
        if end != start {
            self.salvage.runs.push(Run { start, end });
        }
        self.salvage.end.sealed = is_sealed;
        Ok((!is_sealed).then_some(end))
    }

    /// Whether an entry that carries the segment's salt is one of this log: within the segment, and no record of an epoch that ended before
    /// its offset. Behind one that is not stands nothing of this log.
    fn may_hold(&self, entry: &EntryHeader) -> bool {
        let is_stale = self.epoch_by_state(entry).is_some_and(|epoch| entry.leader_epoch < epoch);
        entry.end_offset() <= self.limit && !is_stale
    }

    /// The epoch that the state file tells of a record's offset.
    fn epoch_by_state(&self, entry: &EntryHeader) -> Option<LeaderEpoch> {
        let state = self.history.filter(|_| entry.kind == EntryKind::Records)?;
        state.remembered_epoch_at(entry.base_offset)
    }

    fn take(&mut self, entry: &Scanned, end: Place) {
        let known = self.epoch_by_state(&entry.header);
        let salvage = &mut self.salvage;
        salvage.is_strange |= known.is_some_and(|known| known != entry.header.leader_epoch);
        salvage.first_append_time.get_or_insert(entry.header.append_time);
        salvage.end.facts.add(&entry.header, entry.crc);
        salvage.end.chain = entry.crc;
        salvage.end.end_pos = end.pos;
        let epoch = entry.header.leader_epoch;
        let is_later = salvage.epochs.last().is_none_or(|(last, _)| *last < epoch);
        if is_later && entry.header.kind != EntryKind::Lost {
            salvage.epochs.push((epoch, entry.header.base_offset));
        }
    }

    /// Every valid entry header at or past `pos` proves its word, whatever became of its payload and its place.
    fn note_proofs(&mut self, reader: &mut ChunkReader<'_>, mut pos: u64) -> io::Result<()> {
        while let Some(entry) = reader.find_entry(pos, self.salvage.salt)? {
            let proven = entry.header.durable_upto;
            self.salvage.durable_upto = self.salvage.durable_upto.max(proven);
            pos = entry.pos + entry.header.stride();
        }
        Ok(())
    }

    /// Where entries go on behind the break at `place`.
    fn resume(&self, reader: &mut ChunkReader<'_>, place: Place) -> io::Result<Option<Place>> {
        let salt = self.salvage.salt;
        let chained = reader.entry_at(place.pos, salt)?.filter(|(header, _)| {
            let continues =
                header.previous_crc == place.chain && header.base_offset == place.offset;
            continues && self.may_hold(header)
        });
        if let Some((header, crc)) = chained {
            // Its payload is not what was written, and all else is known of it.
            let pos = place.pos + header.stride();
            return Ok(Some(Place { pos, offset: header.end_offset(), chain: crc }));
        }
        let next = reader.find_entry_from(place.pos + 1, salt, behind(place.offset))?;
        Ok(next.filter(|next| self.may_hold(&next.header)).map(|next| Place {
            pos: next.pos,
            offset: next.header.base_offset,
            chain: next.header.previous_crc,
        }))
    }

    /// Notes a hole, with one right before it as one.
    fn note_hole(&mut self, offsets: Range<Offset>, bytes: Range<u64>) {
        match self.salvage.holes.last_mut().filter(|before| before.bytes.end == bytes.start) {
            Some(before) => {
                before.offsets.end = offsets.end;
                before.bytes.end = bytes.end;
            }
            None => self.salvage.holes.push(Hole { offsets, bytes }),
        }
    }
}

/// What a seal tells.
fn facts_of(reader: &mut ChunkReader<'_>, seal: &Scanned) -> io::Result<Option<SegmentFacts>> {
    let payload = reader.payload(seal.pos, &seal.header)?;
    Ok(payload.and_then(|bytes| bytes.try_into().ok()).map(SegmentFacts::decode))
}

/// A moment after both, for the creation of a file in place of one made at `created`: its salt must differ.
pub(super) fn after(created: Timestamp, now: Timestamp) -> Timestamp {
    Timestamp(created.0.max(now.0).saturating_add(1))
}

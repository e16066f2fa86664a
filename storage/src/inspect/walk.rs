//! Walks segments from end to end, past every break of the chain.

use std::{
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
};

use riverrun_proto::Offset;

use super::{InspectedEntry, InspectedSegment};
use crate::{
    DamageReason, IoFailure, StorageError, Timestamp,
    disk::{Disk, OpenMode},
    format::{ENTRY_BYTES, EntryKind, HEADER_BLOCK_BYTES, Previous, SegmentFacts, SegmentHeader},
    paths,
    scan::{ChunkReader, Place, Scanned, Scanner},
};

/// A place where no entry continues the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Break {
    /// Where.
    pub(super) pos: u64,
    /// Offsets up to the next valid entry or segment; empty behind the last one.
    pub(super) offsets: Range<Offset>,
    /// Bytes there up to the last that is not zero.
    pub(super) bytes: u64,
    /// True when no valid entry follows in the segment.
    pub(super) is_last: bool,
    /// What is wrong.
    pub(super) reason: DamageReason,
}

/// What one segment file holds.
#[derive(Clone, Debug)]
pub(super) struct WalkedSegment {
    pub(super) path: PathBuf,
    /// First offset by its name.
    pub(super) base: Offset,
    /// The header block, when valid and of this base.
    pub(super) header: Option<SegmentHeader>,
    /// Sums over the valid entries, the seal not counted.
    pub(super) facts: SegmentFacts,
    /// Where the last valid entry ends.
    pub(super) end: Place,
    pub(super) is_sealed: bool,
    /// Highest proof of durability in it.
    pub(super) durable_upto: Offset,
    pub(super) breaks: Vec<Break>,
    /// Offsets that a repair gave up, and where that stands.
    pub(super) lost: Vec<(u64, Range<Offset>)>,
    pub(super) file_bytes: u64,
    entry_count: u64,
    /// Offsets without records.
    gap_count: u64,
}

impl WalkedSegment {
    /// Whether the segment ends as its successor's header says.
    pub(super) fn ends_as(&self, previous: &Previous) -> bool {
        let own = Previous {
            sealed: self.is_sealed,
            chain: self.end.chain,
            base: self.base,
            end_pos: self.end.pos,
            facts: self.facts,
        };
        own == *previous || (self.is_sealed && self.stands_for(previous))
    }

    /// Whether compaction wrote the segment in place of one that ended so.
    pub(super) fn stands_for(&self, previous: &Previous) -> bool {
        self.header.is_some_and(|header| header.stands_for == Some(*previous))
    }

    /// Notes offsets that a repair gave up, with those right before as one.
    fn note_lost(&mut self, pos: u64, offsets: Range<Offset>) {
        self.gap_count += offsets.end.since(offsets.start);
        match self.lost.last_mut().filter(|(_, before)| before.end == offsets.start) {
            Some((_, before)) => before.end = offsets.end,
            None => self.lost.push((pos, offsets)),
        }
    }

    pub(super) fn into_inspected(self) -> InspectedSegment {
        InspectedSegment {
            path: self.path,
            base_offset: self.base,
            end_offset: self.facts.end_offset,
            end_pos: self.end.pos,
            file_bytes: self.file_bytes,
            is_sealed: self.is_sealed,
            is_compacted: self.header.is_some_and(|header| header.stands_for.is_some()),
            entry_count: self.entry_count,
            record_count: self.facts.record_count - self.gap_count,
            gap_count: self.gap_count,
            created: self.header.map(|header| header.created),
            max_timestamp: Some(self.facts.max_timestamp).filter(|time| *time != Timestamp::MIN),
        }
    }
}

/// Walks the segments of the log in `dir` with these bases.
pub(super) fn walk_segments(
    disk: &dyn Disk,
    dir: &Path,
    bases: &[Offset],
    visit: &mut dyn FnMut(InspectedEntry<'_>) -> ControlFlow<()>,
) -> Result<Vec<WalkedSegment>, StorageError> {
    let mut headers = Vec::with_capacity(bases.len());
    for base in bases {
        headers.push(read_header(disk, &paths::segment(dir, *base), *base)?);
    }
    let mut segments = Vec::with_capacity(bases.len());
    let mut visiting = ControlFlow::Continue(());
    for (number, base) in bases.iter().enumerate() {
        let next = Next {
            base: bases.get(number + 1).copied(),
            header: headers.get(number + 1).and_then(|next| *next).map(|(header, _)| header),
        };
        let mut visit_on = |entry: InspectedEntry<'_>| {
            if visiting.is_continue() {
                visiting = visit(entry);
            }
        };
        let path = paths::segment(dir, *base);
        segments.push(walk_segment(disk, (path, *base, headers[number]), next, &mut visit_on)?);
    }
    Ok(segments)
}

/// The header block of the segment at `path` and its checksum, when it is valid.
fn read_header(
    disk: &dyn Disk,
    path: &Path,
    base: Offset,
) -> Result<Option<(SegmentHeader, u32)>, StorageError> {
    let at = |op| move |error| IoFailure::new(op, path, error);
    let file = disk.open(path, OpenMode::Read).map_err(at("open"))?;
    if file.len() < HEADER_BLOCK_BYTES as u64 {
        return Ok(None);
    }
    let mut block = Box::new([0; HEADER_BLOCK_BYTES]);
    file.read_at(0, &mut block[..]).map_err(at("read"))?;
    let header = SegmentHeader::decode(&block, path)?;
    Ok(header.filter(|(header, _)| header.base == base))
}

/// The segment after the one walked.
#[derive(Clone, Copy, Debug)]
struct Next {
    base: Option<Offset>,
    header: Option<SegmentHeader>,
}

/// A segment by path and base, with its header block when that is valid.
type Found = (PathBuf, Offset, Option<(SegmentHeader, u32)>);

fn walk_segment(
    disk: &dyn Disk,
    (path, base, header): Found,
    next: Next,
    visit: &mut dyn FnMut(InspectedEntry<'_>),
) -> Result<WalkedSegment, StorageError> {
    let name = path.as_path();
    let at = |op| move |error| IoFailure::new(op, name, error);
    let file = disk.open(&path, OpenMode::Read).map_err(at("open"))?;
    let file_bytes = file.len();
    let mut walked = WalkedSegment {
        path: path.clone(),
        base,
        header: header.map(|(header, _)| header),
        facts: SegmentFacts::empty(base),
        end: Place { pos: 0, offset: base, chain: 0 },
        is_sealed: false,
        durable_upto: header.map_or(Offset::ZERO, |(header, _)| header.durable_upto),
        breaks: Vec::new(),
        lost: Vec::new(),
        file_bytes,
        entry_count: 0,
        gap_count: 0,
    };
    let Some((header, crc)) = header else {
        let bytes = ChunkReader::new(file.as_ref(), u64::MAX).last_non_zero(0);
        walked.breaks.push(Break {
            pos: 0,
            offsets: base..next.base.unwrap_or(base),
            bytes: bytes.map_err(at("read"))?.unwrap_or_default(),
            is_last: true,
            reason: DamageReason::SegmentHeader,
        });
        return Ok(walked);
    };
    // A recovery that cut the segment says in the next one where it ends.
    let cut = next.header.and_then(|next| next.previous).filter(|previous| {
        !previous.sealed && previous.base == base && header.stands_for != Some(*previous)
    });
    let limit = cut.map_or(u64::MAX, |cut| cut.end_pos);
    let reader = ChunkReader::new(file.as_ref(), limit);
    let salt = header.salt();
    let next_base = next.base;
    let mut walker = Walker { path: &path, salt, limit, next_base, visit, walked: &mut walked };
    let start = Place { pos: HEADER_BLOCK_BYTES as u64, offset: base, chain: crc };
    walker.run(Scanner::new(reader, header.salt(), start)).map_err(at("read"))?;
    Ok(walked)
}

struct Walker<'a> {
    path: &'a Path,
    salt: u64,
    /// Where a recovery cut the segment.
    limit: u64,
    next_base: Option<Offset>,
    visit: &'a mut dyn FnMut(InspectedEntry<'_>),
    walked: &'a mut WalkedSegment,
}

impl Walker<'_> {
    fn run(&mut self, mut scanner: Scanner<'_>) -> std::io::Result<()> {
        loop {
            while let Some(entry) = scanner.next()? {
                self.entry(&mut scanner.reader, &entry)?;
                if self.walked.is_sealed {
                    self.walked.end = scanner.place();
                    return Ok(());
                }
            }
            let place = scanner.place();
            self.walked.end = place;
            if place.pos == self.limit {
                return Ok(());
            }
            let Some(resumed) = self.step_over(&mut scanner.reader, place)? else { return Ok(()) };
            self.walked.facts.end_offset = resumed.offset;
            scanner = Scanner::new(scanner.reader, self.salt, resumed);
        }
    }

    /// Notes the break at `place`, and says where the walk goes on.
    fn step_over(
        &mut self,
        reader: &mut ChunkReader<'_>,
        place: Place,
    ) -> std::io::Result<Option<Place>> {
        let chained = reader.entry_at(place.pos, self.salt)?.filter(|(header, _)| {
            header.previous_crc == place.chain && header.base_offset == place.offset
        });
        if let Some((header, crc)) = chained {
            self.walked.breaks.push(Break {
                pos: place.pos,
                offsets: place.offset..header.end_offset(),
                bytes: header.stride(),
                is_last: false,
                reason: DamageReason::Payload,
            });
            self.walked.durable_upto = self.walked.durable_upto.max(header.durable_upto);
            let pos = place.pos + header.stride();
            return Ok(Some(Place { pos, offset: header.end_offset(), chain: crc }));
        }
        let next = reader.find_entry(place.pos + 1, self.salt)?;
        let last = reader.last_non_zero(place.pos)?;
        let end = next.map(|next| next.header.base_offset).or(self.next_base);
        let end = end.unwrap_or(place.offset);
        let recycled = self.walked.header.is_some_and(|header| header.recycled);
        let last = match next {
            // Whatever else follows in a recycled file is of its earlier life.
            next if recycled => next.map(|next| next.pos),
            _ => last,
        };
        self.walked.breaks.push(Break {
            pos: place.pos,
            offsets: place.offset..end.max(place.offset),
            bytes: last.map_or(0, |last| last - place.pos),
            is_last: next.is_none(),
            reason: DamageReason::Entry,
        });
        Ok(next.map(|next| Place {
            pos: next.pos,
            offset: next.header.base_offset,
            chain: next.header.previous_crc,
        }))
    }

    fn entry(&mut self, reader: &mut ChunkReader<'_>, entry: &Scanned) -> std::io::Result<()> {
        let Scanned { pos, header, crc } = *entry;
        let length = usize::try_from(header.length).expect("a length fits memory");
        let payload = reader.bytes(pos + ENTRY_BYTES as u64, length)?;
        let payload = payload.expect("the scanner read it");
        (self.visit)(InspectedEntry {
            path: self.path,
            pos,
            kind: header.kind.into(),
            base_offset: header.base_offset,
            end_offset: header.end_offset(),
            leader_epoch: header.leader_epoch,
            durable_upto: header.durable_upto,
            append_time: header.append_time,
            max_timestamp: header.max_timestamp,
            header_crc: crc,
            payload_crc: header.payload_crc,
            payload,
        });
        let walked = &mut *self.walked;
        walked.durable_upto = walked.durable_upto.max(header.durable_upto);
        if header.kind == EntryKind::Seal {
            let facts: Option<[u8; 48]> = payload.try_into().ok();
            let agrees = facts.is_some_and(|facts| SegmentFacts::decode(&facts) == walked.facts);
            if !agrees && walked.breaks.is_empty() {
                walked.breaks.push(Break {
                    pos,
                    offsets: walked.base..header.base_offset,
                    bytes: header.stride(),
                    is_last: false,
                    reason: DamageReason::Seal,
                });
            }
            walked.is_sealed = true;
            return Ok(());
        }
        walked.entry_count += 1;
        walked.facts.add(&header, crc);
        match header.kind {
            EntryKind::Gap => walked.gap_count += u64::from(header.count),
            EntryKind::Lost => walked.note_lost(pos, header.base_offset..header.end_offset()),
            EntryKind::Records | EntryKind::Control | EntryKind::Seal => {}
        }
        Ok(())
    }
}

//! Walks the chain from the last segment known durable to its first break, and looks for proof behind it.

use riverrun_proto::{LeaderEpoch, Offset};

use super::{
    AgainstMark, AtBreak, Site,
    survey::{FoundSegment, Survey},
};
use crate::{
    Damage, DamageReason, IoFailure, StorageError,
    disk::OpenMode,
    format::{HEADER_BLOCK_BYTES, SegmentFacts, SegmentHeader},
    planted::{Bug, planted},
    scan::{ChunkReader, Place, Scanner},
};

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentPlace {
    /// Number of the segment in the survey.
    pub(super) segment: usize,
    /// Place in it.
    pub(super) place: Place,
}

/// What the walk came to.
#[derive(Clone, Debug)]
pub(super) struct Walked {
    /// Number of the first segment walked; those before it are durable as a whole.
    pub(super) first: usize,
    /// `M`: the highest offset known durable.
    pub(super) durable: Offset,
    /// `p`: where the chain breaks.
    pub(super) end: SegmentPlace,
    /// What stands there.
    pub(super) at_break: AtBreak,
    /// Base offset of the first valid entry behind the break.
    pub(super) next_entry: Option<Offset>,
    /// Highest epoch of an entry.
    pub(super) epoch: LeaderEpoch,
    /// Bytes scanned.
    pub(super) scanned_bytes: u64,
}

impl Walked {
    /// How the break lies to what is known durable.
    pub(super) fn against_mark(&self) -> AgainstMark {
        if self.end.place.offset < self.durable && !planted(Bug::TruncateFirstBad) {
            AgainstMark::Below
        } else {
            AgainstMark::AtOrAbove
        }
    }

    /// The break as damage.
    pub(super) fn damage(&self, site: Site<'_>, survey: &Survey) -> Result<Damage, IoFailure> {
        let from = self.end.place.offset;
        let until = self.next_entry.map_or(self.durable, |next| next.min(self.durable));
        let found = &survey.segments[self.end.segment];
        let file = site.disk.open(&found.path, OpenMode::Read);
        let len = file.map_err(|error| IoFailure::new("open", &found.path, error))?.len();
        let marked = survey.mark.newest().filter(|mark| mark.segment_base == found.base);
        let reason = match marked.map(|mark| mark.pos).filter(|expected| len < *expected) {
            Some(expected) => DamageReason::CutOff { len, expected },
            None => DamageReason::Entry,
        };
        let (offsets, pos) = (from..until.max(from), self.end.place.pos);
        Ok(Damage { offsets, path: found.path.clone(), pos, reason })
    }
}

/// First place of a segment with `header`.
pub(super) fn first_place((header, crc): (SegmentHeader, u32)) -> Place {
    Place { pos: HEADER_BLOCK_BYTES as u64, offset: header.base, chain: crc }
}

/// Number of the first segment that is not durable as a whole. One that ends exactly at the durable
/// offset counts: its seal may be lost.
pub(super) fn first_doubtful(survey: &Survey, durable: Offset) -> usize {
    survey.segments.windows(2).take_while(|pair| pair[1].base < durable).count()
}

/// Walks. The survey has a segment, and those below the mark are sound.
pub(super) fn walk(site: Site<'_>, survey: &Survey) -> Result<Walked, StorageError> {
    let mut durable = survey.known_durable();
    let first = first_doubtful(survey, durable);
    let mut epoch = LeaderEpoch(0);
    let mut scanned_bytes = 0;
    let mut segment = first;
    let end = loop {
        let scan = scan_segment(site, survey, segment)?;
        durable = durable.max(scan.durable_upto);
        epoch = epoch.max(scan.epoch);
        scanned_bytes += scan.end.pos;
        if continues(survey, segment, scan.end) {
            segment += 1;
        } else {
            break SegmentPlace { segment, place: scan.end };
        }
    };
    let behind = look_behind(site, survey, end)?;
    durable = durable.max(behind.durable_upto);
    if planted(Bug::ReuseOffset) {
        durable = durable.min(end.place.offset);
    }
    let at_break = behind.at_break;
    let next_entry = behind.next_entry;
    Ok(Walked { first, durable, end, at_break, next_entry, epoch, scanned_bytes })
}

/// True when the segment after number `segment` goes on where this one ends.
pub(super) fn continues(survey: &Survey, segment: usize, end: Place) -> bool {
    let next = survey.segments.get(segment + 1).filter(|next| next.base == end.offset);
    let next = next.and_then(|next| next.header);
    let found = &survey.segments[segment];
    let stands_for = found.header.and_then(|(header, _)| header.stands_for);
    next.and_then(|(header, _)| header.previous).is_some_and(|previous| {
        // One that compaction wrote ends elsewhere, and is known to be whole before it has its name.
        let ends_here = stands_for == Some(previous)
            || (previous.end_pos == end.pos && previous.chain == end.chain);
        previous.base == found.base && ends_here && previous.facts.end_offset == end.offset
    })
}

/// What a scan of one segment came to.
struct SegmentScan {
    /// Where the chain breaks.
    end: Place,
    /// Highest `durable_upto` met.
    durable_upto: Offset,
    /// Highest epoch met.
    epoch: LeaderEpoch,
}

/// Scans the chain of segment number `segment` from its beginning, up to where its successor says it ends.
fn scan_segment(
    site: Site<'_>,
    survey: &Survey,
    segment: usize,
) -> Result<SegmentScan, StorageError> {
    let found = &survey.segments[segment];
    let Some(header) = found.header else {
        // Row 8: nothing of it is known durable; as a place it is where it would begin.
        let end = Place { pos: 0, offset: found.base, chain: 0 };
        return Ok(SegmentScan { end, durable_upto: Offset::ZERO, epoch: LeaderEpoch(0) });
    };
    let at = |op| move |error| IoFailure::new(op, &found.path, error);
    let file = site.disk.open(&found.path, OpenMode::Read).map_err(at("open"))?;
    let reader = ChunkReader::new(file.as_ref(), u64::MAX);
    let mut scanner = Scanner::new(reader, header.0.salt(), first_place(header));
    let mut scan =
        SegmentScan { end: scanner.place(), durable_upto: Offset::ZERO, epoch: LeaderEpoch(0) };
    let mut before = scan.end;
    while !continues(survey, segment, scan.end) {
        let Some(entry) = scanner.next().map_err(at("read"))? else {
            if planted(Bug::ReuseOffset) {
                scan.end = before;
            }
            break;
        };
        before = scan.end;
        scan.end = scanner.place();
        scan.durable_upto = scan.durable_upto.max(entry.header.durable_upto);
        scan.epoch = scan.epoch.max(entry.header.leader_epoch);
    }
    Ok(scan)
}

/// True when nothing of the segment `found` stands at or past `pos`: zeros, or in a recycled file
/// whatever its earlier life left.
pub(super) fn is_blank(
    reader: &mut ChunkReader<'_>,
    found: &FoundSegment,
    pos: u64,
) -> std::io::Result<bool> {
    match found.header {
        Some((header, _)) if header.recycled => {
            Ok(reader.find_entry(pos, header.salt())?.is_none())
        }
        Some(_) | None => reader.is_zero_from(pos),
    }
}

/// What stands behind a break.
struct Behind {
    /// Zeros or something.
    at_break: AtBreak,
    /// Highest `durable_upto` of a valid entry.
    durable_upto: Offset,
    /// Base offset of the first valid entry.
    next_entry: Option<Offset>,
}

/// Looks at everything behind `end`: the rest of its segment, and all later ones.
fn look_behind(site: Site<'_>, survey: &Survey, end: SegmentPlace) -> Result<Behind, StorageError> {
    let mut behind =
        Behind { at_break: AtBreak::Zeros, durable_upto: Offset::ZERO, next_entry: None };
    for (number, found) in survey.segments.iter().enumerate().skip(end.segment) {
        let at = |op| move |error| IoFailure::new(op, &found.path, error);
        let file = site.disk.open(&found.path, OpenMode::Read).map_err(at("open"))?;
        let mut reader = ChunkReader::new(file.as_ref(), u64::MAX);
        let mut pos = if number == end.segment { end.place.pos } else { HEADER_BLOCK_BYTES as u64 };
        if is_blank(&mut reader, found, pos).map_err(at("read"))? {
            continue;
        }
        behind.at_break = AtBreak::Bytes;
        let Some((header, _)) = found.header else { continue };
        if behind.next_entry.is_none() {
            let from = if number == end.segment { pos + 1 } else { pos };
            behind.next_entry = goes_on(&mut reader, (from, header.salt()), end.place.offset)
                .map_err(at("read"))?;
        }
        while let Some(entry) = reader.find_entry(pos, header.salt()).map_err(at("read"))? {
            // An entry whose payload is torn or rotten proves its header's word all the same.
            behind.durable_upto = behind.durable_upto.max(entry.header.durable_upto);
            pos = entry.pos + entry.header.stride();
        }
    }
    Ok(behind)
}

/// Base offset of the entry with which a segment goes on, from a position on and behind offset `lost`.
fn goes_on(
    reader: &mut ChunkReader<'_>,
    (pos, salt): (u64, u64),
    lost: Offset,
) -> std::io::Result<Option<Offset>> {
    let Some(found) = reader.find_entry_from(pos, salt, lost)? else { return Ok(None) };
    // The header of the lost entry itself may have gone to a wrong place, without its payload.
    let is_lost =
        found.header.base_offset == lost && !reader.payload_holds(found.pos, &found.header)?;
    Ok((!is_lost).then_some(found.header.base_offset))
}

/// Where `[durable, p)` begins: behind the last records at or below `durable`, and what the segment it lies
/// in holds up to there. A seal at that place is left out: it may be lost.
pub(super) fn cut_of(
    site: Site<'_>,
    survey: &Survey,
    walked: &Walked,
) -> Result<(SegmentPlace, SegmentFacts), StorageError> {
    let mut segment = walked.first;
    let header = survey.segments[segment].header.expect("it holds the mark, so it is sound");
    let mut cut = (
        SegmentPlace { segment, place: first_place(header) },
        SegmentFacts::empty(survey.segments[segment].base),
    );
    loop {
        let found = &survey.segments[segment];
        let header = found.header.expect("the walk came past here");
        let at = |op| move |error| IoFailure::new(op, &found.path, error);
        let file = site.disk.open(&found.path, OpenMode::Read).map_err(at("open"))?;
        let reader = ChunkReader::new(file.as_ref(), u64::MAX);
        let mut scanner = Scanner::new(reader, header.0.salt(), first_place(header)).headers_only();
        let mut facts = SegmentFacts::empty(found.base);
        // What stands behind the place where the next segment goes on was cut off before.
        while !continues(survey, segment, scanner.place()) {
            let behind = SegmentPlace { segment, place: scanner.place() } == walked.end;
            let next = if behind { None } else { scanner.next().map_err(at("read"))? };
            let Some(entry) = next.filter(|it| it.header.end_offset() <= walked.durable) else {
                return Ok(cut);
            };
            facts.add(&entry.header, entry.crc);
            if entry.header.count > 0 {
                cut = (SegmentPlace { segment, place: scanner.place() }, facts);
            }
        }
        segment += 1;
    }
}

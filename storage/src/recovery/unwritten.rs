//! Opens a log without changing a byte on disk, to read it and for nothing else: around its damages when its
//! durable records are damaged, up to what is known durable when nothing may be written.

use std::sync::Arc;

use riverrun_proto::Offset;

use super::{
    Recovered, RecoveryReport, RecoveryVerdict, Site, links,
    survey::{FoundSegment, Survey},
    trusted::{TrustedLog, finished},
};
use crate::{
    Damage, DamageReason, IoFailure, LogOffsets, StorageError,
    disk::OpenMode,
    format::{EntryKind, HEADER_BLOCK_BYTES, SegmentFacts},
    log::shared::Tail,
    producers::Producers,
    scan::ChunkReader,
    segment::Segment,
    state::{LogState, StoredState},
};

/// Opens a log that was closed cleanly.
pub(super) fn open_trusted(survey: Survey, found: TrustedLog) -> Recovered {
    let TrustedLog { mark, state, mut segments, active, found } = found;
    active.set_finished(mark.pos, mark.chain, &found.contents.1);
    segments.push(Arc::new(active));
    let offsets =
        LogOffsets { log_start: state.log_start, flushed: mark.flushed, log_end: mark.flushed };
    let mut opened = unwritten(survey, (segments, state), offsets, Vec::new());
    opened.report.verdict = RecoveryVerdict::Trusted;
    opened.report.scanned_bytes = found.scanned_bytes;
    opened
}

/// Opens the log for reading around `damages`, if there are any. `proven` is what entries prove durable, where
/// they were walked.
pub(super) fn open_unwritten(
    site: Site<'_>,
    survey: Survey,
    mut damages: Vec<Damage>,
    proven: Offset,
) -> Result<Recovered, StorageError> {
    let mut segments: Vec<Arc<Segment>> = Vec::new();
    let line = in_line(site, &survey)?;
    for (number, found) in line.iter().copied().enumerate() {
        if segments.last().is_some_and(|last| found.base < last.end_offset()) {
            // Two tell of the same offsets, and the one before is tied to those before it.
            continue;
        }
        let next = line.get(number + 1).copied();
        let Some(segment) = open_segment(site, found, next)? else { continue };
        let end = segment.end_offset();
        if let Some(next) = next.filter(|next| next.base > end)
            && !damages.iter().any(|damage| damage.offsets.contains(&end))
        {
            let (path, pos) = (found.path.clone(), segment.end_pos());
            let reason = DamageReason::Missing;
            damages.push(Damage { offsets: end..next.base, path, pos, reason });
        }
        segments.push(segment);
    }
    let first = segments.first().map_or(Offset::ZERO, |segment| segment.base);
    let state = match &survey.state {
        StoredState::Valid(state) => state.clone(),
        StoredState::Missing | StoredState::Invalid => LogState::new(first, survey.highest_epoch()),
    };
    // Without a state file nothing says what was durable, and what reads back is served as found.
    let read = segments.last().map_or(first, |segment| segment.end_offset());
    let damaged = damages.iter().map(|damage| damage.offsets.end).max().unwrap_or_default();
    let known = survey.known_durable().max(damaged).max(proven);
    let log_start = survey.log_start().unwrap_or(first);
    let end = if survey.log_start().is_some() { known } else { known.max(read) }.max(log_start);
    let offsets = LogOffsets { log_start, flushed: end, log_end: end };
    damages.extend(holes(&segments, &damages, end));
    for damage in &damages {
        tracing::error!(dir = %site.dir.display(), %damage, "log is damaged");
    }
    Ok(unwritten(survey, (segments, state), offsets, damages))
}

/// What lies between two segments that can be read, or behind the last one and below `end`, and in none of `damages`: its entries
/// are gone, or in a segment that cannot be told from another history's.
fn holes(segments: &[Arc<Segment>], damages: &[Damage], end: Offset) -> Vec<Damage> {
    let behind = segments.iter().skip(1).map(|segment| segment.base).chain([end]);
    let mut holes = Vec::new();
    for (segment, next) in segments.iter().zip(behind) {
        let mut from = segment.end_offset();
        while let Some(damage) = damages.iter().find(|damage| damage.offsets.contains(&from)) {
            from = damage.offsets.end;
        }
        if from < next {
            let (path, pos) = (segment.path.clone(), segment.end_pos());
            holes.push(Damage { offsets: from..next, path, pos, reason: DamageReason::Missing });
        }
    }
    holes
}

/// The log as it is handed over.
fn unwritten(
    survey: Survey,
    (segments, state): (Vec<Arc<Segment>>, LogState),
    offsets: LogOffsets,
    damages: Vec<Damage>,
) -> Recovered {
    let last = segments.last();
    let tail = Tail {
        end_offset: offsets.log_end,
        segment_base: last.map_or(offsets.log_start, |segment| segment.base),
        pos: last.map_or(0, |segment| segment.end_pos()),
        chain: 0,
        changing: false,
        clean: false,
    };
    let report = RecoveryReport {
        created: false,
        verdict: RecoveryVerdict::Damaged,
        offsets,
        leader_epoch: state.epoch(),
        copied_from: offsets.log_end,
        torn_bytes: 0,
        torn_files: Vec::new(),
        scanned_bytes: segments.iter().map(|segment| segment.end_pos()).sum(),
        damages: damages.clone(),
    };
    // Nothing is appended, so nobody asks for producers.
    let producers = (Producers::new(true), survey.snapshots.into_iter().collect());
    Recovered {
        report,
        damages,
        offsets,
        segments,
        active: None,
        tail,
        mark: survey.mark,
        state,
        producers,
    }
}

/// The segments without those that lie between one and the successor that it fits: they come from elsewhere, a
/// history that parted from this one, and their records are not this log's. Where such a history began later, its
/// higher epoch makes segments of this log look superseded; those that fit are taken in again.
pub(super) fn in_line<'a>(
    site: Site<'_>,
    survey: &'a Survey,
) -> Result<Vec<&'a FoundSegment>, StorageError> {
    let found = &survey.segments;
    let mut line = Vec::with_capacity(found.len());
    let mut at = 0;
    while let Some(mut last) = found.get(at) {
        line.push(last);
        at += 1;
        if let Some(next) = successor(site, last, &found[at..])? {
            at = found.partition_point(|segment| segment.base < next.base);
            continue;
        }
        while let Some(next) = successor(site, last, &survey.superseded)? {
            line.push(next);
            last = next;
        }
        at = at.max(found.partition_point(|segment| segment.base <= last.base));
    }
    Ok(line)
}

/// The first of `later` before which `segment` ends as it says.
fn successor<'a>(
    site: Site<'_>,
    segment: &FoundSegment,
    later: &'a [FoundSegment],
) -> Result<Option<&'a FoundSegment>, StorageError> {
    for next in later.iter().filter(|next| next.base > segment.base) {
        if links::end_of(site, segment, next)?.is_ok() {
            return Ok(Some(next));
        }
    }
    Ok(None)
}

/// `found` as far as it can be read: to where its successor says it ends, else to its last valid entry. `None`
/// without a valid header, and when it ends in another seal than its successor says: one of the two was exchanged.
fn open_segment(
    site: Site<'_>,
    found: &FoundSegment,
    next: Option<&FoundSegment>,
) -> Result<Option<Arc<Segment>>, StorageError> {
    if let Some(next) = next
        && let Ok(end) = links::end_of(site, found, next)?
    {
        return Ok(Some(finished(site, found, &end)));
    }
    let Some(header) = found.header else { return Ok(None) };
    let at = |op| move |error| IoFailure::new(op, &found.path, error);
    let file = site.disk.open(&found.path, OpenMode::Read).map_err(at("open"))?;
    let segment = Segment::new(found.path.clone(), header, site.options.index_interval_bytes);
    let mut reader = ChunkReader::new(file.as_ref(), u64::MAX);
    let mut facts = SegmentFacts::empty(found.base);
    let (mut pos, mut chain) = (HEADER_BLOCK_BYTES as u64, header.1);
    let mut is_sealed = false;
    // An entry that a write to a wrong place brought before others does not say where they end.
    let mut start = found.base;
    while let Some(entry) = reader.find_entry_from(pos, segment.salt, start).map_err(at("read"))? {
        pos = entry.pos + entry.header.stride();
        start = entry.header.end_offset();
        chain = entry.crc;
        is_sealed = entry.header.kind == EntryKind::Seal;
        facts.add(&entry.header, entry.crc);
    }
    let told = next.and_then(|next| next.header).and_then(|(header, _)| header.previous);
    // One that was written anew ends otherwise than its successor says.
    let told = told.filter(|told| told.base == found.base && header.0.stands_for != Some(*told));
    if is_sealed && told.is_some_and(|told| told.chain != chain) {
        return Ok(None);
    }
    segment.set_finished(pos, chain, &facts);
    Ok(Some(Arc::new(segment)))
}

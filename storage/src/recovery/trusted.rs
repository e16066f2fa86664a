//! The trusted start: the newest mark is clean, and everything on disk fits it. Nothing is changed but
//! that leftovers go: temporary files, and segments below the log start.

use std::sync::Arc;

use super::{
    Recovered, RecoveryReport, RecoveryVerdict, Site, links, producers,
    survey::{FoundSegment, Survey},
};
use crate::{
    IoFailure, LogOffsets, StorageError,
    disk::{DiskFile, OpenMode},
    format::{ENTRY_BYTES, HEADER_BLOCK_BYTES, Previous, SegmentFacts},
    index::SparseIndex,
    log::shared::Tail,
    mark::{Mark, MarkPage},
    scan::{ChunkReader, Place, Scanner},
    segment::{IndexBuilder, Segment},
    segment_file,
    segment_writer::SegmentWriter,
    state::{self, LogState, StoredState},
};

/// A log whose newest mark can be trusted.
pub(super) struct TrustedLog {
    /// The mark.
    pub(super) mark: Mark,
    /// The state.
    pub(super) state: LogState,
    /// All segments but the last one.
    pub(super) segments: Vec<Arc<Segment>>,
    /// The last one.
    pub(super) active: Segment,
    /// What it holds.
    pub(super) found: ActiveFound,
}

/// The log, when its newest mark can be trusted. Changes nothing.
pub(super) fn find_trusted(
    site: Site<'_>,
    survey: &Survey,
) -> Result<Option<TrustedLog>, StorageError> {
    let (Some(mark), StoredState::Valid(state)) = (survey.mark.newest(), &survey.state) else {
        return Ok(None);
    };
    let Some(last) = survey.segments.last() else { return Ok(None) };
    let fits = mark.clean
        && mark.segment_base == last.base
        && mark.flushed >= last.base
        // Neither a segment nor the state knows of more than a log has that ends there.
        && mark.flushed == survey.known_durable()
        && state.epoch() == survey.highest_epoch()
        && survey.superseded.is_empty()
        && survey.sound_state().is_ok();
    let Some(header) = last.header.filter(|_| fits) else { return Ok(None) };
    let Some(segments) = sound_segments(site, &survey.segments)? else { return Ok(None) };
    let active = Segment::new(last.path.clone(), header, site.options.index_interval_bytes);
    let Some(found) = read_active(site, &active, mark)? else { return Ok(None) };
    let state = state.clone();
    Ok(Some(TrustedLog { mark, state, segments, active, found }))
}

/// Opens the log when its newest mark can be trusted.
pub(super) fn open_trusted(
    site: Site<'_>,
    survey: &Survey,
) -> Result<Option<Recovered>, StorageError> {
    let Some(log) = find_trusted(site, survey)? else { return Ok(None) };
    let TrustedLog { mark, state, mut segments, active, found } = log;
    let writer = open_active(site, active, mark, found.contents)?;
    segments.push(writer.segment.clone());
    let passed = survey.passed.iter().map(|passed| &passed.path);
    for path in passed.chain(&survey.temporaries) {
        state::remove_if_present(site.disk, path)?;
    }
    let offsets =
        LogOffsets { log_start: state.log_start, flushed: mark.flushed, log_end: mark.flushed };
    let (producers, read) = producers::rebuild(site, &segments, &survey.snapshots, offsets)?;
    let report = RecoveryReport {
        created: false,
        verdict: RecoveryVerdict::Trusted,
        offsets,
        leader_epoch: state.epoch(),
        copied_from: offsets.log_end,
        torn_bytes: 0,
        torn_files: Vec::new(),
        scanned_bytes: found.scanned_bytes + read,
        damages: Vec::new(),
    };
    Ok(Some(Recovered {
        report,
        damages: Vec::new(),
        offsets,
        segments,
        tail: tail(&writer, true),
        active: Some(writer),
        mark: MarkPage::load(site.disk, site.dir)?,
        state,
        producers,
    }))
}

/// The tail behind `writer`; `clean` when the newest mark on the page says so.
pub(super) fn tail(writer: &SegmentWriter, clean: bool) -> Tail {
    let place = writer.place();
    Tail {
        end_offset: place.offset,
        segment_base: writer.segment.base,
        pos: place.pos,
        chain: place.chain,
        changing: false,
        clean,
    }
}

/// All segments but the last one, when each ends as its successor says.
pub(super) fn sound_segments(
    site: Site<'_>,
    found: &[FoundSegment],
) -> Result<Option<Vec<Arc<Segment>>>, StorageError> {
    let mut segments = Vec::with_capacity(found.len());
    for pair in found.windows(2) {
        let Ok(end) = links::end_of(site, &pair[0], &pair[1])? else { return Ok(None) };
        segments.push(finished(site, &pair[0], &end));
    }
    Ok(Some(segments))
}

/// The segment that ends as `end` says.
pub(super) fn finished(site: Site<'_>, found: &FoundSegment, end: &Previous) -> Arc<Segment> {
    let header = found.header.expect("its end was checked against it");
    let segment = Segment::new(found.path.clone(), header, site.options.index_interval_bytes);
    segment.set_finished(end.end_pos, end.chain, &end.facts);
    Arc::new(segment)
}

/// The active segment's contents.
pub(super) struct ActiveFound {
    /// Index and sums.
    pub(super) contents: (SparseIndex, SegmentFacts),
    /// Bytes scanned to know them.
    pub(super) scanned_bytes: u64,
}

/// What the active segment holds, when that is what `mark` says and nothing follows.
fn read_active(
    site: Site<'_>,
    segment: &Segment,
    mark: Mark,
) -> Result<Option<ActiveFound>, StorageError> {
    let at = |op| move |error| IoFailure::new(op, &segment.path, error);
    let file = site.disk.open(&segment.path, OpenMode::Read).map_err(at("open"))?;
    // The first flush after a clean mark makes it durable that there is none, so whatever was appended
    // behind this one was never flushed. An entry that goes on there is looked at all the same.
    let end = mark.pos.saturating_add(ENTRY_BYTES as u64);
    let mut reader = ChunkReader::new(file.as_ref(), end);
    let appended = reader.entry_begins_at(mark.pos, segment.salt).map_err(at("read"))?;
    if mark.pos > file.len() || appended {
        return Ok(None);
    }
    let end = SegmentFacts { end_offset: mark.flushed, ..SegmentFacts::empty(segment.base) };
    segment.publish(mark.pos, &end);
    segment.set_chain(mark.chain);
    // Its sums go into the seal; those that the mark tells as well must agree with it.
    let agrees = |facts: &SegmentFacts| {
        facts.end_offset == mark.flushed
            && facts.record_count == mark.flushed.since(segment.base)
            && facts.entry_bytes.checked_add(HEADER_BLOCK_BYTES as u64) == Some(mark.pos)
    };
    let place = Place { pos: mark.pos, offset: mark.flushed, chain: mark.chain };
    if let Some(contents) = segment.load_index(site.disk)?.filter(|(_, facts)| agrees(facts))
        && leads_to(place, segment, &contents.0, file.as_ref()).map_err(at("read"))?
    {
        return Ok(Some(ActiveFound { contents, scanned_bytes: 0 }));
    }
    let reader = ChunkReader::new(file.as_ref(), mark.pos);
    let mut scanner = Scanner::new(reader, segment.salt, segment.first_place());
    let mut builder = IndexBuilder::new(segment);
    let mut facts = SegmentFacts::empty(segment.base);
    while let Some(entry) = scanner.next().map_err(at("read"))? {
        builder.add(entry.header.base_offset, entry.pos, entry.header.max_timestamp);
        facts.add(&entry.header, entry.crc);
    }
    let contents = (builder.index, facts);
    let found = ActiveFound { contents, scanned_bytes: mark.pos };
    Ok((scanner.place() == place).then_some(found))
}

/// True when the entries from the last point of `index` on lead to `end`, where the next one is written: it must continue the last one's chain.
fn leads_to(
    end: Place,
    segment: &Segment,
    index: &SparseIndex,
    file: &dyn DiskFile,
) -> std::io::Result<bool> {
    let (pos, offset) = index.floor_of_pos(end.pos);
    let mut reader = ChunkReader::new(file, end.pos);
    let mut place = segment.first_place();
    if pos > place.pos {
        let Some((header, _)) = reader.entry_of(pos, segment.salt, offset)? else {
            return Ok(false);
        };
        place = Place { pos, offset, chain: header.previous_crc };
    }
    let mut scanner = Scanner::new(reader, segment.salt, place).headers_only();
    while scanner.next()?.is_some() {}
    Ok(scanner.place() == end)
}

/// Opens the active segment for going on at `mark`.
fn open_active(
    site: Site<'_>,
    segment: Segment,
    mark: Mark,
    (index, facts): (SparseIndex, SegmentFacts),
) -> Result<SegmentWriter, StorageError> {
    let bytes_max = segment_file::bytes_max(site.options);
    let stat = site
        .disk
        .open(&segment.path, OpenMode::Read)
        .map_err(|error| IoFailure::new("open", &segment.path, error))?;
    let bytes_max = bytes_max.max(stat.len());
    let file = site
        .disk
        .open(&segment.path, OpenMode::Append { bytes_max })
        .map_err(|error| IoFailure::new("open", &segment.path, error))?;
    let segment = Arc::new(segment);
    segment.set_writable(file.clone(), index);
    segment.publish(mark.pos, &facts);
    segment.set_flushed_pos(mark.pos);
    let place = Place { pos: mark.pos, offset: mark.flushed, chain: mark.chain };
    Ok(SegmentWriter::new(segment, file, bytes_max, (place, facts)))
}

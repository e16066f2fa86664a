//! Makes the log what the layout says, one durable step after another.

use std::{io, path::Path};

use riverrun_proto::Offset;

use super::{
    super::{Site, survey::Survey},
    layout::{Layout, NewSegment, Part, Tie},
    pieces::Found,
    salvage::Run,
};
use crate::{
    IoFailure, StorageError, Timestamp,
    disk::OpenMode,
    fixed::crc32,
    format::{EntryHeader, EntryKind, HEADER_BLOCK_BYTES, Previous, SegmentHeader},
    mark::{Mark, MarkPage},
    paths,
    scan::{ChunkReader, Scanner},
    segment_output::SegmentOutput,
    state,
};

/// Name of the file that a segment is written to before it takes its place.
const TEMPORARY: &str = "repaired.tmp";

/// Writes mark, segments and state.
pub(super) fn write(
    site: Site<'_>,
    survey: &Survey,
    found: &Found<'_>,
    layout: &Layout,
) -> Result<(), StorageError> {
    for path in &layout.kept {
        // Nobody may have known that all of it counts.
        let at = |op| move |error| IoFailure::new(op, path, error);
        let file = site.disk.open(path, OpenMode::Write).map_err(at("open"))?;
        file.sync().map_err(at("sync"))?;
    }
    begin(site, found)?;
    remove_snapshots(site, survey, first_lost(found, layout))?;
    site.disk.sync_dir(site.dir).map_err(|error| IoFailure::new("sync", site.dir, error))?;
    let mut end = None;
    for segment in &layout.segments {
        let previous = match segment.tie {
            Tie::Told(told) => told,
            Tie::Written => end,
        };
        end = Some(write_segment(site, segment, previous)?);
    }
    if found.state.is_none() {
        // The last step: with a state file, what lies behind damage that is left and was not known durable would be taken for torn.
        state::store(site.disk, site.dir, &found.state_anew())?;
    }
    Ok(())
}

/// Says that the log was not closed, so that whoever opens it next begins an epoch, and how far it was durable, which bytes that
/// are about to go may be the only ones to prove.
fn begin(site: Site<'_>, found: &Found<'_>) -> Result<(), IoFailure> {
    let mut page = MarkPage::load(site.disk, site.dir)?;
    let (first, pos) = (Offset::ZERO, HEADER_BLOCK_BYTES as u64);
    let unknown = Mark { clean: false, flushed: first, segment_base: first, pos, chain: 0 };
    let mark = Mark { clean: false, flushed: found.durable, ..page.newest().unwrap_or(unknown) };
    page.write(site.disk, mark)?;
    page.sync()
}

/// The first offset that may be given up: any, where the log start is lost too and nobody knows what stood before the first record there is.
fn first_lost(found: &Found<'_>, layout: &Layout) -> Option<Offset> {
    let first = layout.losses(found.log_start).first().map(|loss| loss.offsets.start);
    if found.state.is_none() { Some(Offset::ZERO) } else { first }
}

/// Removes the snapshots of producers that tell of what is given up: a retry of a batch in it would be answered as if that was stored. Before
/// anything is given up, because a log that is sound again is not repaired again.
fn remove_snapshots(
    site: Site<'_>,
    survey: &Survey,
    lost: Option<Offset>,
) -> Result<(), IoFailure> {
    let Some(lost) = lost else { return Ok(()) };
    for as_of in survey.snapshots.iter().filter(|as_of| **as_of > lost) {
        state::remove_if_present(site.disk, &paths::producers(site.dir, *as_of))?;
    }
    Ok(())
}

/// Writes one segment and puts it in its place, durably. How it ends.
fn write_segment(
    site: Site<'_>,
    segment: &NewSegment,
    previous: Option<Previous>,
) -> Result<Previous, StorageError> {
    let temporary = site.dir.join(TEMPORARY);
    let written = write_file(site, segment, previous, &temporary);
    if written.is_err() {
        // It has no name yet, and on a full disk others need the room.
        let _ = site.disk.remove_file(&temporary);
    }
    let end = written?;
    state::remove_if_present(site.disk, &paths::index(site.dir, end.base))?;
    site.disk.sync_dir(site.dir).map_err(|error| IoFailure::new("sync", site.dir, error))?;
    Ok(end)
}

/// Writes one segment to the file at `temporary`, durably, and gives it its name.
fn write_file(
    site: Site<'_>,
    segment: &NewSegment,
    previous: Option<Previous>,
    temporary: &Path,
) -> Result<Previous, StorageError> {
    let header = SegmentHeader { previous, ..segment.header };
    let mut writer = Writer {
        out: SegmentOutput::create(site.disk, temporary, header)?,
        last: blank(&header, segment.time),
    };
    for (number, part) in segment.parts.iter().enumerate() {
        match part {
            Part::Copy(run) => writer.copy(site, segment, *run)?,
            Part::Lost(offsets, _) => {
                let is_last = number + 1 == segment.parts.len();
                if let Some(told) = header.stands_for.filter(|_| is_last) {
                    // Retention takes it for as old as it was.
                    let time = &mut writer.last.append_time;
                    *time = told.facts.last_append_time.max(*time);
                }
                writer.give_up(offsets.end)?;
            }
        }
    }
    let time = writer.last.append_time;
    let written = writer.out.finish(time)?;
    let renamed = site.disk.rename(temporary, &segment.path);
    renamed.map_err(|error| IoFailure::new("rename", &segment.path, error))?;
    Ok(written.end())
}

/// What a lost entry says that comes before all others of its segment.
fn blank(header: &SegmentHeader, time: Timestamp) -> EntryHeader {
    // Where the segment before it ends, append times may not fall.
    let before = header.previous.map(|previous| previous.facts.last_append_time);
    EntryHeader {
        kind: EntryKind::Lost,
        length: 0,
        base_offset: header.base,
        count: 0,
        leader_epoch: header.leader_epoch,
        durable_upto: header.durable_upto,
        append_time: before.filter(|time| *time != Timestamp::MIN).unwrap_or(time),
        max_timestamp: Timestamp::MIN,
        payload_crc: crc32(&[]),
        salt: 0,
        previous_crc: 0,
    }
}

/// A segment being written.
struct Writer<'a> {
    out: SegmentOutput<'a>,
    /// The last entry: epoch and times of what is lost behind it.
    last: EntryHeader,
}

impl Writer<'_> {
    /// Copies the entries of `run`.
    fn copy(&mut self, site: Site<'_>, segment: &NewSegment, run: Run) -> Result<(), StorageError> {
        let at = |op| move |error| IoFailure::new(op, &segment.path, error);
        let file = site.disk.open(&segment.path, OpenMode::Read).map_err(at("open"))?;
        let reader = ChunkReader::new(file.as_ref(), run.end.pos);
        let mut scanner = Scanner::new(reader, segment.salt, run.start);
        while scanner.place() != run.end {
            let Some(entry) = scanner.next().map_err(at("read"))? else {
                let changed = "it reads otherwise than a moment ago";
                return Err(at("read")(io::Error::new(io::ErrorKind::InvalidData, changed)).into());
            };
            let payload = scanner.reader.payload(entry.pos, &entry.header).map_err(at("read"))?;
            self.out.entry(&entry.header, payload.expect("the scanner read it"))?;
            self.last = entry.header;
        }
        Ok(())
    }

    /// Says of all offsets up to `end` that they were lost.
    fn give_up(&mut self, end: Offset) -> Result<(), IoFailure> {
        while self.out.end_offset() < end {
            let base_offset = self.out.end_offset();
            let count = u32::try_from(end.since(base_offset)).unwrap_or(u32::MAX);
            let lost = EntryHeader {
                kind: EntryKind::Lost,
                length: 0,
                base_offset,
                count,
                max_timestamp: Timestamp::MIN,
                payload_crc: crc32(&[]),
                ..self.last
            };
            self.out.entry(&lost, &[])?;
        }
        Ok(())
    }
}

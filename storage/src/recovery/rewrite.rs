//! What follows an unclean start that lost nothing durable: `[M, p)` moves to a new segment, which takes the
//! place of everything at or past `M`.
//!
//! ```text
//! 1 write recovered.tmp (entries of [M, p), a higher epoch, durable_upto = p), sync it
//! 2 set torn bytes aside, sync them; remove producer snapshots past p; sync the directory
//! 3 rename recovered.tmp to M.log, sync the directory          <- from here on the new segment counts
//! 4 remove what it replaces, sync the directory
//! 5 record the higher epoch, write a clean mark, sync it        <- from here on the log may be used
//! ```
//!
//! A crash before 3 leaves the old state, one after it the new segment and leftovers of a lower epoch.

use std::{path::PathBuf, sync::Arc};

use riverrun_proto::{LeaderEpoch, Offset};

use super::{
    Recovered, RecoveryReport, RecoveryVerdict, Site, links, producers,
    survey::Survey,
    trusted::{finished, tail},
    walk::{SegmentPlace, Walked, continues, cut_of, first_place, is_blank},
};
use crate::{
    IoFailure, LogOffsets, StorageError,
    disk::OpenMode,
    failpoint::{Place, passes},
    format::{
        EntryHeader, EntryKind, HEADER_BLOCK_BYTES, Previous, SEAL_BYTES, SegmentFacts,
        SegmentHeader,
    },
    index::SparseIndex,
    paths,
    planted::{Bug, planted},
    scan::{ChunkReader, Scanner},
    segment::Segment,
    segment_file,
    segment_writer::{NewEntry, SegmentWriter},
    state::{self, LogState},
};

/// Most bytes set aside from one file: more than one group of the largest batches.
const TORN_BYTES_MAX: u64 = 256 << 20;
/// Payload bytes copied at a time is one entry; this is the most one can be.
const PAYLOAD: &str = "payloads are limited to 64 MiB";

/// Rewrites the end of the log.
pub(super) fn rewrite(
    site: Site<'_>,
    survey: Survey,
    mut state: LogState,
    walked: &Walked,
    verdict: RecoveryVerdict,
) -> Result<Recovered, StorageError> {
    let epoch = state::epoch_of_start(survey.highest_epoch().max(walked.epoch), site.now);
    let (cut, header) = new_header(site, &survey, walked, epoch)?;
    let mut writer = make_segment(site, header, copy_bytes(&survey, cut, walked.end, site)?)?;
    copy(site, &survey, (cut, walked.end), &mut writer)?;
    writer.publish();
    let at = |op: &'static str| move |error| IoFailure::new(op, site.dir, error);
    passes(Place::Recopied);
    if !planted(Bug::ServeBeforeResync) {
        writer.sync()?;
    }
    passes(Place::RecopySynced);
    let (torn_files, torn_bytes) = set_aside(site, &survey, walked)?;
    let end = walked.end.place.offset;
    remove_snapshots(site, &survey, end)?;
    // What the new segment replaces is told from another history's by the files set aside.
    site.disk.sync_dir(site.dir).map_err(at("sync"))?;
    let segment = writer.segment.clone();
    let temporary = site.dir.join(paths::RECOVERED_SEGMENT);
    site.disk.rename(&temporary, &segment.path).map_err(at("rename"))?;
    passes(Place::RecopyNamed);
    site.disk.sync_dir(site.dir).map_err(at("sync"))?;
    passes(Place::RecopyCounts);
    remove_replaced(site, &survey, segment.base)?;
    site.disk.sync_dir(site.dir).map_err(at("sync"))?;
    passes(Place::Replaced);
    state.begin_epoch(epoch, end);
    state::store(site.disk, site.dir, &state)?;
    passes(Place::EpochStored);

    let mut segments = kept_segments(site, &survey, &header)?;
    segments.push(segment);
    let offsets = LogOffsets { log_start: state.log_start, flushed: end, log_end: end };
    let (producers, read) = producers::rebuild(site, &segments, &survey.snapshots, offsets)?;
    let mut mark = survey.mark;
    let tail = tail(&writer, true);
    mark.write(site.disk, tail.mark(true))?;
    mark.sync()?;
    site.disk.sync_dir(site.dir).map_err(at("sync"))?;
    let report = RecoveryReport {
        created: false,
        verdict,
        offsets,
        leader_epoch: epoch,
        copied_from: header.base,
        torn_bytes,
        torn_files,
        scanned_bytes: walked.scanned_bytes + read,
        damages: Vec::new(),
    };
    tracing::debug!(dir = %site.dir.display(), ?verdict, %end, torn_bytes, "log recovered");
    Ok(Recovered {
        report,
        damages: Vec::new(),
        offsets,
        segments,
        active: Some(writer),
        tail,
        mark,
        state,
        producers,
    })
}

/// The segments before the one with `header`, each ending as its successor says.
fn kept_segments(
    site: Site<'_>,
    survey: &Survey,
    header: &SegmentHeader,
) -> Result<Vec<Arc<Segment>>, StorageError> {
    let kept = survey.segments.iter().take_while(|found| found.base < header.base).count();
    let kept = &survey.segments[..kept];
    let mut segments = Vec::with_capacity(kept.len() + 1);
    for pair in kept.windows(2) {
        let end = links::end_of(site, &pair[0], &pair[1])?;
        segments.push(finished(site, &pair[0], &end.expect("segments below the mark are sound")));
    }
    if let (Some(last), Some(previous)) = (kept.last(), &header.previous) {
        assert_eq!(last.base, previous.base, "the new segment follows the last one kept");
        let end = links::end_as(site, last, previous)?;
        segments.push(finished(site, last, &end.expect("the last one kept is sound")));
    }
    Ok(segments)
}

/// Where the copy begins, and the header of the segment that holds it.
fn new_header(
    site: Site<'_>,
    survey: &Survey,
    walked: &Walked,
    epoch: LeaderEpoch,
) -> Result<(SegmentPlace, SegmentHeader), StorageError> {
    let (cut, previous) = match survey.segments[walked.first].header {
        None => (walked.end, None),
        Some((header, _)) => {
            let (cut, facts) = cut_of(site, survey, walked)?;
            let found = &survey.segments[cut.segment];
            let cut_short = Previous {
                sealed: false,
                chain: cut.place.chain,
                base: found.base,
                end_pos: cut.place.pos,
                facts,
            };
            // A segment of which nothing is kept is replaced: the new one follows its predecessor.
            let kept = facts.entry_bytes > 0;
            (cut, if kept { Some(cut_short) } else { header.previous })
        }
    };
    let header = SegmentHeader {
        topic_id: site.options.topic_id,
        partition: site.options.partition,
        leader_epoch: epoch,
        base: cut.place.offset,
        created: site.now,
        durable_upto: walked.end.place.offset,
        previous,
        stands_for: None,
        recycled: false,
    };
    Ok((cut, header))
}

/// Bytes of entries between the two places, seals included.
fn copy_bytes(
    survey: &Survey,
    cut: SegmentPlace,
    end: SegmentPlace,
    site: Site<'_>,
) -> Result<u64, StorageError> {
    let mut bytes = 0;
    for number in cut.segment..=end.segment {
        let from = if number == cut.segment { cut.place.pos } else { HEADER_BLOCK_BYTES as u64 };
        let to = if number == end.segment {
            end.place.pos
        } else {
            let path = &survey.segments[number].path;
            let file = site.disk.open(path, OpenMode::Read);
            file.map_err(|error| IoFailure::new("open", path, error))?.len()
        };
        bytes += to.saturating_sub(from);
    }
    Ok(bytes)
}

/// Makes the new segment's file with room for `copy_bytes`.
fn make_segment(
    site: Site<'_>,
    header: SegmentHeader,
    copy_bytes: u64,
) -> Result<SegmentWriter, StorageError> {
    let needed = HEADER_BLOCK_BYTES as u64 + copy_bytes + SEAL_BYTES;
    let bytes_max = segment_file::bytes_max(site.options).max(needed.next_multiple_of(4096));
    let temporary = site.dir.join(paths::RECOVERED_SEGMENT);
    let file = segment_file::prepare(site.disk, &temporary, bytes_max)?;
    let (block, crc) = header.encode();
    file.write_at(0, &[&block[..]]).map_err(|error| IoFailure::new("write", &temporary, error))?;
    let path = paths::segment(site.dir, header.base);
    let segment = Segment::new(path, (header, crc), site.options.index_interval_bytes);
    let segment = Arc::new(segment);
    segment.set_writable(file.clone(), SparseIndex::new(header.base, HEADER_BLOCK_BYTES as u64));
    let begin = (segment.first_place(), SegmentFacts::empty(header.base));
    Ok(SegmentWriter::new(segment, file, bytes_max, begin))
}

/// Copies the entries between two places, without seals, to `writer`.
fn copy(
    site: Site<'_>,
    survey: &Survey,
    (cut, end): (SegmentPlace, SegmentPlace),
    writer: &mut SegmentWriter,
) -> Result<(), StorageError> {
    let mut place = cut.place;
    for number in cut.segment..=end.segment {
        let found = &survey.segments[number];
        let Some(header) = found.header else { break };
        if number > cut.segment {
            place = first_place(header);
        }
        let at = |op| move |error| IoFailure::new(op, &found.path, error);
        let file = site.disk.open(&found.path, OpenMode::Read).map_err(at("open"))?;
        let reader = ChunkReader::new(file.as_ref(), u64::MAX);
        let mut scanner = Scanner::new(reader, header.0.salt(), place);
        loop {
            let here = SegmentPlace { segment: number, place: scanner.place() };
            if here == end || (number < end.segment && continues(survey, number, here.place)) {
                break;
            }
            let entry = scanner.next().map_err(at("read"))?;
            let entry = entry.expect("the walk came past here");
            if entry.header.kind != EntryKind::Seal {
                let payload = scanner.reader.payload(entry.pos, &entry.header);
                let payload = payload.map_err(at("read"))?.expect(PAYLOAD);
                copy_entry(writer, &entry.header, payload)?;
            }
        }
    }
    assert_eq!(writer.place().offset, end.place.offset, "the copy ends where the walk ended");
    Ok(())
}

/// Writes one entry anew, with the salt and chain of its new segment.
fn copy_entry(
    writer: &mut SegmentWriter,
    header: &EntryHeader,
    payload: &[u8],
) -> Result<(), StorageError> {
    let entry = NewEntry {
        kind: header.kind,
        count: header.count,
        leader_epoch: header.leader_epoch,
        durable_upto: header.durable_upto,
        append_time: header.append_time,
        max_timestamp: header.max_timestamp,
        payload_crc: header.payload_crc,
    };
    writer.reserve(u64::from(header.length))?;
    writer.write(entry, [payload, &[]])?;
    Ok(())
}

/// Copies what stands at and behind the break to `.torn-n` files. The files and their bytes.
fn set_aside(
    site: Site<'_>,
    survey: &Survey,
    walked: &Walked,
) -> Result<(Vec<PathBuf>, u64), StorageError> {
    let (mut files, mut total) = (Vec::new(), 0);
    for (number, found) in survey.segments.iter().enumerate().skip(walked.end.segment) {
        let from = if number == walked.end.segment { walked.end.place.pos } else { 0 };
        let at = |op| move |error| IoFailure::new(op, &found.path, error);
        let file = site.disk.open(&found.path, OpenMode::Read).map_err(at("open"))?;
        let mut reader = ChunkReader::new(file.as_ref(), u64::MAX);
        let behind_header = from.max(HEADER_BLOCK_BYTES as u64);
        if is_blank(&mut reader, found, behind_header).map_err(at("read"))? {
            continue;
        }
        let to = match found.header {
            Some((header, _)) if header.recycled => {
                reader.last_entry_end(behind_header, header.salt())
            }
            Some(_) | None => reader.last_non_zero(from),
        };
        let to = to.map_err(at("read"))?.unwrap_or(from).min(reader.end());
        let len = usize::try_from((to - from).min(TORN_BYTES_MAX)).expect("at most 256 MiB");
        let mut bytes = vec![0; len];
        file.read_at(from, &mut bytes).map_err(at("read"))?;
        let taken: Vec<_> = survey.torn.iter().map(|(_, path)| path.clone()).collect();
        let mut names = (1..).map(|n| paths::torn(site.dir, found.base, n));
        let path = names.find(|path| !taken.contains(path)).expect("names without end");
        state::write_new(site.disk, &path, &bytes, true)?;
        total += len as u64;
        files.push(path);
    }
    Ok((files, total))
}

/// Removes producer snapshots that tell of records which are not in the log any more: offsets past the
/// end will be given again.
fn remove_snapshots(site: Site<'_>, survey: &Survey, end: Offset) -> Result<(), IoFailure> {
    for as_of in survey.snapshots.iter().filter(|as_of| **as_of > end) {
        state::remove_if_present(site.disk, &paths::producers(site.dir, *as_of))?;
    }
    Ok(())
}

/// Removes the segments that the new one at `base` replaces, and what interrupted steps left.
fn remove_replaced(site: Site<'_>, survey: &Survey, base: Offset) -> Result<(), IoFailure> {
    let new_path = paths::segment(site.dir, base);
    let replaced = survey.segments.iter().filter(|found| found.base >= base);
    for found in replaced
        .chain(&survey.superseded)
        .chain(&survey.passed)
        .filter(|found| found.path != new_path)
    {
        state::remove_if_present(site.disk, &found.path)?;
    }
    for path in &survey.temporaries {
        state::remove_if_present(site.disk, path)?;
    }
    let first = survey.segments.first().map_or(base, |found| found.base);
    let stale = |at: Offset| at < first || at >= base;
    for (_, path) in survey.indexes.iter().filter(|(at, _)| stale(*at)) {
        state::remove_if_present(site.disk, path)?;
    }
    for (_, path) in survey.torn.iter().filter(|(at, _)| *at < first) {
        state::remove_if_present(site.disk, path)?;
    }
    Ok(())
}

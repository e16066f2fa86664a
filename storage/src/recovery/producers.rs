//! The producer table of a log: the newest snapshot that describes its history, and the entries after it.

use std::{collections::VecDeque, sync::Arc};

use riverrun_proto::{
    Offset,
    batch::{BatchHeader, HEADER_BYTES},
};

use super::Site;
use crate::{
    IoFailure, LogOffsets, StorageError,
    disk::OpenMode,
    format::{ENTRY_BYTES, EntryKind},
    paths,
    producers::Producers,
    scan::ChunkReader,
    segment::Segment,
    state::read_small,
};

/// The table and the offsets of its snapshots on disk.
type Found = (Producers, VecDeque<Offset>);

/// Builds the table as of the end of `offsets`. The second value counts the bytes read of segments.
pub(super) fn rebuild(
    site: Site<'_>,
    segments: &[Arc<Segment>],
    snapshots: &[Offset],
    offsets: LogOffsets,
) -> Result<(Found, u64), StorageError> {
    let usable = snapshots.iter().copied().filter(|as_of| *as_of <= offsets.log_end);
    let kept: VecDeque<Offset> = usable.collect();
    let mut newest = None;
    for as_of in kept.iter().rev() {
        let bytes = read_small(site.disk, &paths::producers(site.dir, *as_of))?;
        newest = bytes.and_then(|bytes| Producers::decode(&bytes, *as_of)).map(|it| (*as_of, it));
        if newest.is_some() {
            break;
        }
    }
    let first = segments.first().map_or(Offset::ZERO, |segment| segment.base);
    let (from, mut table) = newest
        .filter(|(as_of, _)| *as_of >= first)
        .unwrap_or_else(|| (first, Producers::new(first == Offset::ZERO)));
    let mut read = 0;
    for segment in segments.iter().filter(|segment| segment.end_offset() > from) {
        read += replay(site, segment, from, &mut table)?;
    }
    Ok(((table, kept), read))
}

/// Takes in what `segment` holds at and past `from`. Damage is stepped over: a header that nothing vouches for could fence a producer
/// by an epoch that never was, or answer its next batch as one that is there. Returns the bytes walked.
fn replay(
    site: Site<'_>,
    segment: &Segment,
    from: Offset,
    table: &mut Producers,
) -> Result<u64, StorageError> {
    let at = |op| move |error| IoFailure::new(op, &segment.path, error);
    let file = site.disk.open(&segment.path, OpenMode::Read).map_err(at("open"))?;
    let start = if from <= segment.base {
        segment.first_place().pos
    } else {
        segment.with_index(site.disk, file.as_ref(), |index| index.floor(from).0)?
    };
    let mut reader = ChunkReader::new(file.as_ref(), segment.end_pos());
    let mut pos = start;
    while let Some(entry) = reader.find_entry(pos, segment.salt).map_err(at("read"))? {
        pos = entry.pos + entry.header.stride();
        // A gap carries the headers of the batches that compaction emptied.
        let bytes = match entry.header.kind {
            EntryKind::Records => HEADER_BYTES,
            EntryKind::Gap => usize::try_from(entry.header.length).expect("fits memory"),
            EntryKind::Seal | EntryKind::Control | EntryKind::Lost => continue,
        };
        if !reader.payload_holds(entry.pos, &entry.header).map_err(at("read"))? {
            continue;
        }
        let headers = reader.bytes(entry.pos + ENTRY_BYTES as u64, bytes).map_err(at("read"))?;
        for block in headers.unwrap_or_default().chunks_exact(HEADER_BYTES) {
            if let Ok(batch) = BatchHeader::peek(block)
                && batch.base_offset >= from
            {
                table.add(&batch, batch.base_offset, entry.header.append_time);
            }
        }
    }
    Ok(segment.end_pos() - start)
}

//! Key compaction: keeps the newest record of each key in the sealed part of a log.
//!
//! ```text
//! |---- cleaned ----|---------- sealed, not cleaned ---------|--- active ---|
//!                   ^ cleaned offset        ^ upto: as far as the key map had room
//! 1. read keys of [cleaned, upto) into a bounded map
//! 2. for each segment below upto that holds something superseded, oldest first: write it anew without
//!    that, sync, rename it over the old one, sync the directory
//! 3. note upto in the side file `cleaned`
//! ```
//!
//! Invariants:
//! - The active segment and whatever is not flushed are never touched; offsets never change.
//! - A tombstone goes only when it is older than the retention and every older record of its key is
//!   durably gone: segments are replaced oldest first, each durably before the next.
//! - At any crash each segment is whole, the old one or the new one, and both are right.
//! - A segment with damage stops the pass; nothing is dropped because something else can not be read.
//! - The side file is derived: without it everything is compacted again.
//!
//! One pass runs at a time, on a thread of its own; appends, flushes and reads go on meanwhile. It does
//! not join small segments.

mod key_map;
mod rewrite;

use std::{ops::ControlFlow, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use riverrun_proto::{Offset, RecordBatch, limits::INFLATED_BYTES_MAX};
use thiserror::Error;

use self::{
    key_map::KeyMap,
    rewrite::{Rewriter, Rules},
};
use crate::{
    Damage, IoFailure, LogFailure, LogFlusher, Timestamp,
    disk::DiskFile,
    fixed::{crc32, put, u32_at, u64_at},
    format::{ENTRY_BYTES, EntryHeader, EntryKind, Previous, SegmentHeader},
    log::shared::Shared,
    paths,
    scan::{ChunkReader, Scanner},
    segment::Segment,
    segment_output::WrittenSegment,
    segment_read, state,
};

/// How a log is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionOptions {
    /// Memory for the keys of one pass, in bytes. When they do not fit, more passes are made.
    pub map_bytes_max: usize,
    /// Segments with a record appended less than this long ago are left alone, and all after them.
    pub lag: Duration,
    /// A tombstone stays readable for at least this long after its append.
    pub tombstone_retention: Duration,
    /// What an idempotent producer wrote is remembered for at least this long.
    pub producer_age_max: Duration,
    /// A pass is due when at least this share of the sealed bytes, in percent, was never compacted.
    pub dirty_percent_min: u8,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments written anew.
    pub segment_count: usize,
    /// Records left out.
    pub record_count: u64,
    /// Bytes of those segments before.
    pub bytes_before: u64,
    /// Bytes of those segments now.
    pub bytes_after: u64,
    /// Everything below was compacted.
    pub cleaned: Offset,
    /// Sealed records are left because the key map was full: another pass should follow.
    pub has_more: bool,
}

/// Why a pass ended early. What it had done stays; the log serves on unless it failed.
#[derive(Clone, Debug, Error)]
pub enum CompactError {
    /// The operating system refused.
    #[error(transparent)]
    Io(IoFailure),
    /// A segment is damaged. It and all after it were left as they are.
    #[error("a damaged segment can not be compacted: {0}")]
    Damaged(#[from] Damage),
    /// The log has stopped.
    #[error(transparent)]
    Failed(#[from] LogFailure),
}

/// Compacts one log. There is one of it per log.
#[derive(Debug)]
pub struct LogCompactor {
    shared: Arc<Shared>,
}

/// Takes in one entry and its payload, and says whether the rest is wanted.
type EntryVisitor<'a> =
    dyn FnMut(&EntryHeader, &[u8]) -> Result<ControlFlow<()>, CompactError> + 'a;

/// Name of the file that a segment is written to before it takes its place.
const TEMPORARY: &str = "compacted.tmp";

impl LogCompactor {
    /// The compactor of `shared`.
    pub(crate) fn new(shared: Arc<Shared>) -> LogCompactor {
        LogCompactor { shared }
    }

    /// Whether enough was appended since the last pass.
    ///
    /// # Errors
    /// When the side file can not be read.
    pub fn is_due(
        &self,
        now: Timestamp,
        options: &CompactionOptions,
    ) -> Result<bool, CompactError> {
        let cleaned = load_cleaned(&self.shared)?;
        let segments = self.sealed_segments(now, options.lag);
        let bytes = |segments: &mut dyn Iterator<Item = &Arc<Segment>>| -> u64 {
            segments.map(|segment| segment.end_pos()).sum()
        };
        let total = bytes(&mut segments.iter());
        let dirty = bytes(&mut segments.iter().filter(|segment| segment.end_offset() > cleaned));
        Ok(dirty > 0 && dirty * 100 >= total * u64::from(options.dirty_percent_min))
    }

    /// Makes one pass over the sealed segments.
    ///
    /// # Errors
    /// [`CompactError`].
    pub fn compact(
        &mut self,
        now: Timestamp,
        options: &CompactionOptions,
    ) -> Result<Compacted, CompactError> {
        self.shared.check()?;
        let cleaned = load_cleaned(&self.shared)?;
        let segments = self.sealed_segments(now, options.lag);
        // A start after a power loss must know them durable, so that it takes them as they are.
        self.sync_mark()?;
        let mut map = KeyMap::new(options.map_bytes_max);
        let upto = self.read_keys(&segments, cleaned, &mut map)?;
        let mut done = Compacted { cleaned: upto, ..Compacted::default() };
        done.has_more = segments.last().is_some_and(|last| last.end_offset() > upto);
        if upto <= cleaned {
            return Ok(done);
        }
        let rules = Rules {
            map: &map,
            upto,
            tombstones_before: before(now, options.tombstone_retention),
            producers_before: before(now, options.producer_age_max),
        };
        for segment in segments.iter().filter(|segment| segment.base < upto) {
            self.compact_segment(segment, &rules, now, &mut done)?;
        }
        store_cleaned(&self.shared, upto)?;
        tracing::debug!(dir = %self.shared.dir.display(), keys = map.key_count(), ?done, "compacted");
        Ok(done)
    }

    fn sync_mark(&self) -> Result<(), CompactError> {
        let synced = LogFlusher::new(self.shared.clone()).sync_mark();
        synced.map_err(|_| self.shared.check().expect_err("a failed flush stops the log").into())
    }

    /// Segments that nothing is appended to, that are flushed and older than `lag`, oldest first.
    fn sealed_segments(&self, now: Timestamp, lag: Duration) -> Vec<Arc<Segment>> {
        let segments = self.shared.segments.read();
        let flushed = |segment: &&Arc<Segment>| segment.flushed_pos() >= segment.end_pos();
        let old = |segment: &&Arc<Segment>| now.since(segment.last_append_time()) >= lag;
        let sealed = segments.iter().take_while(|segment| segment.is_sealed());
        sealed.take_while(flushed).take_while(old).cloned().collect()
    }

    /// Reads the keys of `[from, upto)` into `map`; `upto` is where it had no more room or the sealed
    /// segments end.
    fn read_keys(
        &self,
        segments: &[Arc<Segment>],
        from: Offset,
        map: &mut KeyMap,
    ) -> Result<Offset, CompactError> {
        let mut upto = from;
        for segment in segments.iter().filter(|segment| segment.end_offset() > from) {
            let mut full_at = None;
            self.for_each_entry(segment, &mut |entry, payload| {
                if full_at.is_none() && entry.end_offset() > from {
                    full_at = note_keys(map, entry, payload, from);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if let Some(full_at) = full_at {
                return Ok(full_at);
            }
            upto = segment.end_offset();
        }
        Ok(upto)
    }

    /// Writes `segment` anew if records of it go, and puts the new file in its place.
    fn compact_segment(
        &self,
        segment: &Arc<Segment>,
        rules: &Rules<'_>,
        now: Timestamp,
        done: &mut Compacted,
    ) -> Result<(), CompactError> {
        let disk = self.shared.disk.as_ref();
        let path = self.shared.dir.join(TEMPORARY);
        let Some(end) = self.end_by_successor(segment) else { return Ok(()) };
        if !self.loses_something(segment, rules)? {
            return Ok(());
        }
        // The salt, and so the chain, must differ from the old file's.
        let created = Timestamp(segment.header.created.0.max(now.0).saturating_add(1));
        let header =
            SegmentHeader { created, stands_for: Some(end), recycled: false, ..segment.header };
        let mut rewriter = Rewriter::new(disk, &path, header, rules)?;
        self.for_each_entry(segment, &mut |entry, payload| {
            rewriter.entry(entry, payload)?;
            Ok(ControlFlow::Continue(()))
        })?;
        let rewritten = rewriter.finish(segment.last_append_time())?;
        if rewritten.removed_count == 0 && rewritten.written.end_pos >= segment.end_pos() {
            state::remove_if_present(disk, &path)?;
            return Ok(());
        }
        let bytes_before = segment.end_pos();
        if self.put_in_place(segment, &path, &rewritten.written)? {
            done.segment_count += 1;
            done.record_count += rewritten.removed_count;
            done.bytes_before += bytes_before;
            done.bytes_after += rewritten.written.end_pos;
        }
        Ok(())
    }

    /// Looks for the first thing in `segment` that need not be kept.
    fn loses_something(
        &self,
        segment: &Arc<Segment>,
        rules: &Rules<'_>,
    ) -> Result<bool, CompactError> {
        let (mut found, mut after_gap) = (false, false);
        self.for_each_entry(segment, &mut |entry, payload| {
            let is_gap = entry.kind == EntryKind::Gap;
            // Gaps side by side may become one.
            found = (is_gap && after_gap) || rules.changes(entry, payload);
            after_gap = is_gap;
            Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }

    /// How the successor of `segment` says it ends; `None` when retention dropped it meanwhile.
    fn end_by_successor(&self, segment: &Arc<Segment>) -> Option<Previous> {
        let segments = self.shared.segments.read();
        let place = segments.iter().position(|held| Arc::ptr_eq(held, segment))?;
        let next = segments.get(place + 1).expect("a sealed segment has a successor");
        Some(next.header.previous.expect("a successor tells of the one before it"))
    }

    /// Replaces `old` by the file at `path`, durably. False when retention dropped `old` meanwhile.
    fn put_in_place(
        &self,
        old: &Arc<Segment>,
        path: &Path,
        written: &WrittenSegment,
    ) -> Result<bool, CompactError> {
        let shared = &self.shared;
        // A reader that holds `old` goes on in the old file, whose name is about to go.
        old.pin(shared.disk.as_ref())?;
        let header = (written.header, written.header_crc);
        let interval = u32::try_from(old.index_interval_bytes).expect("made from 32 bits");
        let new = Segment::new(old.path.clone(), header, interval);
        new.set_finished(written.end_pos, written.chain, &written.facts);
        {
            let _layout = shared.layout.lock();
            let held = |segment: &Arc<Segment>| Arc::ptr_eq(segment, old);
            let Some(place) = shared.segments.read().iter().position(held) else {
                state::remove_if_present(shared.disk.as_ref(), path)?;
                return Ok(false);
            };
            shared
                .disk
                .rename(path, &old.path)
                .map_err(|error| IoFailure::new("rename", path, error))?;
            shared.segments.write()[place] = Arc::new(new);
        }
        shared
            .disk
            .sync_dir(&shared.dir)
            .map_err(|error| shared.fail(IoFailure::new("sync", &shared.dir, error)))?;
        state::remove_if_present(shared.disk.as_ref(), &paths::index(&shared.dir, old.base))?;
        Ok(true)
    }

    /// Calls `act` with each entry of `segment` and its payload, both checked, until it wants no more.
    fn for_each_entry(
        &self,
        segment: &Arc<Segment>,
        act: &mut EntryVisitor<'_>,
    ) -> Result<(), CompactError> {
        let failed = |error| IoFailure::new("read", &segment.path, error);
        let file = self.shared.file_of(segment)?;
        let file: &dyn DiskFile = file.as_ref();
        let reader = ChunkReader::new(file, segment.end_pos());
        let mut scanner = Scanner::new(reader, segment.salt, segment.first_place());
        while let Some(entry) = scanner.next().map_err(failed)? {
            let length = usize::try_from(entry.header.length).expect("a length fits memory");
            let payload = scanner.reader.bytes(entry.pos + ENTRY_BYTES as u64, length);
            let payload = payload.map_err(failed)?.expect("the scanner read it");
            if act(&entry.header, payload)?.is_break() {
                return Ok(());
            }
        }
        let end = scanner.place();
        if end.pos != segment.end_pos() || end.offset != segment.end_offset() {
            return Err(segment_read::damage_at(&self.shared, segment, file, end.pos)?.into());
        }
        Ok(())
    }
}

/// Puts the keys of one entry's records at or past `from` into `map`. The offset of the first record
/// that had no room.
fn note_keys(
    map: &mut KeyMap,
    entry: &EntryHeader,
    payload: &[u8],
    from: Offset,
) -> Option<Offset> {
    if entry.kind != EntryKind::Records {
        return None;
    }
    // A batch that can not be looked into is kept whole, and so supersedes nothing.
    let batch = RecordBatch::decode(Bytes::copy_from_slice(payload)).ok()?;
    if batch.header().is_idempotent() {
        map.note_producer(batch.header().producer_id, batch.base_offset());
    }
    let transactional = batch.header().is_control() || batch.header().is_transactional();
    let records = batch.records(INFLATED_BYTES_MAX).ok().filter(|_| !transactional)?;
    // Checked as a whole first: a batch that breaks off is kept whole too.
    if records.views().any(|view| view.is_err()) {
        return None;
    }
    for view in records.views() {
        let view = view.expect("checked above");
        let Some(key) = view.key.filter(|_| view.offset >= from) else { continue };
        if !map.note(key, view.offset) {
            return Some(view.offset);
        }
    }
    None
}

/// The moment `age` before `now`.
fn before(now: Timestamp, age: Duration) -> Timestamp {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_sub(age_ms))
}

/// First bytes of the side file.
const CLEANED_MAGIC: &[u8; 8] = b"RIVERCLN";
/// Bytes of the side file: magic u64 | crc u32 (over the offset) | zero u32 | cleaned offset u64.
const CLEANED_BYTES: usize = 24;

/// The offset below which everything was compacted; zero when that is not known.
fn load_cleaned(shared: &Shared) -> Result<Offset, IoFailure> {
    let path = shared.dir.join(paths::CLEANED);
    let bytes = state::read_small(shared.disk.as_ref(), &path)?.unwrap_or_default();
    let valid = bytes.len() == CLEANED_BYTES
        && bytes.starts_with(CLEANED_MAGIC)
        && u32_at(&bytes, 8) == crc32(&bytes[16..]);
    Ok(if valid { Offset(u64_at(&bytes, 16)) } else { Offset::ZERO })
}

/// Notes that everything below `cleaned` was compacted.
fn store_cleaned(shared: &Shared, cleaned: Offset) -> Result<(), IoFailure> {
    let mut bytes = [0; CLEANED_BYTES];
    put(&mut bytes, 0, CLEANED_MAGIC);
    put(&mut bytes, 16, &cleaned.0.to_le_bytes());
    let crc = crc32(&bytes[16..]);
    put(&mut bytes, 8, &crc.to_le_bytes());
    state::replace(shared.disk.as_ref(), &shared.dir.join(paths::CLEANED), &bytes)?;
    let synced = shared.disk.sync_dir(&shared.dir);
    synced.map_err(|error| IoFailure::new("sync", &shared.dir, error))
}

#[cfg(test)]
mod tests;

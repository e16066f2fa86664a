//! From one segment to the next.
//!
//! A roll makes the next segment whole and named before the old one gets its seal:
//! 1. a file is made and opened (ahead of time, by [`LogPreparer`](crate::LogPreparer));
//! 2. its header block, which holds the checksum of the seal to come, is written, and it is renamed;
//! 3. the seal is written into the old segment, for which room was kept.
//!
//! A full disk refuses at 1 or 2 and the old segment goes on. All of it becomes durable in the next flush.

use std::{path::PathBuf, sync::Arc, time::Duration};

use riverrun_proto::Offset;

use super::{LogWriter, trim::storage_error};
use crate::{
    AppendError, IoFailure, StorageError, Timestamp,
    failpoint::{Place, passes},
    format::{HEADER_BLOCK_BYTES, SEAL_BYTES, SegmentFacts, SegmentHeader, entry::stride},
    index::SparseIndex,
    log::preparer::NextSegment,
    paths,
    segment::Segment,
    segment_file,
    segment_writer::{RollInput, SegmentWriter, roll_is_due},
    state,
};

/// Producer snapshots kept; one would do, the second is for a damaged one.
const SNAPSHOT_COUNT_MAX: usize = 2;
/// Sealed segments that may wait for a flush. At one more, a roll flushes itself: what a recovery has to
/// copy stays bounded.
const UNFLUSHED_SEGMENTS_MAX: usize = 2;

impl LogWriter {
    /// Seals the active segment and goes on in a new one. An empty segment stays.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn roll(&mut self, now: Timestamp) -> Result<(), AppendError> {
        self.shared.check()?;
        let active = self.active.as_ref().expect("a log that did not stop has an active segment");
        if active.is_empty() {
            return Ok(());
        }
        self.roll_to_next(now.max(self.last_append_time))
    }

    /// Seals the active segment and flushes it when it is as old as the options allow, though nothing is appended. True when it did.
    ///
    /// # Errors
    /// When the log has stopped or the disk refuses.
    pub fn roll_if_old(&mut self, now: Timestamp) -> Result<bool, StorageError> {
        self.shared.check()?;
        let active = self.active.as_ref().expect("a log that did not stop has an active segment");
        let age = active.first_append_time().map_or(Duration::ZERO, |first| now.since(first));
        if active.is_empty() || age < self.options.segment_age_max {
            return Ok(false);
        }
        self.roll(now).map_err(storage_error)?;
        self.flusher().flush()?;
        Ok(true)
    }

    /// Rolls if it is due, allocates room for a payload of `bytes` and says that an append begins.
    pub(super) fn make_room(
        &mut self,
        bytes: u64,
        span: u64,
        now: Timestamp,
    ) -> Result<(), AppendError> {
        let active = self.active.as_ref().expect("a log that did not stop has an active segment");
        let pos_after = active.place().pos + stride(bytes) + SEAL_BYTES;
        let input = RollInput {
            is_empty: active.is_empty(),
            bytes_after: if active.fits(bytes) { pos_after } else { u64::MAX },
            segment_bytes_max: u64::from(self.options.segment_bytes_max),
            age: active.first_append_time().map_or(Duration::ZERO, |first| now.since(first)),
            segment_age_max: self.options.segment_age_max,
            offset_span: active.place().offset.since(active.segment.base) + span,
        };
        if roll_is_due(&input) {
            self.roll_to_next(now)?;
        } else if !active.fits(bytes) {
            // An empty segment that was made for smaller batches.
            self.replace_empty(now)?;
        }
        let active = self.active.as_ref().expect("kept or rolled to");
        active.reserve(bytes).map_err(refused)?;
        Ok(self.shared.begin_change()?)
    }

    /// Seals the active segment, which is not empty, and goes on in a new one.
    fn roll_to_next(&mut self, now: Timestamp) -> Result<(), AppendError> {
        self.flush_if_far_behind()?;
        let ready = {
            let mut slot = self.shared.next.lock();
            slot.naming = slot.ready.is_some();
            slot.ready.take()
        };
        let next = match ready {
            Some(next) => next,
            None => self.make_next().map_err(refused)?,
        };
        let entry = self.new_entry(now);
        let active = self.active.as_ref().expect("a log that did not stop has an active segment");
        let (end, previous) = active.seal(entry);
        let header = SegmentHeader {
            topic_id: self.options.topic_id,
            partition: self.options.partition,
            leader_epoch: entry.leader_epoch,
            base: active.place().offset,
            created: now,
            durable_upto: entry.durable_upto,
            previous: Some(previous),
            stands_for: None,
            recycled: next.recycled,
        };
        let named = self.name_next(next, header);
        self.shared.next.lock().naming = false;
        let fresh = named?;
        self.shared.begin_change()?;
        passes(Place::BeforeSeal);
        active.write_seal(&end).map_err(|failure| self.shared.fail(failure))?;
        passes(Place::AfterSeal);
        let (sealed, facts) = (active.segment.clone(), *active.facts());
        self.go_on_in(fresh);
        passes(Place::BeforeIndex);
        self.write_index(&sealed, facts);
        // A snapshot is derived data: without it, a start reads more.
        if let Err(failure) = self.write_snapshot(self.log_end()) {
            tracing::debug!(%failure, "producer snapshot was not written");
        }
        Ok(())
    }

    /// Puts a segment with today's limits in the place of the active one, which is empty.
    fn replace_empty(&mut self, now: Timestamp) -> Result<(), AppendError> {
        let next = self.make_next().map_err(refused)?;
        let entry = self.new_entry(now);
        let active = self.active.as_ref().expect("a log that did not stop has an active segment");
        let header = SegmentHeader {
            leader_epoch: entry.leader_epoch,
            created: Timestamp(now.0.max(active.segment.header.created.0.saturating_add(1))),
            durable_upto: entry.durable_upto,
            recycled: next.recycled,
            ..active.segment.header
        };
        let fresh = self.name_next(next, header)?;
        self.shared.begin_change()?;
        self.go_on_in(fresh);
        Ok(())
    }

    /// Flushes when too many sealed segments wait for it.
    fn flush_if_far_behind(&self) -> Result<(), AppendError> {
        let waiting = {
            let segments = self.shared.segments.read();
            let sealed = segments.iter().rev().skip(1);
            sealed.take_while(|segment| segment.flushed_pos() < segment.end_pos()).count()
        };
        if waiting < UNFLUSHED_SEGMENTS_MAX {
            return Ok(());
        }
        match self.flusher().flush() {
            Ok(_) => Ok(()),
            Err(_) => Err(self.shared.check().expect_err("a failed flush stops the log").into()),
        }
    }

    /// Writes the header block of `next` and gives it its name.
    fn name_next(
        &self,
        next: NextSegment,
        header: SegmentHeader,
    ) -> Result<SegmentWriter, AppendError> {
        let path = paths::segment(&self.shared.dir, header.base);
        let (block, crc) = header.encode();
        next.file
            .write_at(0, &[&block[..]])
            .map_err(|error| refused(IoFailure::new("write", &path, error)))?;
        passes(Place::BeforeName);
        self.shared
            .disk
            .rename(&next.path, &path)
            .map_err(|error| refused(IoFailure::new("rename", &path, error)))?;
        self.shared.count_name();
        let segment =
            Arc::new(Segment::new(path, (header, crc), self.options.index_interval_bytes));
        let index = SparseIndex::new(header.base, HEADER_BLOCK_BYTES as u64);
        segment.set_writable(next.file.clone(), index);
        let begin = (segment.first_place(), SegmentFacts::empty(header.base));
        Ok(SegmentWriter::new(segment, next.file, next.bytes_max, begin))
    }

    /// Makes `fresh`, which is empty, the active segment; instead of an empty one that began where it does.
    fn go_on_in(&mut self, fresh: SegmentWriter) {
        let place = fresh.place();
        {
            // In one step: compaction relies on an active segment after the last sealed one.
            let mut segments = self.shared.segments.write();
            segments.pop_if(|active| active.base == fresh.segment.base);
            segments.push(fresh.segment.clone());
        }
        let mut tail = self.shared.tail.lock();
        tail.segment_base = fresh.segment.base;
        tail.pos = place.pos;
        tail.chain = place.chain;
        tail.changing = false;
        drop(tail);
        self.active = Some(fresh);
    }

    /// Makes the file of the next segment.
    fn make_next(&self) -> Result<NextSegment, IoFailure> {
        let bytes_max = segment_file::bytes_max(&self.options);
        let disk = self.shared.disk.as_ref();
        let path = self.next_path();
        let file = segment_file::prepare(disk, &path, bytes_max)?;
        Ok(NextSegment { file, path, bytes_max, recycled: false })
    }

    /// Where a segment made in haste waits for its name.
    pub(super) fn next_path(&self) -> PathBuf {
        self.shared.dir.join(paths::NEXT_SEGMENT)
    }

    /// Writes the index file of a finished segment. It is derived data: failing costs a scan later.
    pub(super) fn write_index(&self, segment: &Segment, facts: SegmentFacts) {
        let Some(bytes) = segment.encode_index(&facts) else { return };
        let path = paths::index(&self.shared.dir, segment.base);
        if let Err(failure) = state::write_new(self.shared.disk.as_ref(), &path, &bytes, false) {
            tracing::debug!(%failure, "index was not written");
        }
    }

    /// Writes a snapshot of the producers as of `as_of`, and removes the oldest ones.
    pub(super) fn write_snapshot(&mut self, as_of: Offset) -> Result<(), IoFailure> {
        let (disk, dir) = (self.shared.disk.as_ref(), &self.shared.dir);
        let bytes = self.producers.encode(as_of);
        state::write_new(disk, &paths::producers(dir, as_of), &bytes, false)?;
        if self.snapshots.back() != Some(&as_of) {
            self.snapshots.push_back(as_of);
        }
        while self.snapshots.len() > SNAPSHOT_COUNT_MAX {
            let oldest = self.snapshots.pop_front().expect("more than two");
            state::remove_if_present(disk, &paths::producers(dir, oldest))?;
        }
        Ok(())
    }
}

/// A failure before anything was changed, as a refusal.
pub(super) fn refused(failure: IoFailure) -> AppendError {
    if failure.is_disk_full() { AppendError::DiskFull(failure) } else { AppendError::Io(failure) }
}

//! The one owner of a log: appends, rolls, trims.
//!
//! An append checks everything that can be refused first (size, producer, room on the disk), then writes
//! once, then publishes. So a refused append changed nothing, and a failed write stops the log.
//!
//! A roll makes the next segment whole and named before the old one gets its seal:
//! 1. a file is made and opened (ahead of time, by [`LogWriter::prepare`]);
//! 2. its header block, which holds the checksum of the seal to come, is written, and it is renamed;
//! 3. the seal is written into the old segment, for which room was kept.
//!
//! A full disk refuses at 1 or 2 and the old segment goes on. All of it becomes durable in the next flush.

use std::{collections::VecDeque, path::PathBuf, sync::Arc, time::Duration};

use riverrun_proto::{LeaderEpoch, Offset, RecordBatch, batch::STAMPED_BYTES};

use super::{LogFlusher, LogPreparer, LogReader, preparer::NextSegment, shared::Shared};
use crate::{
    AppendError, IoFailure, LogCompactor, LogFailure, LogOptions, RetentionPolicy, StorageError,
    Timestamp,
    format::{
        EntryKind, HEADER_BLOCK_BYTES, SEAL_BYTES, SegmentFacts, SegmentHeader, entry::stride,
    },
    index::SparseIndex,
    paths,
    producers::{Producers, Sequence},
    recycle::RecyclePool,
    retention::{self, SegmentAge},
    segment::Segment,
    segment_file,
    segment_writer::{NewEntry, RollInput, SegmentWriter, roll_is_due},
    state,
};

/// Producer snapshots kept; one would do, the second is for a damaged one.
const SNAPSHOT_COUNT_MAX: usize = 2;
/// Sealed segments that may wait for a flush. At one more, a roll flushes itself: what a recovery has to
/// copy stays bounded.
const UNFLUSHED_SEGMENTS_MAX: usize = 2;

/// Receipt of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// First offset past the batch.
    pub end_offset: Offset,
    /// True when the batch was in the log already; the offsets are those it got then.
    pub duplicate: bool,
}

/// What a trim dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Whole segments removed.
    pub segment_count: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// First offset kept.
    pub log_start: Offset,
}

/// Appends to one log. There is one of it.
#[derive(Debug)]
pub struct LogWriter {
    /// What flusher and readers see.
    shared: Arc<Shared>,
    /// Limits in force.
    options: LogOptions,
    /// The active segment; absent in a damaged log, which refuses writes.
    active: Option<SegmentWriter>,
    /// Idempotent producers.
    producers: Producers,
    /// The epoch of this start, which begins with its first record. `None` once it began.
    next_epoch: Option<LeaderEpoch>,
    /// Append time of the newest entry.
    last_append_time: Timestamp,
    /// Offsets of the producer snapshots on disk, oldest first.
    snapshots: VecDeque<Offset>,
}

impl LogWriter {
    /// The writer of `shared`.
    pub(super) fn new(
        shared: Arc<Shared>,
        options: LogOptions,
        active: Option<SegmentWriter>,
        ((producers, snapshots), next_epoch): ((Producers, VecDeque<Offset>), Option<LeaderEpoch>),
    ) -> LogWriter {
        let last_append_time =
            shared.segments.read().last().map_or(Timestamp::MIN, |last| last.last_append_time());
        announce_sizes(&shared, &options);
        LogWriter { shared, options, active, producers, next_epoch, last_append_time, snapshots }
    }

    /// Appends `batch` at the log end. Base offset and leader epoch are stamped on the way; the payload is
    /// copied once. The batch is readable when this returns, and durable after the next flush.
    ///
    /// A batch that an idempotent producer sent before is not appended again: the receipt names the
    /// offsets it got then, which may not be flushed yet.
    ///
    /// # Errors
    /// See [`AppendError`]. Nothing was appended.
    pub fn append(&mut self, batch: &RecordBatch, now: Timestamp) -> Result<Appended, AppendError> {
        self.shared.check()?;
        let bytes = batch.as_bytes();
        let (len, max) = (bytes.len(), self.options.batch_bytes_max);
        if len > max as usize {
            return Err(AppendError::BatchTooLarge { len, max });
        }
        let base_offset = self.log_end();
        let span = batch.span();
        if let Sequence::Duplicate { base } = self.producers.check(batch.header())? {
            let end_offset = Offset(base.0 + span);
            return Ok(Appended { base_offset: base, end_offset, duplicate: true });
        }
        let Some(end_offset) = base_offset.checked_add(span) else {
            return Err(AppendError::OffsetsExhausted { log_end: base_offset });
        };
        let append_time = now.max(self.last_append_time);
        self.begin_next_epoch()?;
        self.make_room(len as u64, span, append_time)?;
        let entry = NewEntry {
            kind: EntryKind::Records,
            count: u32::try_from(span).expect("a batch spans at most 31 bits"),
            max_timestamp: Timestamp(batch.header().max_timestamp_ms),
            payload_crc: batch.header().crc,
            ..self.new_entry(append_time)
        };
        let prefix = batch.stamped_prefix(base_offset, entry.leader_epoch);
        self.write(entry, [&prefix, &bytes[STAMPED_BYTES..]])?;
        self.remember(batch, base_offset, append_time);
        Ok(Appended { base_offset, end_offset, duplicate: false })
    }

    /// Next offset to be given.
    pub fn log_end(&self) -> Offset {
        self.shared.watermarks.load().log_end
    }

    /// Epoch of the leader that appends now.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.shared.state.read().epoch()
    }

    /// Limits in force.
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// Puts other limits in force. Sizes of files take effect at the next roll.
    ///
    /// # Errors
    /// When an option is out of range, or names another topic or partition; the old ones stay.
    pub fn set_options(&mut self, options: LogOptions) -> Result<(), StorageError> {
        options.validate()?;
        assert_eq!(
            (options.topic_id, options.partition),
            (self.options.topic_id, self.options.partition),
            "a log keeps its identity"
        );
        let ordering = std::sync::atomic::Ordering::Relaxed;
        self.shared.sealed_files_max.store(options.sealed_files_max, ordering);
        announce_sizes(&self.shared, &options);
        self.options = options;
        Ok(())
    }

    /// Begins `epoch`, which must be higher than the one in force, at the log end. Durable when this
    /// returns; what is appended from now on carries it.
    ///
    /// # Errors
    /// When the log has stopped or the disk refuses.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), StorageError> {
        self.shared.check()?;
        let mut state = self.shared.state.read().clone();
        state.begin_epoch(epoch, self.log_end());
        self.shared.store_state(state)?;
        Ok(())
    }

    /// True when [`LogWriter::prepare`] has something to do: the active segment is half full and the next
    /// one's file is not made.
    pub fn needs_preparation(&self) -> bool {
        self.preparer().needs_preparation()
    }

    /// Makes the file of the next segment, so that a roll need not: a recycled one, or one that grows as it
    /// is written. [`LogPreparer::prepare`] does more, from another thread.
    ///
    /// # Errors
    /// When the disk refuses; nothing is lost, the roll tries again.
    pub fn prepare(&mut self) -> Result<(), StorageError> {
        self.preparer().make(false)
    }

    /// A preparer of this log.
    pub fn preparer(&self) -> LogPreparer {
        LogPreparer::new(self.shared.clone())
    }

    /// Takes files of next segments from `pool` and gives it those of dropped ones, from now on. The first
    /// pool given stays.
    pub fn recycle_through(&self, pool: Arc<RecyclePool>) {
        self.shared.pool.get_or_init(|| pool);
    }

    /// Seals the active segment and goes on in a new one. An empty segment stays.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn roll(&mut self, now: Timestamp) -> Result<(), AppendError> {
        self.shared.check()?;
        let active = self.active.as_ref().expect("a log that did not stop has an active segment");
        if active.facts().entry_bytes == 0 {
            return Ok(());
        }
        self.roll_to_next(now.max(self.last_append_time))
    }

    /// Drops what `policy` does not keep: whole segments, oldest first. An active segment that has expired
    /// as a whole is sealed first. Whoever reads in a dropped segment now may finish.
    ///
    /// # Errors
    /// When the log has stopped or the disk refuses; some segments may have been dropped.
    pub fn apply_retention(
        &mut self,
        now: Timestamp,
        policy: &RetentionPolicy,
    ) -> Result<Dropped, StorageError> {
        self.shared.check()?;
        self.forget_producers(now, self.options.producer_count_max);
        self.remove_below(self.shared.watermarks.load().log_start)?;
        if self.active_has_expired(now, policy) {
            self.roll(now).map_err(storage_error)?;
        }
        let segments = self.shared.segments.read().clone();
        let Some((active, sealed)) = segments.split_last() else { return self.dropped(&[]) };
        let ages: Vec<_> = sealed.iter().map(age_of).collect();
        let count = retention::segments_to_drop(&ages, active.end_pos(), policy, now);
        let Some(last) = count.checked_sub(1).map(|last| &sealed[last]) else {
            return self.dropped(&[]);
        };
        let end = last.end_offset();
        // Held segments count as being read.
        drop(segments);
        self.drop_before(end)
    }

    /// Moves the log start up to `offset` and removes the segments below it. Records below it are not
    /// readable any more when this returns; an offset below the log start changes nothing.
    ///
    /// # Errors
    /// When `offset` is past the log end, the log has stopped or the disk refuses.
    pub fn drop_before(&mut self, offset: Offset) -> Result<Dropped, StorageError> {
        self.shared.check()?;
        let offsets = self.shared.watermarks.load();
        if offset > offsets.log_end {
            return Err(StorageError::OutOfRange {
                requested: offset,
                log_start: offsets.log_start,
                log_end: offsets.log_end,
            });
        }
        if offset <= offsets.log_start {
            return self.dropped(&[]);
        }
        if offset > offsets.flushed {
            self.flusher().flush()?;
        }
        let mut state = self.shared.state.read().clone();
        state.set_log_start(offset);
        self.shared.store_state(state)?;
        self.shared.watermarks.set_log_start(offset);
        let dropped = self.remove_below(offset)?;
        self.dropped(&dropped)
    }

    /// Flushes, leaves a snapshot of the producers, the index and a clean mark, and gives the log up. A
    /// start after that scans nothing.
    ///
    /// # Errors
    /// When the log had stopped or the disk refuses; the next start then recovers.
    pub fn close(mut self) -> Result<(), StorageError> {
        let flusher = self.flusher();
        flusher.flush()?;
        let prepared = {
            let mut slot = self.shared.next.lock();
            slot.closed = true;
            slot.ready.take()
        };
        for path in [Some(self.next_path()), prepared.map(|next| next.path)].into_iter().flatten() {
            state::remove_if_present(self.shared.disk.as_ref(), &path)?;
        }
        self.write_snapshot(self.log_end())?;
        if let Some(active) = &self.active {
            active.segment.set_chain(active.place().chain);
            self.write_index(&active.segment.clone(), *active.facts());
        }
        flusher.sync_mark()
    }

    /// Writes `entry` with its payload, and publishes it.
    fn write(&mut self, entry: NewEntry, parts: [&[u8]; 2]) -> Result<(), LogFailure> {
        let active = self.active.as_mut().expect("room was made in it");
        active.write(entry, parts).map_err(|failure| self.shared.fail(failure))?;
        active.publish();
        let place = active.place();
        let mut tail = self.shared.tail.lock();
        tail.end_offset = place.offset;
        tail.pos = place.pos;
        tail.chain = place.chain;
        tail.changing = false;
        self.shared.watermarks.set_log_end(place.offset);
        drop(tail);
        self.last_append_time = entry.append_time;
        Ok(())
    }

    /// Begins the epoch of this start, when nothing was appended in it yet.
    fn begin_next_epoch(&mut self) -> Result<(), AppendError> {
        let Some(epoch) = self.next_epoch else { return Ok(()) };
        if epoch > self.leader_epoch() {
            self.begin_epoch(epoch).map_err(|error| match error {
                StorageError::Io(failure) => refused(failure),
                StorageError::Failed(failure) => failure.into(),
                StorageError::Missing { .. }
                | StorageError::Foreign { .. }
                | StorageError::Version { .. }
                | StorageError::Option { .. }
                | StorageError::OutOfRange { .. } => unreachable!("only the state is stored"),
            })?;
        }
        self.next_epoch = None;
        Ok(())
    }

    /// Takes in what an idempotent producer wrote.
    fn remember(&mut self, batch: &RecordBatch, base: Offset, append_time: Timestamp) {
        self.producers.add(batch.header(), base, append_time);
        let count_max = self.options.producer_count_max;
        if self.producers.len() > count_max {
            // A tenth goes at once, so that this costs little per producer.
            self.forget_producers(append_time, count_max - count_max / 10);
        }
    }

    /// Forgets producers by age, and past `count_max`.
    fn forget_producers(&mut self, now: Timestamp, count_max: usize) {
        self.producers.forget(now, self.options.producer_age_max, count_max);
    }

    /// The fields that every new entry has.
    fn new_entry(&self, append_time: Timestamp) -> NewEntry {
        NewEntry {
            kind: EntryKind::Control,
            count: 0,
            leader_epoch: self.leader_epoch(),
            durable_upto: self.shared.watermarks.load().flushed,
            append_time,
            max_timestamp: Timestamp::MIN,
            payload_crc: 0,
        }
    }

    /// Rolls if it is due, allocates room for a payload of `bytes` and says that an append begins.
    fn make_room(&mut self, bytes: u64, span: u64, now: Timestamp) -> Result<(), AppendError> {
        let active = self.active.as_ref().expect("a log that did not stop has an active segment");
        let pos_after = active.place().pos + stride(bytes) + SEAL_BYTES;
        let input = RollInput {
            entry_bytes: active.facts().entry_bytes,
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
        active.write_seal(&end).map_err(|failure| self.shared.fail(failure))?;
        let (sealed, facts) = (active.segment.clone(), *active.facts());
        self.go_on_in(fresh);
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
        self.shared.segments.write().pop();
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

    /// Makes `fresh`, which is empty, the active segment.
    fn go_on_in(&mut self, fresh: SegmentWriter) {
        let place = fresh.place();
        self.shared.segments.write().push(fresh.segment.clone());
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
    fn next_path(&self) -> PathBuf {
        self.shared.dir.join(paths::NEXT_SEGMENT)
    }

    /// Writes the index file of a finished segment. It is derived data: failing costs a scan later.
    fn write_index(&self, segment: &Segment, facts: SegmentFacts) {
        let Some(bytes) = segment.encode_index(&facts) else { return };
        let path = paths::index(&self.shared.dir, segment.base);
        if let Err(failure) = state::write_new(self.shared.disk.as_ref(), &path, &bytes, false) {
            tracing::debug!(%failure, "index was not written");
        }
    }

    /// Writes a snapshot of the producers as of `as_of`, and removes the oldest ones.
    fn write_snapshot(&mut self, as_of: Offset) -> Result<(), IoFailure> {
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

    /// True when the newest entry of a non-empty active segment is older than `policy` keeps.
    fn active_has_expired(&self, now: Timestamp, policy: &RetentionPolicy) -> bool {
        let active = self.active.as_ref().expect("a log that did not stop has an active segment");
        active.facts().entry_bytes > 0
            && retention::is_expired(&age_of(&active.segment), policy, now)
    }

    /// Takes the segments that lie below `offset` as a whole out of the list. The active one stays.
    fn take_segments_below(&self, offset: Offset) -> Vec<Arc<Segment>> {
        let mut segments = self.shared.segments.write();
        let sealed = segments.len().saturating_sub(1);
        let count = segments[..sealed].partition_point(|segment| segment.end_offset() <= offset);
        segments.drain(..count).collect()
    }

    /// Takes out and removes the segments that lie below `offset` as a whole.
    fn remove_below(&self, offset: Offset) -> Result<Vec<Arc<Segment>>, StorageError> {
        let _layout = self.shared.layout.lock();
        let mut dropped = self.take_segments_below(offset);
        self.remove(&mut dropped)?;
        Ok(dropped)
    }

    /// Removes the files of `dropped`, oldest first, and makes that durable.
    fn remove(&self, dropped: &mut Vec<Arc<Segment>>) -> Result<(), StorageError> {
        if dropped.is_empty() {
            return Ok(());
        }
        let (disk, dir) = (self.shared.disk.as_ref(), &self.shared.dir);
        self.shared.forget_readable(dropped);
        for segment in dropped {
            segment.close();
            // Nobody can come by it any more, so whoever holds it now is all there will ever be.
            let unread = Arc::get_mut(segment).is_some();
            self.shared.remove_segment(&segment.path, unread)?;
            state::remove_if_present(disk, &paths::index(dir, segment.base))?;
        }
        disk.sync_dir(dir).map_err(|error| self.shared.fail(IoFailure::new("sync", dir, error)))?;
        Ok(())
    }

    /// The receipt for `dropped`.
    fn dropped(&self, dropped: &[Arc<Segment>]) -> Result<Dropped, StorageError> {
        Ok(Dropped {
            segment_count: dropped.len(),
            bytes: dropped.iter().map(|segment| segment.end_pos()).sum(),
            log_start: self.shared.watermarks.load().log_start,
        })
    }

    /// A flusher of this log.
    pub fn flusher(&self) -> LogFlusher {
        LogFlusher::new(self.shared.clone())
    }

    /// The compactor of this log. There must be one at a time.
    pub fn compactor(&self) -> LogCompactor {
        LogCompactor::new(self.shared.clone())
    }

    /// A reader of this log.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }
}

/// Tells the preparer of `shared` what sizes are in force. A file made for others is not used.
fn announce_sizes(shared: &Shared, options: &LogOptions) {
    let mut slot = shared.next.lock();
    slot.ready = None;
    slot.bytes_max = segment_file::bytes_max(options);
    slot.segment_bytes_max = u64::from(options.segment_bytes_max);
}

/// A failure before anything was changed, as a refusal.
fn refused(failure: IoFailure) -> AppendError {
    if failure.is_disk_full() { AppendError::DiskFull(failure) } else { AppendError::Io(failure) }
}

/// A refused roll as the error of a trim.
fn storage_error(error: AppendError) -> StorageError {
    match error {
        AppendError::DiskFull(failure) | AppendError::Io(failure) => StorageError::Io(failure),
        AppendError::Failed(failure) => StorageError::Failed(failure),
        AppendError::BatchTooLarge { .. }
        | AppendError::OutOfOrderSequence { .. }
        | AppendError::Fenced { .. }
        | AppendError::UnknownProducer { .. }
        | AppendError::InvalidProducer { .. }
        | AppendError::OffsetsExhausted { .. } => unreachable!("a roll appends no batch"),
    }
}

/// What retention looks at in `segment`.
fn age_of(segment: &Arc<Segment>) -> SegmentAge {
    SegmentAge { bytes: segment.end_pos(), last_append_time: segment.last_append_time() }
}

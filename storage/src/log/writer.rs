//! The one owner of a log: appends, rolls, trims.
//!
//! An append checks everything that can be refused first (size, producer, room on the disk), then writes
//! once, then publishes. So a refused append changed nothing, and a failed write stops the log.
//!
//! - `roll`: from one segment to the next. `trim`: retention and deletion from the front.

mod roll;
mod trim;

use std::{collections::VecDeque, sync::Arc};

use riverrun_proto::{LeaderEpoch, Offset, RecordBatch, batch::STAMPED_BYTES};

use self::roll::refused;
pub use self::trim::Dropped;
use super::{LogFlusher, LogPreparer, LogReader, shared::Shared};
use crate::{
    AppendError, LogCompactor, LogFailure, LogOptions, StorageError, Timestamp,
    failpoint::{Place, passes},
    format::EntryKind,
    producers::{Producers, Sequence},
    recycle::RecyclePool,
    segment_file,
    segment_writer::{NewEntry, SegmentWriter},
    state,
};

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
    /// returns, and so is all that stands before it, which the state then proves; what is appended from now on carries it.
    ///
    /// # Errors
    /// When the log has stopped or the disk refuses.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), StorageError> {
        self.shared.check()?;
        let flusher = self.flusher();
        if flusher.is_behind() {
            flusher.flush()?;
        }
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
        passes(Place::BeforeCopy);
        active.write(entry, parts).map_err(|failure| self.shared.fail(failure))?;
        passes(Place::AfterCopy);
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
                | StorageError::OutOfRange { .. } => {
                    unreachable!("nothing but the state is stored, and nothing else opened")
                }
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

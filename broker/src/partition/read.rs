//! The reading side of a partition. Nobody sees a record at or past the high watermark, on any door.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use riverrun_proto::{LeaderEpoch, Offset};
use riverrun_storage::{ReadError as LogReadError, Timestamp};

use super::{OffsetRange, Partition, PartitionFailed, ReadError};

/// Records written within the last so many bytes are taken to be in memory.
const HOT_BYTES: u64 = 32 << 20;

/// Most bytes that are read on a thread that serves connections.
const HERE_BYTES_MAX: usize = 1 << 20;

/// Whole record batches of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionRead {
    /// The batches, one after another. The first may begin before the offset asked for.
    pub batches: Bytes,
    /// Where to read on.
    pub next_offset: Offset,
    /// Leader epoch of the last batch; 0 when there is none.
    pub leader_epoch: LeaderEpoch,
}

/// What of a partition may be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisibleRange {
    /// First offset kept.
    pub log_start: Offset,
    /// First offset not visible.
    pub high_watermark: Offset,
}

/// An offset found by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeAnswer {
    /// The offset; the high watermark when no record is that young.
    pub offset: Offset,
    /// Timestamp of the record found.
    pub timestamp_ms: Option<i64>,
}

/// Offsets, sizes and counts, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionFacts {
    /// What may be read.
    pub visible: VisibleRange,
    /// Everything below is on disk.
    pub flushed: Offset,
    /// Next offset to be given.
    pub log_end: Offset,
    /// Bytes kept.
    pub size_bytes: u64,
    /// Segments kept.
    pub segment_count: usize,
}

/// Two marks in the log that follow its end at a distance.
#[derive(Debug)]
pub(super) struct Hot {
    /// Records from here on are hot.
    from: AtomicU64,
    /// Becomes `from` once enough was appended behind it.
    next: AtomicU64,
    /// Bytes appended since `next` was set. Written by the shard.
    bytes: AtomicU64,
}

impl Hot {
    pub(super) fn new(log_end: Offset) -> Hot {
        let mark = || AtomicU64::new(log_end.0);
        Hot { from: mark(), next: mark(), bytes: AtomicU64::new(0) }
    }

    /// About how many bytes the records of a range at the end of the log have, taking all for equally large;
    /// from before the second mark on it is as good as many.
    fn bytes_between(&self, from: Offset, end: Offset) -> usize {
        let next = self.next.load(Relaxed);
        if from.0 < next {
            return usize::MAX;
        }
        let (wanted, all) = (end.0.saturating_sub(from.0), end.0.saturating_sub(next).max(1));
        let bytes = u128::from(self.bytes.load(Relaxed)) * u128::from(wanted) / u128::from(all);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

impl Partition {
    /// What may be read now. A partition that failed ends at what is surely on disk.
    pub fn visible(&self) -> VisibleRange {
        let offsets = self.reader.offsets();
        let high_watermark = self.tail.high_watermark().min(offsets.log_end).max(offsets.log_start);
        VisibleRange { log_start: offsets.log_start, high_watermark }
    }

    /// Next offset to be assigned.
    pub fn log_end(&self) -> Offset {
        self.reader.offsets().log_end
    }

    /// Epoch of the leadership that appends now.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.reader.epoch_at(self.reader.offsets().log_end)
    }

    /// The epoch that `offset` was, or would be, appended in.
    pub fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        self.reader.epoch_at(offset)
    }

    /// Offsets, sizes and counts.
    pub fn facts(&self) -> PartitionFacts {
        let offsets = self.reader.offsets();
        PartitionFacts {
            visible: self.visible(),
            flushed: offsets.flushed,
            log_end: offsets.log_end,
            size_bytes: self.reader.size_bytes(),
            segment_count: self.reader.segment_count(),
        }
    }

    /// Checks that `from` may be read, and that the reader, whose last record was of `leader_epoch`, is not
    /// ahead of a log that lost its end, and does not come from another history.
    ///
    /// # Errors
    /// The valid range, or where the reader's epoch ended.
    pub fn check_position(
        &self,
        from: Offset,
        leader_epoch: Option<LeaderEpoch>,
    ) -> Result<VisibleRange, ReadError> {
        if self.is_closed() {
            return Err(ReadError::Closed);
        }
        let parting = leader_epoch.and_then(|epoch| self.reader.parting(from, epoch));
        if let Some((epoch, end_offset)) = parting {
            return Err(ReadError::Truncated { leader_epoch: epoch.0, end_offset });
        }
        let range = self.visible();
        let VisibleRange { log_start, high_watermark } = range;
        if (log_start..=high_watermark).contains(&from) {
            return Ok(range);
        }
        match self.failure() {
            Some(failure) if from > high_watermark && from <= self.tail.high_watermark() => {
                Err(failure.clone().into())
            }
            _ => Err(ReadError::OutOfRange { requested: from, log_start, high_watermark }),
        }
    }

    /// Reads visible batches from the one that holds `from`, as many as fit `bytes_max` and at least one.
    /// Empty when nothing at or past `from` is visible. A little that is in memory is read on the caller's
    /// thread, all else on the blocking pool.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(
        self: &Arc<Self>,
        from: Offset,
        bytes_max: usize,
    ) -> Result<PartitionRead, ReadError> {
        let limit = self.check_position(from, None)?.high_watermark;
        if from >= limit {
            return Ok(PartitionRead { next_offset: from, ..PartitionRead::default() });
        }
        if let Some(bytes) = self.bytes_here(from, limit, bytes_max) {
            let read = self.read_here(from, limit, bytes)?;
            if bytes == bytes_max || read.next_offset >= limit {
                return Ok(read);
            }
            // There is more than was thought.
        }
        let partition = self.clone();
        off_thread(move || partition.read_here(from, limit, bytes_max)).await
    }

    /// How many bytes the caller's thread may read itself; `None` when it should not read at all.
    ///
    /// Records in memory are copied and checked at a few GB/s: 1 MiB keeps the other connections of the thread
    /// waiting for a fraction of a millisecond, many MiB for longer than a flush takes. A hop to another thread
    /// costs some tens of microseconds, much for the few KiB that a reader at the end finds, little for MiBs.
    pub(super) fn bytes_here(
        &self,
        from: Offset,
        limit: Offset,
        bytes_max: usize,
    ) -> Option<usize> {
        if from.0 < self.hot.from.load(Relaxed) {
            self.read_cold.store(true, Relaxed);
            return None;
        }
        let is_small =
            bytes_max <= HERE_BYTES_MAX || self.hot.bytes_between(from, limit) <= HERE_BYTES_MAX;
        is_small.then_some(bytes_max.min(HERE_BYTES_MAX))
    }

    /// The first visible record whose timestamp is at or after `timestamp_ms`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn find_by_time(
        self: &Arc<Self>,
        timestamp_ms: i64,
    ) -> Result<TimeAnswer, ReadError> {
        let partition = self.clone();
        off_thread(move || {
            let limit = partition.visible().high_watermark;
            let found = partition.reader.find_by_time(Timestamp(timestamp_ms), limit);
            let found = found.map_err(|error| partition.read_failure(error))?;
            Ok(match found {
                Some((offset, time)) => TimeAnswer { offset, timestamp_ms: Some(time.0) },
                None => TimeAnswer { offset: limit, timestamp_ms: None },
            })
        })
        .await
    }

    /// When the record at `offset` was appended, in milliseconds; `None` when nothing visible is there.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn append_time_ms(
        self: &Arc<Self>,
        offset: Offset,
    ) -> Result<Option<i64>, ReadError> {
        if offset >= self.check_position(offset, None)?.high_watermark {
            return Ok(None);
        }
        let partition = self.clone();
        off_thread(move || {
            let time = partition.reader.append_time(offset);
            time.map(|time| time.map(|time| time.0)).map_err(|error| partition.read_failure(error))
        })
        .await
    }

    /// Reads on this thread, however long it takes.
    pub(super) fn read_here(
        &self,
        from: Offset,
        limit: Offset,
        bytes_max: usize,
    ) -> Result<PartitionRead, ReadError> {
        let run =
            self.reader.read(from, limit, bytes_max).map_err(|error| self.read_failure(error))?;
        let (next_offset, leader_epoch) = (run.next_offset, run.leader_epoch);
        Ok(PartitionRead { batches: run.bytes, next_offset, leader_epoch })
    }

    /// Closes sealed files that were opened for reading, unless somebody read since the last call.
    pub(super) fn close_idle_files(&self) {
        if !self.read_cold.swap(false, Relaxed) {
            self.reader.close_idle_files();
        }
    }

    /// Notes that `bytes` were appended up to `end_offset`.
    pub(super) fn note_hot(&self, end_offset: Offset, bytes: u64) {
        let since = self.hot.bytes.load(Relaxed) + bytes;
        if since < HOT_BYTES {
            return self.hot.bytes.store(since, Relaxed);
        }
        self.hot.from.store(self.hot.next.load(Relaxed), Relaxed);
        self.hot.next.store(end_offset.0, Relaxed);
        self.hot.bytes.store(0, Relaxed);
    }

    /// True when nothing was said about `place` for a while: then it is to be said now.
    pub(super) fn is_news(&self, place: &str) -> bool {
        self.complaints.is_news(place, self.shard.clock.elapsed())
    }

    pub(super) fn read_failure(&self, error: LogReadError) -> ReadError {
        let error = self.tell(error);
        self.damages.lock().note(&error);
        error
    }

    /// Says in the log what stood in the way, unless it was said lately.
    fn tell(&self, error: LogReadError) -> ReadError {
        match error {
            LogReadError::OutOfRange { requested, .. } => {
                let VisibleRange { log_start, high_watermark } = self.visible();
                ReadError::OutOfRange { requested, log_start, high_watermark }
            }
            LogReadError::Corrupt(damage) => {
                let (start, end) = (damage.offsets.start, damage.offsets.end);
                // Where to read on must be readable: the damage may go on to what is not visible yet.
                let end = end.min(self.visible().high_watermark).max(start);
                let range = OffsetRange { start, end };
                if self.is_news(&format!("{}:{}", damage.path.display(), damage.pos)) {
                    tracing::error!(partition = %self.name(), %damage, "damaged records");
                }
                ReadError::Corrupt { reason: damage.to_string().into(), range }
            }
            LogReadError::Io(failure) => {
                if self.is_news(&failure.path.to_string_lossy()) {
                    tracing::error!(partition = %self.name(), %failure, "read failed");
                }
                ReadError::Io { reason: failure.to_string().into() }
            }
            LogReadError::Failed(failure) => ReadError::Failed(PartitionFailed::from(&failure)),
        }
    }
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let reason = || "the reading thread ended".into();
    crate::blocking::run(work).await.unwrap_or_else(|_| Err(ReadError::Io { reason: reason() }))
}

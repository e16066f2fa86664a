//! Every limit of one log. There are no hidden defaults: whoever opens a log says all of it.

use std::time::Duration;

use riverrun_proto::{PartitionId, TopicId, batch::HEADER_BYTES, limits};

use crate::{StorageError, segment_file::SEGMENT_BYTES_MIN};

/// Bytes between two points of the sparse index that suit most logs.
pub const INDEX_INTERVAL_BYTES: u32 = 16 << 10;
/// Idempotent producers remembered in each partition that suit most logs.
pub const PRODUCER_COUNT_MAX: usize = 10_000;
/// Sealed segment files held open in each log that suit most brokers.
pub const SEALED_FILES_MAX: usize = 4;

/// What one log is and how far it may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The topic; written into every segment and compared at open.
    pub topic_id: TopicId,
    /// The partition; written into every segment and compared at open.
    pub partition: PartitionId,
    /// A segment is sealed before it would grow past this many bytes. 8 KiB to 1 GiB; a batch
    /// too large for it gets a segment of its own.
    pub segment_bytes_max: u32,
    /// A segment is sealed when its first entry is older than this.
    pub segment_age_max: Duration,
    /// Largest record batch accepted, in bytes. At most 64 MiB.
    pub batch_bytes_max: u32,
    /// Bytes between two points of the sparse index: a lookup scans at most this plus one batch.
    pub index_interval_bytes: u32,
    /// Idempotent producers remembered; past it the one silent for longest is forgotten.
    pub producer_count_max: usize,
    /// A producer silent for longer than this is forgotten.
    pub producer_age_max: Duration,
    /// Sealed segment files held open for readers.
    pub sealed_files_max: usize,
}

/// How long and how much a log keeps. `None` has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Segments whose newest entry was appended longer ago than this are dropped.
    pub age_max: Option<Duration>,
    /// Oldest segments are dropped while the log would still hold at least this many bytes.
    pub bytes_max: Option<u64>,
}

/// Largest segment.
const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// Largest interval of the sparse index.
const INDEX_INTERVAL_BYTES_MAX: u64 = 1 << 20;

impl LogOptions {
    /// Checks the range of every size.
    pub(crate) fn validate(&self) -> Result<(), StorageError> {
        let in_range = |field, value: u64, min: u64, max: u64| {
            let fits = (min..=max).contains(&value);
            if fits { Ok(()) } else { Err(StorageError::Option { field, value, min, max }) }
        };
        let (least, most) = (u64::from(SEGMENT_BYTES_MIN), u64::from(SEGMENT_BYTES_MAX));
        in_range("segment_bytes_max", u64::from(self.segment_bytes_max), least, most)?;
        let largest = u64::from(limits::BATCH_BYTES_MAX);
        let smallest = HEADER_BYTES as u64;
        in_range("batch_bytes_max", u64::from(self.batch_bytes_max), smallest, largest)?;
        let interval = u64::from(self.index_interval_bytes);
        in_range("index_interval_bytes", interval, 1, INDEX_INTERVAL_BYTES_MAX)?;
        in_range("producer_count_max", self.producer_count_max as u64, 1, 1_000_000)?;
        in_range("sealed_files_max", self.sealed_files_max as u64, 1, 65_536)
    }
}

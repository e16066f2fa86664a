//! What can go wrong between the house and one partition.

use std::{path::Path, sync::Arc};

use riverrun_proto::{Offset, ProducerEpoch, ProducerId};
use riverrun_storage::{CompactError, LogFailure, StorageError};
use thiserror::Error;

/// A partition that refuses writes until it is opened again.
#[derive(Clone, Debug, Error)]
#[error("partition stopped after a storage fault and refuses writes: {reason}")]
pub struct PartitionFailed {
    /// What happened.
    pub reason: Arc<str>,
    /// Offsets that cannot be read, when bytes are damaged.
    pub damaged: Option<OffsetRange>,
}

/// Offsets `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    /// First offset in the range.
    pub start: Offset,
    /// First offset past it.
    pub end: Offset,
}

/// A disk with too little room for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "disk is full: {free_bytes} bytes are free, and records are taken from {needed_bytes} on (`disk.free_bytes_min` is {free_bytes_min})"
)]
pub struct DiskFull {
    /// Free now.
    pub free_bytes: u64,
    /// Produce goes on when so much is free: the least, and once it was reached some more, with what is kept back for the time after that.
    pub needed_bytes: u64,
    /// Produce is refused below this.
    pub free_bytes_min: u64,
}

/// A node that may not append to a partition: another one leads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this node does not lead the partition")]
pub struct NotLeader;

/// Why something is served for reading only.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadOnly {
    /// The data directory cannot be written to.
    #[error("data directory `{}` is read-only, so every write is refused: {cause}", dir.display())]
    Directory {
        /// The directory.
        dir: Arc<Path>,
        /// What the operating system said.
        cause: Arc<str>,
    },
    /// A log was not closed cleanly, and there is no room to copy what is not known durable.
    #[error(
        "disk is full: `{}` cannot be recovered after an unclean stop and is only read until there is room \
         ({cause})",
        dir.display()
    )]
    NoRoom {
        /// Directory of the log.
        dir: Arc<Path>,
        /// What the operating system said.
        cause: Arc<str>,
    },
}

/// A batch that was not acknowledged.
#[derive(Clone, Debug, Error)]
pub enum AppendError {
    /// The partition failed earlier.
    #[error(transparent)]
    Failed(#[from] PartitionFailed),
    /// Nothing can be written.
    #[error(transparent)]
    ReadOnly(#[from] ReadOnly),
    /// The batch may or may not survive: its flush failed, or the broker stopped in between.
    #[error("the write may or may not have happened: {reason}")]
    Indeterminate {
        /// What happened.
        reason: Arc<str>,
    },
    /// Another node leads; nothing was written.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// The partition is closed: its topic was deleted or the broker stops.
    #[error("partition is closed")]
    Closed,
    /// No room.
    #[error(transparent)]
    DiskFull(#[from] DiskFull),
    /// The operating system refused to make room; a later append may succeed.
    #[error("could not make room: {reason}")]
    Io {
        /// What it said.
        reason: Arc<str>,
    },
    /// The batch is larger than the topic allows.
    #[error("record batch has {bytes} bytes, `message_bytes_max` of the topic is {limit}")]
    TooLarge {
        /// Bytes of the batch.
        bytes: usize,
        /// Most that are allowed.
        limit: u32,
    },
    /// A newer epoch of the producer exists.
    #[error("producer `{}` has epoch {} here, the batch has {}", .producer_id.0, .current.0, .found.0)]
    ProducerFenced {
        /// The producer.
        producer_id: ProducerId,
        /// Newest epoch seen.
        current: ProducerEpoch,
        /// What came.
        found: ProducerEpoch,
    },
    /// A gap in the sequence numbers.
    #[error("`base_sequence` of producer `{}` must be {expected}, found {found}", .producer_id.0)]
    OutOfOrderSequence {
        /// The producer.
        producer_id: ProducerId,
        /// Next sequence number.
        expected: i32,
        /// What came.
        found: i32,
    },
    /// A producer that is not remembered, in the middle of its sequence.
    #[error("producer `{}` is not known on this partition and began with sequence {sequence}", .producer_id.0)]
    UnknownProducer {
        /// The producer.
        producer_id: ProducerId,
        /// Where it began.
        sequence: i32,
    },
    /// Producer fields that contradict each other.
    #[error("producer `{}` sent epoch {} and sequence {sequence}", .producer_id.0, .epoch.0)]
    InvalidProducer {
        /// The producer.
        producer_id: ProducerId,
        /// Epoch in the batch.
        epoch: ProducerEpoch,
        /// Sequence number in the batch.
        sequence: i32,
    },
    /// The partition has given out its last offset.
    #[error("offsets are exhausted at {log_end}")]
    OffsetsExhausted {
        /// Next offset to be given.
        log_end: Offset,
    },
}

/// Records that were not read.
#[derive(Clone, Debug, Error)]
pub enum ReadError {
    /// Not in the visible range.
    #[error("offset {requested} is outside `[{log_start}, {high_watermark}]`")]
    OutOfRange {
        /// What was asked for.
        requested: Offset,
        /// First offset kept.
        log_start: Offset,
        /// First offset not visible.
        high_watermark: Offset,
    },
    /// The reader is ahead of a log that lost its unflushed end.
    #[error(
        "log of leader epoch {leader_epoch} ends at {end_offset}; the reader is past it and must be reset"
    )]
    Truncated {
        /// Newest epoch at or below the reader's.
        leader_epoch: u32,
        /// Where it ends.
        end_offset: Offset,
    },
    /// Stored bytes fail their checksum.
    #[error("{reason}")]
    Corrupt {
        /// File, position and offsets.
        reason: Arc<str>,
        /// Offsets that cannot be read.
        range: OffsetRange,
    },
    /// The partition failed.
    #[error(transparent)]
    Failed(#[from] PartitionFailed),
    /// The operating system refused this read; another try may succeed.
    #[error("could not read: {reason}")]
    Io {
        /// What it said.
        reason: Arc<str>,
    },
    /// The partition is closed.
    #[error("partition is closed")]
    Closed,
}

/// A partition that could not be opened, trimmed or closed.
#[derive(Clone, Debug, Error)]
pub enum MaintainError {
    /// The partition is closed.
    #[error("partition is closed")]
    Closed,
    /// Another node leads; nothing was changed.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// Nothing can be written.
    #[error(transparent)]
    ReadOnly(#[from] ReadOnly),
    /// An offset past the visible end.
    #[error(
        "`before_offset` must be at most the high watermark {high_watermark}, found {requested}"
    )]
    PastVisibleEnd {
        /// What was asked for.
        requested: Offset,
        /// First offset not visible.
        high_watermark: Offset,
    },
    /// Storage refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Compaction ended early.
    #[error(transparent)]
    Compact(#[from] CompactError),
}

impl MaintainError {
    /// The disk has no room for what would have been written.
    pub fn is_disk_full(&self) -> bool {
        match self {
            MaintainError::Storage(error) => error.is_disk_full(),
            MaintainError::Compact(CompactError::Io(failure)) => failure.is_disk_full(),
            MaintainError::Compact(CompactError::Damaged(_) | CompactError::Failed(_))
            | MaintainError::Closed
            | MaintainError::NotLeader(_)
            | MaintainError::ReadOnly(_)
            | MaintainError::PastVisibleEnd { .. } => false,
        }
    }
}

impl PartitionFailed {
    /// A failure without damaged bytes.
    pub(crate) fn because(reason: impl Into<Arc<str>>) -> PartitionFailed {
        PartitionFailed { reason: reason.into(), damaged: None }
    }
}

impl From<&LogFailure> for PartitionFailed {
    fn from(failure: &LogFailure) -> PartitionFailed {
        let damaged = match failure {
            LogFailure::Io(_) | LogFailure::ReadOnly => None,
            LogFailure::Damaged(damage) => {
                Some(OffsetRange { start: damage.offsets.start, end: damage.offsets.end })
            }
        };
        PartitionFailed { reason: failure.to_string().into(), damaged }
    }
}

//! What can go wrong in a log: one enum per verb, composed of shared leaves.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use riverrun_proto::{Offset, ProducerEpoch, ProducerId};
use rustix::io::Errno;
use thiserror::Error;

/// A file operation that failed.
#[derive(Clone, Debug, Error)]
#[error("could not {op} `{}`: {source}", path.display())]
pub struct IoFailure {
    /// What was tried, as a verb.
    pub op: &'static str,
    /// On which file or directory, relative to the data directory.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: Arc<io::Error>,
}

impl IoFailure {
    /// Wraps `source`.
    pub fn new(op: &'static str, path: &Path, source: io::Error) -> IoFailure {
        IoFailure { op, path: path.to_owned(), source: Arc::new(source) }
    }

    /// True when a sync failed: what is on disk since the last good one is unknown.
    pub(crate) fn is_sync(&self) -> bool {
        self.op == "sync"
    }

    /// True when there was no room on the disk.
    pub fn is_disk_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Bytes that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Damage {
    /// Offsets that cannot be read.
    pub offsets: Range<Offset>,
    /// File that holds them, or should.
    pub path: PathBuf,
    /// Byte position in that file where the damage begins.
    pub pos: u64,
    /// What is wrong there.
    pub reason: DamageReason,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { offsets, path, pos, reason } = self;
        write!(f, "offsets `{}..{}` are damaged: {reason} ", offsets.start, offsets.end)?;
        write!(f, "at byte `{pos}` of `{}`", path.display())
    }
}

/// Kinds of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DamageReason {
    /// An entry header whose checksum, place in the chain or offset is wrong, or that is not there.
    #[error("no valid entry")]
    Entry,
    /// The same, where the file ends before its entries do: something cut it.
    #[error("file is cut off, it has `{len}` bytes instead of `{expected}`: no whole entry")]
    CutOff {
        /// Bytes of the file.
        len: u64,
        /// Where its last entry known to be written ends.
        expected: u64,
    },
    /// A record batch whose checksum or framing is wrong.
    #[error("record batch does not match its checksum")]
    Payload,
    /// A segment file whose header block is wrong.
    #[error("segment header is invalid")]
    SegmentHeader,
    /// A sealed segment that does not end as its seal or its successor says.
    #[error("segment does not match its seal")]
    Seal,
    /// A segment that should be there is not.
    #[error("segment file is missing")]
    Missing,
    /// A segment of a lower epoch than the one before it, whose records no recovery has taken over.
    #[error("segment does not belong to the history of the one before it")]
    Stray,
    /// The state file is missing or invalid while records exist.
    #[error("state file is missing or invalid")]
    State,
}

/// Why a log refuses writes until it is opened again.
#[derive(Clone, Debug, Error)]
pub enum LogFailure {
    /// A write or flush failed: what is on disk above the flushed offset is unknown.
    #[error("log stopped after a failed write: {0}")]
    Io(#[from] IoFailure),
    /// Bytes below the durable mark are damaged. Nothing was changed on disk.
    #[error("log is damaged and refuses writes: {0}")]
    Damaged(#[from] Damage),
    /// It was opened for reading only. Nothing was changed on disk.
    #[error("log is open for reading only")]
    ReadOnly,
}

impl LogFailure {
    /// True when the disk failed to write: not damage, not a file that somebody removed, and not a file that was not
    /// opened because too many are.
    pub fn is_of_disk(&self) -> bool {
        match self {
            LogFailure::Io(IoFailure { source, .. }) => {
                let too_many = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
                let is_too_many =
                    source.raw_os_error().is_some_and(|code| too_many.contains(&code));
                source.kind() != io::ErrorKind::NotFound && !is_too_many
            }
            LogFailure::Damaged(_) | LogFailure::ReadOnly => false,
        }
    }
}

impl StorageError {
    /// True when there was no room on the disk.
    pub fn is_disk_full(&self) -> bool {
        match self {
            StorageError::Io(failure) => failure.is_disk_full(),
            StorageError::Failed(_)
            | StorageError::Missing { .. }
            | StorageError::Foreign { .. }
            | StorageError::Version { .. }
            | StorageError::Option { .. }
            | StorageError::OutOfRange { .. } => false,
        }
    }
}

/// A failure to open, flush, trim or close a log.
#[derive(Clone, Debug, Error)]
pub enum StorageError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] IoFailure),
    /// The log stopped earlier.
    #[error(transparent)]
    Failed(#[from] LogFailure),
    /// A log that was made once is not there any more.
    #[error("`{}` holds no log: its records are lost", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another topic or partition.
    #[error("`{}` belongs to partition `{found}`, not `{expected}`", path.display())]
    Foreign {
        /// The segment that says so.
        path: PathBuf,
        /// `<topic id>-<partition>` in the file.
        found: String,
        /// `<topic id>-<partition>` asked for.
        expected: String,
    },
    /// Written by a newer version of this program.
    #[error("`{}` has format version `{found}`; this program reads `{supported}`", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Newest version understood.
        supported: u32,
    },
    /// An option outside its range.
    #[error("option `{field}` is `{value}`; allowed is `{min}..={max}`")]
    Option {
        /// Name of the option.
        field: &'static str,
        /// Value given.
        value: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// An offset that is not in the log.
    #[error("offset `{requested}` is outside the log `{log_start}..={log_end}`")]
    OutOfRange {
        /// Offset asked for.
        requested: Offset,
        /// First offset kept.
        log_start: Offset,
        /// Next offset to be given.
        log_end: Offset,
    },
}

/// A batch that was not appended. Except after [`AppendError::Failed`] the log goes on.
#[derive(Clone, Debug, Error)]
pub enum AppendError {
    /// The batch is larger than this log accepts.
    #[error("record batch has `{len}` bytes; at most `{max}` are allowed")]
    BatchTooLarge {
        /// Bytes of the batch.
        len: usize,
        /// Limit of the log.
        max: u32,
    },
    /// There is no room on the disk. Nothing was changed; a later append may succeed.
    #[error("disk is full: {0}")]
    DiskFull(IoFailure),
    /// The operating system refused to make room. Nothing was changed; a later append may succeed.
    #[error(transparent)]
    Io(IoFailure),
    /// The producer skipped or repeated a sequence number.
    #[error("producer `{}` sent sequence `{got}`; expected `{expected}`", producer_id.0)]
    OutOfOrderSequence {
        /// The producer.
        producer_id: ProducerId,
        /// Sequence number the batch should begin with.
        expected: i32,
        /// Sequence number it begins with.
        got: i32,
    },
    /// A newer epoch of the same producer exists.
    #[error("producer `{}` sent epoch `{}`; its epoch is `{}`", producer_id.0, got.0, current.0)]
    Fenced {
        /// The producer.
        producer_id: ProducerId,
        /// Epoch in the batch.
        got: ProducerEpoch,
        /// Newest epoch seen.
        current: ProducerEpoch,
    },
    /// The producer is not remembered and its batch is not its first: a repeat could not be told.
    #[error("producer `{}` is not known here and began with sequence `{sequence}`", producer_id.0)]
    UnknownProducer {
        /// The producer.
        producer_id: ProducerId,
        /// Sequence number its batch begins with.
        sequence: i32,
    },
    /// The batch carries a negative sequence number or epoch beside a producer id.
    #[error("producer `{}` sent epoch `{}` and sequence `{sequence}`", producer_id.0, epoch.0)]
    InvalidProducer {
        /// The producer.
        producer_id: ProducerId,
        /// Epoch in the batch.
        epoch: ProducerEpoch,
        /// Sequence number in the batch.
        sequence: i32,
    },
    /// The log has given out its last offset.
    #[error("offsets are exhausted at `{log_end}`")]
    OffsetsExhausted {
        /// Next offset to be given.
        log_end: Offset,
    },
    /// The log refuses writes.
    #[error(transparent)]
    Failed(#[from] LogFailure),
}

/// A read that gave nothing.
#[derive(Clone, Debug, Error)]
pub enum ReadError {
    /// The offset is not in the log.
    #[error("offset `{requested}` is outside the log `{log_start}..={log_end}`")]
    OutOfRange {
        /// Offset asked for.
        requested: Offset,
        /// First offset kept.
        log_start: Offset,
        /// Next offset to be given.
        log_end: Offset,
    },
    /// The records are damaged. Reading may go on at the end of the damage's offsets.
    #[error(transparent)]
    Corrupt(#[from] Damage),
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] IoFailure),
    /// The log stopped, and what was asked for lies above its flushed offset.
    #[error(transparent)]
    Failed(#[from] LogFailure),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_may_not_open_or_somebody_removed_is_no_fault_of_the_disk() {
        let cases = [
            (Errno::IO, true),
            (Errno::ROFS, true),
            (Errno::NOSPC, true),
            (Errno::NOENT, false),
            (Errno::MFILE, false),
            (Errno::NFILE, false),
        ];
        for (errno, of_disk) in cases {
            let failure = IoFailure::new("open", Path::new("mark"), errno.into());
            assert_eq!(LogFailure::Io(failure).is_of_disk(), of_disk, "{errno:?}");
        }
    }
}

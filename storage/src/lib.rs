//! The cellar: keeps one partition's bytes on disk and finds them again.
//!
//! Synchronous; knows no network, no topic names, no groups. docs/storage-format.md is its design.
//!
//! - [`log`]: one partition's log and its three hands, [`LogWriter`], [`LogFlusher`], [`LogReader`].
//! - `recovery`: directory to log, by decision table; [`RecoveryReport`].
//! - `segment`, `segment_writer`, `segment_output`, `segment_read`, `segment_file`: one segment, seen by each of them.
//! - `format`, `index`, `mark`, `state`, `producers`: the bytes of every file.
//! - [`compaction`]: keeps the newest record of each key, [`LogCompactor`].
//! - `scrub`: re-reads the sealed segments of an open log for damage, [`LogScrubber`].
//! - [`inspect`]: looks at logs offline, for reading only.
//! - `scan`: walks entries up to the first break. `retention`: what to drop, as a pure function.
//! - [`disk`]: the disk as a small trait, with a real and a crashing simulated twin.
//! - [`data_dir`], [`lock`], [`ballast`], [`recycle`], [`space`], [`own_logs`]: the data directory as a whole.
//!
//! Invariants:
//! 1. log start <= flushed <= log end; each only rises while a log is open.
//! 2. Offsets are dense and never name other records once they were flushed.
//! 3. A sealed segment never changes; a published byte never changes.
//! 4. Index and producer files may be deleted at any time.
//! 5. What a start serves is durable before it is served.
//! 6. After the first failed flush nothing is appended, flushed or read above the flushed offset.

pub mod ballast;
mod buffers;
pub mod compaction;
pub mod data_dir;
pub mod disk;
pub mod failpoint;
pub mod inspect;
pub mod lock;
pub mod log;
pub mod own_logs;
pub mod planted;
pub mod recycle;
pub mod space;

mod atomics;
mod error;
mod fixed;
mod format;
mod index;
mod mark;
mod offsets;
mod options;
mod paths;
mod producers;
mod recovery;
mod retention;
mod scan;
mod scrub;
mod segment;
mod segment_file;
mod segment_output;
mod segment_read;
mod segment_writer;
mod state;
#[cfg(test)]
mod testing;
mod timestamp;

pub use self::{
    compaction::{CompactError, Compacted, CompactionOptions, LogCompactor},
    error::{AppendError, Damage, DamageReason, IoFailure, LogFailure, ReadError, StorageError},
    log::{
        Appended, Dropped, Log, LogFlusher, LogPreparer, LogReader, LogWriter, OpenedLog, ReadRun,
    },
    offsets::LogOffsets,
    options::{
        INDEX_INTERVAL_BYTES, LogOptions, PRODUCER_COUNT_MAX, RetentionPolicy, SEALED_FILES_MAX,
    },
    recovery::{
        RecoveryReport, RecoveryVerdict,
        repair::{LogRepair, Loss, Repair},
    },
    scrub::{LogScrubber, Scrubbed},
    timestamp::Timestamp,
};

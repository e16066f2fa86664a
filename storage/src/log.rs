//! One partition's log: the hands that work on it and what they share. Three work all the time:
//!
//! - [`LogWriter`]: the one owner. Appends, rolls, trims.
//! - [`LogFlusher`]: makes what was appended durable, from another thread, while appends go on.
//! - [`LogReader`]: reads what is published, without ever waiting for the writer.
//!
//! [`Log::open`] finds a log on disk, or creates it, and gives out the three and those that are asked for now and then: to prepare a segment, to compact, to scrub.

pub(crate) mod create;
mod flusher;
#[cfg(test)]
mod model_tests;
pub(crate) mod preparer;
mod reader;
pub(crate) mod shared;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::{
    flusher::LogFlusher,
    preparer::LogPreparer,
    reader::{LogReader, ReadRun},
    writer::{Appended, Dropped, LogWriter},
};
use crate::{LogOptions, RecoveryReport, StorageError, Timestamp, disk::Disk, recovery};

/// The door to a log.
#[derive(Debug)]
pub struct Log;

/// An open log.
#[derive(Debug)]
pub struct OpenedLog {
    /// The one that appends.
    pub writer: LogWriter,
    /// The one that flushes; clones share the work.
    pub flusher: LogFlusher,
    /// The one that reads; clone it for every reader.
    pub reader: LogReader,
    /// What was found on disk and what was done about it.
    pub report: RecoveryReport,
}

impl Log {
    /// Opens the log in `dir`, relative to the root of `disk`, and creates it when it is absent.
    ///
    /// A log whose durable records are damaged is opened too: it refuses writes, the records around the
    /// damage are readable, and the report names it. Nothing on disk is changed then.
    ///
    /// # Errors
    /// When an option is out of range, the directory belongs to another partition or a newer format, or
    /// the disk refuses. What is on disk then is as good as before.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: impl Into<PathBuf>,
        options: LogOptions,
        now: Timestamp,
    ) -> Result<OpenedLog, StorageError> {
        let dir = dir.into();
        options.validate()?;
        let created = create::create_if_absent(disk.as_ref(), &dir, &options, now)?;
        let mut found = recovery::recover(disk.as_ref(), &dir, &options, now)?;
        found.report.created = created;
        Ok(shared::assemble(disk, dir, options, (found, now)))
    }

    /// As [`Log::open`] for a log whose creation once came to its end: an empty one is never made in its
    /// place.
    ///
    /// # Errors
    /// As [`Log::open`], and when the directory holds no log.
    pub fn open_existing(
        disk: Arc<dyn Disk>,
        dir: impl Into<PathBuf>,
        options: LogOptions,
        now: Timestamp,
    ) -> Result<OpenedLog, StorageError> {
        let dir = dir.into();
        if create::is_absent(disk.as_ref(), &dir)? {
            return Err(StorageError::Missing { path: dir });
        }
        Log::open(disk, dir, options, now)
    }

    /// Opens the log in `dir` for reading what is known durable. Nothing on disk is changed: neither is a log
    /// made, nor one recovered that was not closed cleanly, and it refuses writes with
    /// [`LogFailure::ReadOnly`](crate::LogFailure::ReadOnly).
    ///
    /// # Errors
    /// As [`Log::open_existing`].
    pub fn open_read_only(
        disk: Arc<dyn Disk>,
        dir: impl Into<PathBuf>,
        options: LogOptions,
        now: Timestamp,
    ) -> Result<OpenedLog, StorageError> {
        let dir = dir.into();
        options.validate()?;
        if create::is_absent(disk.as_ref(), &dir)? {
            return Err(StorageError::Missing { path: dir });
        }
        let found = recovery::recover_read_only(disk.as_ref(), &dir, &options, now)?;
        Ok(shared::assemble(disk, dir, options, (found, now)))
    }

    /// Removes everything of the log in `dir`, which must not be open. Removing one that is not there
    /// succeeds.
    ///
    /// # Errors
    /// When the disk refuses; the log may then be half removed, and removing it again goes on.
    pub fn remove(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
        create::remove(disk, dir)
    }
}

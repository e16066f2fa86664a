//! Makes the file of the next segment ahead of time, so that a roll waits for nothing.
//!
//! ```text
//! recycled:  a file of the pool, its header block wiped     blocks written before: cheap flushes
//! zeroed:    allocated, filled with zeros, synced           the same, for a log that fills fast
//! plain:     a header block; grows as it is written         for all others: costs no disk in advance
//! ```
//!
//! It works beside the writer and takes no lock that an append waits for.
//!
//! Invariants:
//! - A recycled file has no valid header block, durably, before it can get a segment's name: after a
//!   power loss the name leads to this log's header or to none, never to an earlier owner's.
//! - A file is written through the one handle it was prepared with.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::shared::Shared;
use crate::{
    IoFailure, StorageError, Timestamp,
    disk::{Disk, DiskFile, OpenMode},
    format::HEADER_BLOCK_BYTES,
    paths,
    recycle::RecyclePool,
    segment_file,
    state::remove_if_present,
};

/// A log is hot when half of its active segment was filled in less than this.
const HOT_AGE_MAX: Duration = Duration::from_secs(120);
/// Zeros written at a time.
const ZEROS_BYTES: usize = 1 << 20;

/// The file of the next segment, ready before it is needed.
#[derive(Debug)]
pub(crate) struct NextSegment {
    /// The handle it will be written through.
    pub(crate) file: Arc<dyn DiskFile>,
    /// Its name until then.
    pub(crate) path: PathBuf,
    /// The file never grows past this.
    pub(crate) bytes_max: u64,
    /// True when it holds bytes of an earlier life.
    pub(crate) recycled: bool,
}

/// What the writer and the preparer share. Guarded by `Shared::next`.
#[derive(Debug, Default)]
pub(crate) struct NextSlot {
    /// The next segment's file.
    pub(crate) ready: Option<NextSegment>,
    /// True while a file is being made.
    making: bool,
    /// True while the writer has taken the file and not yet given it its segment's name.
    pub(crate) naming: bool,
    /// Limit of the next file, by the options in force.
    pub(crate) bytes_max: u64,
    /// Size at which the active segment is sealed, by the options in force.
    pub(crate) segment_bytes_max: u64,
    /// True once the log was closed: a file made later is removed again.
    pub(crate) closed: bool,
}

impl NextSlot {
    /// True when there is no file, and no one else works under its temporary name.
    fn may_make(&self) -> bool {
        self.ready.is_none() && !self.making && !self.naming && !self.closed
    }
}

/// Prepares the next segment of one log, on whatever thread.
#[derive(Clone, Debug)]
pub struct LogPreparer {
    shared: Arc<Shared>,
}

impl LogPreparer {
    /// The preparer of `shared`.
    pub(super) fn new(shared: Arc<Shared>) -> LogPreparer {
        LogPreparer { shared }
    }

    /// True when the active segment is half full and the next one's file is not made.
    pub fn needs_preparation(&self) -> bool {
        let pos = self.shared.tail.lock().pos;
        let slot = self.shared.next.lock();
        slot.may_make() && pos >= slot.segment_bytes_max / 2 && self.shared.failure().is_none()
    }

    /// Makes the file of the next segment. May take as long as writing a whole segment; the log goes on
    /// meanwhile. Nothing happens when the file is there or another thread makes it.
    ///
    /// # Errors
    /// When the disk refuses; nothing is lost, the roll tries again.
    pub fn prepare(&self, now: Timestamp) -> Result<(), StorageError> {
        let created = self.shared.segments.read().last().map(|active| active.header.created);
        let hot = created.is_some_and(|created| now.since(created) < HOT_AGE_MAX);
        self.make(hot)
    }

    /// Makes the file, filled with zeros when `hot` and no recycled one is at hand.
    pub(super) fn make(&self, hot: bool) -> Result<(), StorageError> {
        self.shared.check()?;
        let (bytes_max, zeros) = {
            let mut slot = self.shared.next.lock();
            if !slot.may_make() {
                return Ok(());
            }
            slot.making = true;
            (slot.bytes_max, if hot { slot.segment_bytes_max.min(slot.bytes_max) } else { 0 })
        };
        let path = self.shared.dir.join(paths::PREPARED_SEGMENT);
        let pool = self.shared.pool.get().map(Arc::as_ref);
        let made = make_file(self.shared.disk.as_ref(), pool, path, (bytes_max, zeros));
        let mut slot = self.shared.next.lock();
        slot.making = false;
        let next = made?;
        if slot.closed || slot.bytes_max != bytes_max {
            let path = next.path.clone();
            drop(next);
            remove_if_present(self.shared.disk.as_ref(), &path)?;
        } else {
            slot.ready = Some(next);
        }
        Ok(())
    }
}

/// Makes a file at `path` for at most `bytes_max` bytes, the first `zeros` of them written.
fn make_file(
    disk: &dyn Disk,
    pool: Option<&RecyclePool>,
    path: PathBuf,
    (bytes_max, zeros): (u64, u64),
) -> Result<NextSegment, IoFailure> {
    remove_if_present(disk, &path)?;
    let taken = pool.map_or(Ok(false), |pool| pool.take(bytes_max, &path));
    let recycled = taken.map_err(|error| IoFailure::new("recycle", &path, error))?;
    let file = if recycled {
        let name = path.as_path();
        let at = |op| move |error| IoFailure::new(op, name, error);
        let file = disk.open(&path, OpenMode::Append { bytes_max }).map_err(at("open"))?;
        file.write_at(0, &[&[0; HEADER_BLOCK_BYTES]]).map_err(at("write"))?;
        file.sync().map_err(at("sync"))?;
        file
    } else {
        let file = segment_file::prepare(disk, &path, bytes_max)?;
        fill_with_zeros(file.as_ref(), &path, zeros);
        file
    };
    Ok(NextSegment { file, path, bytes_max, recycled })
}

/// Writes `zeros` zeros and syncs them. A disk that has no room for it leaves the file shorter.
fn fill_with_zeros(file: &dyn DiskFile, path: &Path, zeros: u64) {
    let filled = || -> std::io::Result<()> {
        file.allocate(zeros)?;
        let chunk = vec![0; ZEROS_BYTES];
        let mut pos = 0;
        while pos < zeros {
            let len =
                usize::try_from(zeros - pos).map_or(ZEROS_BYTES, |left| left.min(ZEROS_BYTES));
            file.write_at(pos, &[&chunk[..len]])?;
            pos += len as u64;
        }
        if zeros > 0 { file.sync() } else { Ok(()) }
    };
    if let Err(error) = filled() {
        tracing::debug!(path = %path.display(), %error, "next segment was not filled ahead");
    }
}

#[cfg(test)]
mod tests;

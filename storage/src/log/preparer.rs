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

use std::{path::PathBuf, sync::Arc, time::Duration};

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
/// Zeros synced at a time.
const STEP_BYTES: u64 = 8 << 20;

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
    /// meanwhile, and closing it ends the work early. Nothing happens when the file is there or another
    /// thread makes it. A file that would take more than `spare_bytes` of the disk is not filled ahead.
    ///
    /// # Errors
    /// When the disk refuses; nothing is lost, the roll tries again.
    pub fn prepare(&self, now: Timestamp, spare_bytes: u64) -> Result<(), StorageError> {
        let created = self.shared.segments.read().last().map(|active| active.header.created);
        let hot = created.is_some_and(|created| now.since(created) < HOT_AGE_MAX);
        let fits = self.shared.next.lock().bytes_max <= spare_bytes;
        self.make(hot && fits)
    }

    /// True while the file being made may still be wanted.
    fn is_wanted(&self) -> bool {
        !self.shared.next.lock().closed && self.shared.failure().is_none()
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
        let made = make_file(self.shared.disk.as_ref(), pool, path, bytes_max)
            .and_then(|next| self.fill_with_zeros(&next, zeros).map(|()| next));
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

    /// Writes `zeros` zeros and syncs them, a step at a time: a flush waits for one step at most. A disk
    /// that has no room for them, or a log that is given up meanwhile, leaves the file as far as it came.
    fn fill_with_zeros(&self, next: &NextSegment, zeros: u64) -> Result<(), IoFailure> {
        if next.recycled || zeros == 0 {
            return Ok(());
        }
        let at = |op| move |error| IoFailure::new(op, &next.path, error);
        let chunk = vec![0; ZEROS_BYTES];
        let mut pos = 0;
        while pos < zeros && self.is_wanted() {
            let step_end = zeros.min(pos + STEP_BYTES);
            match next.file.allocate(step_end).map_err(at("allocate")) {
                Err(failure) if failure.is_disk_full() => return Ok(()),
                allocated => allocated?,
            }
            while pos < step_end {
                let left = usize::try_from(step_end - pos).unwrap_or(usize::MAX);
                let part = &chunk[..left.min(ZEROS_BYTES)];
                next.file.write_at(pos, &[part]).map_err(at("write"))?;
                pos += part.len() as u64;
            }
            next.file.sync().map_err(at("sync"))?;
        }
        Ok(())
    }
}

/// Makes a file at `path` for at most `bytes_max` bytes: a recycled one when there is one that fits.
fn make_file(
    disk: &dyn Disk,
    pool: Option<&RecyclePool>,
    path: PathBuf,
    bytes_max: u64,
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
        segment_file::prepare(disk, &path, bytes_max)?
    };
    Ok(NextSegment { file, path, bytes_max, recycled })
}

#[cfg(test)]
mod tests;

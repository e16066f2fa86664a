//! Segment files whose blocks were written before, kept to be written again.
//!
//! Overwriting blocks that were written once makes a flush 2 to 4 times cheaper than writing freshly
//! allocated ones, because the file system has nothing to note down. So a segment that retention
//! drops is moved to `recycle/`, up to a bound, and handed out as somebody's next segment.
//!
//! ```text
//! <partition>/<base>.log --retire--> recycle/<n> --take--> <partition>/next.tmp
//! ```
//!
//! Invariants:
//! - A file is handed out only after its old name is durably gone, and given to its new owner only
//!   after its name here is durably gone. Otherwise a power loss could leave two partitions sharing
//!   one file.
//! - Whoever retires a file knows that no handle of it is open: a late reader would see another
//!   partition's records.
//! - What lies in `recycle/` at start is removed: nobody can tell whether its old name is gone.
//!
//! The old bytes stay in the file. That they are never read as live is the segment format's promise
//! (salt and chain), not this pool's.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    data_dir::RECYCLE_DIR,
    disk::{Disk, EntryKind, OpenMode},
};

/// Bounds of a [`RecyclePool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecycleLimits {
    /// Most files kept.
    pub count_max: usize,
    /// Most bytes kept.
    pub bytes_max: u64,
    /// Files shorter than this are not kept.
    pub file_bytes_min: u64,
}

impl Default for RecycleLimits {
    /// 16 files, 1 GiB, none shorter than 1 MiB.
    fn default() -> RecycleLimits {
        RecycleLimits { count_max: 16, bytes_max: 1 << 30, file_bytes_min: 1 << 20 }
    }
}

/// What became of a retired file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// It waits to be used again; its old name is durably gone.
    Kept,
    /// It was removed; the caller syncs the directory.
    Removed,
}

/// The pool of one data directory.
#[derive(Debug)]
pub struct RecyclePool {
    disk: Arc<dyn Disk>,
    limits: RecycleLimits,
    inner: Mutex<Inner>,
}

/// One file of the pool.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// Its length.
    len: u64,
    /// False for one that could be neither moved out nor removed: it only waits to be removed.
    is_usable: bool,
}

/// Guarded by `RecyclePool::inner`.
#[derive(Debug, Default)]
struct Inner {
    /// The files by number.
    files: BTreeMap<u64, Kept>,
    /// Files and bytes promised to a retirement that is under way.
    promised: (usize, u64),
    /// Number of the next file.
    next: u64,
}

impl RecyclePool {
    /// Opens the pool of the data directory that is `disk`'s root and empties it.
    ///
    /// # Errors
    /// When the directory can not be listed or a file not removed.
    pub fn open(disk: Arc<dyn Disk>, limits: RecycleLimits) -> io::Result<RecyclePool> {
        let dir = Path::new(RECYCLE_DIR);
        match disk.create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        for entry in disk.list(dir)?.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            disk.remove_file(&dir.join(&entry.name))?;
        }
        Ok(RecyclePool { disk, limits, inner: Mutex::default() })
    }

    /// A pool that keeps nothing and changes nothing, of a `disk` that is only read.
    pub fn unused(disk: Arc<dyn Disk>) -> RecyclePool {
        let limits = RecycleLimits { count_max: 0, bytes_max: 0, ..RecycleLimits::default() };
        RecyclePool { disk, limits, inner: Mutex::default() }
    }

    /// Takes the file at `path` out of its directory, for the pool when there is room. One that is not
    /// there is removed already.
    ///
    /// No handle of the file may be open, and all of it was flushed or is worthless.
    ///
    /// # Errors
    /// When the disk refuses. The file may then have lost its name; it is not handed out.
    pub fn retire(&self, path: &Path) -> io::Result<Retired> {
        let len = match self.disk.open(path, OpenMode::Read) {
            Ok(file) => file.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Retired::Removed),
            Err(error) => return Err(error),
        };
        let Some(number) = self.promise(len) else {
            self.disk.remove_file(path)?;
            return Ok(Retired::Removed);
        };
        let moved = self.move_in(path, number);
        let mut inner = self.inner.lock();
        inner.promised.0 -= 1;
        inner.promised.1 -= len;
        moved?;
        inner.files.insert(number, Kept { len, is_usable: true });
        Ok(Retired::Kept)
    }

    /// Moves a file of at most `bytes_max` bytes, and of not much less, to `to`, whose directory
    /// exists. False when there is none. One that can not be moved is given up, and the next one serves.
    ///
    /// # Errors
    /// When the disk refuses after the move. The file may then stand at `to` or not.
    pub fn take(&self, bytes_max: u64, to: &Path) -> io::Result<bool> {
        while let Some((number, kept)) = self.take_fitting(bytes_max) {
            if let Err(error) = self.disk.rename(&name(number), to) {
                tracing::warn!(%error, number, "a file kept for recycling can not be moved");
                // What can not be removed either is tried again with the others.
                drop(self.remove(number, kept));
                continue;
            }
            self.disk.sync_dir(Path::new(RECYCLE_DIR))?;
            self.disk.sync_dir(to.parent().unwrap_or(Path::new("")))?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Files and bytes waiting.
    pub fn held(&self) -> (usize, u64) {
        let inner = self.inner.lock();
        (inner.files.len(), inner.bytes())
    }

    /// Removes every file: space is short.
    ///
    /// # Errors
    /// When the disk refuses; files not yet removed stay in the pool.
    pub fn drain(&self) -> io::Result<()> {
        loop {
            let Some((number, kept)) = self.inner.lock().files.pop_first() else { return Ok(()) };
            self.remove(number, kept)?;
        }
    }

    /// Takes the largest file that fits out of the books.
    fn take_fitting(&self, bytes_max: u64) -> Option<(u64, Kept)> {
        let fits =
            |kept: &Kept| kept.is_usable && kept.len <= bytes_max && kept.len >= bytes_max / 4;
        let mut inner = self.inner.lock();
        let fitting = inner.files.iter().filter(|(_, kept)| fits(kept));
        let number = *fitting.max_by_key(|(_, kept)| kept.len)?.0;
        inner.files.remove_entry(&number)
    }

    /// Removes a file that is out of the books; it comes back into them, unusable, when that fails.
    fn remove(&self, number: u64, kept: Kept) -> io::Result<()> {
        match self.disk.remove_file(&name(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.inner.lock().files.insert(number, Kept { is_usable: false, ..kept });
                Err(error)
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A number for a file of `len` bytes, when there is room for it.
    fn promise(&self, len: u64) -> Option<u64> {
        let mut inner = self.inner.lock();
        let count = inner.files.len() + inner.promised.0;
        let bytes = inner.bytes() + inner.promised.1;
        let room = count < self.limits.count_max && bytes + len <= self.limits.bytes_max;
        if len < self.limits.file_bytes_min || !room {
            return None;
        }
        inner.promised.0 += 1;
        inner.promised.1 += len;
        inner.next += 1;
        Some(inner.next - 1)
    }

    fn move_in(&self, path: &Path, number: u64) -> io::Result<()> {
        self.disk.rename(path, &name(number))?;
        self.disk.sync_dir(path.parent().unwrap_or(Path::new("")))?;
        self.disk.sync_dir(Path::new(RECYCLE_DIR))
    }
}

impl Inner {
    fn bytes(&self) -> u64 {
        self.files.values().map(|kept| kept.len).sum()
    }
}

fn name(number: u64) -> PathBuf {
    Path::new(RECYCLE_DIR).join(number.to_string())
}

#[cfg(test)]
mod tests;

//! The disk as a repair reads it: what the device refuses to read is zeros, and is remembered.
//!
//! So records there are not valid, are named like any other damage, and everything behind them is read. Only a device's own error (`EIO`)
//! counts: a refusal for another reason says nothing of the bytes. Nothing else is changed: other calls go to the disk as they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::disk::{DirEntry, Disk, DiskFile, OpenMode};

/// Bytes that are tried alone: what a page cache reads at once.
const BLOCK_BYTES: u64 = 4096;

/// Blocks that the device refuses, by file.
type Unreadable = Arc<Mutex<BTreeMap<PathBuf, BTreeSet<u64>>>>;

/// Another disk, read past what its device refuses.
#[derive(Debug)]
pub(super) struct RescueDisk {
    disk: Arc<dyn Disk>,
    unreadable: Unreadable,
}

impl RescueDisk {
    /// `disk`, read past what its device refuses.
    pub(super) fn new(disk: Arc<dyn Disk>) -> RescueDisk {
        RescueDisk { disk, unreadable: Unreadable::default() }
    }

    /// Whether something of the file at `path` was refused so far.
    pub(super) fn was_refused(&self, path: &Path) -> bool {
        self.unreadable.lock().contains_key(path)
    }

    /// What was refused so far: files and bytes, those side by side as one.
    pub(super) fn refused(&self) -> Vec<(PathBuf, Range<u64>)> {
        let mut refused: Vec<(PathBuf, Range<u64>)> = Vec::new();
        for (path, blocks) in self.unreadable.lock().iter() {
            for block in blocks {
                let bytes = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
                match refused.last_mut().filter(|last| last.0 == *path && last.1.end == bytes.start)
                {
                    Some((_, before)) => before.end = bytes.end,
                    None => refused.push((path.clone(), bytes)),
                }
            }
        }
        refused
    }
}

impl Disk for RescueDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, mode)?;
        match mode {
            OpenMode::Read | OpenMode::ReadUncached => {
                let (path, unreadable) = (path.to_owned(), self.unreadable.clone());
                Ok(Arc::new(RescueFile { file, path, unreadable }))
            }
            OpenMode::Write | OpenMode::CreateNew | OpenMode::Append { .. } => Ok(file),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

/// A file open for reading.
#[derive(Debug)]
struct RescueFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    unreadable: Unreadable,
}

impl RescueFile {
    /// Reads block by block; those refused are zeros.
    fn read_by_blocks(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (pos, buf);
        while !rest.is_empty() {
            let within = usize::try_from(BLOCK_BYTES - at % BLOCK_BYTES).expect("4096 at most");
            let len = rest.len().min(within);
            let (part, later) = rest.split_at_mut(len);
            match self.file.read_at(at, part) {
                Err(error) if is_of_device(&error) => {
                    part.fill(0);
                    let mut unreadable = self.unreadable.lock();
                    unreadable.entry(self.path.clone()).or_default().insert(at / BLOCK_BYTES);
                }
                done => done?,
            }
            at += len as u64;
            rest = later;
        }
        Ok(())
    }
}

impl DiskFile for RescueFile {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn write_at(&self, pos: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.file.write_at(pos, parts)
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        match self.file.read_at(pos, buf) {
            Err(error) if is_of_device(&error) => self.read_by_blocks(pos, buf),
            done => done,
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn has_name(&self) -> io::Result<bool> {
        self.file.has_name()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// Whether the device itself could not read.
fn is_of_device(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

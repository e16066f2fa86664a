//! A disk that is only read: every call that would change something is refused before the system hears of it.

use std::{io, path::Path, sync::Arc};

use rustix::io::Errno;

use super::{DirEntry, Disk, DiskFile, OpenMode};

/// Another disk, for reading only.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    disk: Arc<dyn Disk>,
}

impl ReadOnlyDisk {
    /// `disk`, for reading only.
    pub fn new(disk: Arc<dyn Disk>) -> ReadOnlyDisk {
        ReadOnlyDisk { disk }
    }
}

impl Disk for ReadOnlyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        match mode {
            OpenMode::Read | OpenMode::ReadUncached => self.disk.open(path, mode),
            OpenMode::Write | OpenMode::CreateNew | OpenMode::Append { .. } => Err(refused()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_file(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_dir(&self, _dir: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

fn refused() -> io::Error {
    Errno::ROFS.into()
}

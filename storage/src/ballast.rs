//! Room kept for the hour when the disk is full: a file of really allocated blocks, given back so that
//! offset commits, acknowledgements and deletes can go on.

use std::{io, path::Path, sync::Arc};

use crate::disk::{Disk, DiskFile, OpenMode};

/// Bytes kept.
pub const BALLAST_BYTES: u64 = 16 << 20;
/// Name in a data directory.
const BALLAST_FILE: &str = "ballast";

/// The ballast file of one data directory.
#[derive(Debug)]
pub struct Ballast {
    /// `None` when there was no room for its name; the next start makes it.
    file: Option<Arc<dyn DiskFile>>,
}

impl Ballast {
    /// Opens or creates the file and fills it when there is room; a full disk is no error.
    ///
    /// # Errors
    /// When the file can not be opened or created.
    pub fn open(disk: &dyn Disk) -> io::Result<Ballast> {
        let path = Path::new(BALLAST_FILE);
        let file = match disk.open(path, OpenMode::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk.open(path, OpenMode::CreateNew)
            }
            opened => opened,
        };
        let file = match file {
            Err(error) if is_full(&error) => None,
            opened => Some(opened?),
        };
        let mut ballast = Ballast { file };
        if let Err(error) = ballast.restore() {
            tracing::warn!(%error, "no room for the ballast file; it is filled when space returns");
        }
        Ok(ballast)
    }

    /// Bytes the file has when it is full.
    pub fn bytes(&self) -> u64 {
        BALLAST_BYTES
    }

    /// Whether the blocks are allocated.
    pub fn is_held(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.len() >= BALLAST_BYTES)
    }

    /// Gives the blocks back. Nothing happens when they were already.
    ///
    /// # Errors
    /// When the file can not be cut.
    pub fn release(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|file| !file.is_empty()) else { return Ok(()) };
        tracing::warn!(bytes = file.len(), "disk is full: the ballast file is given back");
        file.set_len(0)
    }

    /// Allocates the blocks. Nothing happens when they are there.
    ///
    /// # Errors
    /// When there is no room; the file is then as it was.
    pub fn restore(&mut self) -> io::Result<()> {
        match &self.file {
            Some(file) if file.len() < BALLAST_BYTES => file.allocate(BALLAST_BYTES),
            Some(_) | None => Ok(()),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::disk::{RealDisk, RealDiskOptions, sim::SimDisk};

    #[test]
    fn the_blocks_are_real_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), RealDiskOptions::default()).unwrap();
        let allocated = || dir.path().join(BALLAST_FILE).metadata().unwrap().blocks() * 512;
        let mut ballast = Ballast::open(&disk).unwrap();
        assert!(ballast.is_held() && allocated() >= BALLAST_BYTES);
        ballast.release().unwrap();
        assert!(!ballast.is_held());
        assert_eq!(allocated(), 0);
        let ballast = Ballast::open(&disk).unwrap();
        assert!(ballast.is_held() && allocated() >= BALLAST_BYTES);
    }

    #[test]
    fn a_full_disk_is_no_error_at_open() {
        let disk = SimDisk::new(1);
        disk.set_capacity(Some(1 << 20));
        let mut ballast = Ballast::open(&disk).unwrap();
        assert!(!ballast.is_held());
        assert!(ballast.restore().is_err());
        disk.set_capacity(None);
        ballast.restore().unwrap();
        assert!(ballast.is_held());
    }
}

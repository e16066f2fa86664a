//! Disks that are full, and files that change under the repair.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::disk::{
    DirEntry,
    sim::{Call, Fault, FaultError},
};

/// Files with the ending of temporary ones in the directories of a repair.
fn temporaries(disk: &SimDisk) -> Vec<String> {
    let dirs = [DIR, QUARANTINE].map(|dir| disk.list(Path::new(dir)).unwrap_or_default());
    let names = dirs.into_iter().flatten().map(|entry| entry.name);
    names.filter(|name| name.ends_with(paths::TEMPORARY)).collect()
}

#[test]
fn a_full_disk_is_told_and_nothing_half_written_takes_its_room() {
    let (whole, bases, end) = rolled(false);
    flip(&whole, bases[1], bases[1], 30);
    flip(&whole, bases[2], bases[2], 30);
    for call in [Call::Allocate, Call::Write, Call::Sync, Call::Rename] {
        for nth in 1.. {
            let disk = whole.copy();
            disk.inject(Fault { call, nth, error: FaultError::NoSpace, lasting: false });
            let done = repair(&disk).accept_loss();
            disk.heal();
            if done.is_ok() {
                assert!(nth > 4, "{call:?} {nth}");
                break;
            }
            let left = temporaries(&disk);
            // The mark page and what the recovery behind the repair writes are not the repair's own.
            let left: Vec<_> = left.iter().filter(|name| !name.starts_with("state")).collect();
            assert!(left.is_empty(), "{call:?} {nth}: {left:?}");
            let (disk, lost) = (disk, [bases[1], bases[1] + 1, bases[2], bases[2] + 1]);
            repair(&disk).accept_loss().unwrap();
            check_records(&open(&disk), end, &lost);
        }
    }
}

/// A disk on which a record changes when files were opened so often.
#[derive(Debug)]
struct Changing {
    disk: SimDisk,
    opened: AtomicU64,
    /// The open at which it changes.
    nth: u64,
    /// Where the bit is that changes.
    at: (PathBuf, u64),
}

impl Disk for Changing {
    fn open(&self, path: &Path, mode: OpenMode) -> std::io::Result<Arc<dyn DiskFile>> {
        if self.opened.fetch_add(1, Ordering::Relaxed) + 1 == self.nth {
            self.disk.flip_bit(&self.at.0, self.at.1, 3);
        }
        self.disk.open(path, mode)
    }

    fn list(&self, dir: &Path) -> std::io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> std::io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.disk.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self) -> std::io::Result<u64> {
        self.disk.free_bytes()
    }
}

#[test]
fn a_record_that_changes_while_it_is_copied_is_an_error() {
    let (whole, bases, end) = rolled(false);
    let path = segment_path(bases[1]);
    let pos = entry_pos(&whole, &path, bases[1] + 4) + 150;
    flip(&whole, bases[1], bases[1], 30);
    let mut refused = 0;
    for nth in 1.. {
        let disk = whole.copy();
        let at = (path.clone(), pos);
        let opened = AtomicU64::new(0);
        let changing = Changing { disk: disk.clone(), opened, nth, at };
        let changing = Arc::new(changing);
        let done = LogRepair { disk: changing.clone(), ..repair(&disk) }.accept_loss();
        if changing.opened.load(Ordering::Relaxed) < nth {
            assert!(done.is_ok());
            break;
        }
        refused += u64::from(done.is_err());
        // Begun again it gives up what it meets; nothing else is gone.
        repair(&disk).accept_loss().unwrap();
        let log = open(&disk);
        let read: Vec<u64> = read_what_is_there(&log, end).into_iter().map(|it| it.0).collect();
        // The bit may flip in the new file, where another batch stands.
        let gone = |offset: &u64| !read.contains(offset) && *offset >= bases[1] + 2;
        assert!((0..end).filter(gone).count() <= 2, "open {nth}: {read:?}");
        assert!(read.starts_with(&(0..bases[1]).collect::<Vec<_>>()), "open {nth}: {read:?}");
    }
    assert!(refused > 0);
}

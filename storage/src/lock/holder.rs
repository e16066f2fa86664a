//! Who uses a data directory, found out by looking: the lock is not touched, so that a broker that starts in
//! this moment is never refused because of it.
//!
//! The kernel lists all locks in `/proc/locks`, with the device and inode of the file. Where that is not
//! there (another system, a process in another namespace of process ids) nobody is found.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::Mode;

use super::{LOCK_FILE, READ, pid_in};
use crate::data_dir::META_FILE;

/// List of all locks that processes hold or wait for.
const LOCKS: &str = "/proc/locks";
/// Most bytes of it that are read.
const LOCKS_BYTES_MAX: u64 = 16 << 20;
/// Folders between a data directory and the files of a partition: `logs/<topic>/<partition>`.
const DEPTH: usize = 3;

/// A process that uses a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
}

/// The process that uses the data directory which `path` is, or lies in.
pub fn holder_of(path: &Path) -> Option<Holder> {
    let path: PathBuf = path.canonicalize().ok()?;
    let is_data_dir = |dir: &&Path| [LOCK_FILE, META_FILE].iter().any(|it| dir.join(it).is_file());
    let data_dir = path.ancestors().take(DEPTH + 1).find(is_data_dir)?;
    let open = |path: &Path| rustix::fs::open(path, READ, Mode::empty()).ok().map(File::from);
    let lock_file = open(&data_dir.join(LOCK_FILE));
    let named = lock_file.as_ref().and_then(pid_in);
    let mut list = String::new();
    open(Path::new(LOCKS))?.take(LOCKS_BYTES_MAX).read_to_string(&mut list).ok()?;
    let held = |file: File| {
        let stat = file.metadata().ok()?;
        let device = (rustix::fs::major(stat.dev()), rustix::fs::minor(stat.dev()));
        find(&list, (device, stat.ino()), named)
    };
    let pid = lock_file.and_then(held).or_else(|| open(data_dir).and_then(held));
    pid.map(|pid| Holder { pid })
}

/// The process that holds a lock on the file `(device, inode)`. Some file systems tell another device than
/// the kernel lists; then the file must name the process, too.
fn find(list: &str, (device, inode): ((u32, u32), u64), named: Option<u32>) -> Option<u32> {
    list.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 4711 fd:01:131078 0 EOF`; one that waits has `->` before the kind.
        let mut words = line.split_whitespace().skip(1);
        if words.next() != Some("FLOCK") {
            return None;
        }
        let pid: u32 = words.nth(2)?.parse().ok()?;
        let mut place = words.next()?.split(':');
        let major = u32::from_str_radix(place.next()?, 16).ok()?;
        let minor = u32::from_str_radix(place.next()?, 16).ok()?;
        let is_it =
            place.next()?.parse() == Ok(inode) && ((major, minor) == device || named == Some(pid));
        is_it.then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data_dir::{DataDir, Meta},
        disk::RealDiskOptions,
        lock::DirLock,
    };

    #[test]
    fn a_holder_is_seen_from_every_depth_while_it_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let partition = dir.path().join("logs/t/0");
        std::process::Command::new("mkdir").arg("-p").arg(&partition).status().unwrap();
        assert_eq!(holder_of(dir.path()), None);
        let lock = DirLock::acquire(dir.path()).unwrap();
        let own = Some(Holder { pid: std::process::id() });
        assert_eq!((holder_of(dir.path()), holder_of(&partition)), (own, own));
        drop(lock);
        assert_eq!((holder_of(dir.path()), holder_of(&partition)), (None, None));
        // Looking takes no lock, also while nobody else holds it.
        let _lock = DirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_holder_whose_lock_file_was_removed_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta { cluster_id: uuid::Uuid::from_u128(1), node_id: 1 };
        let data = DataDir::open(dir.path(), meta, RealDiskOptions::default()).unwrap();
        data.disk().remove_file(Path::new(LOCK_FILE)).unwrap();
        let own = Some(Holder { pid: std::process::id() });
        assert_eq!(holder_of(dir.path()), own);
        drop(data);
        assert_eq!(holder_of(dir.path()), None);
    }

    #[test]
    fn only_a_held_lock_on_the_same_file_counts() {
        let list = "1: POSIX  ADVISORY  WRITE 1 fd:01:77 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 2 fd:01:78 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 3 fd:01:77 0 EOF\n\
                    3: FLOCK  ADVISORY  WRITE 4 fd:02:77 0 EOF\n";
        let at = |device, named| find(list, (device, 77), named);
        assert_eq!(at((0xfd, 1), None), None);
        assert_eq!(at((0xfd, 2), None), Some(4));
        assert_eq!(at((0, 99), Some(4)), Some(4), "a device told otherwise");
        assert_eq!(at((0, 99), Some(5)), None);
    }
}

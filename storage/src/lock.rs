//! One process per data directory: an exclusive lock on the directory itself, and one on the file `LOCK` in it.
//!
//! Both belong to open file descriptions (`flock`), so they end with the process however that ends, and
//! nothing has to be cleaned up. The file holds the owner's process id as text, for the message to a second
//! process, and is what versions of this program lock that know nothing of the other lock. This program never
//! removes it. When somebody else does, the next process makes and locks another file of that name, and only
//! the directory, which stays the same, keeps it out.
//!
//! Some file systems lock no directories (NFS wants a lock's file opened for writing). There the file's lock
//! is the only one, and a warning says so.

mod holder;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};
use thiserror::Error;

pub use self::holder::{Holder, holder_of};

/// Name of the lock file in a data directory.
pub(crate) const LOCK_FILE: &str = "LOCK";
/// Longest process id in text, with room to spare.
const PID_BYTES_MAX: usize = 16;

/// Why a directory could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("`{}` is in use by {}", dir.display(), holder(*pid))]
    Held {
        /// The data directory.
        dir: PathBuf,
        /// The other process, when its id could be read.
        pid: Option<u32>,
    },
    /// The lock file could not be opened, locked or written.
    #[error("could not lock `{}`: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or("another process".to_owned(), |pid| format!("process `{pid}`"))
}

/// Holds a directory for this process until it is dropped.
#[derive(Debug)]
pub struct DirLock {
    /// The lock file, locked; `None` in a directory that can not be written to and has none.
    file: Option<File>,
    /// The directory, locked; `None` where the file system locks no directories. Constant after the lock is
    /// given, and dropped after the file.
    _dir: Option<File>,
}

impl DirLock {
    /// As [`DirLock::acquire`] for a directory in which nothing can be written: a lock file is locked when
    /// there is one, and not made. The process id is not left there.
    ///
    /// # Errors
    /// As [`DirLock::acquire`].
    pub fn acquire_unwritten(dir: &Path) -> Result<DirLock, LockError> {
        DirLock::try_acquire_unwritten(dir).map_err(|refusal| refusal.of(dir))
    }

    fn try_acquire_unwritten(dir: &Path) -> Result<DirLock, Refusal> {
        let locked = lock_dir(dir)?;
        match rustix::fs::open(dir.join(LOCK_FILE), READ, Mode::empty()) {
            Ok(fd) => Ok(DirLock { file: Some(lock(File::from(fd))?), _dir: told(dir, locked) }),
            Err(Errno::NOENT) => Ok(DirLock { file: None, _dir: Some(locked?) }),
            Err(error) => Err(error.into()),
        }
    }

    /// Locks `dir`, which exists, without waiting.
    ///
    /// # Errors
    /// [`LockError`]; a process that holds the lock is not disturbed.
    pub fn acquire(dir: &Path) -> Result<DirLock, LockError> {
        DirLock::try_acquire(dir).map_err(|refusal| refusal.of(dir))
    }

    fn try_acquire(dir: &Path) -> Result<DirLock, Refusal> {
        let locked = lock_dir(dir)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(dir.join(LOCK_FILE), flags, Mode::RUSR | Mode::WUSR)?;
        let file = lock(File::from(fd))?;
        let pid = format!("{}\n", std::process::id());
        file.set_len(0)?;
        file.write_all_at(pid.as_bytes(), 0)?;
        Ok(DirLock { file: Some(file), _dir: told(dir, locked) })
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // A stale id would name the wrong process; when it can not be removed, the next owner does.
        let _ = self.file.as_ref().map(|file| file.set_len(0));
    }
}

/// How a file is opened that is not written to.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Locks the directory `dir`. The inner error is of a file system that can not do that.
fn lock_dir(dir: &Path) -> Result<Result<File, Errno>, Refusal> {
    // A link is followed here: the data directory may be given as one.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = File::from(rustix::fs::open(dir, flags, Mode::empty())?);
    match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Ok(opened)),
        Err(Errno::WOULDBLOCK) => {
            let owner = rustix::fs::open(dir.join(LOCK_FILE), READ, Mode::empty());
            Err(Refusal::Held(owner.ok().and_then(|fd| pid_in(&File::from(fd)))))
        }
        Err(error) => Ok(Err(error)),
    }
}

/// The locked directory; when the file system can not do that, the operator is told.
fn told(dir: &Path, locked: Result<File, Errno>) -> Option<File> {
    let warn = |error: &Errno| {
        let dir = dir.display();
        tracing::warn!(%dir, %error, "directories can not be locked here: nobody may remove `LOCK`");
    };
    locked.inspect_err(warn).ok()
}

/// Locks the description of `file`.
fn lock(file: File) -> Result<File, Refusal> {
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(Refusal::Held(pid_in(&file))),
        Err(error) => Err(error.into()),
    }
}

/// Why a lock was not given, without the path.
enum Refusal {
    Held(Option<u32>),
    Io(io::Error),
}

impl Refusal {
    /// As the error of locking `dir`.
    fn of(self, dir: &Path) -> LockError {
        match self {
            Refusal::Held(pid) => LockError::Held { dir: dir.to_owned(), pid },
            Refusal::Io(source) => LockError::Io { path: dir.join(LOCK_FILE), source },
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::Io(error)
    }
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Refusal {
        Refusal::Io(error.into())
    }
}

fn pid_in(file: &File) -> Option<u32> {
    let mut bytes = [0; PID_BYTES_MAX];
    let len = file.read_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..len]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    /// Set in the child process of the test below: the directory to lock.
    const CHILD: &str = "RIVERRUN_TEST_LOCK_CHILD";

    #[test]
    fn child_locks_and_waits_to_be_killed() {
        let Some(dir) = std::env::var_os(CHILD) else { return };
        let _lock = DirLock::acquire(Path::new(&dir)).unwrap();
        println!("locked");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
    }

    #[test]
    fn a_second_process_is_refused_with_the_pid_until_the_first_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lock::tests::child_locks_and_waits_to_be_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.map(Result::unwrap).find(|line| line.ends_with("locked")).expect("the child locks");
        let refused = DirLock::acquire(dir.path()).unwrap_err();
        let expected = format!("`{}` is in use by process `{}`", dir.path().display(), child.id());
        assert_eq!(refused.to_string(), expected);
        child.kill().unwrap();
        child.wait().unwrap();
        DirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn the_lock_ends_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let refused = DirLock::acquire(dir.path()).unwrap_err();
        let own = std::process::id();
        assert!(matches!(refused, LockError::Held { pid: Some(pid), .. } if pid == own));
        drop(lock);
        DirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_whose_lock_file_was_removed_is_still_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        rustix::fs::unlink(dir.path().join(LOCK_FILE)).unwrap();
        let expected = format!("`{}` is in use by another process", dir.path().display());
        for acquire in [DirLock::acquire, DirLock::acquire_unwritten] {
            assert_eq!(acquire(dir.path()).expect_err("it is held").to_string(), expected);
            assert!(!dir.path().join(LOCK_FILE).exists(), "a refused process makes no file");
        }
        drop(lock);
        DirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_lock_file_held_by_a_process_that_locks_nothing_else_is_respected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        let flags = OFlags::RDWR | OFlags::CREATE;
        let older = lock(File::from(rustix::fs::open(path, flags, Mode::RUSR).unwrap()));
        for acquire in [DirLock::acquire, DirLock::acquire_unwritten] {
            let refused = acquire(dir.path()).expect_err("it is held");
            assert!(matches!(refused, LockError::Held { pid: None, .. }), "{refused}");
        }
        drop(older);
        DirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::os::unix::fs::symlink(&target, dir.path().join(LOCK_FILE)).unwrap();
        assert!(matches!(DirLock::acquire(dir.path()).unwrap_err(), LockError::Io { .. }));
        assert!(!target.exists());
    }
}

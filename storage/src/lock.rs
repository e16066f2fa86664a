//! One process per data directory: an exclusive lock on the file `LOCK`.
//!
//! The lock belongs to the open file description (`flock`), so it ends with the process however that
//! ends, and nothing has to be cleaned up. The file holds the owner's process id as text, for the
//! message to a second process; it is never removed, because a name that comes and goes can not be
//! locked safely.

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
    /// The lock goes with this description.
    file: File,
}

impl DirLock {
    /// As [`DirLock::acquire`] for a directory in which nothing can be written: locks the lock file or, where
    /// there is none, the directory itself. The process id is not left there.
    ///
    /// # Errors
    /// As [`DirLock::acquire`].
    pub fn acquire_unwritten(dir: &Path) -> Result<DirLock, LockError> {
        let path = dir.join(LOCK_FILE);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match rustix::fs::open(&path, flags, Mode::empty()) {
            Err(Errno::NOENT) => rustix::fs::open(dir, flags | OFlags::DIRECTORY, Mode::empty()),
            opened => opened,
        };
        let locked = opened.map_err(Refusal::from).and_then(|fd| lock(File::from(fd)));
        locked.map(|file| DirLock { file }).map_err(|refusal| refusal.of(dir))
    }

    /// Locks `dir`, which exists, without waiting.
    ///
    /// # Errors
    /// [`LockError`]; a process that holds the lock is not disturbed.
    pub fn acquire(dir: &Path) -> Result<DirLock, LockError> {
        DirLock::try_acquire(&dir.join(LOCK_FILE)).map_err(|refusal| refusal.of(dir))
    }

    fn try_acquire(path: &Path) -> Result<DirLock, Refusal> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
        let file = lock(File::from(fd))?;
        let pid = format!("{}\n", std::process::id());
        file.set_len(0)?;
        file.write_all_at(pid.as_bytes(), 0)?;
        Ok(DirLock { file })
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // A stale id would name the wrong process; when it can not be removed, the next owner does.
        let _ = self.file.set_len(0);
    }
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
    fn a_link_in_its_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::os::unix::fs::symlink(&target, dir.path().join(LOCK_FILE)).unwrap();
        assert!(matches!(DirLock::acquire(dir.path()).unwrap_err(), LockError::Io { .. }));
        assert!(!target.exists());
    }
}

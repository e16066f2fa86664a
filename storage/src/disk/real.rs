//! The operating system's disk below one root directory.
//!
//! Names are looked up one directory at a time from the root's descriptor and a symbolic link is
//! never followed, so nothing outside the root is ever touched. New directories are `0700`, new files
//! `0600`; what is not a regular file is refused.
//!
//! A file opened for append is mapped on ext4 and XFS, where writes and reads of a few pages then need
//! no system call; gathered writes of 64 KiB and more go through `pwritev`, which is faster. On other
//! file systems (copy-on-write, network, user space, unknown) the same file is written and read with
//! `pwritev` and `pread`, because preallocation or errors there do not mean what a map needs.
//!
//! It does not retry a failed sync, and it does not order writers and readers of one file.

mod file;

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use self::file::RealFile;
use super::{
    DirEntry, Disk, DiskFile, EntryKind, OpenMode,
    file_system::FileSystem,
    mmap::Map,
    names::{names, parent_and_name},
};

const DIR_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// How a directory on the way to a name is opened.
const WALK: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How a directory is opened to list or sync it.
const READ_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Choices of a [`RealDisk`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDiskOptions {
    /// Maps files on tmpfs as well. Its contents die with the machine, so only tests want that.
    pub map_on_tmpfs: bool,
}

/// The directory tree below one root.
#[derive(Debug)]
pub struct RealDisk {
    root: OwnedFd,
    options: RealDiskOptions,
    /// The file system that is not mapped was named in the log.
    warned: AtomicBool,
}

impl RealDisk {
    /// Opens the existing directory `root`.
    ///
    /// # Errors
    /// When it is missing, not a directory or not accessible.
    pub fn open(root: &Path, options: RealDiskOptions) -> io::Result<RealDisk> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        Ok(RealDisk { root, options, warned: AtomicBool::new(false) })
    }

    /// What holds it.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn file_system(&self) -> io::Result<FileSystem> {
        FileSystem::of(&self.root)
    }

    /// Number of the device that holds it, as the system writes it: `8:1`.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn device(&self) -> io::Result<String> {
        let device = rustix::fs::fstat(&self.root)?.st_dev;
        Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
    }

    /// Calls `act` with the directory that `names` lead to.
    fn in_dir<T>(
        &self,
        names: &[&str],
        act: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut held: Option<OwnedFd> = None;
        for name in names {
            let at = held.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            held = Some(rustix::fs::openat(at, *name, WALK, Mode::empty())?);
        }
        act(held.as_ref().map_or(self.root.as_fd(), AsFd::as_fd))
    }

    /// Opens the directory `dir` itself, to list or sync it.
    fn open_dir(&self, dir: &Path) -> io::Result<OwnedFd> {
        let names = names(dir)?;
        let Some((name, parent)) = names.split_last() else {
            return Ok(rustix::fs::openat(&self.root, c".", READ_DIR, Mode::empty())?);
        };
        self.in_dir(parent, |at| Ok(rustix::fs::openat(at, *name, READ_DIR, Mode::empty())?))
    }

    /// The map of a file opened for append, or `None` where it is read and written by calls.
    fn map(&self, file: &File, path: &Path, bytes_max: u64) -> io::Result<Option<Map>> {
        let system = FileSystem::of(file)?;
        if !system.is_mapped(self.options.map_on_tmpfs) {
            if !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    file_system = system.name(),
                    "segments are not memory-mapped on this file system; use ext4 or XFS for full speed"
                );
            }
            return Ok(None);
        }
        match Map::new(file, bytes_max) {
            Ok(map) => Ok(Some(map)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "segment can not be mapped, using calls");
                Ok(None)
            }
        }
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let access = match mode {
            OpenMode::Read | OpenMode::ReadUncached => OFlags::RDONLY,
            OpenMode::Write | OpenMode::Append { .. } => OFlags::RDWR,
            OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        // NONBLOCK: a pipe planted under the name must not hold the open for ever.
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let (parent, name) = parent_and_name(path)?;
        let opened = self.in_dir(&parent, |at| Ok(rustix::fs::openat(at, name, flags, FILE_MODE)?));
        let file = File::from(opened.map_err(|error| name_link(error, path))?);
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_regular(path));
        }
        let len = u64::try_from(stat.st_size).unwrap_or(0);
        let OpenMode::Append { bytes_max } = mode else {
            return Ok(Arc::new(RealFile::new(file, len, mode, None)));
        };
        super::check_append_limit(len, bytes_max)?;
        let map = self.map(&file, path, bytes_max)?;
        Ok(Arc::new(RealFile::new(file, len, mode, map)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let fd = self.open_dir(dir)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name().to_str().map_err(|_| not_utf8(dir))?;
            if name == "." || name == ".." {
                continue;
            }
            let stat = match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Removed since the directory was read.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let kind = kind(FileType::from_raw_mode(stat.st_mode));
            let len = if kind == EntryKind::File { stat.st_size } else { 0 };
            let len = u64::try_from(len).unwrap_or(0);
            entries.push(DirEntry { name: name.to_owned(), kind, len });
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let (parent, name) = parent_and_name(dir)?;
        self.in_dir(&parent, |at| Ok(rustix::fs::mkdirat(at, name, DIR_MODE)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_parent, from_name) = parent_and_name(from)?;
        let (to_parent, to_name) = parent_and_name(to)?;
        self.in_dir(&from_parent, |from_at| {
            self.in_dir(&to_parent, |to_at| {
                Ok(rustix::fs::renameat(from_at, from_name, to_at, to_name)?)
            })
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = parent_and_name(path)?;
        self.in_dir(&parent, |at| Ok(rustix::fs::unlinkat(at, name, AtFlags::empty())?))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let (parent, name) = parent_and_name(dir)?;
        self.in_dir(&parent, |at| Ok(rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)?))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.open_dir(dir)?)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn kind(file_type: FileType) -> EntryKind {
    match file_type {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => EntryKind::Other,
    }
}

/// Says plainly that a name is a link where the system says "too many levels of symbolic links".
fn name_link(error: io::Error, path: &Path) -> io::Error {
    if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        return not_regular(path);
    }
    error
}

fn not_regular(path: &Path) -> io::Error {
    let message = format!("`{}` is not a regular file", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn not_utf8(dir: &Path) -> io::Error {
    let message = format!("a name in `{}` is not UTF-8", dir.display());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests;

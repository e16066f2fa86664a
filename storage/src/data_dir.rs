//! The data directory: whose it is, in which format, and that only one process uses it.
//!
//! ```text
//! missing or empty directory --lock, create `logs` and `recycle`, write meta.properties--> ours
//! ours --check owner, version, lock--> open
//! ```
//!
//! Invariants:
//! - A directory that is refused was not changed, except that a missing lock file may have been made
//!   in one that is ours.
//! - One opened for reading only was not changed at all.
//! - `meta.properties` is written last, so its presence says that the rest was created.
//! - Nothing is concluded from a missing file: records without `meta.properties` are refused.

mod meta;

use std::{
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::io::Errno;
use thiserror::Error;

pub(crate) use self::meta::META_FILE;
pub use self::meta::{FORMAT_VERSION, Meta};
use self::meta::{META_TEMPORARY, StoredMeta};
use crate::{
    disk::{Disk, EntryKind, FileSystem, ReadOnlyDisk, RealDisk, RealDiskOptions},
    lock::{DirLock, LOCK_FILE, LockError},
};

/// Directory of all partitions.
pub const LOGS_DIR: &str = "logs";
/// Directory of segment files waiting to be used again.
pub const RECYCLE_DIR: &str = "recycle";
/// Directory of what repairs set aside; made by the first of them.
pub const QUARANTINE_DIR: &str = "quarantine";
/// Made by ext4 in the root of a file system.
const LOST_FOUND: &str = "lost+found";
/// Permissions that others than the owner have.
const OTHERS: u32 = 0o077;

/// Why a data directory was refused.
#[derive(Debug, Error)]
pub enum OpenDataDirError {
    /// The path is a file or something else.
    #[error("`{}` is not a directory", path.display())]
    NotADirectory {
        /// The path given.
        path: PathBuf,
    },
    /// Another user owns it.
    #[error("`{}` belongs to user `{owner}`, not to user `{user}` of this process", path.display())]
    ForeignOwner {
        /// The path given.
        path: PathBuf,
        /// Numeric id of the owner.
        owner: u32,
        /// Numeric id of this process.
        user: u32,
    },
    /// It holds files and is not marked as a data directory.
    #[error("`{}` is not empty (`{found}`) and has no `meta.properties`", path.display())]
    NotOurs {
        /// The path given.
        path: PathBuf,
        /// One of the names found.
        found: String,
    },
    /// It is empty.
    #[error("`{}` is not a data directory: it has no `meta.properties`", path.display())]
    NotADataDir {
        /// The path given.
        path: PathBuf,
    },
    /// Written by a newer version of this program.
    #[error("`{}` has format version `{found}`; this program reads `{supported}`", path.display())]
    NewerFormat {
        /// The path given.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Newest version understood.
        supported: u32,
    },
    /// `meta.properties` or a directory beside it is not as this program leaves it.
    #[error("`{}` is damaged: {reason}", path.display())]
    Corrupt {
        /// The damaged file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// Nothing can be written there.
    #[error("`{}` can not be written to: {source}", path.display())]
    ReadOnly {
        /// The path given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(transparent)]
    Locked(LockError),
    /// The operating system refused.
    #[error("could not {op} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// An open data directory, held for this process until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    disk: Arc<dyn Disk>,
    meta: Meta,
    path: PathBuf,
    /// What holds it. Constant after open.
    file_system: FileSystem,
    /// Number of the device that it lies on. Constant after open.
    device: String,
    _lock: DirLock,
}

impl DataDir {
    /// Opens the data directory at `path`, or creates it with the identity `new` when it is missing
    /// or empty. Its parent directory must exist.
    ///
    /// # Errors
    /// [`OpenDataDirError`]; see the module for what may have been changed.
    pub fn open(
        path: &Path,
        new: Meta,
        options: RealDiskOptions,
    ) -> Result<DataDir, OpenDataDirError> {
        create_if_missing(path)?;
        check_owner(path)?;
        let failed = |op| move |source| failure(op, path, source);
        let disk = RealDisk::open(path, options).map_err(failed("open"))?;
        // Looked at before the lock file is made, so that a foreign directory stays untouched.
        let stored = meta::load(&disk).map_err(failed("read"))?;
        judge(&disk, path, &stored)?;
        let lock = DirLock::acquire(path).map_err(|error| lock_failure(path, error))?;
        let meta = settle(&disk, path, new)?;
        let file_system = disk.file_system().map_err(failed("look at"))?;
        let device = disk.device().map_err(failed("look at"))?;
        if let Some(caveat) = file_system.caveat() {
            tracing::warn!(path = %path.display(), "{caveat}");
        }
        let path = path.to_owned();
        Ok(DataDir { disk: Arc::new(disk), meta, path, file_system, device, _lock: lock })
    }

    /// Opens the data directory at `path`, which must be there: nothing is created, except that a missing lock
    /// file may be.
    ///
    /// # Errors
    /// As [`DataDir::open`], and when there is no data directory at `path`.
    pub fn open_existing(
        path: &Path,
        options: RealDiskOptions,
    ) -> Result<DataDir, OpenDataDirError> {
        check_owner(path)?;
        let disk = RealDisk::open(path, options).map_err(|source| failure("open", path, source))?;
        let load = || meta::load(&disk).map_err(|source| failure("read", path, source));
        let stored = judge(&disk, path, &load()?)?;
        stored.ok_or_else(|| OpenDataDirError::NotADataDir { path: path.to_owned() })?;
        let lock = DirLock::acquire(path).map_err(|error| lock_failure(path, error))?;
        let stored = judge(&disk, path, &load()?)?;
        let meta = stored.ok_or_else(|| OpenDataDirError::NotADataDir { path: path.to_owned() })?;
        check_dirs(&disk, path)?;
        let looked = disk.file_system().and_then(|found| Ok((found, disk.device()?)));
        let (file_system, device) = looked.map_err(|source| failure("look at", path, source))?;
        let (disk, path) = (Arc::new(disk), path.to_owned());
        Ok(DataDir { disk, meta, path, file_system, device, _lock: lock })
    }

    /// Opens the data directory at `path` for reading only: nothing in it is changed, and its disk refuses
    /// what would.
    ///
    /// # Errors
    /// As [`DataDir::open`], and when there is no data directory at `path`.
    pub fn open_read_only(
        path: &Path,
        options: RealDiskOptions,
    ) -> Result<DataDir, OpenDataDirError> {
        check_owner(path)?;
        let disk = RealDisk::open(path, options).map_err(|source| failure("open", path, source))?;
        let lock = DirLock::acquire_unwritten(path).map_err(|error| lock_failure(path, error))?;
        let stored = meta::load(&disk).map_err(|source| failure("read", path, source))?;
        let Some(meta) = judge(&disk, path, &stored)? else {
            let source = Errno::ROFS.into();
            return Err(OpenDataDirError::ReadOnly { path: path.to_owned(), source });
        };
        check_dirs(&disk, path)?;
        let looked = disk.file_system().and_then(|found| Ok((found, disk.device()?)));
        let (file_system, device) = looked.map_err(|source| failure("look at", path, source))?;
        let disk = Arc::new(ReadOnlyDisk::new(Arc::new(disk)));
        Ok(DataDir { disk, meta, path: path.to_owned(), file_system, device, _lock: lock })
    }

    /// Its identity.
    pub fn meta(&self) -> Meta {
        self.meta
    }

    /// The disk whose root it is.
    pub fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    /// What holds it.
    pub fn file_system(&self) -> FileSystem {
        self.file_system
    }

    /// Number of the device that it lies on, as the system writes it: `8:1`.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The identity in the directory, which this process holds; created with `new` when there is none.
fn settle(disk: &dyn Disk, path: &Path, new: Meta) -> Result<Meta, OpenDataDirError> {
    let stored = meta::load(disk).map_err(|source| failure("read", path, source))?;
    match judge(disk, path, &stored)? {
        Some(meta) => check_dirs(disk, path).map(|()| meta),
        None => create(disk, new).map_err(|source| failure("create", path, source)).map(|()| new),
    }
}

/// The identity of a directory that is ours, `None` for one that may become ours.
fn judge(
    disk: &dyn Disk,
    path: &Path,
    stored: &StoredMeta,
) -> Result<Option<Meta>, OpenDataDirError> {
    let path = path.to_owned();
    match *stored {
        StoredMeta::Valid(meta) => Ok(Some(meta)),
        StoredMeta::Newer(found) => {
            Err(OpenDataDirError::NewerFormat { path, found, supported: FORMAT_VERSION })
        }
        StoredMeta::Invalid(reason) => {
            Err(OpenDataDirError::Corrupt { path: path.join(META_FILE), reason })
        }
        StoredMeta::Missing => {
            match foreign_name(disk).map_err(|source| failure("list", &path, source))? {
                Some(found) => Err(OpenDataDirError::NotOurs { path, found }),
                None => Ok(None),
            }
        }
    }
}

/// A name that neither an interrupted creation nor the file system leaves in the directory.
fn foreign_name(disk: &dyn Disk) -> io::Result<Option<String>> {
    for entry in disk.list(Path::new(""))? {
        let known = match (entry.kind, entry.name.as_str()) {
            (EntryKind::File, LOCK_FILE | META_TEMPORARY) => true,
            (EntryKind::Directory, LOGS_DIR | RECYCLE_DIR) => {
                disk.list(Path::new(&entry.name))?.is_empty()
            }
            (EntryKind::Directory, LOST_FOUND) => true,
            _ => false,
        };
        if !known {
            return Ok(Some(entry.name));
        }
    }
    Ok(None)
}

/// Makes an empty directory ours, `meta.properties` last.
fn create(disk: &dyn Disk, new: Meta) -> io::Result<()> {
    for dir in [LOGS_DIR, RECYCLE_DIR] {
        match disk.create_dir(Path::new(dir)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    disk.sync_dir(Path::new(""))?;
    meta::store(disk, new)
}

fn check_dirs(disk: &dyn Disk, path: &Path) -> Result<(), OpenDataDirError> {
    for dir in [LOGS_DIR, RECYCLE_DIR] {
        match disk.list(Path::new(dir)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = path.join(dir);
                return Err(OpenDataDirError::Corrupt { path, reason: "it is missing" });
            }
            Err(source) => return Err(failure("list", &path.join(dir), source)),
        }
    }
    Ok(())
}

/// Creates the directory itself and makes its name durable.
fn create_if_missing(path: &Path) -> Result<(), OpenDataDirError> {
    let failed = |source| failure("create", path, source);
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        // An existing directory of a read-only file system is refused later, by name.
        Err(_) if path.is_dir() => return Ok(()),
        made => made.map_err(failed)?,
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = RealDisk::open(parent.unwrap_or(Path::new(".")), RealDiskOptions::default());
    parent.and_then(|parent| parent.sync_dir(Path::new(""))).map_err(failed)
}

fn check_owner(path: &Path) -> Result<(), OpenDataDirError> {
    let stat = path.metadata().map_err(|source| failure("open", path, source))?;
    if !stat.is_dir() {
        return Err(OpenDataDirError::NotADirectory { path: path.to_owned() });
    }
    let user = rustix::process::geteuid().as_raw();
    if stat.uid() != user {
        let owner = stat.uid();
        return Err(OpenDataDirError::ForeignOwner { path: path.to_owned(), owner, user });
    }
    let mode = stat.permissions().mode();
    if mode & OTHERS != 0 {
        let mode = format!("{:03o}", mode & 0o777);
        tracing::warn!(path = %path.display(), %mode, "other users can read the data directory");
    }
    Ok(())
}

fn lock_failure(dir: &Path, error: LockError) -> OpenDataDirError {
    match error {
        LockError::Io { source, .. } => failure("lock", dir, source),
        held @ LockError::Held { .. } => OpenDataDirError::Locked(held),
    }
}

/// Tells a directory that can not be written from other failures.
fn failure(op: &'static str, path: &Path, source: io::Error) -> OpenDataDirError {
    let path = path.to_owned();
    let denied = [Errno::ROFS, Errno::ACCESS, Errno::PERM].map(Errno::raw_os_error);
    match source.raw_os_error() {
        Some(code) if denied.contains(&code) => OpenDataDirError::ReadOnly { path, source },
        _ => OpenDataDirError::Io { op, path, source },
    }
}

#[cfg(test)]
mod tests;

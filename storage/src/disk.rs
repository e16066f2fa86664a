//! The disk as storage sees it: a small trait with a real and a crashing simulated twin.
//!
//! Paths are relative to the disk's root (the data directory). Nothing above this file names the
//! operating system, `std::fs` or a memory map.
//!
//! Contract of durability, which the simulated twin enforces by forgetting:
//! - Bytes written are durable once [`DiskFile::sync`] returned `Ok` after the write.
//! - A name created, renamed or removed is durable once [`Disk::sync_dir`] of its directory returned `Ok`.
//! - A length that [`DiskFile::allocate`] or [`DiskFile::set_len`] gave is durable as written bytes are;
//!   after a power loss before that, any length between the old and the new may be found.
//! - A rename between two directories is seen whole or not at all, and is durable once both were synced.
//! - Syncing a file makes none of its names durable.
//! - The first error of a `sync` is final: nothing above the last good sync may be trusted, and no
//!   later `Ok` says otherwise.
//!
//! - `real`: the operating system's files, mapped where that is safe ([`RealDisk`]).
//! - `read_only`: any disk, for reading only ([`ReadOnlyDisk`]).
//! - `mmap`, `sigbus`: the map of an active segment and what guards it; the only unsafe code.
//! - `sim` (feature `sim`): the twin for tests.

mod file_system;
mod mmap;
mod names;
mod read_only;
mod real;
mod sigbus;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(test)]
mod tests;

use std::{fmt::Debug, io, path::Path, sync::Arc};

pub use self::{
    file_system::FileSystem,
    read_only::ReadOnlyDisk,
    real::{RealDisk, RealDiskOptions},
};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file for reading only; it is never written or mapped through this handle.
    Read,
    /// As [`OpenMode::Read`], for bytes that should come from the medium: the real disk has the system drop what it
    /// holds of a range before and after each read, so that nothing is displaced that other readers have cached.
    ReadUncached,
    /// An existing file for reading and writing.
    Write,
    /// A new file for reading and writing; an existing one is an error.
    CreateNew,
    /// An existing file whose end is appended to and read at once, up to `bytes_max`. The real disk
    /// maps it where the file system allows; writes and reads within the allocated length then need no
    /// system call.
    Append {
        /// The file never grows past this.
        bytes_max: u64,
    },
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// File name, UTF-8; others are reported as an error by `list`.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Length in bytes of a regular file, 0 otherwise.
    pub len: u64,
}

/// Kind of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A link, device, socket: never opened.
    Other,
}

/// A directory tree of files.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Lists a directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Creates a directory; its parent must exist. Existing is an error.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Replaces `to` by `from` in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name. Open handles stay readable.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes names created, renamed or removed in `dir` durable. The root is the empty path.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that can still be allocated.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file. Shared between one writer and many readers; a reader never asks for bytes that the
/// writer has not published to it.
///
/// A mapped file whose pages can no longer be reached (a failed device, a file cut from outside) is
/// poisoned: that call and all later reads, writes and syncs through the handle return `EIO`. A file open
/// for append that is found shorter than what was allocated is neither synced nor allocated further: `EIO`.
pub trait DiskFile: Send + Sync + Debug + 'static {
    /// Length of the file in bytes; its blocks up to here are allocated.
    fn len(&self) -> u64;
    /// True when the file holds no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Allocates real blocks up to `len`, reading as zeros; a file that is as long already is left as
    /// it is. On an error the file has its old length.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Writes the parts one after another from `pos`, all within the allocated length; past it is
    /// `InvalidInput` and nothing is written. After any other error a part may have been written.
    fn write_at(&self, pos: u64, parts: &[&[u8]]) -> io::Result<()>;
    /// Fills `buf` from `pos`; a range past the length is `UnexpectedEof`.
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Makes every earlier write through this handle durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// False once no name leads to the file any more: what is written then is gone at the next start.
    fn has_name(&self) -> io::Result<bool>;
    /// Cuts or extends to `len`; new bytes read as zeros and need not have blocks. Only for files that no
    /// one has open for append.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// Refuses a length that a file open for append must not have.
fn check_append_limit(len: u64, bytes_max: u64) -> io::Result<()> {
    if len <= bytes_max {
        return Ok(());
    }
    let message = format!("length {len} is over the limit {bytes_max} the file was opened with");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Refuses a write that does not lie within the allocated length `len`.
fn check_range(pos: u64, parts: &[&[u8]], len: u64) -> io::Result<()> {
    let end = parts.iter().try_fold(pos, |end, part| end.checked_add(part.len() as u64));
    if end.is_some_and(|end| end <= len) {
        return Ok(());
    }
    let message = format!("write at {pos} goes past the allocated length {len}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// The answer to `set_len` of a file that may be mapped.
fn open_for_append() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a file open for append keeps its length")
}

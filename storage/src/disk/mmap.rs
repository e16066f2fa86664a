//! The map of an active segment: raw bytes shared between one writer and many readers.
//!
//! The whole range a file may ever have is mapped once; the file grows under it. Bytes are copied in
//! and out through raw pointers.
//!
//! Invariants:
//! - No reference to mapped bytes exists, ever: another process or thread may change them.
//! - Every range touched lies in the map and was allocated in the file by the caller.
//! - The file is never shortened below what was published while it is mapped.
//! - After a copy the poison flag is read; a copy that met a bad page is an error, never data.
//!
//! It does not order writers and readers: who publishes an end with `Release` and loads it with
//! `Acquire` does.

#![expect(unsafe_code, reason = "copies in and out of a shared file map")]

use std::{fs::File, io, ptr};

use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;

use super::sigbus::{self, Registration};

/// A shared, writable map of one file.
#[derive(Debug)]
pub(super) struct Map {
    /// Declared before `raw` and so dropped first: a range is forgotten before it is unmapped.
    registration: Registration,
    raw: MmapRaw,
}

impl Map {
    /// Maps the first `bytes` of `file`, which may be shorter.
    ///
    /// # Errors
    /// When the kernel refuses the map, or more maps are open than the fault guard can watch.
    pub(super) fn new(file: &File, bytes: u64) -> io::Result<Map> {
        let len = usize::try_from(bytes).map_err(|_| Errno::NOMEM)?;
        Map::watched(MmapOptions::new().len(len).map_raw(file)?)
    }

    /// A map whose pages the fault guard watches.
    fn watched(raw: MmapRaw) -> io::Result<Map> {
        let registration = sigbus::watch(raw.as_ptr().addr(), raw.len())?;
        Ok(Map { registration, raw })
    }

    /// Copies `parts` one after another to `pos`.
    ///
    /// # Errors
    /// `EIO` when a page could not be reached now or earlier.
    pub(super) fn write(&self, pos: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.check()?;
        let mut at = self.index(pos, parts.iter().map(|part| part.len()).sum());
        for part in parts {
            // SAFETY: `index` checked that `at..at + part.len()` of this and all later parts lies in
            // the map, which lives as long as `self`. `part` is a live slice of process memory and
            // can not overlap the map, because no reference to mapped bytes is ever formed. The one
            // writer calls this, and readers stay below the end it has published, so no other
            // thread touches these bytes. A page that can not be reached is replaced by the fault
            // guard, so the copy always ends.
            unsafe {
                ptr::copy_nonoverlapping(part.as_ptr(), self.raw.as_mut_ptr().add(at), part.len())
            };
            at += part.len();
        }
        self.check()
    }

    /// Copies the bytes from `pos` into `buf`.
    ///
    /// # Errors
    /// `EIO` when a page could not be reached now or earlier; `buf` then holds no data.
    pub(super) fn read(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check()?;
        let at = self.index(pos, buf.len());
        // SAFETY: `index` checked that `at..at + buf.len()` lies in the map, which lives as long as
        // `self`; `buf` is exclusive process memory outside it. The caller asks only for published
        // bytes, which no one writes any more. A page that can not be reached is replaced by the
        // fault guard and found by `check` below.
        unsafe { ptr::copy_nonoverlapping(self.raw.as_ptr().add(at), buf.as_mut_ptr(), buf.len()) };
        self.check()
    }

    /// `EIO` once a page of the map could not be reached.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.registration.is_poisoned() { Err(Errno::IO.into()) } else { Ok(()) }
    }

    /// `pos` as an index of the map.
    ///
    /// # Panics
    /// When `pos..pos + len` does not lie in the map.
    fn index(&self, pos: u64, len: usize) -> usize {
        let at = usize::try_from(pos)
            .ok()
            .filter(|at| at.checked_add(len).is_some_and(|end| end <= self.raw.len()));
        at.expect("the caller checked the range against the file's length")
    }
}

#[cfg(test)]
mod tests;

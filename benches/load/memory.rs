//! Memory as a machine has it that has been up for a while: no page is free, and all are full of files that nobody needs.
//!
//! A guest gives its free pages back to its host where the two have agreed to (free page reporting), and to write to such a page again costs
//! many times what the copy does: what is measured is the host. After each removed data directory gigabytes are free, so whoever comes next
//! would pay. A sparse file is read until hardly a page is free: new pages then are old ones of it, which the kernel reclaims for next to nothing.
//!
//! Invariant: every server and every driver starts on memory in this state. It is no help to one of them: all get the same.

use std::{
    cell::Cell,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{error::Result, files, machine};

/// Bytes of one reading.
const PIECE: usize = 8 << 20;
/// One part of the memory in so many may be free.
const FREE_PART: u64 = 32;
/// The file is so many times the memory: readings hit parts of it that are not in memory.
const TIMES: u64 = 16;

/// The file, and how far it has been read.
#[derive(Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    file: File,
    bytes: u64,
    at: Cell<u64>,
}

impl Memory {
    /// With a sparse file at `path`, which takes no space of the disk and is removed at the end.
    pub(crate) fn new(path: &Path) -> Result<Memory> {
        let total = machine::memory("MemTotal")?;
        let file = files::create_to_read(path)?;
        file.set_len(total * TIMES)?;
        Ok(Memory { path: path.to_owned(), file, bytes: total, at: Cell::new(0) })
    }

    /// Reads until hardly a page is free, and at most as much as there is memory: a container may not get what the machine has.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut piece = vec![0; PIECE];
        let mut left = self.bytes;
        while left > 0 && machine::memory("MemFree")? > self.bytes / FREE_PART {
            self.file.read_exact_at(&mut piece, self.at.get())?;
            self.at.set((self.at.get() + PIECE as u64) % (self.bytes * (TIMES - 1)));
            left = left.saturating_sub(PIECE as u64);
        }
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // It takes no space; one that stays behind is removed by the next run.
        files::remove(&self.path).ok();
    }
}

//! One open file of the real disk.

use std::{
    fs::File,
    io::{self, IoSlice},
    num::NonZeroU64,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{Advice, FallocateFlags, fadvise},
    io::Errno,
};

use super::super::{
    DiskFile, OpenMode, check_append_limit, check_range, mmap::Map, open_for_append,
};

/// Gathered writes of this size and more go through `pwritev` even when the file is mapped.
const GATHER_BYTES_MIN: usize = 64 << 10;
/// Most parts of one `pwritev` (the kernel's `IOV_MAX`).
const PARTS_MAX: usize = 1024;
/// The system drops what it holds of a file by pages of this size or a power of two more.
const PAGE_BYTES: u64 = 4096;
/// Bytes written at a time where blocks can only be allocated by writing.
const ZEROS_BYTES: usize = 64 << 10;

/// An open file.
#[derive(Debug)]
pub(super) struct RealFile {
    file: File,
    /// Allocated length; changed by the one writer, after the blocks are there.
    len: AtomicU64,
    mode: OpenMode,
    /// The range up to the append limit, where the file system allows a map.
    map: Option<Map>,
}

impl RealFile {
    pub(super) fn new(file: File, len: u64, mode: OpenMode, map: Option<Map>) -> RealFile {
        RealFile { file, len: AtomicU64::new(len), mode, map }
    }

    fn check_map(&self) -> io::Result<()> {
        self.map.as_ref().map_or(Ok(()), Map::check)
    }

    /// `EIO` when something cut a file that is appended to: what is stored past its end is never kept, and
    /// allocating there would make a hole of what was lost.
    fn check_len(&self) -> io::Result<()> {
        // Before the file is asked: the writer may allocate beside a flush, and tells the length once the file has it.
        let allocated = self.len.load(Ordering::Acquire);
        let is_append = matches!(self.mode, OpenMode::Append { .. });
        let is_cut = is_append && self.file.metadata()?.len() < allocated;
        if is_cut { Err(Errno::IO.into()) } else { Ok(()) }
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.mode {
            OpenMode::Read | OpenMode::ReadUncached => Err(io::ErrorKind::PermissionDenied.into()),
            OpenMode::Write | OpenMode::CreateNew | OpenMode::Append { .. } => Ok(()),
        }
    }

    /// Writes zeros from `from` to `to`: allocates where `fallocate` is not supported.
    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut at = from;
        while at < to {
            let part = usize::try_from(to - at).map_or(ZEROS_BYTES, |left| left.min(ZEROS_BYTES));
            self.file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
        Ok(())
    }

    /// Reads past what the system holds of the range, and leaves nothing of it there. Pages that are mapped or not
    /// written back stay; they are not what lies on the medium anyway.
    fn read_uncached(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = pos - pos % PAGE_BYTES;
        let end = pos.saturating_add(buf.len() as u64).next_multiple_of(PAGE_BYTES);
        let Some(len) = NonZeroU64::new(end - start) else { return Ok(()) };
        // Where advice is not taken, the bytes come from memory as they do for other readers.
        let drop_range = || fadvise(&self.file, start, Some(len), Advice::DontNeed).ok();
        // Reading ahead would bring what the next read drops again.
        fadvise(&self.file, 0, None, Advice::Random).ok();
        drop_range();
        let read = self.file.read_exact_at(buf, pos);
        drop_range();
        read
    }

    fn allocate_blocks(&self, from: u64, to: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), from, to - from) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.write_zeros(from, to),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> u64 {
        match self.mode {
            OpenMode::Append { .. } => self.len.load(Ordering::Acquire),
            // Somebody else may be the writer; the length at open serves when the file can not be asked.
            OpenMode::Read | OpenMode::ReadUncached | OpenMode::Write | OpenMode::CreateNew => {
                self.file.metadata().map_or(self.len.load(Ordering::Acquire), |stat| stat.len())
            }
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.check_map()?;
        if let OpenMode::Append { bytes_max } = self.mode {
            check_append_limit(len, bytes_max)?;
        }
        let old = self.len();
        if len <= old {
            return Ok(());
        }
        self.check_len()?;
        if let Err(error) = self.allocate_blocks(old, len) {
            // A full ext4 leaves the file partly grown. No one has seen the bytes past the old
            // length, so cutting them off is safe under a map too.
            self.file.set_len(old)?;
            return Err(error);
        }
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn write_at(&self, pos: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.check_writable()?;
        check_range(pos, parts, self.len())?;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        match &self.map {
            Some(map) if total < GATHER_BYTES_MIN => map.write(pos, parts),
            Some(map) => {
                map.check()?;
                write_gathered(&self.file, pos, parts)
            }
            None => write_gathered(&self.file, pos, parts),
        }
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.mode == OpenMode::ReadUncached {
            return self.read_uncached(pos, buf);
        }
        let Some(map) = &self.map else { return self.file.read_exact_at(buf, pos) };
        let end = pos.checked_add(buf.len() as u64).filter(|end| *end <= self.len());
        if end.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        map.read(pos, buf)
    }

    fn sync(&self) -> io::Result<()> {
        // Bytes stored in a replaced page never reach the file, so a poisoned map is never durable:
        // asked again afterwards, because a store may have met the bad page meanwhile.
        self.check_map()?;
        rustix::fs::fdatasync(&self.file)?;
        self.check_len()?;
        self.check_map()
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstat(&self.file)?.st_nlink > 0)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        if matches!(self.mode, OpenMode::Append { .. }) {
            return Err(open_for_append());
        }
        self.file.set_len(len)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }
}

/// Writes the parts one after another from `pos`, however often the kernel stops short.
fn write_gathered(file: &File, pos: u64, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
    let mut left = slices.as_mut_slice();
    let mut at = pos;
    while !left.is_empty() {
        let count = left.len().min(PARTS_MAX);
        match rustix::io::pwritev(file, &left[..count], at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut left, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

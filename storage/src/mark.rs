//! The mark page: what is known durable, written after each flush without a flush of its own.
//!
//! ```text
//! two slots of 512 B, written in turn:
//! 0 magic u64 | 8 version u32 | 12 crc u32 (over 16..64) | 16 seq u64 | 24 flags u32 (1 = clean) | 28 chain u32
//! 32 flushed offset u64 | 40 segment base u64 | 48 position u64 | 56 zeros
//! ```
//!
//! Invariants:
//! - Everything below `position` of the segment `segment base`, and all segments before it, is durable.
//! - While a *clean* mark is the newest, nothing was appended after it: the first append after one
//!   writes a mark that is not clean before it writes anything else.
//!
//! Exact after the death of the process. After a power loss it may be an older one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use riverrun_proto::Offset;

use crate::{
    IoFailure,
    disk::{Disk, DiskFile, OpenMode},
    fixed::{crc32, put, u32_at, u64_at},
    paths,
};

/// First eight bytes of a slot.
const MAGIC: &[u8; 8] = b"RIVERMRK";
/// Layout of a slot.
const VERSION: u32 = 1;
/// Bytes of a slot: one sector, which a disk writes whole or not at all.
const SLOT_BYTES: usize = 512;
/// Bytes that the checksum covers end here.
const BODY_END: usize = 64;
/// No slot that was written has a higher number: one a nanosecond would take centuries.
const SEQ_MAX: u64 = u64::MAX >> 1;
/// Bytes of the file.
const FILE_BYTES: u64 = 2 * SLOT_BYTES as u64;

/// What one slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// True when nothing was appended after it.
    pub(crate) clean: bool,
    /// Everything below is durable.
    pub(crate) flushed: Offset,
    /// Base offset of the segment that holds `pos`.
    pub(crate) segment_base: Offset,
    /// Byte position in that segment up to which it is durable.
    pub(crate) pos: u64,
    /// Header crc of the entry that ends at `pos`, or of the header block.
    pub(crate) chain: u32,
}

impl Mark {
    /// One slot.
    fn encode(&self, seq: u64) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        put(&mut slot, 0, MAGIC);
        put(&mut slot, 8, &VERSION.to_le_bytes());
        put(&mut slot, 16, &seq.to_le_bytes());
        put(&mut slot, 24, &u32::from(self.clean).to_le_bytes());
        put(&mut slot, 28, &self.chain.to_le_bytes());
        put(&mut slot, 32, &self.flushed.0.to_le_bytes());
        put(&mut slot, 40, &self.segment_base.0.to_le_bytes());
        put(&mut slot, 48, &self.pos.to_le_bytes());
        let crc = crc32(&slot[16..BODY_END]);
        put(&mut slot, 12, &crc.to_le_bytes());
        slot
    }

    /// The sequence number and mark in `slot`, or `None` when it is not a valid one.
    fn decode(slot: &[u8]) -> Option<(u64, Mark)> {
        let valid = slot.starts_with(MAGIC)
            && u32_at(slot, 8) == VERSION
            && crc32(&slot[16..BODY_END]) == u32_at(slot, 12)
            && u64_at(slot, 16) <= SEQ_MAX;
        let mark = Mark {
            clean: u32_at(slot, 24) == 1,
            chain: u32_at(slot, 28),
            flushed: Offset(u64_at(slot, 32)),
            segment_base: Offset(u64_at(slot, 40)),
            pos: u64_at(slot, 48),
        };
        valid.then(|| (u64_at(slot, 16), mark))
    }
}

/// The mark file of one log.
#[derive(Debug)]
pub(crate) struct MarkPage {
    /// Where it is.
    path: PathBuf,
    /// Opened at the first write.
    file: Option<Arc<dyn DiskFile>>,
    /// Sequence number of the newest slot.
    seq: u64,
    /// What the newest slot says.
    newest: Option<Mark>,
    /// True while a power loss may bring a clean mark back: one was written, and no sync since covered a
    /// later mark that is not clean.
    clean_may_return: bool,
}

impl MarkPage {
    /// Reads the page of the log in `dir`; a missing or damaged one says nothing.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<MarkPage, IoFailure> {
        let path = dir.join(paths::MARK);
        let mut page = MarkPage { path, file: None, seq: 0, newest: None, clean_may_return: false };
        let file = match disk.open(&page.path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(page),
            Err(error) => return Err(IoFailure::new("open", &page.path, error)),
        };
        let mut slots = vec![0; 2 * SLOT_BYTES];
        let len = usize::try_from(file.len()).unwrap_or(usize::MAX).min(slots.len());
        file.read_at(0, &mut slots[..len])
            .map_err(|error| IoFailure::new("read", &page.path, error))?;
        let newest = slots.chunks(SLOT_BYTES).filter_map(Mark::decode).max_by_key(|(seq, _)| *seq);
        if let Some((seq, mark)) = newest {
            page.seq = seq;
            page.newest = Some(mark);
            page.clean_may_return = mark.clean;
        }
        Ok(page)
    }

    /// What the newest slot says.
    pub(crate) fn newest(&self) -> Option<Mark> {
        self.newest
    }

    /// Writes `mark` into the older slot. True when the file was created for it.
    pub(crate) fn write(&mut self, disk: &dyn Disk, mark: Mark) -> Result<bool, IoFailure> {
        let mut created = false;
        if self.file.is_none() {
            let opened;
            (opened, created) = self.open(disk)?;
            self.file = Some(opened);
        }
        let file = self.file.as_ref().expect("opened above");
        let seq = self.seq + 1;
        let pos = (seq % 2) * SLOT_BYTES as u64;
        file.write_at(pos, &[&mark.encode(seq)])
            .map_err(|error| IoFailure::new("write", &self.path, error))?;
        self.seq = seq;
        self.newest = Some(mark);
        self.clean_may_return |= mark.clean;
        Ok(created)
    }

    /// Makes the newest slot durable.
    pub(crate) fn sync(&mut self) -> Result<(), IoFailure> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync().map_err(|error| IoFailure::new("sync", &self.path, error))?;
        self.clean_may_return = self.newest.is_some_and(|mark| mark.clean);
        Ok(())
    }

    /// Makes it durable that the log is not clean any more, unless it is already, or still clean.
    pub(crate) fn sync_if_clean_may_return(&mut self) -> Result<(), IoFailure> {
        let is_clean = self.newest.is_some_and(|mark| mark.clean);
        if self.clean_may_return && !is_clean { self.sync() } else { Ok(()) }
    }

    /// Opens the file for writing, creating it when absent. True when it was created.
    fn open(&self, disk: &dyn Disk) -> Result<(Arc<dyn DiskFile>, bool), IoFailure> {
        let opened = match disk.open(&self.path, OpenMode::Write) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                disk.open(&self.path, OpenMode::CreateNew).map(|file| (file, true))
            }
            other => other.map(|file| (file, false)),
        };
        let (file, created) = opened.map_err(|error| IoFailure::new("open", &self.path, error))?;
        if file.len() < FILE_BYTES {
            file.allocate(FILE_BYTES)
                .map_err(|error| IoFailure::new("allocate", &self.path, error))?;
        }
        Ok((file, created))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_back_and_damage_is_refused() {
        let mark = Mark {
            clean: true,
            flushed: Offset(77),
            segment_base: Offset(50),
            pos: 9_000,
            chain: 4,
        };
        let slot = mark.encode(12);
        assert_eq!(Mark::decode(&slot), Some((12, mark)));
        for bit in 0..BODY_END * 8 {
            let mut bad = slot;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::decode(&bad), None, "bit {bit}");
        }
    }
}

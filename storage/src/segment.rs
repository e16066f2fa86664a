//! One segment of a log, as its readers see it: a file, how much of it is published, and an index.
//!
//! ```text
//! active --(seal entry, successor made)--> sealed --(flushed)--> closed <--> open for reading
//! ```
//!
//! Invariants:
//! - Bytes below `end_pos` are written and never change; nothing at or past it is ever read.
//! - The file stays open through one handle until all of it is flushed, so that no write-back error of it
//!   is missed; only then is the handle let go and the file opened anew for readers, who read it with calls.
//! - The index is derived: of a sealed segment it is loaded when first needed and dropped with the file.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use riverrun_proto::Offset;

use crate::{
    IoFailure, Timestamp,
    disk::{Disk, DiskFile, OpenMode},
    format::{HEADER_BLOCK_BYTES, SegmentFacts, SegmentHeader},
    index::{IndexKey, SparseIndex},
    paths,
    scan::{ChunkReader, Place, Scanner},
    segment_read::behind,
    state::read_small,
};

/// The file behind a segment.
#[derive(Debug)]
enum SegmentFile {
    /// Written by this process: mapped where the disk can, kept until all of it is flushed.
    Writable(Arc<dyn DiskFile>),
    /// Opened for readers.
    Readable(Arc<dyn DiskFile>),
    /// Opened for readers and not closed before the segment goes: its name belongs to another file.
    Pinned(Arc<dyn DiskFile>),
    /// Not open.
    Closed,
}

/// One segment. Shared by the writer, the flusher and all readers of a log.
#[derive(Debug)]
pub(crate) struct Segment {
    /// First offset. Constant.
    pub(crate) base: Offset,
    /// The file. Constant.
    pub(crate) path: PathBuf,
    /// Its header block. Constant.
    pub(crate) header: SegmentHeader,
    /// Checksum of the header block: what the first entry holds. Constant.
    pub(crate) header_crc: u32,
    /// Salt of its entries. Constant.
    pub(crate) salt: u64,
    /// Bytes between two points of its index. Constant.
    pub(crate) index_interval_bytes: u64,
    /// Position up to which entries are published. Moved by the writer.
    end_pos: AtomicU64,
    /// First offset past the published entries. Moved by the writer.
    end_offset: AtomicU64,
    /// Header crc of the last entry, once nothing is appended any more.
    chain: AtomicU64,
    /// Largest timestamp published, in milliseconds. Moved by the writer.
    max_timestamp_ms: AtomicI64,
    /// Append time of the newest entry, in milliseconds. Moved by the writer.
    last_append_time_ms: AtomicI64,
    /// True once nothing is appended any more.
    sealed: AtomicBool,
    /// Position up to which the file is flushed. Moved by the flusher.
    flushed_pos: AtomicU64,
    /// The file; changed by the flusher (let go) and readers (opened, closed).
    file: Mutex<SegmentFile>,
    /// The index; always there while the segment is active.
    index: RwLock<Option<SparseIndex>>,
}

impl Segment {
    /// The segment whose header block `header` has checksum `header_crc`, without entries.
    pub(crate) fn new(
        path: PathBuf,
        (header, header_crc): (SegmentHeader, u32),
        index_interval_bytes: u32,
    ) -> Segment {
        Segment {
            base: header.base,
            path,
            salt: header.salt(),
            header_crc,
            index_interval_bytes: u64::from(index_interval_bytes),
            end_pos: AtomicU64::new(HEADER_BLOCK_BYTES as u64),
            end_offset: AtomicU64::new(header.base.0),
            chain: AtomicU64::new(u64::from(header_crc)),
            max_timestamp_ms: AtomicI64::new(Timestamp::MIN.0),
            last_append_time_ms: AtomicI64::new(Timestamp::MIN.0),
            sealed: AtomicBool::new(false),
            flushed_pos: AtomicU64::new(0),
            file: Mutex::new(SegmentFile::Closed),
            index: RwLock::new(None),
            header,
        }
    }

    /// Says that the segment is finished: it ends at `end_pos` with `chain`, holds `facts`, and all of
    /// that is flushed.
    pub(crate) fn set_finished(&self, end_pos: u64, chain: u32, facts: &SegmentFacts) {
        self.publish(end_pos, facts);
        self.set_sealed(chain);
        self.set_flushed_pos(end_pos);
    }

    /// Publishes entries up to `end_pos`, which are written; the segment now holds `facts`.
    pub(crate) fn publish(&self, end_pos: u64, facts: &SegmentFacts) {
        self.max_timestamp_ms.store(facts.max_timestamp.0, Ordering::Relaxed);
        self.last_append_time_ms.store(facts.last_append_time.0, Ordering::Relaxed);
        self.end_offset.store(facts.end_offset.0, Ordering::Release);
        self.end_pos.store(end_pos, Ordering::Release);
    }

    /// Says that nothing is appended any more; the last entry's header crc is `chain`.
    pub(crate) fn set_sealed(&self, chain: u32) {
        self.chain.store(u64::from(chain), Ordering::Release);
        self.sealed.store(true, Ordering::Release);
    }

    /// Notes the header crc of the last entry, for the index file.
    pub(crate) fn set_chain(&self, chain: u32) {
        self.chain.store(u64::from(chain), Ordering::Release);
    }

    /// Header crc of the last entry, once nothing is appended any more.
    pub(crate) fn chain(&self) -> u32 {
        u32::try_from(self.chain.load(Ordering::Acquire)).expect("stored from 32 bits")
    }

    /// True once nothing is appended any more.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Position up to which entries are published.
    pub(crate) fn end_pos(&self) -> u64 {
        self.end_pos.load(Ordering::Acquire)
    }

    /// First offset past the published entries.
    pub(crate) fn end_offset(&self) -> Offset {
        Offset(self.end_offset.load(Ordering::Acquire))
    }

    /// Largest timestamp of its records.
    pub(crate) fn max_timestamp(&self) -> Timestamp {
        Timestamp(self.max_timestamp_ms.load(Ordering::Relaxed))
    }

    /// Append time of its newest entry; the creation time when it holds none.
    pub(crate) fn last_append_time(&self) -> Timestamp {
        let newest = Timestamp(self.last_append_time_ms.load(Ordering::Relaxed));
        if newest == Timestamp::MIN { self.header.created } else { newest }
    }

    /// Position up to which the file is flushed.
    pub(crate) fn flushed_pos(&self) -> u64 {
        self.flushed_pos.load(Ordering::Acquire)
    }

    /// Says that the file is flushed up to `pos`.
    pub(crate) fn set_flushed_pos(&self, pos: u64) {
        self.flushed_pos.store(pos, Ordering::Release);
    }

    /// Where its first entry begins.
    pub(crate) fn first_place(&self) -> Place {
        let pos = HEADER_BLOCK_BYTES as u64;
        Place { pos, offset: self.base, chain: self.header_crc }
    }

    /// Gives the segment the handle it is written through, and its index.
    pub(crate) fn set_writable(&self, file: Arc<dyn DiskFile>, index: SparseIndex) {
        *self.file.lock() = SegmentFile::Writable(file);
        *self.index.write() = Some(index);
    }

    /// The handle it is written through, unless all of it is flushed and the handle was let go.
    pub(crate) fn writable(&self) -> Option<Arc<dyn DiskFile>> {
        match &*self.file.lock() {
            SegmentFile::Writable(file) => Some(file.clone()),
            SegmentFile::Readable(_) | SegmentFile::Pinned(_) | SegmentFile::Closed => None,
        }
    }

    /// Lets the file go when nothing of it is left to be flushed. True when it was open for readers.
    pub(crate) fn close(&self) -> bool {
        if !self.is_sealed() || self.flushed_pos() < self.end_pos() {
            return false;
        }
        let mut held = self.file.lock();
        if matches!(&*held, SegmentFile::Pinned(_)) {
            return false;
        }
        let file = std::mem::replace(&mut *held, SegmentFile::Closed);
        drop(held);
        *self.index.write() = None;
        matches!(file, SegmentFile::Readable(_))
    }

    /// Opens the file and keeps it open for as long as the segment is held: its name is about to go to
    /// another file.
    pub(crate) fn pin(&self, disk: &dyn Disk) -> Result<(), IoFailure> {
        let mut held = self.file.lock();
        let file = match &*held {
            SegmentFile::Pinned(_) => return Ok(()),
            SegmentFile::Writable(file) | SegmentFile::Readable(file) => file.clone(),
            SegmentFile::Closed => self.open_to_read(disk)?,
        };
        *held = SegmentFile::Pinned(file);
        Ok(())
    }

    /// The file for a reader, and whether it had to be opened.
    pub(crate) fn file(&self, disk: &dyn Disk) -> Result<(Arc<dyn DiskFile>, bool), IoFailure> {
        let mut held = self.file.lock();
        match &*held {
            SegmentFile::Writable(file)
            | SegmentFile::Readable(file)
            | SegmentFile::Pinned(file) => Ok((file.clone(), false)),
            SegmentFile::Closed => {
                let file = self.open_to_read(disk)?;
                *held = SegmentFile::Readable(file.clone());
                Ok((file, true))
            }
        }
    }

    /// Another handle of a file that is read through the one it is written through.
    pub(crate) fn reopen(&self, disk: &dyn Disk) -> Result<Option<Arc<dyn DiskFile>>, IoFailure> {
        self.writable().map(|_| self.open_to_read(disk)).transpose()
    }

    fn open_to_read(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, IoFailure> {
        let opened = disk.open(&self.path, OpenMode::Read);
        opened.map_err(|error| IoFailure::new("open", &self.path, error))
    }

    /// Adds a point to the index of the active segment.
    pub(crate) fn add_point(&self, offset: Offset, pos: u64, max_timestamp_before: Timestamp) {
        if let Some(index) = self.index.write().as_mut() {
            index.push(offset, pos, max_timestamp_before);
        }
    }

    /// Looks something up in the index, which is loaded or rebuilt when it is not in memory.
    pub(crate) fn with_index<T>(
        &self,
        disk: &dyn Disk,
        file: &dyn DiskFile,
        look_up: impl FnOnce(&SparseIndex) -> T,
    ) -> Result<T, IoFailure> {
        if let Some(index) = self.index.read().as_ref() {
            return Ok(look_up(index));
        }
        let loaded = match self.load_index(disk)? {
            Some((index, _)) => index,
            None => self.rebuild_index(file)?,
        };
        let found = look_up(&loaded);
        *self.index.write() = Some(loaded);
        Ok(found)
    }

    /// The stored index and facts, when the file is there and describes the segment as it is.
    pub(crate) fn load_index(
        &self,
        disk: &dyn Disk,
    ) -> Result<Option<(SparseIndex, SegmentFacts)>, IoFailure> {
        let dir = self.path.parent().unwrap_or(&self.path);
        let Some(bytes) = read_small(disk, &paths::index(dir, self.base))? else {
            return Ok(None);
        };
        let key = IndexKey { base: self.base, end_pos: self.end_pos(), chain: self.chain() };
        Ok(SparseIndex::decode(&bytes, key, HEADER_BLOCK_BYTES as u64))
    }

    /// Builds the index from the entry headers. Damage is stepped over.
    pub(crate) fn rebuild_index(&self, file: &dyn DiskFile) -> Result<SparseIndex, IoFailure> {
        let failed = |error| IoFailure::new("read", &self.path, error);
        let mut builder = IndexBuilder::new(self);
        let mut place = self.first_place();
        loop {
            let reader = ChunkReader::new(file, self.end_pos());
            let mut scanner = Scanner::new(reader, self.salt, place).headers_only();
            while let Some(entry) = scanner.next().map_err(failed)? {
                builder.add(entry.header.base_offset, entry.pos, entry.header.max_timestamp);
            }
            let Place { pos, offset, .. } = scanner.place();
            let next = scanner.reader.find_entry_from(pos + 1, self.salt, behind(offset));
            let Some(next) = next.map_err(failed)? else { return Ok(builder.index) };
            builder.bytes = u64::MAX;
            let (offset, chain) = (next.header.base_offset, next.header.previous_crc);
            place = Place { pos: next.pos, offset, chain };
        }
    }

    /// Bytes of memory its index holds.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.read().as_ref().map_or(0, SparseIndex::memory_bytes)
    }

    /// The index file that describes the finished segment, which holds `facts`.
    pub(crate) fn encode_index(&self, facts: &SegmentFacts) -> Option<Vec<u8>> {
        let chain = self.chain();
        self.index.read().as_ref().map(|index| index.encode(self.end_pos(), chain, facts))
    }
}

/// Decides where points stand.
#[derive(Debug)]
pub(crate) struct IndexBuilder {
    /// The points so far.
    pub(crate) index: SparseIndex,
    /// Bytes between two points.
    interval: u64,
    /// Bytes since the last point.
    bytes: u64,
    /// Position of the entry added last.
    last_pos: u64,
    /// Largest timestamp so far.
    max_timestamp: Timestamp,
}

impl IndexBuilder {
    /// A builder for `segment` as it begins.
    pub(crate) fn new(segment: &Segment) -> IndexBuilder {
        let first = HEADER_BLOCK_BYTES as u64;
        IndexBuilder {
            index: SparseIndex::new(segment.base, first),
            interval: segment.index_interval_bytes,
            bytes: 0,
            last_pos: first,
            max_timestamp: Timestamp::MIN,
        }
    }

    /// Takes in the next entry.
    pub(crate) fn add(&mut self, offset: Offset, pos: u64, max_timestamp: Timestamp) {
        self.bytes = self.bytes.saturating_add(pos - self.last_pos);
        self.last_pos = pos;
        if self.bytes >= self.interval {
            self.index.push(offset, pos, self.max_timestamp);
            self.bytes = 0;
        }
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
    }
}

//! Walks the entries of a segment file and stops at the first place where the chain breaks.
//!
//! Invariant: an entry is reported only when its header checksum holds, its salt is the segment's, it
//! continues chain and offsets from the entry before it, and (when asked for) its payload holds.
//! It never reads past `end` and judges nothing: what a break means is decided by whoever scans.

use std::io;

use riverrun_proto::{Offset, batch::BatchHeader};

use crate::{
    disk::DiskFile,
    fixed::crc32,
    format::{ENTRY_BYTES, EntryHeader, EntryKind, entry::ENTRY_ALIGN},
};

/// Bytes read ahead at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// A file read in chunks, up to `end`.
#[derive(Debug)]
pub(crate) struct ChunkReader<'a> {
    /// The file.
    file: &'a dyn DiskFile,
    /// Nothing at or past this position is read.
    end: u64,
    /// Bytes from `start`.
    buffer: Vec<u8>,
    /// Position of the buffer's first byte.
    start: u64,
    /// Bytes read from the file so far.
    fetched: u64,
}

impl<'a> ChunkReader<'a> {
    /// Reads `file` up to `end`, or to its length when that is less.
    pub(crate) fn new(file: &'a dyn DiskFile, end: u64) -> ChunkReader<'a> {
        ChunkReader { file, end: end.min(file.len()), buffer: Vec::new(), start: 0, fetched: 0 }
    }

    /// First position that is not read.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes read from the file so far, those that were read twice counted twice.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched
    }

    /// The `len` bytes at `pos`, or `None` when they go past the end.
    pub(crate) fn bytes(&mut self, pos: u64, len: usize) -> io::Result<Option<&[u8]>> {
        let left = self.end.saturating_sub(pos);
        if (len as u64) > left {
            return Ok(None);
        }
        let held = self.start..self.start + self.buffer.len() as u64;
        if pos < held.start || pos + len as u64 > held.end {
            let ahead = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            self.buffer.clear();
            self.buffer.resize(ahead.max(len), 0);
            self.start = pos;
            if let Err(error) = self.file.read_at(pos, &mut self.buffer) {
                self.buffer.clear();
                return Err(error);
            }
            self.fetched += self.buffer.len() as u64;
        }
        let at = usize::try_from(pos - self.start).expect("a place in the buffer");
        Ok(Some(&self.buffer[at..at + len]))
    }

    /// True when every byte from `pos` to the end is zero.
    pub(crate) fn is_zero_from(&mut self, pos: u64) -> io::Result<bool> {
        Ok(self.last_non_zero(pos)?.is_none())
    }

    /// End of the last entry with `salt` at or past `pos`; nothing else there is of this segment.
    pub(crate) fn last_entry_end(&mut self, mut pos: u64, salt: u64) -> io::Result<Option<u64>> {
        let mut last = None;
        while let Some(entry) = self.find_entry(pos, salt)? {
            pos = entry.pos + entry.header.stride();
            last = Some(pos);
        }
        Ok(last)
    }

    /// End of the last non-zero byte at or past `pos`.
    pub(crate) fn last_non_zero(&mut self, mut pos: u64) -> io::Result<Option<u64>> {
        let mut last = None;
        while pos < self.end {
            let len = usize::try_from(self.end - pos).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let bytes = self.bytes(pos, len)?.expect("cut to the end");
            if let Some(at) = bytes.iter().rposition(|byte| *byte != 0) {
                last = Some(pos + at as u64 + 1);
            }
            pos += len as u64;
        }
        Ok(last)
    }

    /// The valid entry header at `pos` that carries `salt`.
    pub(crate) fn entry_at(
        &mut self,
        pos: u64,
        salt: u64,
    ) -> io::Result<Option<(EntryHeader, u32)>> {
        let Some(bytes) = self.bytes(pos, ENTRY_BYTES)? else { return Ok(None) };
        if !EntryHeader::looks_like(bytes) {
            return Ok(None);
        }
        let block = bytes.try_into().expect("as long as an entry header");
        let found = EntryHeader::decode(block).filter(|(header, _)| header.salt == salt);
        let end = |header: &EntryHeader| pos + ENTRY_BYTES as u64 + u64::from(header.length);
        Ok(found.filter(|(header, _)| end(header) <= self.end))
    }

    /// True when the header of an entry with `salt` stands at `pos`, wherever its payload may end.
    pub(crate) fn entry_begins_at(&mut self, pos: u64, salt: u64) -> io::Result<bool> {
        let Some(bytes) = self.bytes(pos, ENTRY_BYTES)? else { return Ok(false) };
        let block = bytes.try_into().expect("as long as an entry header");
        Ok(EntryHeader::decode(block).is_some_and(|(header, _)| header.salt == salt))
    }

    /// The first valid entry with `salt` at or past `pos`, whatever stands before it.
    pub(crate) fn find_entry(&mut self, pos: u64, salt: u64) -> io::Result<Option<Scanned>> {
        let mut pos = pos.next_multiple_of(ENTRY_ALIGN);
        while pos + ENTRY_BYTES as u64 <= self.end {
            if let Some((header, crc)) = self.entry_at(pos, salt)? {
                return Ok(Some(Scanned { pos, header, crc }));
            }
            pos += ENTRY_ALIGN;
        }
        Ok(None)
    }

    /// The payload of the entry at `pos`, unless it goes past the end.
    pub(crate) fn payload(&mut self, pos: u64, header: &EntryHeader) -> io::Result<Option<&[u8]>> {
        let len = usize::try_from(header.length).expect("a length fits memory");
        self.bytes(pos + ENTRY_BYTES as u64, len)
    }

    /// The entry at `pos` when it begins with offset `expected`. Another one does not belong there: a write that went
    /// to the wrong place put it there.
    pub(crate) fn entry_of(
        &mut self,
        pos: u64,
        salt: u64,
        expected: Offset,
    ) -> io::Result<Option<(EntryHeader, u32)>> {
        Ok(self.entry_at(pos, salt)?.filter(|(header, _)| header.base_offset == expected))
    }

    /// Where entries go on behind damage: the first valid entry with `salt` at or past `pos` that does not go back before offset
    /// `expected`, and that no entry behind it goes back before. Others came there by a write to a wrong place.
    pub(crate) fn find_entry_from(
        &mut self,
        mut pos: u64,
        salt: u64,
        expected: Offset,
    ) -> io::Result<Option<Scanned>> {
        let mut first: Option<Scanned> = None;
        while let Some(found) = self.find_entry(pos, salt)? {
            pos = found.pos + ENTRY_ALIGN;
            if found.header.base_offset < expected {
                continue;
            }
            let leads = |first: &Scanned| first.header.base_offset < found.header.base_offset;
            if self.is_followed(&found, salt)? {
                return Ok(first.filter(leads).or(Some(found)));
            }
            // Nobody speaks for it; of several the lowest is right, as far as can be told.
            first = first.filter(leads).or(Some(found));
        }
        Ok(first)
    }

    /// True when the entry right behind `found` continues its chain.
    fn is_followed(&mut self, found: &Scanned, salt: u64) -> io::Result<bool> {
        let next = self.entry_at(found.pos + found.header.stride(), salt)?;
        Ok(next.is_some_and(|(header, _)| header.previous_crc == found.crc))
    }

    /// True when the payload of the entry at `pos` is what its header says.
    pub(crate) fn payload_holds(&mut self, pos: u64, header: &EntryHeader) -> io::Result<bool> {
        let payload = self.payload(pos, header)?;
        Ok(payload.is_some_and(|payload| payload_holds(header, payload)))
    }
}

/// True when `payload` is what `header` says.
pub(crate) fn payload_holds(header: &EntryHeader, payload: &[u8]) -> bool {
    if header.kind != EntryKind::Records {
        return crc32(payload) == header.payload_crc;
    }
    BatchHeader::check(payload).is_ok_and(|batch| {
        batch.crc == header.payload_crc
            && batch.base_offset == header.base_offset
            && batch.span() == u64::from(header.count)
            && batch.leader_epoch == header.leader_epoch
    })
}

/// One entry met by a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Where it begins.
    pub(crate) pos: u64,
    /// Its header.
    pub(crate) header: EntryHeader,
    /// Checksum of its header: what the next entry must hold.
    pub(crate) crc: u32,
}

/// Where a scan stands: what the next entry must continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where the next entry begins.
    pub(crate) pos: u64,
    /// Its base offset.
    pub(crate) offset: Offset,
    /// The header crc it must hold.
    pub(crate) chain: u32,
}

/// A walk along the chain.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    /// The file.
    pub(crate) reader: ChunkReader<'a>,
    /// Salt of the segment.
    salt: u64,
    /// What the next entry must continue.
    place: Place,
    /// True when payloads are read and checked too.
    payloads: bool,
}

impl<'a> Scanner<'a> {
    /// Walks on from `place`, checking headers and payloads.
    pub(crate) fn new(reader: ChunkReader<'a>, salt: u64, place: Place) -> Scanner<'a> {
        Scanner { reader, salt, place, payloads: true }
    }

    /// Walks headers only.
    pub(crate) fn headers_only(self) -> Scanner<'a> {
        Scanner { payloads: false, ..self }
    }

    /// Where the walk stands.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// The next entry, or `None` where the chain breaks.
    pub(crate) fn next(&mut self) -> io::Result<Option<Scanned>> {
        let Place { pos, offset, chain } = self.place;
        let Some((header, crc)) = self.reader.entry_at(pos, self.salt)? else { return Ok(None) };
        if header.previous_crc != chain || header.base_offset != offset {
            return Ok(None);
        }
        if self.payloads && !self.reader.payload_holds(pos, &header)? {
            return Ok(None);
        }
        self.place = Place { pos: pos + header.stride(), offset: header.end_offset(), chain: crc };
        Ok(Some(Scanned { pos, header, crc }))
    }
}

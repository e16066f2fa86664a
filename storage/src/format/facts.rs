//! What a finished segment holds: written in its seal and again in the header of its successor.
//!
//! ```text
//! 0 record count u64 | 8 end offset u64 | 16 entry bytes u64 | 24 max timestamp ms i64
//! 32 last append time ms i64 | 40 crc32 of all entry header crcs u32 | 44 zero u32
//! ```
//!
//! The facts count everything before the seal and not the seal itself. With them a start needs no scan
//! to know sizes, times and offsets of sealed segments.

use riverrun_proto::Offset;

use super::entry::{EntryHeader, stride};
use crate::{
    Timestamp,
    fixed::{i64_at, put, u32_at, u64_at},
};

/// Bytes of encoded facts.
pub(crate) const FACTS_BYTES: usize = 48;
/// Bytes of a seal entry in the file.
pub(crate) const SEAL_BYTES: u64 = stride_of_seal();

/// [`stride`] for the seal, at compile time.
const fn stride_of_seal() -> u64 {
    let bytes = super::entry::ENTRY_BYTES + FACTS_BYTES;
    assert!(bytes.is_multiple_of(8), "a seal needs no padding");
    bytes as u64
}

/// Sums over the entries of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    /// Offsets covered by its entries.
    pub(crate) record_count: u64,
    /// First offset past it.
    pub(crate) end_offset: Offset,
    /// Bytes of its entries, padding included.
    pub(crate) entry_bytes: u64,
    /// Largest timestamp of its records; the earliest moment when there are none.
    pub(crate) max_timestamp: Timestamp,
    /// Append time of its last entry; the earliest moment when there are none.
    pub(crate) last_append_time: Timestamp,
    /// Checksum over all entry header crcs in order.
    pub(crate) headers_crc: u32,
}

impl SegmentFacts {
    /// Facts of a segment without entries.
    pub(crate) fn empty(base: Offset) -> SegmentFacts {
        SegmentFacts {
            record_count: 0,
            end_offset: base,
            entry_bytes: 0,
            max_timestamp: Timestamp::MIN,
            last_append_time: Timestamp::MIN,
            headers_crc: 0,
        }
    }

    /// Counts one more entry, whose header crc is `crc`.
    pub(crate) fn add(&mut self, header: &EntryHeader, crc: u32) {
        self.record_count += u64::from(header.count);
        self.end_offset = header.end_offset();
        self.entry_bytes += stride(u64::from(header.length));
        if header.count > 0 {
            self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        }
        self.last_append_time = self.last_append_time.max(header.append_time);
        let mut hasher = crc32fast::Hasher::new_with_initial(self.headers_crc);
        hasher.update(&crc.to_le_bytes());
        self.headers_crc = hasher.finalize();
    }

    /// The 48 bytes.
    pub(crate) fn encode(&self) -> [u8; FACTS_BYTES] {
        let mut block = [0; FACTS_BYTES];
        put(&mut block, 0, &self.record_count.to_le_bytes());
        put(&mut block, 8, &self.end_offset.0.to_le_bytes());
        put(&mut block, 16, &self.entry_bytes.to_le_bytes());
        put(&mut block, 24, &self.max_timestamp.0.to_le_bytes());
        put(&mut block, 32, &self.last_append_time.0.to_le_bytes());
        put(&mut block, 40, &self.headers_crc.to_le_bytes());
        block
    }

    /// The facts in `block`; its checksum was checked by whoever holds it.
    pub(crate) fn decode(block: &[u8; FACTS_BYTES]) -> SegmentFacts {
        SegmentFacts {
            record_count: u64_at(block, 0),
            end_offset: Offset(u64_at(block, 8)),
            entry_bytes: u64_at(block, 16),
            max_timestamp: Timestamp(i64_at(block, 24)),
            last_append_time: Timestamp(i64_at(block, 32)),
            headers_crc: u32_at(block, 40),
        }
    }
}

//! The header of one entry: 96 bytes in front of each payload, with a checksum of its own.
//!
//! ```text
//!  0 magic u32 | 4 header crc u32 (over 8..96) | 8 version u8 | 9 kind u8 | 10 flags u16 | 12 length u32
//! 16 base offset u64 | 24 count u32 | 28 leader epoch u32 | 32 durable_upto u64
//! 40 append time ms i64 | 48 max timestamp ms i64 | 56 term u64 | 64 log index u64 | 72 leader node u32
//! 76 payload crc u32 | 80 salt u64 | 88 previous entry's header crc u32 | 92 zero u32
//! ```
//!
//! Invariants: a length is believed only after the header crc held; an entry belongs to a segment only
//! when its salt is the segment's and its previous crc is the predecessor's header crc.

use riverrun_proto::{LeaderEpoch, Offset};

use crate::{
    Timestamp,
    fixed::{crc32, i64_at, put, u32_at, u64_at},
    planted::{Bug, planted},
    state::is_reachable,
};

/// Bytes of an entry header.
pub(crate) const ENTRY_BYTES: usize = 96;
/// Every entry begins at a multiple of this.
pub(crate) const ENTRY_ALIGN: u64 = 8;
/// First four bytes of an entry: `RRen`.
const MAGIC: u32 = u32::from_le_bytes(*b"RRen");
/// Layout of this header.
const VERSION: u8 = 1;

/// What an entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// One record batch.
    Records,
    /// The last entry of a sealed segment; its payload is [`super::SegmentFacts`].
    Seal,
    /// Something of the replicated log; readers skip it.
    Control,
    /// Offsets whose records compaction removed.
    Gap,
    /// Offsets whose records were lost, and which a repair gave up; no payload.
    Lost,
}

impl EntryKind {
    /// All of them.
    const ALL: [EntryKind; 5] =
        [EntryKind::Records, EntryKind::Seal, EntryKind::Control, EntryKind::Gap, EntryKind::Lost];

    /// Its byte.
    fn code(self) -> u8 {
        match self {
            EntryKind::Records => 1,
            EntryKind::Seal => 2,
            EntryKind::Control => 3,
            EntryKind::Gap => 4,
            EntryKind::Lost => 5,
        }
    }

    /// True when such an entry may cover offsets. A copy leaves out the others.
    fn covers_offsets(self) -> bool {
        match self {
            EntryKind::Records | EntryKind::Gap | EntryKind::Lost => true,
            EntryKind::Seal | EntryKind::Control => false,
        }
    }

    /// The kind of a byte.
    fn of(code: u8) -> Option<EntryKind> {
        EntryKind::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// The decoded header of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    /// What the payload is.
    pub(crate) kind: EntryKind,
    /// Bytes of payload.
    pub(crate) length: u32,
    /// First offset covered.
    pub(crate) base_offset: Offset,
    /// Offsets covered; 0 for seal and control.
    pub(crate) count: u32,
    /// Epoch of the leader that appended it.
    pub(crate) leader_epoch: LeaderEpoch,
    /// Offset known flushed when it was written.
    pub(crate) durable_upto: Offset,
    /// When it was appended; never falls within a log.
    pub(crate) append_time: Timestamp,
    /// Largest timestamp of its records.
    pub(crate) max_timestamp: Timestamp,
    /// Checksum of the payload: a batch's own CRC-32C, crc32fast for other kinds.
    pub(crate) payload_crc: u32,
    /// Salt of the segment it was written to.
    pub(crate) salt: u64,
    /// Header crc of the entry before it, or of the header block.
    pub(crate) previous_crc: u32,
}

impl EntryHeader {
    /// First offset past it.
    pub(crate) fn end_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(u64::from(self.count)))
    }

    /// Bytes from this entry to the next: header, payload, padding.
    pub(crate) fn stride(&self) -> u64 {
        stride(u64::from(self.length))
    }

    /// The 96 bytes and their checksum, which the next entry must hold.
    pub(crate) fn encode(&self) -> ([u8; ENTRY_BYTES], u32) {
        let mut block = [0; ENTRY_BYTES];
        put(&mut block, 0, &MAGIC.to_le_bytes());
        block[8] = VERSION;
        block[9] = self.kind.code();
        put(&mut block, 12, &self.length.to_le_bytes());
        put(&mut block, 16, &self.base_offset.0.to_le_bytes());
        put(&mut block, 24, &self.count.to_le_bytes());
        put(&mut block, 28, &self.leader_epoch.0.to_le_bytes());
        put(&mut block, 32, &self.durable_upto.0.to_le_bytes());
        put(&mut block, 40, &self.append_time.0.to_le_bytes());
        put(&mut block, 48, &self.max_timestamp.0.to_le_bytes());
        put(&mut block, 76, &self.payload_crc.to_le_bytes());
        put(&mut block, 80, &self.salt.to_le_bytes());
        put(&mut block, 88, &self.previous_crc.to_le_bytes());
        let crc = crc32(&block[8..]);
        put(&mut block, 4, &crc.to_le_bytes());
        (block, crc)
    }

    /// The header in `block` and its checksum, or `None` when it is not a valid one.
    pub(crate) fn decode(block: &[u8; ENTRY_BYTES]) -> Option<(EntryHeader, u32)> {
        let crc = u32_at(block, 4);
        let holds = crc32(&block[8..]) == crc || planted(Bug::TrustLength);
        if u32_at(block, 0) != MAGIC || !holds || block[8] != VERSION {
            return None;
        }
        let header = EntryHeader {
            kind: EntryKind::of(block[9])?,
            length: u32_at(block, 12),
            base_offset: Offset(u64_at(block, 16)),
            count: u32_at(block, 24),
            leader_epoch: LeaderEpoch(u32_at(block, 28)),
            durable_upto: Offset(u64_at(block, 32)),
            append_time: Timestamp(i64_at(block, 40)),
            max_timestamp: Timestamp(i64_at(block, 48)),
            payload_crc: u32_at(block, 76),
            salt: u64_at(block, 80),
            previous_crc: u32_at(block, 88),
        };
        let is_ours = header.count == 0 || header.kind.covers_offsets();
        (is_ours && is_reachable(header.leader_epoch)).then_some((header, crc))
    }

    /// True when `bytes` begin like an entry, so that decoding is worth its checksum.
    pub(crate) fn looks_like(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC.to_le_bytes())
    }
}

/// Bytes that an entry with `length` bytes of payload takes.
pub(crate) fn stride(length: u64) -> u64 {
    (ENTRY_BYTES as u64 + length).next_multiple_of(ENTRY_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> EntryHeader {
        EntryHeader {
            kind: EntryKind::Records,
            length: 77,
            base_offset: Offset(1_000),
            count: 9,
            leader_epoch: LeaderEpoch(3),
            durable_upto: Offset(990),
            append_time: Timestamp(-5),
            max_timestamp: Timestamp(1_700_000_000_000),
            payload_crc: 0xdead_beef,
            salt: 0x0123_4567_89ab_cdef,
            previous_crc: 42,
        }
    }

    #[test]
    fn encoded_headers_are_read_back() {
        let (block, crc) = sample().encode();
        assert_eq!(EntryHeader::decode(&block), Some((sample(), crc)));
        assert_eq!(sample().stride(), 176);
        assert_eq!(sample().end_offset(), Offset(1_009));
    }

    #[test]
    fn seals_and_control_entries_that_cover_offsets_are_refused() {
        for kind in EntryKind::ALL {
            let of = |count| EntryHeader { kind, count, ..sample() }.encode().0;
            assert!(EntryHeader::decode(&of(0)).is_some(), "{kind:?}");
            assert_eq!(EntryHeader::decode(&of(9)).is_some(), kind.covers_offsets(), "{kind:?}");
        }
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let (block, _) = sample().encode();
        for bit in 0..ENTRY_BYTES * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(EntryHeader::decode(&bad), None, "bit {bit}");
        }
    }
}

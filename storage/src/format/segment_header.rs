//! The first 4,096 bytes of a segment file.
//!
//! ```text
//!   0 magic u64 | 8 format version u32 | 12 crc u32 (over 8..12 and 16..4096) | 16 topic id 16 B | 32 partition u32
//!  36 leader epoch u32 | 40 base offset u64 | 48 salt u64 | 56 created ms i64 | 64 durable_upto u64
//!  72 how the previous segment ends u32 (0 there is none, 1 sealed, 2 cut) | 76 its last entry's header crc u32
//!  80 its base offset u64 | 88 its end position u64 | 96 its facts 48 B
//! 144 the same six fields for the segment this one stands for, when compaction wrote it | 216 flags u32 | zeros
//! flags: 1 the file was used before, and bytes of its earlier life may stand behind the entries
//! ```
//!
//! A segment is tied to the one before it: to its base, where it ends, what it holds and the checksum of
//! its last entry. A segment *cut* by a recovery has no seal; its successor alone says where it ends.
//! A segment that compaction wrote anew ends otherwise than its successor says. It carries what the
//! successor says, and its own seal is the last thing in its file.
//!
//! The salt differs for each use of a file. It is derived from identity, base, epoch and creation time, so
//! that no randomness is needed: a file used again under the same base always has a higher epoch.

use std::path::Path;

use riverrun_proto::{LeaderEpoch, Offset, PartitionId, TopicId};
use uuid::Uuid;

use super::{
    FORMAT_VERSION,
    facts::{FACTS_BYTES, SEAL_BYTES, SegmentFacts},
};
use crate::{
    StorageError, Timestamp,
    fixed::{crc32, i64_at, put, u32_at, u64_at},
    state::is_reachable,
};

/// Bytes of the header block.
pub(crate) const HEADER_BLOCK_BYTES: usize = 4096;
/// Where the end of the previous segment is told.
const PREVIOUS_AT: usize = 72;
/// Where the end of the segment that this one stands for is told.
const STANDS_FOR_AT: usize = 144;
/// Where the flags are.
const FLAGS_AT: usize = 216;
/// Flag: the file was used before.
const RECYCLED: u32 = 1;
/// First eight bytes of a segment.
const MAGIC: &[u8; 8] = b"RIVERLOG";

/// How a segment is tied to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Previous {
    /// True when it ends with a seal entry, false when a recovery cut it.
    pub(crate) sealed: bool,
    /// Header crc of its last entry (the seal when sealed).
    pub(crate) chain: u32,
    /// Its base offset.
    pub(crate) base: Offset,
    /// Byte position where it ends, the seal included.
    pub(crate) end_pos: u64,
    /// What it holds, the seal not counted.
    pub(crate) facts: SegmentFacts,
}

/// The decoded header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The topic.
    pub(crate) topic_id: TopicId,
    /// The partition.
    pub(crate) partition: PartitionId,
    /// Leader epoch when the segment was made.
    pub(crate) leader_epoch: LeaderEpoch,
    /// First offset of the segment.
    pub(crate) base: Offset,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// Offset known durable when the header was written.
    pub(crate) durable_upto: Offset,
    /// The segment before it, unless it was the log's first.
    pub(crate) previous: Option<Previous>,
    /// The end of the segment this one stands for after compaction, as its successor tells it.
    pub(crate) stands_for: Option<Previous>,
    /// True when the file was used before: bytes behind the entries may be of its earlier life.
    pub(crate) recycled: bool,
}

impl Previous {
    /// True when sums, offsets and position tell of the same entries: offsets are dense, and nothing but entries and a seal stands
    /// behind the header block.
    pub(crate) fn is_possible(&self) -> bool {
        let facts = &self.facts;
        let seal = if self.sealed { SEAL_BYTES } else { 0 };
        let entries = self.end_pos.checked_sub(HEADER_BLOCK_BYTES as u64 + seal);
        let covered = self.base.0.checked_add(facts.record_count);
        entries == Some(facts.entry_bytes) && covered == Some(facts.end_offset.0)
    }

    /// Puts the six fields at `at`; `None` leaves zeros.
    fn encode(end: Option<&Previous>, block: &mut [u8], at: usize) {
        let Some(end) = end else { return };
        let ends = if end.sealed { 1_u32 } else { 2 };
        put(block, at, &ends.to_le_bytes());
        put(block, at + 4, &end.chain.to_le_bytes());
        put(block, at + 8, &end.base.0.to_le_bytes());
        put(block, at + 16, &end.end_pos.to_le_bytes());
        put(block, at + 24, &end.facts.encode());
    }

    /// The six fields at `at`; the outer `None` is for ones that nobody writes.
    fn decode(block: &[u8], at: usize) -> Option<Option<Previous>> {
        let facts: &[u8; FACTS_BYTES] =
            block[at + 24..at + 24 + FACTS_BYTES].try_into().expect("48 bytes");
        let end = |sealed| Previous {
            sealed,
            chain: u32_at(block, at + 4),
            base: Offset(u64_at(block, at + 8)),
            end_pos: u64_at(block, at + 16),
            facts: SegmentFacts::decode(facts),
        };
        match u32_at(block, at) {
            0 => Some(None),
            1 => Some(Some(end(true))),
            2 => Some(Some(end(false))),
            _ => None,
        }
    }
}

impl SegmentHeader {
    /// The salt that the entries behind an invalid block carry if its epoch and creation time are what was written.
    pub(crate) fn salt_of_invalid(
        block: &[u8; HEADER_BLOCK_BYTES],
        (topic_id, partition): (TopicId, PartitionId),
        base: Offset,
    ) -> u64 {
        let (leader_epoch, created) =
            (LeaderEpoch(u32_at(block, 36)), Timestamp(i64_at(block, 56)));
        let (durable_upto, previous, stands_for, recycled) = (Offset::ZERO, None, None, false);
        let header = SegmentHeader {
            topic_id,
            partition,
            leader_epoch,
            base,
            created,
            durable_upto,
            previous,
            stands_for,
            recycled,
        };
        header.salt()
    }

    /// The number that marks entries of this life of the file.
    pub(crate) fn salt(&self) -> u64 {
        let mut identity = [0; 48];
        put(&mut identity, 0, self.topic_id.0.as_bytes());
        put(&mut identity, 16, &self.partition.0.to_le_bytes());
        put(&mut identity, 20, &self.leader_epoch.0.to_le_bytes());
        put(&mut identity, 24, &self.base.0.to_le_bytes());
        put(&mut identity, 32, &self.created.0.to_le_bytes());
        let low = crc32(&identity);
        identity[40] = 1;
        let high = crc32(&identity[1..]);
        u64::from(high) << 32 | u64::from(low)
    }

    /// `<topic id>-<partition>`.
    pub(crate) fn identity(&self) -> String {
        format!("{}-{}", self.topic_id, self.partition)
    }

    /// The block and its checksum, which the first entry must hold.
    pub(crate) fn encode(&self) -> (Box<[u8; HEADER_BLOCK_BYTES]>, u32) {
        let mut block = Box::new([0; HEADER_BLOCK_BYTES]);
        put(&mut *block, 0, MAGIC);
        put(&mut *block, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut *block, 16, self.topic_id.0.as_bytes());
        put(&mut *block, 32, &self.partition.0.to_le_bytes());
        put(&mut *block, 36, &self.leader_epoch.0.to_le_bytes());
        put(&mut *block, 40, &self.base.0.to_le_bytes());
        put(&mut *block, 48, &self.salt().to_le_bytes());
        put(&mut *block, 56, &self.created.0.to_le_bytes());
        put(&mut *block, 64, &self.durable_upto.0.to_le_bytes());
        Previous::encode(self.previous.as_ref(), &mut *block, PREVIOUS_AT);
        Previous::encode(self.stands_for.as_ref(), &mut *block, STANDS_FOR_AT);
        let flags = if self.recycled { RECYCLED } else { 0 };
        put(&mut *block, FLAGS_AT, &flags.to_le_bytes());
        let crc = checksum(&block);
        put(&mut *block, 12, &crc.to_le_bytes());
        (block, crc)
    }

    /// The header in `block` and its checksum, or `None` when it is not a valid one.
    ///
    /// # Errors
    /// [`StorageError::Version`] when a newer program wrote it.
    pub(crate) fn decode(
        block: &[u8; HEADER_BLOCK_BYTES],
        path: &Path,
    ) -> Result<Option<(SegmentHeader, u32)>, StorageError> {
        let crc = u32_at(block, 12);
        if !block.starts_with(MAGIC) || checksum(block) != crc {
            return Ok(None);
        }
        let found = u32_at(block, 8);
        if found > FORMAT_VERSION {
            let path = path.to_owned();
            return Err(StorageError::Version { path, found, supported: FORMAT_VERSION });
        }
        let ends = (
            Previous::decode(&block[..], PREVIOUS_AT),
            Previous::decode(&block[..], STANDS_FOR_AT),
        );
        let (Some(previous), Some(stands_for)) = ends else { return Ok(None) };
        let header = SegmentHeader {
            topic_id: TopicId(Uuid::from_bytes(block[16..32].try_into().expect("16 bytes"))),
            partition: PartitionId(u32_at(block, 32)),
            leader_epoch: LeaderEpoch(u32_at(block, 36)),
            base: Offset(u64_at(block, 40)),
            created: Timestamp(i64_at(block, 56)),
            durable_upto: Offset(u64_at(block, 64)),
            previous,
            stands_for,
            recycled: u32_at(&block[..], FLAGS_AT) & RECYCLED != 0,
        };
        let is_ours = header.salt() == u64_at(block, 48) && is_reachable(header.leader_epoch);
        Ok((found == FORMAT_VERSION && is_ours).then_some((header, crc)))
    }
}

/// Checksum of everything but the magic and the checksum itself. The same in every format version.
fn checksum(block: &[u8; HEADER_BLOCK_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[8..12]);
    hasher.update(&block[16..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SegmentHeader {
        SegmentHeader {
            topic_id: TopicId(Uuid::from_u128(7)),
            partition: PartitionId(3),
            leader_epoch: LeaderEpoch(2),
            base: Offset(500),
            created: Timestamp(1_000),
            durable_upto: Offset(490),
            previous: Some(Previous {
                sealed: true,
                chain: 9,
                base: Offset(100),
                end_pos: 8_192,
                facts: SegmentFacts { record_count: 400, ..SegmentFacts::empty(Offset(500)) },
            }),
            stands_for: Some(Previous {
                sealed: false,
                chain: 8,
                base: Offset(500),
                end_pos: 9_216,
                facts: SegmentFacts { record_count: 7, ..SegmentFacts::empty(Offset(507)) },
            }),
            recycled: true,
        }
    }

    #[test]
    fn encoded_blocks_are_read_back() {
        let (block, crc) = sample().encode();
        let read = SegmentHeader::decode(&block, Path::new("x")).unwrap();
        assert_eq!(read, Some((sample(), crc)));
    }

    #[test]
    fn flipped_bits_and_newer_versions_are_refused() {
        let (block, _) = sample().encode();
        for bit in 0..240 * 8 {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad, Path::new("x")).unwrap(), None, "{bit}");
        }
        let mut newer = block.clone();
        newer[8] = 2;
        let crc = checksum(&newer);
        put(&mut *newer, 12, &crc.to_le_bytes());
        let refused = SegmentHeader::decode(&newer, Path::new("x"));
        assert!(matches!(refused, Err(StorageError::Version { found: 2, .. })));
    }

    #[test]
    fn each_use_of_a_file_has_its_own_salt() {
        let other = SegmentHeader { leader_epoch: LeaderEpoch(3), ..sample() };
        assert_ne!(sample().salt(), other.salt());
    }
}

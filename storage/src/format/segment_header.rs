//! The first 4,096 bytes of a segment file.
//!
//! ```text
//!   0 magic u64 | 8 format version u32 | 12 crc u32 (over 8..12 and 16..4096) | 16 topic id 16 B | 32 partition u32
//!  36 leader epoch u32 | 40 base offset u64 | 48 salt u64 | 56 created ms i64 | 64 durable_upto u64
//!  72 how the previous segment ends u32 (0 there is none, 1 sealed, 2 cut) | 76 its last entry's header crc u32
//!  80 its base offset u64 | 88 its end position u64 | 96 its facts 48 B | zeros
//! ```
//!
//! A segment is tied to the one before it: to its base, where it ends, what it holds and the checksum of
//! its last entry. A segment *cut* by a recovery has no seal; its successor alone says where it ends.
//!
//! The salt differs for each use of a file. It is derived from identity, base, epoch and creation time, so
//! that no randomness is needed: a file used again under the same base always has a higher epoch.

use std::path::Path;

use riverrun_proto::{LeaderEpoch, Offset, PartitionId, TopicId};
use uuid::Uuid;

use super::{FORMAT_VERSION, facts::FACTS_BYTES, facts::SegmentFacts};
use crate::{
    StorageError, Timestamp,
    fixed::{crc32, i64_at, put, u32_at, u64_at},
};

/// Bytes of the header block.
pub(crate) const HEADER_BLOCK_BYTES: usize = 4096;
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
}

impl SegmentHeader {
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
        if let Some(previous) = &self.previous {
            let ends = if previous.sealed { 1_u32 } else { 2 };
            put(&mut *block, 72, &ends.to_le_bytes());
            put(&mut *block, 76, &previous.chain.to_le_bytes());
            put(&mut *block, 80, &previous.base.0.to_le_bytes());
            put(&mut *block, 88, &previous.end_pos.to_le_bytes());
            put(&mut *block, 96, &previous.facts.encode());
        }
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
        let facts: [u8; FACTS_BYTES] = block[96..96 + FACTS_BYTES].try_into().expect("48 bytes");
        let previous = |sealed| Previous {
            sealed,
            chain: u32_at(block, 76),
            base: Offset(u64_at(block, 80)),
            end_pos: u64_at(block, 88),
            facts: SegmentFacts::decode(&facts),
        };
        let header = SegmentHeader {
            topic_id: TopicId(Uuid::from_bytes(block[16..32].try_into().expect("16 bytes"))),
            partition: PartitionId(u32_at(block, 32)),
            leader_epoch: LeaderEpoch(u32_at(block, 36)),
            base: Offset(u64_at(block, 40)),
            created: Timestamp(i64_at(block, 56)),
            durable_upto: Offset(u64_at(block, 64)),
            previous: match u32_at(block, 72) {
                0 => None,
                1 => Some(previous(true)),
                2 => Some(previous(false)),
                _ => return Ok(None),
            },
        };
        Ok((found == FORMAT_VERSION && header.salt() == u64_at(block, 48)).then_some((header, crc)))
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
        for bit in 0..200 * 8 {
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

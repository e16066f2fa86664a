//! The sparse index of one segment: derived data, rebuilt by a scan whenever it is missing or doubted.
//!
//! A point stands at most every `index_interval_bytes` and says, for one entry: its offset, its position,
//! and the largest timestamp of everything before it in the segment. Both lookups are binary searches:
//! offsets and positions rise, and the timestamp of what lies before never falls.
//!
//! ```text
//! file: magic u64 | version u32 | crc u32 (over the rest) | base offset u64 | end position u64 | chain u32
//!       count u32 | facts 48 B | points {offset - base u32, position u32, max timestamp before ms i64}
//! ```
//!
//! The file of an active segment is written at a clean stop only; end position and chain tell whether it
//! still describes the segment.

use riverrun_proto::Offset;

use crate::{
    Timestamp,
    fixed::{crc32, i64_at, put, u32_at, u64_at},
    format::{SegmentFacts, facts::FACTS_BYTES},
};

/// First eight bytes of an index file.
const MAGIC: &[u8; 8] = b"RIVERIDX";
/// Layout of the file.
const VERSION: u32 = 1;
/// Bytes before the points.
const HEAD_BYTES: usize = 40 + FACTS_BYTES;
/// Bytes of one point.
const POINT_BYTES: usize = 16;

/// One entry that a lookup may start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// Base offset of the entry, less the segment's.
    relative: u32,
    /// Byte position of the entry.
    pos: u32,
    /// Largest timestamp before the entry.
    max_timestamp_before: Timestamp,
}

/// The points of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SparseIndex {
    /// First offset of the segment.
    base: Offset,
    /// Where its first entry begins.
    first_pos: u64,
    /// Rising in offset and position.
    points: Vec<Point>,
}

impl SparseIndex {
    /// An index without points: every lookup starts at the first entry, at `first_pos`.
    pub(crate) fn new(base: Offset, first_pos: u64) -> SparseIndex {
        SparseIndex { base, first_pos, points: Vec::new() }
    }

    /// Adds a point for the entry at `pos` with `offset`; `before` is the largest timestamp before it.
    /// A segment too long for 32-bit distances keeps the points it has.
    pub(crate) fn push(&mut self, offset: Offset, pos: u64, before: Timestamp) {
        let relative = u32::try_from(offset.since(self.base));
        let (Ok(relative), Ok(pos)) = (relative, u32::try_from(pos)) else { return };
        self.points.push(Point { relative, pos, max_timestamp_before: before });
    }

    /// Position and base offset of an entry at or before the one that holds `offset`.
    pub(crate) fn floor(&self, offset: Offset) -> (u64, Offset) {
        let wanted = offset.since(self.base);
        let after = self.points.partition_point(|point| u64::from(point.relative) <= wanted);
        self.before(after)
    }

    /// Position and base offset of an entry before which every timestamp is smaller than `timestamp`.
    pub(crate) fn floor_of_time(&self, timestamp: Timestamp) -> (u64, Offset) {
        let after = self.points.partition_point(|point| point.max_timestamp_before < timestamp);
        self.before(after)
    }

    /// Position and base offset of the last point at or before `pos`, or of the first entry.
    pub(crate) fn floor_of_pos(&self, pos: u64) -> (u64, Offset) {
        self.before(self.points.partition_point(|point| u64::from(point.pos) <= pos))
    }

    /// The point before number `after`, or the first entry.
    fn before(&self, after: usize) -> (u64, Offset) {
        let point = after.checked_sub(1).map(|last| self.points[last]);
        point.map_or((self.first_pos, self.base), |point| {
            (u64::from(point.pos), Offset(self.base.0 + u64::from(point.relative)))
        })
    }

    /// Bytes of memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.points.capacity() * size_of::<Point>()
    }

    /// The file that describes a segment which ends at `end_pos` with `chain` and holds `facts`.
    pub(crate) fn encode(&self, end_pos: u64, chain: u32, facts: &SegmentFacts) -> Vec<u8> {
        let mut file = vec![0; HEAD_BYTES];
        put(&mut file, 0, MAGIC);
        put(&mut file, 8, &VERSION.to_le_bytes());
        put(&mut file, 16, &self.base.0.to_le_bytes());
        put(&mut file, 24, &end_pos.to_le_bytes());
        put(&mut file, 32, &chain.to_le_bytes());
        let count =
            u32::try_from(self.points.len()).expect("a segment has fewer points than bytes");
        put(&mut file, 36, &count.to_le_bytes());
        put(&mut file, 40, &facts.encode());
        for point in &self.points {
            file.extend_from_slice(&point.relative.to_le_bytes());
            file.extend_from_slice(&point.pos.to_le_bytes());
            file.extend_from_slice(&point.max_timestamp_before.0.to_le_bytes());
        }
        let crc = crc32(&file[16..]);
        put(&mut file, 12, &crc.to_le_bytes());
        file
    }

    /// Reads such a file back, when it is whole, describes the segment as it is (`base`, `end_pos`, `chain`) and its points can be.
    pub(crate) fn decode(
        file: &[u8],
        expected: IndexKey,
        first_pos: u64,
    ) -> Option<(SparseIndex, SegmentFacts)> {
        if file.len() < HEAD_BYTES || !file.starts_with(MAGIC) || u32_at(file, 8) != VERSION {
            return None;
        }
        let found = IndexKey {
            base: Offset(u64_at(file, 16)),
            end_pos: u64_at(file, 24),
            chain: u32_at(file, 32),
        };
        let body = HEAD_BYTES + usize::try_from(u32_at(file, 36)).ok()? * POINT_BYTES;
        let file = file.get(..body)?;
        if found != expected || crc32(&file[16..]) != u32_at(file, 12) {
            return None;
        }
        let facts: [u8; FACTS_BYTES] = file[40..HEAD_BYTES].try_into().expect("48 bytes");
        let points = file[HEAD_BYTES..].chunks_exact(POINT_BYTES).map(|bytes| Point {
            relative: u32_at(bytes, 0),
            pos: u32_at(bytes, 4),
            max_timestamp_before: Timestamp(i64_at(bytes, 8)),
        });
        let index = SparseIndex { base: found.base, first_pos, points: points.collect() };
        let facts = SegmentFacts::decode(&facts);
        index.is_possible(found.end_pos, &facts).then_some((index, facts))
    }

    /// True when every point lies in a segment that ends at `end_pos` and holds `facts`, and none goes back. A checksum that holds does not
    /// say so: it was made for whatever stood there.
    fn is_possible(&self, end_pos: u64, facts: &SegmentFacts) -> bool {
        let pos = |point: &Point| u64::from(point.pos);
        let span = facts.end_offset.since(self.base);
        let within = |last: &Point| {
            pos(last) < end_pos
                && u64::from(last.relative) <= span
                && last.max_timestamp_before <= facts.max_timestamp
        };
        let inside = self.points.first().is_none_or(|first| pos(first) >= self.first_pos)
            && self.points.last().is_none_or(within);
        let rises = |pair: &[Point]| {
            pair[0].pos < pair[1].pos
                && pair[0].relative <= pair[1].relative
                && pair[0].max_timestamp_before <= pair[1].max_timestamp_before
        };
        inside && self.points.windows(2).all(rises)
    }
}

/// The state of a segment that an index file describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexKey {
    /// Base offset of the segment.
    pub(crate) base: Offset,
    /// Position where it ends.
    pub(crate) end_pos: u64,
    /// Header crc of its last entry.
    pub(crate) chain: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SparseIndex {
        let mut index = SparseIndex::new(Offset(100), 4096);
        index.push(Offset(100), 4096, Timestamp::MIN);
        index.push(Offset(110), 5000, Timestamp(50));
        index.push(Offset(130), 7000, Timestamp(50));
        index.push(Offset(131), 9000, Timestamp(80));
        index
    }

    #[test]
    fn lookups_never_start_too_late() {
        let index = sample();
        for (offset, pos) in [(0, 4096), (100, 4096), (109, 4096), (110, 5000), (129, 5000)] {
            assert_eq!(index.floor(Offset(offset)).0, pos, "offset {offset}");
        }
        assert_eq!(index.floor(Offset(9_999)), (9000, Offset(131)));
        for (time, pos) in [(0, 4096), (50, 4096), (51, 7000), (80, 7000), (81, 9000)] {
            assert_eq!(index.floor_of_time(Timestamp(time)).0, pos, "time {time}");
        }
    }

    #[test]
    fn files_are_read_back_only_whole_and_for_their_segment() {
        let (end_offset, max_timestamp) = (Offset(140), Timestamp(80));
        let facts = SegmentFacts { end_offset, max_timestamp, ..SegmentFacts::empty(Offset(100)) };
        let file = sample().encode(9_500, 77, &facts);
        let key = IndexKey { base: Offset(100), end_pos: 9_500, chain: 77 };
        assert_eq!(SparseIndex::decode(&file, key, 4096), Some((sample(), facts)));
        let padded = [&file[..], &[0; 100]].concat();
        assert_eq!(SparseIndex::decode(&padded, key, 4096), Some((sample(), facts)));
        let moved = IndexKey { chain: 78, ..key };
        assert_eq!(SparseIndex::decode(&file, moved, 4096), None);
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 4;
            assert_eq!(SparseIndex::decode(&bad, key, 4096), None, "byte {at}");
            assert_eq!(SparseIndex::decode(&file[..at], key, 4096), None, "cut at {at}");
        }
    }

    #[test]
    fn points_that_cannot_be_are_refused_whatever_their_checksum() {
        let (end_offset, max_timestamp) = (Offset(110), Timestamp(20));
        let facts = SegmentFacts { end_offset, max_timestamp, ..SegmentFacts::empty(Offset(100)) };
        let key = IndexKey { base: Offset(100), end_pos: 9_500, chain: 77 };
        let refused_at = |points: &[(u64, u64)], before: i64| {
            let mut index = SparseIndex::new(Offset(100), 4096);
            for (offset, pos) in points {
                index.push(Offset(*offset), *pos, Timestamp(before));
            }
            SparseIndex::decode(&index.encode(9_500, 77, &facts), key, 4096).is_none()
        };
        let refused = |points: &[(u64, u64)]| refused_at(points, 20);
        assert!(!refused(&[(100, 4096), (101, 5000)]));
        assert!(refused(&[(100, 4095)]), "in the header block");
        assert!(refused(&[(100, 9_500)]), "past the end");
        assert!(refused(&[(105, 5000), (104, 6000)]), "an offset that goes back");
        assert!(refused(&[(105, 5000), (106, 5000)]), "the same position");
        assert!(refused(&[(105, 5000), (111, 6000)]), "an offset past the end");
        assert!(refused_at(&[(105, 5000)], 21), "a timestamp after the last one");
    }
}

//! Sets of offsets as they are written: ranges as distances, and chunks with many holes as bits.

use bytes::Bytes;
use riverrun_proto::{Offset, grpc::state::v1::OffsetBits};
use riverrun_storage::planted::{Bug, planted};

use super::record::RecordError;
use crate::delivery::{Piece, Run};

/// Ranges in a chunk from which on its bits are shorter.
const RANGES_MAX: usize = 20;
/// Offsets in one chunk.
const CHUNK: u64 = 512;

/// A set being written. Pieces come in order.
#[derive(Debug, Default)]
pub struct OffsetsWriter {
    /// Pairs of distance from the end before, and length.
    pub ranges: Vec<u64>,
    /// Chunks.
    pub bits: Vec<OffsetBits>,
    /// End of the last range.
    end: u64,
}

impl OffsetsWriter {
    /// Adds a piece.
    pub fn push(&mut self, piece: &Piece) {
        match piece {
            Piece::Bits(first, words) if piece.runs().count() > RANGES_MAX => {
                let bits: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                self.bits.push(OffsetBits { first: *first, bits: bits.into() });
            }
            Piece::Run(_) | Piece::Bits(..) => {
                piece.runs().for_each(|run| self.push_run(Run::new(run.start, run.end)));
            }
        }
    }

    /// Adds a range.
    pub fn push_run(&mut self, run: Run) {
        debug_assert!(run.start >= self.end, "ranges come in order");
        match self.ranges.last_mut() {
            Some(length) if run.start == self.end => *length += run.count(),
            Some(_) | None => self.ranges.extend([run.start - self.end, run.count()]),
        }
        self.end = run.end;
    }
}

/// The pieces of a set that was written, every one of them within what offsets can be.
///
/// # Errors
/// When it is no set of offsets.
pub fn read(ranges: &[u64], bits: &[OffsetBits]) -> Result<Vec<Piece>, RecordError> {
    let mut pieces = Vec::with_capacity(ranges.len() / 2 + bits.len());
    let malformed = |what: &str, number| RecordError::Malformed {
        reason: format!("a range of offsets with {what} `{number}`"),
    };
    let (pairs, rest) = ranges.as_chunks::<2>();
    if let Some(odd) = rest.first() {
        return Err(malformed("no length after the distance", *odd));
    }
    let mut end = Offset::ZERO;
    for [distance, length] in pairs {
        let start = end.checked_add(*distance).ok_or_else(|| malformed("distance", *distance))?;
        end = start
            .checked_add(*length)
            .filter(|end| *end > start)
            .or_else(|| planted(Bug::TrustRange).then_some(Offset(start.0.wrapping_add(*length))))
            .ok_or_else(|| malformed("length", *length))?;
        pieces.push(Piece::Run(start.0..end.0));
    }
    for stretch in bits {
        pieces.push(read_bits(stretch)?);
    }
    Ok(pieces)
}

fn read_bits(stretch: &OffsetBits) -> Result<Piece, RecordError> {
    let first = Offset(stretch.first);
    if !stretch.first.is_multiple_of(CHUNK) || first.checked_add(CHUNK).is_none() {
        let reason = format!("bits of offsets that begin at `{first}`");
        return Err(RecordError::Malformed { reason });
    }
    let words = words(&stretch.bits).ok_or_else(|| RecordError::Malformed {
        reason: format!("bits of offsets in `{}` bytes instead of 64", stretch.bits.len()),
    })?;
    Ok(Piece::Bits(stretch.first, words))
}

fn words(bits: &Bytes) -> Option<[u64; 8]> {
    let (bytes, rest) = bits.as_chunks::<8>();
    let bytes: &[[u8; 8]; 8] = bytes.try_into().ok()?;
    rest.is_empty().then(|| bytes.map(u64::from_le_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{delivery::OffsetSet, test_random::Random};

    #[test]
    fn sets_come_back_and_are_short() {
        Random::each(200, |random| {
            let mut set = OffsetSet::new();
            for _ in 0..random.below(400) {
                let start = random.below(4_000);
                set.insert(start..start + 1 + random.below(30) * random.below(2));
            }
            let mut writer = OffsetsWriter::default();
            set.pieces().for_each(|piece| writer.push(&piece));
            let mut again = OffsetSet::new();
            for piece in read(&writer.ranges, &writer.bits).unwrap() {
                piece.runs().for_each(|run| assert!(again.insert(run) > 0));
            }
            assert_eq!(again, set);
            assert!(writer.ranges.len() <= 2 * set.runs().count());
            assert!(writer.bits.len() <= 8, "{} chunks", writer.bits.len());
        });
    }

    #[test]
    fn damaged_sets_are_refused() {
        let bits = |first, length| vec![OffsetBits { first, bits: vec![1; length].into() }];
        for (ranges, bits) in [
            (vec![1], vec![]),
            (vec![1, 0], vec![]),
            (vec![1, u64::MAX], vec![]),
            (vec![u64::MAX, 1], vec![]),
            (vec![0, i64::MAX as u64, 1, 1], vec![]),
            (vec![], bits(1, 64)),
            (vec![], bits(512, 63)),
            (vec![], bits(512, 72)),
            (vec![], bits(i64::MAX as u64 / 512 * 512, 64)),
        ] {
            assert!(
                matches!(read(&ranges, &bits), Err(RecordError::Malformed { .. })),
                "{ranges:?}"
            );
        }
        assert_eq!(read(&[0, i64::MAX as u64], &[]).map(|pieces| pieces.len()), Ok(1));
    }
}

//! Places of a partition whose bytes are not what was written, as far as they are known.
//!
//! Two look: the scrubber, whose pass over the partition says all there is to say of its sealed segments, and every read that meets one.
//! The end of a pass replaces what was known, so that bytes which were put back are not called damaged for ever.
//!
//! Invariant: of all places [`PLACES_MAX`] are named, those that were met first; of the others a pass of the scrubber tells the number.
//!
//! Nothing is decided here: reads of a place are refused by storage, whether it is known or not.

use std::sync::Arc;

use super::{OffsetRange, ReadError};

/// Most places that are named.
const PLACES_MAX: usize = 16;

/// Damaged places of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damages {
    /// All of them that are known.
    pub count: u64,
    /// The first of them.
    pub named: Vec<DamagedPlace>,
}

/// Records that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPlace {
    /// Their offsets.
    pub range: OffsetRange,
    /// The file, the position in it, and what is wrong there.
    pub reason: Arc<str>,
}

impl Damages {
    /// Notes what a read was told, once for each place. What is no damage is passed over.
    pub(super) fn note(&mut self, error: &ReadError) {
        let ReadError::Corrupt { reason, range } = error else { return };
        let is_known = self.named.iter().any(|known| known.range.start == range.start);
        if is_known || self.named.len() >= PLACES_MAX {
            return;
        }
        self.named.push(DamagedPlace { range: *range, reason: reason.clone() });
        self.count = self.count.max(self.named.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use riverrun_proto::Offset;

    use super::*;

    fn met(start: u64) -> ReadError {
        let range = OffsetRange { start: Offset(start), end: Offset(start + 1) };
        ReadError::Corrupt { reason: "bits".into(), range }
    }

    #[test]
    fn a_place_is_named_once_and_only_the_first_are() {
        let mut damages = Damages::default();
        for start in [7, 7, 9, 7] {
            damages.note(&met(start));
        }
        assert_eq!(damages.count, 2);
        (100..200).for_each(|start| damages.note(&met(start)));
        assert_eq!((damages.count, damages.named.len()), (16, PLACES_MAX));
    }

    #[test]
    fn what_is_no_damage_is_not_noted() {
        let mut damages = Damages::default();
        damages.note(&ReadError::Closed);
        damages.note(&ReadError::Io { reason: "EIO".into() });
        assert_eq!(damages, Damages::default());
    }
}

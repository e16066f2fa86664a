//! The set of settled offsets: acknowledgements that come in disorder within a window, and a floor that follows.

use std::hint::black_box;

use riverrun_broker::delivery::OffsetSet;

use crate::Round;

/// Records of a round: what a session holds at a time.
pub(crate) const RECORDS: usize = 1_000;

/// Every third offset, then those between, each by itself; then the floor moves past all of them.
pub(crate) fn in_disorder() -> Round {
    let (mut set, mut floor) = (OffsetSet::new(), 0);
    Box::new(move || {
        let end = floor + RECORDS as u64;
        for first in 0..3 {
            for offset in (floor + first..end).step_by(3) {
                black_box(set.insert(offset..offset + 1));
            }
        }
        floor = set.advance_floor(floor);
        assert_eq!(floor, end, "everything is settled");
    })
}

//! Logical positions in a partition.
//!
//! All ranges of offsets are half-open: `start..end` holds `start` and not `end`.

use std::fmt;

/// Logical index of a record in its partition. Not a byte position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The first offset of an empty partition.
    pub const ZERO: Offset = Offset(0);
    /// The largest offset a record batch can carry (its field is a signed 64-bit integer).
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// The offset `count` records later, or `None` past [`Offset::MAX`].
    pub fn checked_add(self, count: u64) -> Option<Offset> {
        self.0.checked_add(count).map(Offset).filter(|offset| *offset <= Offset::MAX)
    }

    /// Records from `earlier` to here; 0 when `earlier` is not earlier.
    pub fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

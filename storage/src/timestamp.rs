//! A moment of wall time, handed in by the caller: storage reads no clock.

use std::{fmt, time::Duration};

/// Milliseconds since 1970-01-01 UTC; negative is before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest moment there is.
    pub const MIN: Timestamp = Timestamp(i64::MIN);

    /// Time from `earlier` to here; zero when `earlier` is not earlier.
    pub fn since(self, earlier: Timestamp) -> Duration {
        let ms = i128::from(self.0) - i128::from(earlier.0);
        Duration::from_millis(u64::try_from(ms.max(0)).unwrap_or(u64::MAX))
    }

    /// The moment `later` after this one, or the last one there is.
    pub fn saturating_add(self, later: Duration) -> Timestamp {
        let ms = i64::try_from(later.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(ms))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

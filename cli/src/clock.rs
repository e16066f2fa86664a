//! The only reader of clocks in this crate.

#![expect(clippy::disallowed_methods, reason = "the clock of the command line")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The wall clock.
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> i64 {
    let since = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A moment to measure from.
pub(crate) fn instant() -> Instant {
    Instant::now()
}

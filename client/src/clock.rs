//! The one place of the client that reads clocks.
//!
//! Monotonic time is tokio's, so that tests can pause it; wall time only stamps records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use tokio::time::Instant;

/// The monotonic time now.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall time now.
#[expect(clippy::disallowed_methods, reason = "this is the clock file")]
fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall time now, in milliseconds since 1970-01-01 UTC.
pub(crate) fn wall_ms() -> i64 {
    timestamp_ms(wall())
}

/// The wall time `age` before now; 1970-01-01 when that is before it.
pub(crate) fn ago(age: Duration) -> SystemTime {
    wall().checked_sub(age).unwrap_or(UNIX_EPOCH)
}

/// The wall time `delay` from now, in milliseconds since 1970-01-01 UTC; the last that can be told when
/// that lies past it.
pub(crate) fn after_ms(delay: Duration) -> i64 {
    wall_ms().saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
}

/// `time` in milliseconds since 1970-01-01 UTC, brought into the range of a signed 64-bit number.
pub(crate) fn timestamp_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

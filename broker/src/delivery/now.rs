//! The time of an event.

use std::time::Duration;

/// Both clocks, read once for an event.
///
/// Leases and retries go by `elapsed`, which never jumps; what is stored and what producers ask for goes by the
/// wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Since the broker started.
    pub elapsed: Duration,
    /// Milliseconds since 1970-01-01 UTC.
    pub wall_ms: i64,
}

impl Now {
    /// The wall time of a moment of the monotonic clock.
    pub fn wall_of(self, at: Duration) -> i64 {
        let ahead = at.saturating_sub(self.elapsed);
        let behind = self.elapsed.saturating_sub(at);
        self.wall_ms.saturating_add(millis(ahead)).saturating_sub(millis(behind))
    }

    /// The moment of the monotonic clock at a wall time; now when it has passed.
    pub fn elapsed_of(self, wall_ms: i64) -> Duration {
        let ahead = u64::try_from(wall_ms.saturating_sub(self.wall_ms)).unwrap_or(0);
        self.elapsed.saturating_add(Duration::from_millis(ahead))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

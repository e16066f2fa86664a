//! The only place in the broker that reads time.
//!
//! Three readings, for three uses:
//! - [`Clock::wall_ms`]: what people mean by time. It may jump. Only stamped onto records, commands and spans.
//! - [`Clock::elapsed`]: monotonic since the clock was made. Deadlines and intervals.
//! - [`Clock::steady_ms`]: wall time that never runs faster than the monotonic clock. Retention goes by
//!   it, so that a jump of the wall clock never deletes a record early.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;

/// A source of time, cheap to clone.
#[derive(Clone)]
pub struct Clock {
    source: Source,
}

#[derive(Clone)]
enum Source {
    /// The machine's clocks.
    Real { start: Instant, start_wall_ms: i64 },
    /// Moves only when told.
    Manual(Arc<Mutex<ManualTime>>),
}

struct ManualTime {
    start_wall_ms: i64,
    wall_ms: i64,
    elapsed: Duration,
}

/// The hand on a manual clock.
#[derive(Clone)]
pub struct ClockHand {
    time: Arc<Mutex<ManualTime>>,
}

impl Clock {
    /// The machine's clocks.
    #[expect(clippy::disallowed_methods, reason = "the one reader of the clocks")]
    pub fn real() -> Clock {
        Clock { source: Source::Real { start: Instant::now(), start_wall_ms: wall_now_ms() } }
    }

    /// A clock that stands at `wall_ms` until its hand moves it.
    pub fn manual(wall_ms: i64) -> (Clock, ClockHand) {
        let time = ManualTime { start_wall_ms: wall_ms, wall_ms, elapsed: Duration::ZERO };
        let time = Arc::new(Mutex::new(time));
        (Clock { source: Source::Manual(time.clone()) }, ClockHand { time })
    }

    /// Milliseconds since 1970-01-01 UTC, as the machine believes now.
    pub fn wall_ms(&self) -> i64 {
        match &self.source {
            Source::Real { .. } => wall_now_ms(),
            Source::Manual(time) => time.lock().wall_ms,
        }
    }

    /// Time since 1970-01-01 UTC, as [`Clock::wall_ms`] but as fine as the machine has it.
    pub fn wall(&self) -> Duration {
        match &self.source {
            Source::Real { .. } => wall_now(),
            Source::Manual(time) => {
                Duration::from_millis(u64::try_from(time.lock().wall_ms).unwrap_or(0))
            }
        }
    }

    /// Time since the clock was made; never goes back.
    pub fn elapsed(&self) -> Duration {
        match &self.source {
            Source::Real { start, .. } => start.elapsed(),
            Source::Manual(time) => time.lock().elapsed,
        }
    }

    /// Wall time in milliseconds that never runs ahead of start plus elapsed time.
    pub fn steady_ms(&self) -> i64 {
        let start_wall_ms = match &self.source {
            Source::Real { start_wall_ms, .. } => *start_wall_ms,
            Source::Manual(time) => time.lock().start_wall_ms,
        };
        self.wall_ms().min(start_wall_ms.saturating_add(whole_ms(self.elapsed())))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("wall_ms", &self.wall_ms()).finish()
    }
}

impl ClockHand {
    /// Lets `duration` pass on both clocks.
    pub fn advance(&self, duration: Duration) {
        let mut time = self.time.lock();
        time.elapsed += duration;
        time.wall_ms = time.wall_ms.saturating_add(whole_ms(duration));
    }

    /// Sets the wall clock, as an operator or a time server may; the monotonic clock stands.
    pub fn jump_wall_to(&self, wall_ms: i64) {
        self.time.lock().wall_ms = wall_ms;
    }
}

impl fmt::Debug for ClockHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClockHand").finish_non_exhaustive()
    }
}

#[expect(clippy::disallowed_methods, reason = "the one reader of the clocks")]
fn wall_now() -> Duration {
    // A machine set before 1970 reads as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn wall_now_ms() -> i64 {
    whole_ms(wall_now())
}

fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_time_follows_the_slower_clock() {
        let (clock, hand) = Clock::manual(1_000_000);
        hand.advance(Duration::from_secs(5));
        assert_eq!(clock.steady_ms(), 1_005_000);
        hand.jump_wall_to(9_000_000);
        assert_eq!(clock.steady_ms(), 1_005_000, "a jump forward ages nothing");
        hand.jump_wall_to(500_000);
        assert_eq!(clock.steady_ms(), 500_000, "a jump back waits");
        hand.advance(Duration::from_secs(1));
        assert_eq!((clock.wall_ms(), clock.elapsed()), (501_000, Duration::from_secs(6)));
    }
}

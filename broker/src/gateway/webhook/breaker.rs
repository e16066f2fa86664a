//! When an endpoint that fails is left alone.
//!
//! ```text
//!            FAILURES_MAX in a row              its pause is over
//!   CLOSED ─────────────────────────▶ OPEN ─────────────────────────▶ PROBING
//!     ▲  ▲                             │ ▲                              │  │
//!     │  └──────── it took one ────────┘ └──── failed: longer pause ────┘  │
//!     └──────────────────────────── it took one ────────────────────────────┘
//! ```
//!
//! Pure: time comes in. It knows nothing of records; what a failure is, others decide.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which an endpoint is left alone.
pub(super) const FAILURES_MAX: u32 = 5;
/// The first pause; doubles with every probe that fails.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is known of one endpoint.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Failures since it took something.
    failures: u32,
    /// The pause that comes next.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open(Instant),
    Probing,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker { state: State::Closed, failures: 0, pause: PAUSE_MIN }
    }
}

impl Breaker {
    /// The endpoint took something, or showed otherwise that it is well.
    pub(super) fn succeeded(&mut self) {
        *self = Breaker::default();
    }

    /// It failed. Requests that were under way when it was left alone change nothing.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            State::Closed => self.failures >= FAILURES_MAX,
            State::Open(_) => false,
            State::Probing => true,
        };
        if opens {
            self.state = State::Open(now + self.pause);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }

    /// Until when it is left alone; a pause that is over is none.
    pub(super) fn open_until(&mut self, now: Instant) -> Option<Instant> {
        if let State::Open(until) = self.state {
            if until > now {
                return Some(until);
            }
            self.state = State::Probing;
        }
        None
    }

    /// One record at a time.
    pub(super) fn is_probing(&self) -> bool {
        self.state == State::Probing
    }

    /// Failures since it took something.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_probes_with_growing_pauses_and_closes() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        for _ in 1..FAILURES_MAX {
            breaker.failed(now);
        }
        assert_eq!(breaker.open_until(now), None);
        breaker.succeeded();
        for _ in 1..FAILURES_MAX {
            breaker.failed(now);
        }
        assert_eq!(breaker.open_until(now), None, "a success between them starts the count anew");
        breaker.failed(now);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            let until = now + Duration::from_secs(pause);
            breaker.failed(now);
            assert_eq!(breaker.open_until(now), Some(until), "late failures change nothing");
            assert!(!breaker.is_probing());
            now = until;
            assert_eq!(breaker.open_until(now), None);
            assert!(breaker.is_probing());
            breaker.failed(now);
        }
        breaker.succeeded();
        assert_eq!((breaker.open_until(now), breaker.failures()), (None, 0));
        for _ in 0..FAILURES_MAX {
            breaker.failed(now);
        }
        assert_eq!(
            breaker.open_until(now),
            Some(now + PAUSE_MIN),
            "and begins with the first pause"
        );
    }
}

//! When records are due: at a steady rate, whatever became of those before.
//!
//! Latencies are counted from the moment a record was due, not from when the sender came to it. So a broker
//! that holds the sender up is charged for every record that had to wait meanwhile.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use rustix::thread::{Timespec, nanosleep};

use super::{amount::Amount, halt::Halt};
use crate::clock;

/// Longest sleep without a look at whether the run is to end.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Time from making a plan to its first record, for everybody to get ready.
const LEAD: Duration = Duration::from_millis(20);

/// A plan of when to send. Numbers count over all producers, who take them in turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    start: Instant,
    /// Records per second.
    rate: u64,
    /// Numbers below it are sent and not measured.
    warm_up: u64,
    /// Numbers below it are sent.
    end: u64,
}

impl Pace {
    /// A plan that begins in a moment: first for `warm_up`, which is not measured, then for `time`.
    pub(super) fn new(rate: u64, warm_up: Duration, time: Duration) -> Pace {
        let count = |time: Duration| {
            u64::try_from(time.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX)
        };
        let warm_up = count(warm_up);
        let end = warm_up.saturating_add(count(time).max(1));
        Pace { start: clock::instant() + LEAD, rate, warm_up, end }
    }

    /// A plan for so much, all of which is measured.
    pub(super) fn of_amount(rate: u64, amount: Amount) -> Pace {
        match amount {
            Amount::Records(end) => Pace { start: clock::instant() + LEAD, rate, warm_up: 0, end },
            Amount::Time(time) => Pace::new(rate, Duration::ZERO, time),
        }
    }

    /// When record `number` is due.
    pub(super) fn due(&self, number: u64) -> Instant {
        let ns = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// Whether record `number` is sent.
    pub(super) fn has(&self, number: u64) -> bool {
        number < self.end
    }

    /// Whether record `number` is measured.
    pub(super) fn is_measured(&self, number: u64) -> bool {
        (self.warm_up..self.end).contains(&number)
    }

    /// The moment from which on records are measured.
    pub(super) fn measured_from(&self) -> Instant {
        self.due(self.warm_up)
    }

    /// Records that are sent.
    pub(super) fn count(&self) -> u64 {
        self.end
    }
}

/// Lets sleeps of this thread end as exactly as the system can.
pub(super) fn sleep_exactly() {
    // Where it is refused sleeps are some 50 µs longer, which the report shows.
    let _refused = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Blocks the thread until `moment`; false when the run is to end before.
pub(super) fn sleep_until(moment: Instant, halt: &Halt) -> bool {
    loop {
        if halt.is_asked() {
            return false;
        }
        let left = moment.saturating_duration_since(clock::instant());
        if left.is_zero() {
            return true;
        }
        let left = left.min(SLEEP_MAX);
        let request = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        // A sleep that a signal cut short is gone on with.
        let _interrupted = nanosleep(&request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_at_their_rate() {
        let pace = Pace::new(1000, Duration::from_secs(1), Duration::from_millis(2500));
        assert_eq!(pace.count(), 3500);
        assert_eq!(pace.due(1500) - pace.due(0), Duration::from_millis(1500));
        assert_eq!(pace.measured_from(), pace.due(1000));
        assert!(!pace.is_measured(999) && pace.is_measured(1000) && pace.is_measured(3499));
        assert!(pace.has(3499) && !pace.has(3500));
    }

    #[test]
    fn even_the_shortest_run_measures_a_record() {
        let pace = Pace::new(1, Duration::ZERO, Duration::from_millis(1));
        assert!(pace.is_measured(0) && !pace.has(1));
    }
}

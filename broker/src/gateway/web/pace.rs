//! How slow the other end may be: the time it lets pass is a debt, which the bytes that move pay off.
//!
//! A silence may last as long as the debt may grow. Whoever moves a byte now and then pays next to nothing, and is cut as the
//! silent are; whoever moves [`BYTES_PER_SECOND`] goes on for ever. What is paid too much counts for nothing later.

use std::time::Duration;

/// Bytes that pay for a second.
pub(super) const BYTES_PER_SECOND: usize = 1 << 10;

/// The debt of one end of one direction.
#[derive(Debug)]
pub(super) struct Pace {
    most: Duration,
    debt: Duration,
}

impl Pace {
    /// Nothing is owed yet, and at most `most` may be.
    pub(super) fn new(most: Duration) -> Pace {
        Pace { most, debt: Duration::ZERO }
    }

    /// Longest debt.
    pub(super) fn most(&self) -> Duration {
        self.most
    }

    /// Time that may pass now until something moves.
    pub(super) fn left(&self) -> Duration {
        self.most.saturating_sub(self.debt)
    }

    /// Bytes moved after a wait.
    pub(super) fn moved(&mut self, waited: Duration, bytes: usize) {
        self.debt = (self.debt + waited)
            .saturating_sub(Duration::from_secs(1).mul_f64(bytes as f64 / BYTES_PER_SECOND as f64));
    }

    /// Nobody had to wait for so long.
    pub(super) fn kept_up(&mut self, time: Duration) {
        self.debt = self.debt.saturating_sub(time);
    }

    /// Nothing is owed any more.
    pub(super) fn forgive(&mut self) {
        self.debt = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Seconds until one that moves so many bytes each second is cut, if he is within a day.
    fn cut_after(bytes: usize) -> Option<u32> {
        let mut pace = Pace::new(30 * SECOND);
        (0..86_400).find(|_| {
            let is_cut = pace.left() < SECOND;
            pace.moved(SECOND, bytes);
            is_cut
        })
    }

    #[test]
    fn who_trickles_is_cut_as_who_is_silent_and_who_keeps_the_rate_is_not() {
        assert_eq!(cut_after(0), Some(30));
        assert_eq!(cut_after(1), Some(30));
        assert_eq!(cut_after(BYTES_PER_SECOND / 2), Some(59));
        assert_eq!(cut_after(BYTES_PER_SECOND), None);
        let mut pace = Pace::new(30 * SECOND);
        pace.moved(SECOND, 1 << 30);
        assert_eq!(pace.left(), 30 * SECOND, "nothing is saved up");
        pace.moved(20 * SECOND, 0);
        pace.kept_up(5 * SECOND);
        assert_eq!(pace.left(), 15 * SECOND);
    }
}

//! How long to wait before trying again: at once, then a doubling ceiling with full jitter.
//!
//! Try 0 waits nothing. Try `n` waits a random time in `[0, min(first * 2^(n-1), max)]`, so that many
//! clients that lost the same broker do not come back in step. There is no last try.

use std::time::Duration;

use uuid::Uuid;

/// Ceiling of the first wait.
const FIRST: Duration = Duration::from_millis(50);
/// Ceiling of every later wait.
const MAX: Duration = Duration::from_secs(5);

/// A small seeded source of randomness (splitmix64). Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Randomness(u64);

impl Randomness {
    /// A source that always gives the same numbers for the same `seed`.
    pub(crate) fn seeded(seed: u64) -> Randomness {
        Randomness(seed)
    }

    /// A source seeded by the operating system.
    pub(crate) fn from_system() -> Randomness {
        Randomness(Uuid::new_v4().as_u64_pair().1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `[0, max]`.
    fn up_to(&mut self, max: u64) -> u64 {
        match max.checked_add(1) {
            Some(span) => self.next() % span,
            None => self.next(),
        }
    }
}

/// The waits of one chain of tries.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    /// Tries so far.
    tries: u32,
    /// Where the jitter comes from.
    randomness: Randomness,
}

impl Backoff {
    /// A fresh chain.
    pub(crate) fn new(randomness: Randomness) -> Backoff {
        Backoff { tries: 0, randomness }
    }

    /// Tries so far.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// Begins again after a success.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    /// How long to wait before the next try.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let ceiling = ceiling(self.tries);
        self.tries = self.tries.saturating_add(1);
        let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.randomness.up_to(micros))
    }
}

/// Longest wait before try `tries`.
fn ceiling(tries: u32) -> Duration {
    match tries.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_from_fifty_milliseconds_to_five_seconds() {
        let ceilings: Vec<u128> = (0..10).map(|tries| ceiling(tries).as_millis()).collect();
        assert_eq!(ceilings, [0, 50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(ceiling(u32::MAX), MAX);
    }

    #[test]
    fn waits_stay_under_their_ceiling_and_differ() {
        let mut backoff = Backoff::new(Randomness::seeded(7));
        assert_eq!(backoff.next_wait(), Duration::ZERO);
        let waits: Vec<Duration> = (0..1000).map(|_| backoff.next_wait()).collect();
        assert!((1..).zip(&waits).all(|(tries, wait)| *wait <= ceiling(tries)));
        let late = &waits[10..];
        assert!(late.iter().any(|wait| *wait < MAX / 4), "jitter reaches the low end");
        assert!(late.iter().any(|wait| *wait > MAX / 4 * 3), "jitter reaches the high end");
        backoff.reset();
        assert_eq!(backoff.next_wait(), Duration::ZERO);
    }
}

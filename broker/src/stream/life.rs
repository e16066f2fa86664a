//! How long a stream lives: since when nobody uses it, and whether its end is decided.
//!
//! ```text
//! in use --the last leaves--> idle --for its time to live--> expired --nobody uses it--> over
//!    ^--------enter-------------'                             (nobody enters)     (it is being removed)
//! ```
//!
//! A stream with a fixed end expires then, whoever uses it; it is over once they have left.

use super::StreamFacts;

/// Guarded by `life` of a stream.
#[derive(Debug)]
pub(super) struct Life {
    /// Steady time of the last read or write, in milliseconds.
    used_ms: i64,
    /// Those who read or write it now.
    users: u32,
    /// Nobody enters any more: it is being removed.
    is_over: bool,
}

impl Life {
    /// Nobody uses it since `used_ms`.
    pub(super) fn new(used_ms: i64) -> Life {
        Life { used_ms, users: 0, is_over: false }
    }

    pub(super) fn is_expired(&self, facts: &StreamFacts, now_ms: i64) -> bool {
        let idle_ms = now_ms.saturating_sub(self.used_ms);
        let is_idle = |ttl_s: u64| {
            let is_long = |idle_ms| idle_ms >= ttl_s.saturating_mul(1_000);
            self.users == 0 && u64::try_from(idle_ms).is_ok_and(is_long)
        };
        self.is_over
            || facts.expires_at_ms.is_some_and(|at| now_ms >= at)
            || facts.ttl_s.is_some_and(is_idle)
    }

    pub(super) fn enter(&mut self, facts: &StreamFacts, now_ms: i64) -> bool {
        if self.is_expired(facts, now_ms) {
            return false;
        }
        self.users += 1;
        self.use_at(now_ms);
        true
    }

    pub(super) fn leave(&mut self, now_ms: i64) {
        self.users -= 1;
        self.use_at(now_ms);
    }

    pub(super) fn end(&mut self, facts: &StreamFacts, now_ms: i64) -> bool {
        self.is_over = self.users == 0 && self.is_expired(facts, now_ms);
        self.is_over
    }

    pub(super) fn revive(&mut self) {
        self.is_over = false;
    }

    fn use_at(&mut self, now_ms: i64) {
        self.used_ms = self.used_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(ttl_s: Option<u64>, expires_at_ms: Option<i64>) -> StreamFacts {
        StreamFacts { ttl_s, expires_at_ms, ..StreamFacts::bytes() }
    }

    #[test]
    fn idle_time_is_counted_from_the_last_use_and_a_fixed_end_is_not_moved() {
        let (sliding, mut life) = (facts(Some(2), None), Life::new(1_000));
        let expires = |life: &Life, now_ms| life.is_expired(&sliding, now_ms);
        assert!(!expires(&life, 2_999) && expires(&life, 3_000));
        assert!(life.enter(&sliding, 2_500));
        life.leave(2_000);
        assert!(!expires(&life, 4_499) && expires(&life, 4_500));
        let (fixed, mut life) = (facts(None, Some(2_000)), Life::new(1_000));
        assert!(life.enter(&fixed, 1_999));
        life.leave(1_999);
        assert!(!life.is_expired(&fixed, 1_999) && life.is_expired(&fixed, 2_000));
        assert!(!life.is_expired(&facts(None, None), i64::MAX));
        assert!(!life.is_expired(&facts(Some(u64::MAX), None), i64::MAX));
    }

    #[test]
    fn what_is_in_use_does_not_end_and_what_ends_is_not_used_any_more() {
        let (sliding, mut life) = (facts(Some(2), None), Life::new(0));
        assert!(life.enter(&sliding, 1_000));
        assert!(!life.is_expired(&sliding, 9_000), "somebody is at it");
        assert!(!life.end(&sliding, 9_000));
        life.leave(10_000);
        assert!(!life.end(&sliding, 11_999), "its time begins anew when they leave");
        assert!(life.end(&sliding, 12_000));
        assert!(!life.enter(&sliding, 0), "it is being removed, whatever the clock says");
        life.revive();
        assert!(!life.enter(&sliding, 12_000) && life.enter(&sliding, 11_999));

        let (fixed, mut life) = (facts(None, Some(2_000)), Life::new(0));
        assert!(life.enter(&fixed, 1_000));
        assert!(!life.enter(&fixed, 2_000) && !life.end(&fixed, 2_000));
        life.leave(2_000);
        assert!(life.end(&fixed, 2_000));
    }
}

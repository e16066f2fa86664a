//! What a subscription decides by.
//!
//! Only what delivery decides with: filters, dead-letter topics and names belong to the subscription around it.

use std::time::Duration;

/// Order of delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// In the log's order as far as possible; retries hold up nobody.
    #[default]
    Unordered,
    /// Records of one key one after another, also under retry; a key is never in two hands.
    KeyFifo,
    /// Records of one partition one after another.
    PartitionFifo,
    /// One session gets everything, in order; the others stand by.
    Exclusive,
}

/// Settings of a subscription. All can change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Order of delivery.
    pub order: Order,
    /// Lease of a delivery.
    pub ack_wait: Duration,
    /// Longest lease with all extensions, from the delivery on.
    pub lease_max: Duration,
    /// Failures after which a record is dead-lettered; 0 is never.
    pub failures_max: u32,
    /// Delay after the first failure; doubles with every further one.
    pub backoff_min: Duration,
    /// Longest delay after a failure.
    pub backoff_max: Duration,
    /// Most open records of a lane: ready, in hands, waiting for a retry or for their key.
    pub open_max: u32,
    /// Most bytes of memory for the settled offsets of a lane.
    pub ack_state_bytes_max: u64,
    /// Most bytes of memory for the records of a lane that wait for their time.
    pub scheduled_bytes_max: u64,
    /// Records of one key that one session may hold at a time; at least 1.
    pub key_pipeline: u32,
    /// Open records of one key; past it the key is read again from the log when it drained.
    pub key_open_max: u32,
    /// How long a lost session keeps its records for a resume.
    pub resume_grace: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            order: Order::Unordered,
            ack_wait: Duration::from_secs(30),
            lease_max: Duration::from_secs(3600),
            failures_max: 10,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            open_max: 10_000,
            ack_state_bytes_max: 1 << 20,
            scheduled_bytes_max: 64 << 20,
            key_pipeline: 1,
            key_open_max: 1_000,
            resume_grace: Duration::from_secs(2),
        }
    }
}

impl Settings {
    /// Delay before the next try of `offset` after its `failures`-th failure, spread by up to 20 % either way.
    ///
    /// The spread comes from the offset and the count, so that a run can be repeated.
    pub fn backoff(&self, offset: u64, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let delay = self.backoff_min.saturating_mul(1 << doublings).min(self.backoff_max);
        let spread = mix(offset ^ (u64::from(failures) << 48)) % 401;
        let thousandths = 800 + u32::try_from(spread).expect("below 401");
        delay.saturating_mul(thousandths) / 1_000
    }
}

/// A number that looks random.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_within_its_spread_and_ends_at_its_limit() {
        let settings = Settings::default();
        for (failures, expected_ms) in
            [(1, 1_000), (2, 2_000), (5, 16_000), (9, 256_000), (40, 300_000)]
        {
            let mut seen = std::collections::BTreeSet::new();
            for offset in 0..200 {
                let delay = settings.backoff(offset, failures).as_millis();
                assert!(delay >= expected_ms * 8 / 10 && delay <= expected_ms * 12 / 10, "{delay}");
                seen.insert(delay);
            }
            assert!(seen.len() > 50, "the spread has {} values", seen.len());
        }
    }
}

//! Streams: topics of one partition that are written as the Durable Streams protocol says.
//!
//! ```text
//! what a stream is         StreamFacts   in the metadata log, from its creation on
//! what its writers did     Writers       a fold over the headers of its records ([`mark`])
//! whether it is closed     a record of its own at the end of the log, appended with the last data
//! when it was last used    in memory; a restart of the broker counts as a use
//! ```
//!
//! Invariants:
//! - Everything but the time of the last use is in a log: facts in the metadata log, the rest in the stream's own,
//!   in the same batch as the data it belongs to. So an append and what is remembered of it are there together or not.
//! - A stream keeps all of its records: otherwise a fold over them would forget its writers.
//! - Nothing follows the closing record.
//!
//! This room reads no clock and does no I/O.

mod facts;
pub mod mark;
mod writers;

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use tokio::sync::RwLock;

pub use self::{
    facts::{Origin, StreamFacts, media_type},
    mark::{Mark, Producer},
    writers::{Closing, Turn, Verdict, WriterError, Writers},
};

/// One live stream.
#[derive(Debug)]
pub struct Stream {
    facts: StreamFacts,
    /// Steady time of the last read or write, in milliseconds.
    used_ms: AtomicI64,
    /// What its writers did; `None` until somebody asks. Held for reading over an append that only needs the stream to be
    /// open, for writing over one that has a turn of its own.
    pub(crate) writers: RwLock<Option<Writers>>,
}

impl Stream {
    /// A stream that was used last at `used_ms`.
    pub fn new(facts: StreamFacts, used_ms: i64) -> Stream {
        Stream { facts, used_ms: AtomicI64::new(used_ms), writers: RwLock::new(None) }
    }

    /// What it is.
    pub fn facts(&self) -> &StreamFacts {
        &self.facts
    }

    /// Somebody reads or writes it.
    pub fn use_at(&self, now_ms: i64) {
        self.used_ms.fetch_max(now_ms, Relaxed);
    }

    /// Its time is over.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        let idle_ms = now_ms.saturating_sub(self.used_ms.load(Relaxed));
        let is_idle = |ttl_s: u64| {
            u64::try_from(idle_ms).is_ok_and(|idle| idle >= ttl_s.saturating_mul(1_000))
        };
        self.facts.expires_at_ms.is_some_and(|at| now_ms >= at)
            || self.facts.ttl_s.is_some_and(is_idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(ttl_s: Option<u64>, expires_at_ms: Option<i64>) -> Stream {
        let facts = StreamFacts { ttl_s, expires_at_ms, ..StreamFacts::bytes() };
        Stream::new(facts, 1_000)
    }

    #[test]
    fn idle_time_is_counted_from_the_last_use_and_a_fixed_end_is_not_moved() {
        let sliding = stream(Some(2), None);
        assert!(!sliding.is_expired(2_999) && sliding.is_expired(3_000));
        sliding.use_at(2_500);
        sliding.use_at(2_000);
        assert!(!sliding.is_expired(4_499) && sliding.is_expired(4_500));
        let fixed = stream(None, Some(2_000));
        fixed.use_at(1_999);
        assert!(!fixed.is_expired(1_999) && fixed.is_expired(2_000));
        assert!(!stream(None, None).is_expired(i64::MAX));
        assert!(!stream(Some(u64::MAX), None).is_expired(i64::MAX));
    }
}

//! How often a value lay between which bounds.
//!
//! An observation is two relaxed additions. The number of observations is the sum of the buckets, so that what is
//! rendered is always consistent with itself.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Bounds of buckets, and how a value becomes one of the base unit.
#[derive(Debug)]
pub struct Scale {
    /// Upper bounds, inclusive, rising.
    bounds: &'static [u64],
    /// So many of what is counted are one of the base unit.
    per_unit: f64,
}

/// Times, counted in microseconds and told in seconds: from a flush into a fast device to a long poll.
pub static SECONDS: Scale = Scale {
    bounds: &[
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 10_000_000, 30_000_000,
    ],
    per_unit: 1e6,
};

/// Numbers of records.
pub static RECORDS: Scale = Scale {
    bounds: &[1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 1_000_000],
    per_unit: 1.0,
};

/// A histogram that many threads observe into.
#[derive(Debug)]
pub struct Histogram {
    scale: &'static Scale,
    /// Observations by bucket; the last is for what lies past all bounds.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Upper bound and number of observations up to it, without the last bucket.
    pub cumulated: Vec<(f64, u64)>,
    /// Observations.
    pub count: u64,
    /// Their sum, in the base unit.
    pub sum: f64,
}

impl Histogram {
    /// An empty one.
    pub fn new(scale: &'static Scale) -> Histogram {
        let buckets = (0..=scale.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { scale, buckets, sum: AtomicU64::new(0) }
    }

    /// Enters one value.
    pub fn observe(&self, value: u64) {
        let bucket = self.scale.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Enters how long something took; for [`SECONDS`].
    pub fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// What it holds now.
    pub fn snapshot(&self) -> Snapshot {
        let per_unit = self.scale.per_unit;
        let mut count = 0;
        let mut cumulated = Vec::with_capacity(self.scale.bounds.len());
        for (bound, bucket) in self.scale.bounds.iter().zip(&self.buckets) {
            count += bucket.load(Relaxed);
            cumulated.push((*bound as f64 / per_unit, count));
        }
        count += self.buckets.last().map_or(0, |last| last.load(Relaxed));
        Snapshot { cumulated, count, sum: self.sum.load(Relaxed) as f64 / per_unit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lies_in_the_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::new(&RECORDS);
        for value in [0, 1, 2, 3, 4, 1_000_000, 1_000_001] {
            histogram.observe(value);
        }
        let seen = histogram.snapshot();
        assert_eq!(seen.cumulated[..3], [(1.0, 2), (3.0, 4), (10.0, 5)]);
        assert_eq!(seen.cumulated.last(), Some(&(1e6, 6)));
        assert_eq!((seen.count, seen.sum), (7, 2_000_011.0));
    }

    #[test]
    fn times_are_told_in_seconds() {
        let histogram = Histogram::new(&SECONDS);
        histogram.observe_time(Duration::from_micros(100));
        histogram.observe_time(Duration::from_millis(1_500));
        let seen = histogram.snapshot();
        assert_eq!(seen.cumulated[0], (0.0001, 1));
        assert_eq!(seen.cumulated[12..14], [(1.0, 1), (2.5, 2)]);
        assert_eq!(seen.sum, 1.5001);
    }
}

//! Distributions of times.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longest time told apart, in nanoseconds: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// A distribution of times, exact to three figures.
#[derive(Clone, Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    /// An empty one.
    pub(super) fn new() -> Times {
        Times(Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are in order"))
    }

    /// Adds a time.
    pub(super) fn add(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LONGEST_NS).max(1));
    }

    /// Adds those of another.
    pub(super) fn merge(&mut self, other: &Times) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Microseconds below which this share of them lies, in percent.
    pub(super) fn percentile_us(&self, percent: f64) -> f64 {
        micros(self.0.value_at_percentile(percent))
    }

    /// Cells of a row: count, p50, p90, p99, p99.9, longest, in microseconds.
    pub(super) fn cells(&self) -> [u64; 6] {
        let whole = |ns: u64| (ns + 500) / 1_000;
        let at = |percent| whole(self.0.value_at_percentile(percent));
        [self.count(), at(50.0), at(90.0), at(99.0), at(99.9), whole(self.0.max())]
    }

    /// The same for programs, in microseconds.
    pub(super) fn to_json(&self) -> Value {
        if self.count() == 0 {
            return json!({ "count": 0 });
        }
        json!({
            "count": self.count(),
            "mean": (self.0.mean() / 100.0).round() / 10.0,
            "p50": self.percentile_us(50.0),
            "p90": self.percentile_us(90.0),
            "p99": self.percentile_us(99.0),
            "p99_9": self.percentile_us(99.9),
            "max": micros(self.0.max()),
        })
    }
}

/// Microseconds with one decimal.
fn micros(ns: u64) -> f64 {
    (ns as f64 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let mut times = Times::new();
        for ms in 1..=1000 {
            times.add(Duration::from_millis(ms));
        }
        let mut other = Times::new();
        other.add(Duration::from_secs(7200));
        times.merge(&other);
        assert_eq!(times.count(), 1001);
        let near = |percent: f64, ms: f64| {
            let found = times.percentile_us(percent) / 1000.0;
            assert!((found - ms).abs() <= ms / 500.0, "{percent}: {found} is not {ms}");
        };
        near(50.0, 501.0);
        near(99.0, 991.0);
        let longest = times.to_json()["max"].as_f64().unwrap();
        assert!((longest - 3.6e9).abs() < 3.6e7, "held to an hour: {longest}");
    }

    #[test]
    fn no_times_have_no_percentiles() {
        assert_eq!(Times::new().to_json(), json!({ "count": 0 }));
    }
}

//! Requests of the web door: how many by call and class of their status, how many are being answered, and how long they take.

use std::time::Duration;

use super::{
    Counter,
    histogram::{Histogram, SECONDS, Snapshot},
};

/// Classes of statuses, by their first digit less one.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The meter of the web door.
#[derive(Debug)]
pub struct WebMeter {
    /// By name, rising. No call of another name is measured.
    calls: Box<[Call]>,
    begun: Counter,
    ended: Counter,
}

#[derive(Debug)]
struct Call {
    name: Box<str>,
    durations: Histogram,
    /// Answers by class.
    answered: [Counter; CLASSES.len()],
}

/// What was counted of one call.
#[derive(Clone, Debug)]
pub struct CallSeen {
    /// Its name, the label `api`.
    pub name: Box<str>,
    /// How long it took.
    pub durations: Snapshot,
    /// Answers by class of [`CLASSES`].
    pub answered: [u64; CLASSES.len()],
}

impl WebMeter {
    /// A meter of calls of these names.
    pub fn new(names: impl IntoIterator<Item = String>) -> WebMeter {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort();
        names.dedup();
        let call = |name: String| Call {
            name: name.into(),
            durations: Histogram::new(&SECONDS),
            answered: Default::default(),
        };
        let calls = names.into_iter().map(call).collect();
        WebMeter { calls, begun: Counter::default(), ended: Counter::default() }
    }

    /// A request came.
    pub fn begun(&self) {
        self.begun.add(1);
    }

    /// A request was answered, or its caller went away.
    pub fn ended(&self) {
        self.ended.add(1);
    }

    /// Requests that are not answered yet.
    pub fn in_flight(&self) -> u64 {
        // Read first what grows last, so that the difference is never negative.
        let ended = self.ended.get();
        self.begun.get().saturating_sub(ended)
    }

    /// True for a call that is measured.
    pub fn knows(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A call was answered with this status after `time`. One that is not in the list is not measured.
    pub fn answered(&self, name: &str, status: u16, time: Duration) {
        let Some(call) = self.find(name) else { return };
        call.durations.observe_time(time);
        let class = usize::from(status / 100).saturating_sub(1).min(CLASSES.len() - 1);
        call.answered[class].add(1);
    }

    /// Calls that came so far.
    pub fn seen(&self) -> Vec<CallSeen> {
        let seen = self.calls.iter().map(|call| CallSeen {
            name: call.name.clone(),
            durations: call.durations.snapshot(),
            answered: call.answered.each_ref().map(Counter::get),
        });
        seen.filter(|seen| seen.durations.count > 0).collect()
    }

    fn find(&self, name: &str) -> Option<&Call> {
        let found = self.calls.binary_search_by(|call| (*call.name).cmp(name)).ok()?;
        self.calls.get(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_name_and_class_and_strangers_are_not() {
        let meter = WebMeter::new(["GET /b", "GET /a", "GET /b"].map(str::to_owned));
        meter.begun();
        meter.begun();
        for (name, status) in [("GET /b", 200), ("GET /b", 204), ("GET /b", 503), ("GET /c", 200)] {
            meter.answered(name, status, Duration::from_millis(2));
        }
        meter.ended();
        let seen = meter.seen();
        assert_eq!(seen.len(), 1);
        assert_eq!((&*seen[0].name, seen[0].answered), ("GET /b", [0, 2, 0, 0, 1]));
        assert_eq!((seen[0].durations.count, meter.in_flight()), (3, 1));
        assert!(meter.knows("GET /a") && !meter.knows("GET /c"));
    }
}

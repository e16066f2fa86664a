//! What comes through one door: connections, and the time that calls take.

use std::time::Duration;

use super::{
    Counter,
    histogram::{Histogram, SECONDS, Snapshot},
};

/// The meter of one door.
#[derive(Debug)]
pub struct DoorMeter {
    /// Its name, the label `door`.
    name: &'static str,
    /// Names of its calls, the label `api`. No call of another name is measured.
    apis: &'static [&'static str],
    /// By index of `apis`.
    durations: Box<[Histogram]>,
    opened: Counter,
    closed: Counter,
    refused: Counter,
}

impl DoorMeter {
    /// The meter of the door `name`, for calls of these names.
    pub fn new(name: &'static str, apis: &'static [&'static str]) -> DoorMeter {
        let durations = apis.iter().map(|_| Histogram::new(&SECONDS)).collect();
        let (opened, closed, refused) = Default::default();
        DoorMeter { name, apis, durations, opened, closed, refused }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A connection was accepted.
    pub fn connection_opened(&self) {
        self.opened.add(1);
    }

    /// An accepted connection ended.
    pub fn connection_closed(&self) {
        self.closed.add(1);
    }

    /// A connection was closed on arrival: there are as many as there may be.
    pub fn connection_refused(&self) {
        self.refused.add(1);
    }

    /// Connections now.
    pub fn connections(&self) -> u64 {
        // Read first what grows last, so that the difference is never negative.
        let closed = self.closed.get();
        self.opened.get().saturating_sub(closed)
    }

    /// Connections accepted so far.
    pub fn connections_opened(&self) -> u64 {
        self.opened.get()
    }

    /// Connections closed on arrival so far.
    pub fn connections_refused(&self) -> u64 {
        self.refused.get()
    }

    /// A call was answered after `time`. One that is not in the list is not measured.
    pub fn answered(&self, api: &str, time: Duration) {
        if let Some(index) = self.apis.iter().position(|known| *known == api) {
            self.durations[index].observe_time(time);
        }
    }

    /// Calls that came so far, and how long they took.
    pub fn durations(&self) -> impl Iterator<Item = (&'static str, Snapshot)> {
        let seen = self.apis.iter().zip(&self.durations);
        seen.map(|(api, times)| (*api, times.snapshot())).filter(|(_, times)| times.count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_measured_by_name_and_strangers_are_not() {
        let door = DoorMeter::new("test", &["One", "Other"]);
        door.answered("Other", Duration::from_millis(2));
        door.answered("Stranger", Duration::from_millis(2));
        let seen: Vec<_> = door.durations().map(|(api, times)| (api, times.count)).collect();
        assert_eq!(seen, [("Other", 1)]);
        door.connection_opened();
        door.connection_opened();
        door.connection_closed();
        assert_eq!((door.connections(), door.connections_opened()), (1, 2));
    }
}

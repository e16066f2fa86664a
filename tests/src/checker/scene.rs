//! An event and everything that it is judged by.

use super::{Anomaly, Findings, Life, Rules};
use crate::history::Event;

/// An event and everything that it is judged by.
pub(super) struct Scene<'a> {
    pub(super) event: &'a Event,
    pub(super) rules: &'a Rules,
    pub(super) life: &'a mut Life,
    pub(super) findings: &'a mut Findings,
}

impl Scene<'_> {
    /// Takes an anomaly down; the witness gets the index of the event.
    pub(super) fn add(&mut self, anomaly: Anomaly, witness: impl FnOnce() -> String) {
        let index = self.event.index;
        self.findings.add(anomaly, || format!("{} (event {index})", witness()));
    }

    /// Whether the event is later than `t_ns` by more than anything can lie between broker and recorder.
    pub(super) fn is_long_after(&self, t_ns: u64) -> bool {
        self.event.t_ns.saturating_sub(t_ns) > self.rules.lag_ns()
    }

    /// Whether what comes now without being asked for is surely of the broker that runs now.
    pub(super) fn is_of_this_start(&self) -> bool {
        self.life.is_of_this_start(self.event.t_ns, self.rules.lag_ns())
    }
}

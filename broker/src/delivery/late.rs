//! Deliveries whose lease ended before everything was settled: an acknowledgement that comes late can still be taken for
//! what it is.
//!
//! Bounded: the oldest are forgotten, and an acknowledgement for them is refused.

use std::collections::BTreeMap;

use super::run::Run;

/// Deliveries remembered.
const LATE_MAX: usize = 1_024;
/// Runs remembered in all of them.
const RUNS_MAX: usize = 65_536;

/// A delivery that was taken back.
#[derive(Clone, Debug)]
pub(super) struct Late {
    /// Index of the lane.
    pub(super) lane: u32,
    /// Epoch of the session when it was handed out.
    pub(super) epoch: u64,
    /// What was taken back.
    pub(super) runs: Vec<Run>,
}

/// Deliveries that were taken back, by number.
#[derive(Debug, Default)]
pub(super) struct LateDeliveries {
    by_seq: BTreeMap<u64, Late>,
    runs: usize,
}

impl LateDeliveries {
    /// Remembers that `offset`, the next in order, was taken back.
    pub(super) fn add(&mut self, seq: u64, epoch: u64, lane: u32, offset: u64) {
        let late = self.by_seq.entry(seq).or_insert(Late { lane, epoch, runs: Vec::new() });
        let before = late.runs.len();
        Run::push(&mut late.runs, Run::one(offset));
        self.runs += late.runs.len() - before;
        while self.by_seq.len() > LATE_MAX || self.runs > RUNS_MAX {
            let (_, oldest) = self.by_seq.pop_first().expect("there are some");
            self.runs -= oldest.runs.len();
        }
    }

    /// The delivery `seq` of a session in epoch `epoch`.
    pub(super) fn get(&self, seq: u64, epoch: u64) -> Option<&Late> {
        self.by_seq.get(&seq).filter(|late| late.epoch == epoch)
    }

    /// Forgets a lane.
    pub(super) fn forget_lane(&mut self, lane: u32) {
        self.by_seq.retain(|_, late| late.lane != lane);
        self.runs = self.by_seq.values().map(|late| late.runs.len()).sum();
    }
}

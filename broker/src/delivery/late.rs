//! Deliveries whose lease ended before everything was settled: an acknowledgement that comes late can still be taken for
//! what it is.
//!
//! Bounded: the oldest are forgotten, and an acknowledgement for them is refused.

use std::collections::BTreeMap;

use super::{grants::Grant, run::Run, run_set::RunSet};

/// Deliveries remembered.
const LATE_MAX: usize = 1_024;
/// Runs remembered in all of them.
const RUNS_MAX: usize = 65_536;

/// A delivery that was taken back.
#[derive(Debug)]
pub(super) struct Late {
    /// Index of the lane.
    pub(super) lane: u32,
    /// Epoch of the session when it was handed out.
    pub(super) epoch: u64,
    /// All that was handed out with it: an acknowledgement of a range is judged for each of them.
    pub(super) given: Vec<Run>,
    /// What of it was in hands when the lease ended.
    taken: RunSet,
}

impl Late {
    fn run_count(&self) -> usize {
        self.given.len() + self.taken.len()
    }

    /// An acknowledgement of `offset` that comes late is for this.
    pub(super) fn is_taken(&self, offset: u64) -> bool {
        self.taken.contains(offset)
    }
}

/// Deliveries that were taken back, by number.
#[derive(Debug, Default)]
pub(super) struct LateDeliveries {
    by_seq: BTreeMap<u64, Late>,
    runs: usize,
}

impl LateDeliveries {
    /// Remembers that `offset` of this delivery, by its first grant, is taken back.
    pub(super) fn add(&mut self, root: &Grant, offset: u64) {
        let oldest = self.by_seq.first_key_value().map(|(seq, _)| *seq);
        let needed = self.runs + root.runs.len() + 1;
        if oldest.is_some_and(|oldest| root.seq < oldest)
            && (self.by_seq.len() >= LATE_MAX || needed > RUNS_MAX)
        {
            // It would be the first to be forgotten.
            return;
        }
        let late = self.by_seq.entry(root.seq).or_insert_with(|| {
            self.runs += root.runs.len();
            let given = root.runs.clone();
            Late { lane: root.lane, epoch: root.epoch, given, taken: RunSet::default() }
        });
        let before = late.taken.len();
        late.taken.insert(Run::one(offset));
        self.runs = self.runs + late.taken.len() - before;
        while self.by_seq.len() > LATE_MAX || self.runs > RUNS_MAX {
            let (_, oldest) = self.by_seq.pop_first().expect("there are some");
            self.runs -= oldest.run_count();
        }
    }

    /// The delivery `seq` of a session in epoch `epoch`.
    pub(super) fn get(&self, seq: u64, epoch: u64) -> Option<&Late> {
        self.by_seq.get(&seq).filter(|late| late.epoch == epoch)
    }

    /// Forgets a lane.
    pub(super) fn forget_lane(&mut self, lane: u32) {
        self.by_seq.retain(|_, late| late.lane != lane);
        self.runs = self.by_seq.values().map(Late::run_count).sum();
    }
}

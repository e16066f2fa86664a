//! What waits for the writer.

use std::collections::{BTreeMap, VecDeque};

use super::operation::Queued;
use crate::{
    delivery::{Change, LaneKey, OffsetSet},
    offset::PartitionKey,
    subscription::{delta::LaneDelta, lane::DeadIntent},
};

/// What waits for the writer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Changes of lanes, in order; all but the first of a lane begin with a seek.
    pub(super) lanes: BTreeMap<(u64, LaneKey), Vec<LaneDelta>>,
    /// Cancelled records, and below which offset those cancelled earlier are forgotten.
    pub(super) cancelled: BTreeMap<PartitionKey, (u64, OffsetSet)>,
    /// Operations, in order.
    pub(super) operations: VecDeque<Queued>,
    /// Number of the last thing handed in.
    pub(super) sequence: u64,
    /// Nothing more is taken.
    pub(super) closed: bool,
    /// Memory of `lanes`.
    lane_bytes: usize,
}

/// Taken for writing.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) lanes: BTreeMap<(u64, LaneKey), Vec<LaneDelta>>,
    pub(super) cancelled: BTreeMap<PartitionKey, (u64, OffsetSet)>,
    /// At most one: each is decided on the state that the one before made.
    pub(super) operation: Option<Queued>,
    pub(super) sequence: u64,
}

impl Pending {
    /// Bytes of memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.lane_bytes
    }

    pub(super) fn change(&mut self, number: u64, change: Change) {
        self.add((number, change.lane()), |delta| delta.add(change));
    }

    pub(super) fn intend(&mut self, number: u64, key: LaneKey, offset: u64, intent: DeadIntent) {
        self.add((number, key), |delta| {
            delta.intend(offset, intent);
            None
        });
    }

    /// Adds to the last delta of a lane; what comes back goes behind it.
    fn add(&mut self, lane: (u64, LaneKey), add: impl FnOnce(&mut LaneDelta) -> Option<LaneDelta>) {
        let deltas = self.lanes.entry(lane).or_default();
        if deltas.is_empty() {
            self.lane_bytes += size_of::<LaneDelta>();
            deltas.push(LaneDelta::default());
        }
        let Some(last) = deltas.last_mut() else { return };
        let before = last.bytes();
        let next = add(last);
        self.lane_bytes = self.lane_bytes + last.bytes() - before;
        if let Some(next) = next {
            self.lane_bytes += size_of::<LaneDelta>() + next.bytes();
            deltas.push(next);
        }
    }

    pub(super) fn cancel(&mut self, key: PartitionKey, offset: u64, forget_below: u64) {
        let (below, offsets) = self.cancelled.entry(key).or_default();
        *below = forget_below.max(*below);
        offsets.insert(offset..offset + 1);
    }

    /// Bytes of cancelled records of a partition.
    pub(super) fn cancelled_bytes(&self, key: &PartitionKey) -> usize {
        self.cancelled.get(key).map_or(0, |(_, offsets)| offsets.state_bytes())
    }

    /// Takes all that waits, of the operations the first; `None` when nothing does.
    pub(super) fn take(&mut self, durable: u64) -> Option<Taken> {
        let operation = self.operations.pop_front();
        if operation.is_none() && self.sequence == durable {
            return None;
        }
        self.lane_bytes = 0;
        Some(Taken {
            lanes: std::mem::take(&mut self.lanes),
            cancelled: std::mem::take(&mut self.cancelled),
            operation,
            sequence: self.sequence,
        })
    }
}

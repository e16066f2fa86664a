//! Outcomes: what a consumer says became of records.

use std::{sync::Arc, time::Duration};

use super::{lane_key::LaneKey, run::Run};

/// Offsets of one delivery and their common outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettleItem {
    /// Lane; one that the subscription does not have is refused.
    pub lane: LaneKey,
    /// Offsets. Those that were not part of the delivery are left alone.
    pub run: Run,
    /// Epoch of the session that got the delivery.
    pub epoch: u64,
    /// Number of the delivery.
    pub seq: u64,
    /// What became of them.
    pub outcome: Outcome,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Ack,
    /// Failed.
    Nack {
        /// Delay before the next try; the backoff when absent.
        delay: Option<Duration>,
        /// Why.
        reason: Arc<str>,
    },
    /// Given back untouched.
    Release,
    /// Will never succeed.
    Reject {
        /// Why.
        reason: Arc<str>,
    },
    /// Needs so much time from now on.
    Extend {
        /// Lease from now on.
        lease: Duration,
    },
    /// Handling has begun.
    Started,
}

/// What became of an outcome, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettleStatus {
    /// It counts.
    Ok,
    /// Settled before, and the outcome is no acknowledgement.
    AlreadySettled,
    /// The lease cannot be extended further.
    LeaseLimit,
    /// The lease is over or was given to another session.
    StaleLease,
    /// Never delivered.
    NotDelivered,
    /// The partition is none of the subscription's.
    UnknownPartition,
    /// The item is malformed.
    Invalid,
}

/// What became of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettleResult {
    /// The worst status among its offsets.
    pub status: SettleStatus,
    /// From the first to the last offset with that status, when not all of the item's.
    pub run: Option<Run>,
}

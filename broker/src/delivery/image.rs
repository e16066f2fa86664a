//! A lane as it is remembered.
//!
//! The sum of its [`super::Change`]s. What is neither below the floor, nor done, nor waiting for a far hour, nor a
//! pending dead letter is read from the log again.

use std::collections::BTreeMap;

use super::{
    change::{Attempt, DeadCause},
    run::Run,
};

/// A lane as it is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneImage {
    /// Every offset below is settled.
    pub floor: u64,
    /// Settled offsets from the floor on, sorted, neither touching nor overlapping.
    pub done: Vec<Run>,
    /// Failures of records that are not settled.
    pub failures: BTreeMap<u64, FailureImage>,
    /// Records to become dead letters.
    pub dead: BTreeMap<u64, DeadImage>,
    /// Records that wait for a far hour, by hours since 1970-01-01 UTC; sorted and disjoint.
    pub far: BTreeMap<i64, Vec<Run>>,
    /// Dead letters written so far.
    pub dead_count: u64,
}

/// How a record failed so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureImage {
    /// How often.
    pub failures: u32,
    /// When it may be tried again, in milliseconds since 1970-01-01 UTC.
    pub not_before_ms: i64,
    /// The latest failures, oldest first, at most [`super::change::ATTEMPTS_KEPT`].
    pub history: Vec<Attempt>,
}

/// A record to become a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadImage {
    /// Why.
    pub cause: DeadCause,
    /// Failures.
    pub failures: u32,
    /// The latest failures, oldest first.
    pub history: Vec<Attempt>,
}

impl LaneImage {
    /// A lane that begins at `floor`.
    pub fn at(floor: u64) -> LaneImage {
        LaneImage { floor, ..LaneImage::default() }
    }
}

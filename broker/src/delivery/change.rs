//! What delivery asks to be remembered.
//!
//! Changes of one lane are applied in the order they come; their sum is a [`super::LaneImage`]. What is in a
//! consumer's hands is never remembered: after a crash it is delivered again.

use std::sync::Arc;

use super::{lane_key::LaneKey, run::Run};

/// Attempts remembered of a record that fails.
pub const ATTEMPTS_KEPT: usize = 16;
/// Bytes kept of a reason.
pub const REASON_BYTES_MAX: usize = 256;

/// The first [`REASON_BYTES_MAX`] bytes of a reason.
pub fn cut_reason(reason: &Arc<str>) -> Arc<str> {
    match reason.len() {
        0..=REASON_BYTES_MAX => Arc::clone(reason),
        _ => reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].into(),
    }
}

/// How a delivery failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// The consumer said so.
    Nack,
    /// The lease ended.
    Expired,
    /// The session was lost while it handled the record.
    Crashed,
    /// The consumer said that it will never succeed.
    Rejected,
}

/// Why a record becomes a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadCause {
    /// It failed as often as it may.
    FailuresMax,
    /// A consumer rejected it.
    Rejected,
}

/// One failed delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it failed, in milliseconds since 1970-01-01 UTC.
    pub time_ms: i64,
    /// How.
    pub cause: FailureCause,
    /// Id of the session that held the record.
    pub session: Arc<str>,
    /// What the consumer said, at most [`REASON_BYTES_MAX`] bytes.
    pub reason: Arc<str>,
}

/// One thing to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These offsets are settled, or nothing of them is to be delivered.
    Done {
        /// Lane.
        lane: LaneKey,
        /// Offsets; some may be settled before.
        run: Run,
    },
    /// A delivery failed and the record is to be tried again.
    Failed {
        /// Lane.
        lane: LaneKey,
        /// Record.
        offset: u64,
        /// Failures so far, this one included.
        failures: u32,
        /// When it may be tried again, in milliseconds since 1970-01-01 UTC.
        not_before_ms: i64,
        /// What happened; the latest [`ATTEMPTS_KEPT`] are remembered.
        attempt: Attempt,
    },
    /// The record is to become a dead letter. It is not settled before [`Change::Dead`].
    DeadPending {
        /// Lane.
        lane: LaneKey,
        /// Record.
        offset: u64,
        /// Why.
        cause: DeadCause,
        /// Failures so far.
        failures: u32,
        /// The failure that made it so; none when a lower limit did.
        attempt: Option<Attempt>,
    },
    /// The dead letter is durable, so the record is settled.
    Dead {
        /// Lane.
        lane: LaneKey,
        /// Record.
        offset: u64,
    },
    /// The position was set: everything below is settled, nothing else is remembered.
    Seek {
        /// Lane.
        lane: LaneKey,
        /// The floor.
        offset: u64,
    },
    /// These records wait for an hour that is far away; they are not looked at before.
    Scheduled {
        /// Lane.
        lane: LaneKey,
        /// Hours since 1970-01-01 UTC.
        hour: i64,
        /// Records.
        run: Run,
    },
    /// The hour came: its records are looked at like any others that are not settled.
    ScheduleCame {
        /// Lane.
        lane: LaneKey,
        /// Hours since 1970-01-01 UTC.
        hour: i64,
    },
}

impl Change {
    /// The lane it is about.
    pub fn lane(&self) -> LaneKey {
        match self {
            Change::Done { lane, .. }
            | Change::Failed { lane, .. }
            | Change::DeadPending { lane, .. }
            | Change::Dead { lane, .. }
            | Change::Seek { lane, .. }
            | Change::Scheduled { lane, .. }
            | Change::ScheduleCame { lane, .. } => *lane,
        }
    }
}

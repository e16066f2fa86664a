//! What delivery asks its surroundings to do.

use std::sync::Arc;

use super::{
    change::{Attempt, Change, DeadCause},
    lane_key::LaneKey,
    open::{GoneReason, SessionRef},
    run::Run,
};

/// Everything that happened since it was last taken.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// What sessions are to hear, in the order in which it happened: a record that comes back and is given again at once is
    /// revoked first, or the client would take the new lease for the revoked one.
    pub told: Vec<(SessionRef, Told)>,
    /// Sessions that ended by themselves.
    pub gone: Vec<(SessionRef, GoneReason)>,
    /// Dead letters to write. Each is answered with `dead_stored`, `dead_lost` or `dead_failed`.
    pub dead: Vec<DeadLetter>,
    /// What is to be remembered, in order for each lane.
    pub changes: Vec<Change>,
}

impl Effects {
    /// The deliveries among what sessions hear.
    pub fn handouts(&self) -> impl Iterator<Item = (SessionRef, &Handout)> {
        self.told.iter().filter_map(|(session, told)| match told {
            Told::Handout(handout) => Some((*session, handout)),
            Told::Revoked(..) | Told::Lost(..) => None,
        })
    }

    /// Nothing happened.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
            && self.gone.is_empty()
            && self.dead.is_empty()
            && self.changes.is_empty()
    }
}

/// What a session is to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is given these records.
    Handout(Handout),
    /// It no longer holds these.
    Revoked(LaneKey, Run, RevokeReason),
    /// Retention removed these while it held them.
    Lost(LaneKey, Run),
}

/// One delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handout {
    /// Lane.
    pub lane: LaneKey,
    /// Its number, rising within the session.
    pub seq: u64,
    /// Epoch of the session.
    pub epoch: u64,
    /// The records, in order.
    pub runs: Vec<Run>,
    /// Bytes of their keys, values and headers.
    pub bytes: u64,
    /// Records that were handed out or failed before; all others are at attempt 1 with no failures.
    pub counts: Vec<DeliveryCount>,
    /// It was sent before.
    pub replayed: bool,
}

impl Handout {
    /// Number of records.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|run| run.count()).sum()
    }
}

/// How often a record was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryCount {
    /// Record.
    pub offset: u64,
    /// Times handed out since the broker started, this one included; stops at 255.
    pub attempts: u32,
    /// Failures so far.
    pub failures: u32,
}

/// Why a record was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeReason {
    /// The lease ended.
    LeaseExpired,
    /// An earlier holder acknowledged it late.
    SettledElsewhere,
    /// The position was moved.
    Seek,
    /// An earlier record of the same key failed, so this one waits again.
    Order,
}

/// A record to be written to the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Lane.
    pub lane: LaneKey,
    /// Record.
    pub offset: u64,
    /// Why.
    pub cause: DeadCause,
    /// Failures.
    pub failures: u32,
    /// The latest failures, oldest first.
    pub history: Arc<[Attempt]>,
}

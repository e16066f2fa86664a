//! One partition's way out: records fill an open batch, batches leave in order and wait for answers.
//!
//! ```text
//! append -> open -- full, due, or flushed --> sealed -- given the next sequence numbers --> sent
//!
//! sent: Encoding -> InFlight -- answered --> settled
//!                     |  ^
//!     link lost       |  | sent again: same bytes, same sequence numbers
//!     (doubtful)      v  |
//!                   Queued <-- hold over -- Refused   ("not now", or "gap" behind one that was)
//! ```
//!
//! Invariants:
//! - Batches get sequence numbers and are first sent in the order of their records.
//! - From the oldest unsettled batch on at most [`SENT_MAX`] are sent: as many as the broker remembers
//!   per producer, so that a batch sent again is always told from a new one.
//! - While a batch is refused nothing of the lane is sent until every answer has come; then the refused
//!   ones go again, in order.
//! - A batch is *doubtful* when it may have been written although no answer says so. Only the same
//!   sequence numbers in the same epoch may carry it again.
//!
//! - [`append`]: records in. [`choose`]: what to send next. [`answer`]: what the broker said.
//! - [`settle`]: sessions, deadlines, new identities, the end.

mod answer;
mod append;
mod choose;
mod settle;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use riverrun_proto::{BatchBuilder, PartitionId, RecordBatch};

pub(super) use self::{
    answer::Answered,
    append::{Intake, Take, needed_alone},
    choose::{Choice, Encoded, Encoding, Sending},
};
use super::delivery::{BatchReceipt, Cell};
use crate::{
    backoff::Backoff,
    clock::Instant,
    error::{Error, Result},
};

/// Batches from the oldest unsettled one on: the broker remembers five per producer and partition.
pub(super) const SENT_MAX: u64 = 5;

/// One partition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) partition: PartitionId,
    state: Mutex<State>,
}

/// Everything that changes. Guarded by `Lane::state`.
#[derive(Debug, Default)]
struct State {
    /// The batch being filled. Never empty outside of `append`.
    open: Option<Filling>,
    /// Batches that are full or were flushed, oldest first.
    sealed: VecDeque<Filling>,
    /// Batches with sequence numbers, in their order.
    sent: VecDeque<Sent>,
    /// Of `sent`, those being encoded or in flight.
    in_flight: usize,
    /// For the next batch.
    next: Numbers,
    /// How the lane waits after a refusal.
    refusal: Refusal,
    /// Whether somebody will look at the lane.
    listing: Listing,
    /// The stream that may send. Batches encoded for an earlier one are queued for this.
    session: u64,
    /// Why no more records are taken.
    closed: Option<Error>,
}

/// Numbers of the next batch.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    /// Counts batches; never reset.
    ordinal: u64,
    /// Sequence number of its first record.
    sequence: i32,
}

/// How a lane waits after a refusal.
#[derive(Debug, Default)]
struct Refusal {
    /// Nothing refused is sent again before this. Set while something is refused "for now".
    hold: Option<Instant>,
    /// Waits between tries. Dropped by a success.
    backoff: Option<Backoff>,
    /// What the broker said last "for now". Dropped by a success and by a new stream.
    reason: Option<Error>,
    /// The oldest batch left a gap: the lane waits for new sequence numbers.
    stuck: bool,
}

/// Whether somebody will look at the lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Listing {
    /// Nobody; whoever gives it work lists it.
    #[default]
    Idle,
    /// It stands in the ready list.
    Ready,
    /// The pump looks again when this time comes.
    Waiting(Instant),
}

/// A batch that takes records, or took the last one.
#[derive(Debug)]
struct Filling {
    builder: BatchBuilder,
    cell: Arc<Cell>,
    /// When the first record came.
    opened_at: Instant,
    /// Bytes taken from the budget.
    reserved: usize,
}

/// A batch with sequence numbers.
#[derive(Debug)]
struct Sent {
    request_id: u64,
    ordinal: u64,
    base_sequence: i32,
    /// Records in it.
    count: u32,
    /// `None` while it is being encoded.
    batch: Option<RecordBatch>,
    phase: Phase,
    /// It may have been written although no answer says so.
    doubtful: bool,
    cell: Arc<Cell>,
    opened_at: Instant,
    reserved: usize,
}

#[derive(Clone, Debug)]
enum Phase {
    Encoding,
    Queued,
    InFlight,
    Refused(Error),
}

/// A batch whose fate is known. To be passed on without the lane's lock.
#[derive(Debug)]
#[must_use = "whoever waits for the batch must be told"]
pub(super) struct Settled {
    pub(super) cell: Arc<Cell>,
    pub(super) outcome: Result<BatchReceipt>,
    /// Bytes to give back.
    pub(super) reserved: usize,
}

impl Lane {
    /// An empty lane for one partition, sending in `session`.
    pub(super) fn new(partition: u32, session: u64) -> Lane {
        let state = State { session, ..State::default() };
        Lane { partition: PartitionId(partition), state: Mutex::new(state) }
    }

    /// Whether nothing waits to be sent or answered.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.open.is_none() && state.sealed.is_empty() && state.sent.is_empty()
    }
}

impl Lane {
    /// Why what waits here is not written: the broker's last refusal "for now".
    pub(super) fn refusal(&self) -> Option<Error> {
        let state = self.state.lock();
        state.refusal.reason.clone().filter(|_| !state.sent.is_empty())
    }

    /// Asks for the lane to be looked at; true when it must be put into the ready list.
    pub(super) fn nudge(&self) -> bool {
        let mut state = self.state.lock();
        state.has_work() && state.list()
    }
}

impl State {
    /// Lists the lane unless it is listed; true when the caller must put it into the ready list.
    fn list(&mut self) -> bool {
        let newly = self.listing != Listing::Ready;
        self.listing = Listing::Ready;
        newly
    }

    /// Whether there is anything to send now or later.
    fn has_work(&self) -> bool {
        let queued = |sent: &Sent| !matches!(sent.phase, Phase::InFlight | Phase::Encoding);
        self.open.is_some() || !self.sealed.is_empty() || self.sent.iter().any(queued)
    }

    /// Takes the batch at `index` out of `sent`.
    fn remove(&mut self, index: usize, outcome: Result<BatchReceipt>) -> Option<Settled> {
        let sent = self.sent.remove(index)?;
        if matches!(sent.phase, Phase::InFlight | Phase::Encoding) {
            self.in_flight -= 1;
        }
        // The newest batch, refused on its only try, leaves no gap: its numbers are free again.
        let newest = sent.ordinal + 1 == self.next.ordinal;
        if newest && outcome.is_err() && !sent.doubtful && !sent.was_in_flight() {
            self.next = Numbers { ordinal: sent.ordinal, sequence: sent.base_sequence };
        }
        Some(Settled { cell: sent.cell, outcome, reserved: sent.reserved })
    }

    fn index_of(&self, request_id: u64) -> Option<usize> {
        self.sent.iter().position(|sent| sent.request_id == request_id)
    }
}

impl Sent {
    fn was_in_flight(&self) -> bool {
        matches!(self.phase, Phase::InFlight)
    }
}

impl Filling {
    fn settled(self, error: Error) -> Settled {
        Settled { cell: self.cell, outcome: Err(error), reserved: self.reserved }
    }
}

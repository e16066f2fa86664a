//! One record to work on, with the handle that settles it.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{
    desk::{Act, Nack, Slip, Waiter, over},
    lease::Lease,
};
use crate::{consumer::Received, error::Result, subscription::millis};

/// Bytes of a reason that are sent; the broker keeps no more.
const REASON_BYTES_MAX: usize = 256;

/// One record to work on. It owns its bytes and the means to settle it: it can be sent to any task, and
/// settled there in any order.
///
/// Outcomes are queued and sent together a moment later. A job that is dropped without one keeps its
/// place until its lease runs out (a failure) or the subscriber is closed (it is released).
#[derive(Debug)]
pub struct Job {
    record: Received,
    attempts: u32,
    failures: u32,
    /// `None` once settled.
    ticket: Option<Ticket>,
}

/// Names a record that was given out.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) lease: Arc<Lease>,
    pub(super) index: u32,
}

/// What became of a job, for handlers of [`crate::Subscriber::run`] and [`Job::settle`].
///
/// `Ok(())` becomes `Done` and any error `Retry` with its words, so a handler may return a plain `Result`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: not delivered again.
    Done,
    /// Failed: delivered again, or a dead letter when it failed often enough.
    Retry {
        /// Delay before the next try, at most 12 h; `None` is the subscription's backoff.
        after: Option<Duration>,
        /// Why; 256 bytes are kept.
        reason: String,
    },
    /// Given back untouched: delivered again at once, and not a failure.
    Release,
    /// Will never succeed: a dead letter now.
    Reject {
        /// Why; 256 bytes are kept.
        reason: String,
    },
}

impl Outcome {
    /// Failed, with this reason and the subscription's backoff.
    pub fn retry(reason: impl Into<String>) -> Outcome {
        Outcome::Retry { after: None, reason: reason.into() }
    }

    /// Will never succeed, for this reason.
    pub fn reject(reason: impl Into<String>) -> Outcome {
        Outcome::Reject { reason: reason.into() }
    }

    fn into_act(self) -> Act {
        match self {
            Outcome::Done => Act::Ack,
            Outcome::Release => Act::Release,
            Outcome::Reject { reason } => Act::Reject(shortened(reason).into()),
            Outcome::Retry { after, reason } => {
                Act::Nack(Box::new(Nack { delay_ms: after.map(millis), reason: shortened(reason) }))
            }
        }
    }
}

impl From<()> for Outcome {
    fn from((): ()) -> Outcome {
        Outcome::Done
    }
}

impl<E: std::fmt::Display> From<Result<(), E>> for Outcome {
    fn from(result: Result<(), E>) -> Outcome {
        match result {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::retry(error.to_string()),
        }
    }
}

impl<E: std::fmt::Display> From<Result<Outcome, E>> for Outcome {
    fn from(result: Result<Outcome, E>) -> Outcome {
        result.unwrap_or_else(|error| Outcome::retry(error.to_string()))
    }
}

impl Job {
    pub(super) fn new(record: Received, (attempts, failures): (u32, u32), ticket: Ticket) -> Job {
        Job { record, attempts, failures, ticket: Some(ticket) }
    }

    /// The record.
    pub fn record(&self) -> &Received {
        &self.record
    }

    /// How often it was handed out, this time included. Not kept over a restart of the broker.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How often it failed before.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the broker took the record back: its lease is over, or an operator moved the subscription.
    /// Another consumer may have it by now. Acknowledging it is still worth while when the work is done.
    pub fn is_revoked(&self) -> bool {
        self.ticket.as_ref().is_none_or(Ticket::is_revoked)
    }

    /// Done. Queued; sent with others a moment later.
    #[inline]
    pub fn ack(self) {
        self.hand_in(Act::Ack);
    }

    /// Done, and waits until that is durable at the broker.
    ///
    /// # Errors
    /// `StaleLease` when another consumer has the record; `Closed`. A broken connection is none: the
    /// outcome is sent again after it.
    pub async fn ack_sync(mut self) -> Result<()> {
        let (waiter, durable) = oneshot::channel();
        if let Some(ticket) = self.ticket.take() {
            ticket.put(Act::Ack, Some(waiter));
        }
        durable.await.unwrap_or_else(|_| Err(over()))
    }

    /// Failed; tried again after the subscription's backoff.
    pub fn nack(self, reason: impl Into<String>) {
        self.settle(Outcome::retry(reason));
    }

    /// Failed; tried again after this time, at most 12 h.
    pub fn retry_after(self, delay: Duration) {
        self.settle(Outcome::Retry { after: Some(delay), reason: String::new() });
    }

    /// Given back untouched: delivered again at once, and not a failure.
    pub fn release(self) {
        self.settle(Outcome::Release);
    }

    /// Will never succeed: goes to the dead letters now.
    pub fn reject(self, reason: impl Into<String>) {
        self.settle(Outcome::reject(reason));
    }

    /// Settles with any outcome.
    pub fn settle(self, outcome: Outcome) {
        self.hand_in(outcome.into_act());
    }

    /// Asks for more time: the lease ends `lease` from now, within the subscription's longest lease.
    pub fn extend(&self, lease: Duration) {
        if let Some(ticket) = &self.ticket {
            ticket.extend(lease);
        }
    }

    /// Says that handling begins, so that a crash counts as a failure of this record. Only needed with
    /// [`crate::SubscriberBuilder::manual_start`]; otherwise a record counts as started when it is received.
    ///
    /// Nothing tells whether the broker has noted it: a program that dies before the mark has reached the broker leaves a record that was not
    /// started. A mark that may be lost with a connection is told again while the record is in hand.
    pub fn started(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.put(Act::Started, None);
        }
    }

    /// As [`Job::started`], and waits until the broker has noted it.
    ///
    /// # Errors
    /// When the record is not in this subscriber's hands any more.
    pub(super) async fn confirm_started(&self) -> Result<()> {
        let (waiter, noted) = oneshot::channel();
        if let Some(ticket) = &self.ticket {
            ticket.put(Act::Started, Some(waiter));
        }
        // A mark that was not taken for want of room is none that failed.
        noted.await.unwrap_or(Ok(()))
    }

    #[inline]
    fn hand_in(mut self, act: Act) {
        if let Some(Ticket { lease, index }) = self.ticket.take() {
            lease.desk.put(Slip { serial: lease.serial, index, act, waiter: None });
        }
    }

    /// A second handle on the same record.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        self.ticket.clone()
    }

    /// The outcome is somebody else's to tell from now on.
    pub(super) fn disown(&mut self) {
        self.ticket = None;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(Ticket { lease, index }) = self.ticket.take() {
            lease.desk.put(Slip { serial: lease.serial, index, act: Act::Dropped, waiter: None });
        }
    }
}

impl Ticket {
    fn put(&self, act: Act, waiter: Option<Waiter>) {
        self.lease.desk.put(Slip { serial: self.lease.serial, index: self.index, act, waiter });
    }

    pub(super) fn extend(&self, lease: Duration) {
        self.put(Act::Extend(millis(lease)), None);
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.lease.is_taken_back(self.index)
    }

    pub(super) fn settle(self, outcome: Outcome) {
        self.put(outcome.into_act(), None);
    }

    pub(super) fn drop_unsettled(self) {
        self.put(Act::Dropped, None);
    }
}

/// At most as much of a reason as is kept, cut between characters.
fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let at = (0..=REASON_BYTES_MAX).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(at.unwrap_or_default());
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reasons_are_cut_between_characters() {
        assert_eq!(shortened("ä".repeat(200)), "ä".repeat(128));
        assert_eq!(shortened(format!("x{}", "ä".repeat(200))).len(), 255);
        assert_eq!(shortened("short".into()), "short");
    }

    #[test]
    fn results_become_outcomes() {
        assert_eq!(Outcome::from(()), Outcome::Done);
        assert_eq!(Outcome::from(Ok::<(), String>(())), Outcome::Done);
        assert_eq!(Outcome::from(Err::<(), _>("no disk")), Outcome::retry("no disk"));
        assert_eq!(Outcome::from(Ok::<_, String>(Outcome::Release)), Outcome::Release);
        assert_eq!(Outcome::from(Err::<Outcome, _>("x")), Outcome::retry("x"));
    }
}

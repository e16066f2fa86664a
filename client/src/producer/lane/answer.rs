//! What the broker said about a batch, and what follows from it.
//!
//! | answer | the batch | the lane |
//! | --- | --- | --- |
//! | written, or was already | settled | goes on |
//! | not now (disk full, quota, leader, shutting down) | refused, goes again | holds |
//! | perhaps (flush failed, internal) | as above and doubtful; fails without idempotence | holds |
//! | sequence gap | proved absent: goes again after the one before it, or under a new epoch | stuck when it is the oldest |
//! | producer unknown | the same, but a doubtful one fails as indeterminate | stuck when it is the oldest |
//! | fenced, topic gone | fails, a doubtful one as indeterminate | the producer ends |
//! | anything else | the same | later ones find a gap |

use super::{Lane, Phase, Refusal, Sent, Settled, State};
use crate::{
    backoff::{Backoff, Randomness},
    clock::Instant,
    error::{Error, ErrorCode, Result},
    producer::delivery::BatchReceipt,
};

/// What follows from an answer.
#[derive(Debug, Default)]
pub(in crate::producer) struct Answered {
    /// Batches whose fate is known now.
    pub(in crate::producer) settled: Vec<Settled>,
    /// The lane must be put into the ready list.
    pub(in crate::producer) list: bool,
    /// The lane needs new sequence numbers.
    pub(in crate::producer) stuck: bool,
    /// The producer cannot go on.
    pub(in crate::producer) dead: Option<Error>,
}

/// What an error says about its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Not written; may be sent again.
    NotNow,
    /// Perhaps written; may be sent again under the same numbers.
    Perhaps,
    /// Refused because an earlier batch is missing.
    Gap,
    /// Not written, and nothing else will be.
    Dead,
    /// Not written, and never will be.
    Refused,
}

fn verdict(code: ErrorCode) -> Verdict {
    match code {
        ErrorCode::DiskFull
        | ErrorCode::QuotaExceeded
        | ErrorCode::NotLeader
        | ErrorCode::Unavailable => Verdict::NotNow,
        ErrorCode::PartitionFailed
        | ErrorCode::Indeterminate
        | ErrorCode::Internal
        | ErrorCode::DeadlineExceeded
        | ErrorCode::Unreachable => Verdict::Perhaps,
        ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducerId => Verdict::Gap,
        ErrorCode::ProducerFenced
        | ErrorCode::UnknownTopicOrPartition
        | ErrorCode::TopicIdMismatch
        | ErrorCode::TopicDeleted
        | ErrorCode::ReadOnly
        | ErrorCode::Closed => Verdict::Dead,
        ErrorCode::InvalidArgument
        | ErrorCode::OffsetOutOfRange
        | ErrorCode::OffsetTruncated
        | ErrorCode::CorruptBatch
        | ErrorCode::RecordTooLarge
        | ErrorCode::DataCorrupt
        | ErrorCode::UnknownMember
        | ErrorCode::FencedMemberEpoch
        | ErrorCode::StaleMemberEpoch
        | ErrorCode::PartitionNotOwned
        | ErrorCode::InstanceIdInUse
        | ErrorCode::UnknownGroup
        | ErrorCode::GroupNotEmpty
        | ErrorCode::OffsetConflict
        | ErrorCode::TopicExists
        | ErrorCode::UnknownSubscription
        | ErrorCode::SubscriptionExists
        | ErrorCode::SubscriptionInUse
        | ErrorCode::SessionReplaced
        | ErrorCode::UnknownSession
        | ErrorCode::StaleLease
        | ErrorCode::BufferFull
        | ErrorCode::NoOffset
        | ErrorCode::Protocol => Verdict::Refused,
    }
}

impl Lane {
    /// Takes the answer to a batch. Answers to batches that are gone are ignored.
    pub(in crate::producer) fn answer(
        &self,
        request_id: u64,
        answer: Result<BatchReceipt>,
        idempotent: bool,
        now: Instant,
    ) -> Answered {
        let mut answered = Answered::default();
        let mut state = self.state.lock();
        let Some(index) = state.index_of(request_id) else {
            return answered;
        };
        match answer {
            Ok(receipt) => {
                state.refusal.backoff = None;
                state.refusal.reason = None;
                answered.settled.extend(state.remove(index, Ok(receipt)));
            }
            Err(error) => {
                let refused = Refused { index, error: &error, idempotent, now };
                state.refused(&refused, &mut answered);
            }
        }
        if state.in_flight == 0 {
            answered.stuck = state.judge_oldest(&mut answered.settled);
        }
        answered.list = state.has_work() && state.list();
        answered
    }
}

/// A batch that was not acknowledged.
struct Refused<'a> {
    /// Its place in `sent`.
    index: usize,
    error: &'a Error,
    idempotent: bool,
    now: Instant,
}

impl State {
    fn refused(&mut self, refused: &Refused<'_>, answered: &mut Answered) {
        let Refused { index, error, idempotent, now } = *refused;
        let sent = &mut self.sent[index];
        if matches!(sent.phase, Phase::InFlight) {
            self.in_flight -= 1;
        }
        sent.phase = Phase::Refused(error.clone());
        match verdict(error.code()) {
            Verdict::NotNow => self.refusal.hold_on(error, now),
            Verdict::Perhaps if idempotent => {
                sent.doubtful = true;
                self.refusal.hold_on(error, now);
            }
            Verdict::Perhaps => {
                sent.doubtful = true;
                answered.settled.extend(self.remove(index, Err(indeterminate(error))));
            }
            Verdict::Gap => {
                // The broker remembers more batches than are ever unsettled. One that it does not
                // find among them, while it knows the producer, is not in the log.
                sent.doubtful &= error.code() == ErrorCode::UnknownProducerId;
            }
            Verdict::Dead => {
                answered.dead = Some(error.clone());
                let outcome = sent.fate(error);
                answered.settled.extend(self.remove(index, Err(outcome)));
            }
            Verdict::Refused => {
                let outcome = sent.fate(error);
                answered.settled.extend(self.remove(index, Err(outcome)));
            }
        }
    }

    /// Once every answer has come: decides about a gap at the front. True when new numbers are needed.
    ///
    /// A doubtful batch that found a gap has nothing left that could tell its fate: it fails.
    pub(super) fn judge_oldest(&mut self, settled: &mut Vec<Settled>) -> bool {
        if !self.sent.front().is_some_and(Sent::found_gap) {
            return false;
        }
        let mut index = 0;
        while let Some(sent) = self.sent.get(index) {
            match &sent.phase {
                Phase::Refused(error) if sent.doubtful && sent.found_gap() => {
                    let error = indeterminate(error);
                    settled.extend(self.remove(index, Err(error)));
                }
                Phase::Encoding | Phase::Queued | Phase::InFlight | Phase::Refused(_) => index += 1,
            }
        }
        self.refusal.stuck = self.sent.front().is_some_and(Sent::found_gap);
        self.refusal.stuck
    }
}

impl Sent {
    /// What a refusal for good comes to: an earlier try of a doubtful batch may have been written.
    fn fate(&self, error: &Error) -> Error {
        if self.doubtful { indeterminate(error) } else { error.clone() }
    }

    fn found_gap(&self) -> bool {
        match &self.phase {
            Phase::Refused(error) => verdict(error.code()) == Verdict::Gap,
            Phase::Encoding | Phase::Queued | Phase::InFlight => false,
        }
    }
}

impl Refusal {
    /// Waits as long as the broker asked, and longer each time.
    fn hold_on(&mut self, error: &Error, now: Instant) {
        let backoff = self.backoff.get_or_insert_with(|| Backoff::new(Randomness::from_system()));
        let until = now + backoff.next_wait().max(error.retry_after());
        self.hold = Some(self.hold.map_or(until, |hold| hold.max(until)));
        self.reason = Some(error.clone());
    }
}

/// `error`, said of a batch that may have been written.
pub(super) fn indeterminate(error: &Error) -> Error {
    Error::new(
        ErrorCode::Indeterminate,
        format!("the record may or may not have been written: {}", error.message()),
    )
}

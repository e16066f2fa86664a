//! What to send next.

use std::time::Duration;

use bytes::Bytes;
use riverrun_proto::{BatchBuilder, RecordBatch, batch::EncodeError};

use super::{Filling, Lane, Listing, Numbers, Phase, SENT_MAX, Sent, Settled, State};
use crate::{
    clock::Instant,
    error::{Error, ErrorCode},
    producer::identity::{Identity, next_sequence},
};

/// While fewer batches than this are in flight, an open batch leaves at once.
const EAGER_MAX: usize = 2;

/// Who sends, and in what mood.
#[derive(Clone, Copy, Debug)]
pub(in crate::producer) struct Sending {
    /// The stream that sends.
    pub(in crate::producer) session: u64,
    /// Longest time an open batch waits for company while others are in flight.
    pub(in crate::producer) linger: Duration,
    /// Somebody waits for buffer space: nothing lingers.
    pub(in crate::producer) pressed: bool,
    /// A new identity is wanted: only what is doubtful is sent.
    pub(in crate::producer) resetting: bool,
    pub(in crate::producer) identity: Identity,
    pub(in crate::producer) now: Instant,
}

/// What to do for a lane.
#[derive(Debug)]
pub(in crate::producer) enum Choice {
    /// Send these bytes, then choose again.
    Send { request_id: u64, batch: Bytes },
    /// Encode this batch, hand it to [`Lane::encoded`], then choose again.
    Encode(Encoding),
    /// Choose again at this time.
    Wait(Instant),
    /// Nothing until the lane is listed again.
    Nothing,
    /// Another session sends: put the lane back for it.
    Stale,
}

/// A batch to encode, outside of the lock.
#[derive(Debug)]
pub(in crate::producer) struct Encoding {
    pub(in crate::producer) request_id: u64,
    pub(in crate::producer) builder: BatchBuilder,
    /// Bytes to give back to the budget: more was reserved than used.
    pub(in crate::producer) surplus: usize,
}

impl Lane {
    /// What to do now. `request_id` is used when a batch gets its numbers.
    pub(in crate::producer) fn choose(&self, sending: &Sending, request_id: u64) -> Choice {
        let mut state = self.state.lock();
        if state.session != sending.session {
            return Choice::Stale;
        }
        let choice = state.choose(sending, request_id);
        state.listing = match &choice {
            Choice::Send { .. } | Choice::Encode(_) => Listing::Ready,
            Choice::Wait(until) => Listing::Waiting(*until),
            Choice::Nothing | Choice::Stale => Listing::Idle,
        };
        choice
    }

    /// Takes an encoded batch; gives the bytes when the session that encoded it still sends.
    pub(in crate::producer) fn encoded(
        &self,
        request_id: u64,
        session: u64,
        encoded: Result<RecordBatch, EncodeError>,
    ) -> Encoded {
        let mut state = self.state.lock();
        let Some(index) = state.index_of(request_id) else {
            return Encoded::Gone;
        };
        let batch = match encoded {
            Ok(batch) => batch,
            Err(error) => {
                let error = Error::new(ErrorCode::InvalidArgument, error.to_string());
                return state.remove(index, Err(error)).map_or(Encoded::Gone, Encoded::Failed);
            }
        };
        let bytes = batch.as_bytes().clone();
        let current = state.session == session;
        let sent = &mut state.sent[index];
        sent.batch = Some(batch);
        if current {
            sent.phase = Phase::InFlight;
            return Encoded::Send(bytes);
        }
        sent.phase = Phase::Queued;
        state.in_flight -= 1;
        if state.list() { Encoded::List } else { Encoded::Gone }
    }
}

/// What becomes of an encoded batch.
#[derive(Debug)]
pub(in crate::producer) enum Encoded {
    /// Send it.
    Send(Bytes),
    /// Put the lane into the ready list: another session will send it.
    List,
    /// It could not be encoded.
    Failed(Settled),
    /// Nothing to do.
    Gone,
}

impl State {
    fn choose(&mut self, sending: &Sending, request_id: u64) -> Choice {
        if let Some(wait) = self.hold(sending.now) {
            return wait;
        }
        if let Some(choice) = self.resend(sending.resetting) {
            return choice;
        }
        let oldest = self.sent.front().map_or(self.next.ordinal, |sent| sent.ordinal);
        let may_send = !sending.resetting && !self.refusal.stuck;
        if !may_send || self.next.ordinal - oldest >= SENT_MAX {
            return Choice::Nothing;
        }
        match self.take_filled(sending) {
            Taken::Filled(filling) => self.number(*filling, sending.identity, request_id),
            Taken::Due(at) => Choice::Wait(at),
            Taken::Nothing => Choice::Nothing,
        }
    }

    /// Waits after a refusal until every answer has come and the hold is over; then queues the refused.
    fn hold(&mut self, now: Instant) -> Option<Choice> {
        let hold = self.refusal.hold?;
        if self.in_flight > 0 {
            return Some(Choice::Nothing);
        }
        if now < hold {
            return Some(Choice::Wait(hold));
        }
        self.refusal.hold = None;
        let stuck = self.refusal.stuck;
        for sent in &mut self.sent {
            if sent.doubtful || !stuck {
                sent.phase = Phase::Queued;
            }
        }
        None
    }

    /// Sends the oldest queued batch; while resetting only what a doubtful one needs.
    fn resend(&mut self, resetting: bool) -> Option<Choice> {
        let index = self.sent.iter().position(|sent| matches!(sent.phase, Phase::Queued))?;
        let needed = self.sent.iter().skip(index).any(|sent| sent.doubtful);
        if (resetting || self.refusal.stuck) && !needed {
            return Some(Choice::Nothing);
        }
        let sent = &mut self.sent[index];
        let batch = sent.batch.as_ref().expect("a queued batch is encoded").as_bytes().clone();
        sent.phase = Phase::InFlight;
        self.in_flight += 1;
        Some(Choice::Send { request_id: sent.request_id, batch })
    }

    fn take_filled(&mut self, sending: &Sending) -> Taken {
        if let Some(filling) = self.sealed.pop_front() {
            return Taken::Filled(Box::new(filling));
        }
        let Some(open) = &self.open else {
            return Taken::Nothing;
        };
        let due = open.opened_at + sending.linger;
        if self.in_flight >= EAGER_MAX && !sending.pressed && sending.now < due {
            return Taken::Due(due);
        }
        self.open.take().map_or(Taken::Nothing, |open| Taken::Filled(Box::new(open)))
    }

    /// Gives a batch its sequence numbers and hands it out to be encoded.
    fn number(&mut self, mut filling: Filling, identity: Identity, request_id: u64) -> Choice {
        let Numbers { ordinal, sequence } = self.next;
        let count = u32::try_from(filling.builder.len()).expect("a batch counts in 31 bits");
        self.next = Numbers { ordinal: ordinal + 1, sequence: next_sequence(sequence, count) };
        self.in_flight += 1;
        let used = filling.builder.encoded_bytes().min(filling.reserved);
        let surplus = filling.reserved - used;
        self.sent.push_back(Sent {
            request_id,
            ordinal,
            base_sequence: sequence,
            count,
            batch: None,
            phase: Phase::Encoding,
            doubtful: false,
            cell: filling.cell,
            opened_at: filling.opened_at,
            reserved: used,
        });
        filling.builder.set_producer(identity.id, identity.epoch, identity.sequence(sequence));
        Choice::Encode(Encoding { request_id, builder: filling.builder, surplus })
    }
}

/// A batch that may leave.
enum Taken {
    Filled(Box<Filling>),
    Due(Instant),
    Nothing,
}

//! Sessions, deadlines, new identities, the end.

use std::time::Duration;

use super::{Answered, Lane, Listing, Phase, Refusal, Sent, Settled, State, answer::indeterminate};
use crate::{
    clock::Instant,
    error::{Error, ErrorCode},
    producer::identity::{Identity, next_sequence},
};

impl Lane {
    /// A new stream sends from now on. Whatever was in flight on the old one is doubtful: it is sent
    /// again, or, without idempotence, fails.
    pub(in crate::producer) fn begin_session(&self, session: u64, idempotent: bool) -> Answered {
        let mut answered = Answered::default();
        let mut state = self.state.lock();
        state.session = session;
        for sent in &mut state.sent {
            sent.doubtful |= sent.was_in_flight();
        }
        if !idempotent {
            let lost =
                Error::new(ErrorCode::Unreachable, "the connection was lost before the answer");
            state.fail_where(&mut answered.settled, |sent| {
                sent.was_in_flight().then(|| indeterminate(&lost))
            });
        }
        let stuck = state.refusal.stuck;
        for sent in &mut state.sent {
            let refused = matches!(sent.phase, Phase::Refused(_));
            if sent.was_in_flight() || (refused && !stuck) {
                sent.phase = Phase::Queued;
            }
        }
        state.in_flight = state.sent.iter().filter(|sent| sent.batch.is_none()).count();
        state.refusal.hold = None;
        state.refusal.reason = None;
        state.listing = Listing::Idle;
        answered.stuck = stuck;
        answered.list = state.has_work() && state.list();
        answered
    }

    /// Fails what is older than `timeout`, with the broker's refusal where that is why it waited.
    pub(in crate::producer) fn expire(&self, now: Instant, timeout: Duration) -> Answered {
        let mut answered = Answered::default();
        let settled = &mut answered.settled;
        let mut state = self.state.lock();
        let is_late = |opened_at: Instant| opened_at + timeout <= now;
        let refusal = state.refusal.reason.clone();
        let late = || late(timeout, refusal.as_ref());
        state.fail_where(settled, |sent| {
            let doubtful = sent.doubtful || sent.was_in_flight();
            let may_fail = is_late(sent.opened_at) && sent.batch.is_some();
            may_fail.then(|| if doubtful { indeterminate(&late()) } else { late() })
        });
        while state.sealed.front().is_some_and(|filling| is_late(filling.opened_at)) {
            settled.extend(state.sealed.pop_front().map(|filling| filling.settled(late())));
        }
        if let Some(open) = state.open.take_if(|open| is_late(open.opened_at)) {
            settled.push(open.settled(late()));
        }
        if settled.is_empty() {
            return answered;
        }
        if state.in_flight == 0 {
            answered.stuck = state.judge_oldest(settled);
        }
        answered.list = state.has_work() && state.list();
        answered
    }

    /// Whether new numbers can be given: no answer is awaited and nothing may have been written.
    pub(in crate::producer) fn is_certain(&self) -> bool {
        let state = self.state.lock();
        state.in_flight == 0 && state.sent.iter().all(|sent| !sent.doubtful)
    }

    /// Numbers every batch anew, from 0, under another identity. True when the lane must be put into
    /// the ready list.
    pub(in crate::producer) fn renumber(&self, identity: Identity) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        debug_assert!(state.sent.iter().all(|sent| !sent.doubtful));
        let mut sequence = 0;
        for sent in &mut state.sent {
            sent.base_sequence = sequence;
            sequence = next_sequence(sequence, sent.count);
            let base = identity.sequence(sent.base_sequence);
            sent.batch = sent
                .batch
                .take()
                .map(|batch| batch.with_producer(identity.id, identity.epoch, base));
            sent.phase = Phase::Queued;
        }
        state.next.sequence = sequence;
        state.refusal = Refusal::default();
        state.has_work() && state.list()
    }

    /// Takes no more records; what is in goes on.
    pub(in crate::producer) fn close(&self, error: &Error) {
        self.state.lock().closed.get_or_insert_with(|| error.clone());
    }

    /// Takes no more records and fails everything; what may have been written fails as indeterminate.
    pub(in crate::producer) fn fail(&self, error: &Error, settled: &mut Vec<Settled>) {
        let mut state = self.state.lock();
        state.closed = Some(error.clone());
        state.fail_where(settled, |sent| {
            let doubtful = sent.doubtful || sent.was_in_flight();
            Some(if doubtful { indeterminate(error) } else { error.clone() })
        });
        let unsent: Vec<_> = state.sealed.drain(..).collect();
        let unsent = unsent.into_iter().chain(state.open.take());
        settled.extend(unsent.map(|filling| filling.settled(error.clone())));
    }
}

impl State {
    /// Removes the batches for which `why` gives an error.
    fn fail_where(&mut self, settled: &mut Vec<Settled>, why: impl Fn(&Sent) -> Option<Error>) {
        let mut index = 0;
        while let Some(sent) = self.sent.get(index) {
            match why(sent) {
                Some(error) => settled.extend(self.remove(index, Err(error))),
                None => index += 1,
            }
        }
    }
}

fn late(timeout: Duration, refusal: Option<&Error>) -> Error {
    let late = format!("the record was not acknowledged within `{}` ms", timeout.as_millis());
    match refusal {
        Some(refusal) => refusal.within(&late),
        None => Error::new(ErrorCode::DeadlineExceeded, late),
    }
}

//! Outcomes on their way to delivery: names become lanes, what is malformed is told by item.

use std::{sync::Arc, time::Duration};

use super::{
    live::{Live, State},
    mailbox::SettleOutcome,
};
use crate::{
    delivery::{self, Handout, LaneKey, Now, Outcome, Run, SessionRef, SettleResult, SettleStatus},
    subscription::settings::LEASE_MS_MAX,
};

/// Most items of one frame or call.
pub const ITEMS_MAX: usize = 10_000;

/// Offsets of one delivery and their common outcome, as a client names them.
#[derive(Clone, Debug)]
pub struct SettleItem {
    /// Name of the topic.
    pub topic: String,
    /// Partition number.
    pub partition: u32,
    /// Offsets.
    pub run: Run,
    /// Epoch of the lease.
    pub epoch: u64,
    /// Number of the delivery.
    pub seq: u64,
    /// What became of them; `None` when the client did not say.
    pub outcome: Option<Outcome>,
}

/// Who settles.
#[derive(Clone, Debug)]
pub(super) enum By {
    /// A session, over its stream.
    Stream(SessionRef),
    /// The session of this id, by a call.
    Call(Arc<str>),
}

/// It counts.
pub(super) fn is_fine(result: &SettleResult) -> bool {
    result.status == SettleStatus::Ok
}

impl SettleItem {
    /// It can mean something.
    fn is_valid(&self) -> bool {
        let longest = Duration::from_millis(LEASE_MS_MAX);
        !self.run.is_empty()
            && match &self.outcome {
                None => false,
                Some(Outcome::Nack { delay, .. }) => delay.is_none_or(|delay| delay <= longest),
                Some(Outcome::Extend { lease }) => !lease.is_zero() && *lease <= longest,
                Some(
                    Outcome::Ack | Outcome::Release | Outcome::Reject { .. } | Outcome::Started,
                ) => true,
            }
    }

    fn named(self, state: &State) -> Option<delivery::SettleItem> {
        let lane = state.lane(&self.topic, self.partition)?;
        let SettleItem { run, epoch, seq, outcome, .. } = self;
        Some(delivery::SettleItem { lane, run, epoch, seq, outcome: outcome? })
    }
}

impl State {
    /// The lane on a partition.
    pub(super) fn lane(&self, topic: &str, partition: u32) -> Option<LaneKey> {
        let topic_id = self.topic_ids.get(topic)?;
        let lane = LaneKey::new(*topic_id, partition);
        self.sources.contains_key(&lane).then_some(lane)
    }

    /// Takes outcomes of a session; each item gets its result.
    pub(super) fn settle(
        &mut self,
        by: &By,
        items: Vec<SettleItem>,
        now: Now,
    ) -> Vec<SettleResult> {
        let session = match by {
            By::Stream(session) => Some(*session),
            By::Call(id) => self.delivery.session_of(id),
        };
        let mut results = Vec::with_capacity(items.len());
        let mut places = Vec::with_capacity(items.len());
        let mut named = Vec::with_capacity(items.len());
        for (place, item) in items.into_iter().enumerate() {
            let refused = |status| SettleResult { status, run: None };
            if !item.is_valid() {
                results.push(refused(SettleStatus::Invalid));
            } else if let Some(item) = item.named(self) {
                results.push(refused(SettleStatus::Ok));
                places.push(place);
                named.push(item);
            } else {
                results.push(refused(SettleStatus::UnknownPartition));
            }
        }
        let decided = self.delivery.settle(session, &named, now);
        for (place, result) in places.into_iter().zip(decided) {
            results[place] = result;
        }
        results
    }
}

impl Live {
    /// Takes outcomes of a session; each item gets its result.
    pub(super) fn settle(&self, by: &By, items: Vec<SettleItem>) -> Vec<SettleResult> {
        self.event(|state, now| state.settle(by, items, now))
    }

    /// The results, once everything that counts is durable.
    pub(super) async fn when_durable(&self, results: Vec<SettleResult>) -> Vec<SettleOutcome> {
        // Everything that happened here so far was handed in under the lock, so a mark set now lies behind it.
        let sequence = self.shared.store.record(self.number, []);
        let stored = self.shared.store.settled(sequence).await;
        let outcome = |result: SettleResult| match stored {
            Err(_) if is_fine(&result) => SettleOutcome::Indeterminate,
            Ok(()) | Err(_) => SettleOutcome::Decided(result),
        };
        results.into_iter().map(outcome).collect()
    }

    /// Settles records that were handed out and are not in the log any more.
    pub(super) fn forget_missing(&self, session: SessionRef, handout: &Handout, missing: Vec<Run>) {
        self.settle_unsent(session, missing.into_iter().map(|run| (handout, run)), &Outcome::Ack);
    }

    /// Gives back records that were handed out and did not reach anybody; nothing is counted. They may be handed out again at once.
    pub(super) fn give_back<'a>(
        &self,
        session: SessionRef,
        unsent: impl Iterator<Item = (&'a Handout, Run)>,
    ) {
        self.settle_unsent(session, unsent, &Outcome::Release);
    }

    /// Settles records by the deliveries that nobody was sent them in, all at once.
    fn settle_unsent<'a>(
        &self,
        session: SessionRef,
        unsent: impl Iterator<Item = (&'a Handout, Run)>,
        outcome: &Outcome,
    ) {
        let item = |(handout, run): (&Handout, Run)| delivery::SettleItem {
            lane: handout.lane,
            run,
            epoch: handout.epoch,
            seq: handout.seq,
            outcome: outcome.clone(),
        };
        let items: Vec<_> = unsent.map(item).collect();
        self.event(|state, now| {
            state.delivery.settle(Some(session), &items, now);
        });
    }

    /// The stream of a session is gone.
    pub(super) fn lose(&self, session: SessionRef) {
        self.event(|state, now| {
            if state.mailboxes.remove(&session).is_some() {
                state.delivery.lost(session, now);
            }
        });
    }
}

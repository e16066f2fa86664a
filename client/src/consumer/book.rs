//! What a consumer knows of its partitions: which it has, where it reads, what waits to be handed out.
//!
//! ```text
//! assigned -> Resolving -- position found --> Active -- revoked --> Revoking -- let go --> (gone)
//!                 ^                            |  ^
//!                 +---- offset was reset ------+  | seek
//!                                              v  |
//!                                            Stopped (an error was told)
//! ```
//!
//! A partition's *life* rises whenever its position is set from outside (assignment, seek, reset).
//! What was fetched for an earlier life is dropped, and commits of it are refused.
//!
//! Invariants: position <= fetch position; records wait in the queue only for active partitions of the
//! same life; a partition that was let go is not in the book, so nothing of it can be handed out.

mod part;
mod progress;
mod queue;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    task::Waker,
};

use riverrun_proto::{Offset, TopicPartition};

use self::queue::{Item, Queue};
pub(super) use self::{
    part::{Added, Part, Phase},
    progress::{Progress, gone},
};
use super::{PartitionLag, batch::Batch};
use crate::{
    clock::Instant,
    error::{Error, Result},
};

/// Everything that changes while a consumer runs. Guarded by `Shared::book`.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) partitions: BTreeMap<TopicPartition, Part>,
    /// Fetched and not handed out.
    queue: Queue,
    /// Errors of no partition, one per cause.
    errors: VecDeque<Error>,
    /// Rises with every change of what is to be fetched.
    pub(super) version: u64,
    /// Lives given so far.
    lives: u64,
    /// Why nothing will ever come again, once the queue is empty.
    ended: Option<Error>,
    /// Who waits for a batch.
    waker: Option<Waker>,
    /// Set by the first tracker: completion of single records is followed.
    pub(super) tracking: bool,
}

impl Book {
    /// Adds partitions whose position is to be looked up.
    pub(super) fn assign<A: Into<Added>>(&mut self, added: impl IntoIterator<Item = A>) {
        for added in added {
            let Added { partition, topic_id, late } = added.into();
            self.lives += 1;
            self.partitions.insert(partition, Part::new(self.lives, topic_id, late));
        }
        self.version += 1;
    }

    /// Stops handing out `revoked` until they are let go. Gives those that were not being given up yet.
    pub(super) fn revoke(
        &mut self,
        revoked: &BTreeSet<TopicPartition>,
        until: Instant,
    ) -> BTreeSet<TopicPartition> {
        let mut newly = BTreeSet::new();
        for partition in revoked {
            if let Some(part) = self.partitions.get_mut(partition)
                && !matches!(part.phase, Phase::Revoking { .. })
            {
                part.phase = Phase::Revoking { until };
                newly.insert(partition.clone());
            }
        }
        self.drop_stale();
        self.version += 1;
        newly
    }

    /// Forgets partitions: nothing of them is handed out or committed any more.
    pub(super) fn let_go(&mut self, gone: &BTreeSet<TopicPartition>) {
        self.partitions.retain(|partition, _| !gone.contains(partition));
        self.drop_stale();
        self.version += 1;
        self.wake();
    }

    /// Has positions looked up anew. One that is being given up is not read again: what was processed of it
    /// counts no more, so it can be let go at once.
    pub(super) fn resolve_again(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.lives += 1;
            if let Some(part) = self.partitions.get_mut(partition) {
                let anew = part.anew(self.lives);
                let old = std::mem::replace(part, anew);
                if matches!(old.phase, Phase::Revoking { .. }) {
                    part.start_at(old.position);
                    part.phase = old.phase;
                }
            }
        }
        self.drop_stale();
        self.version += 1;
    }

    /// Goes on reading at `offset`. False when the partition is not there or being given up.
    pub(super) fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> bool {
        self.lives += 1;
        let Some(part) = self.partitions.get_mut(partition) else { return false };
        if part.deleted || matches!(part.phase, Phase::Revoking { .. }) {
            return false;
        }
        *part = part.anew(self.lives);
        part.start_at(offset);
        self.drop_stale();
        self.version += 1;
        true
    }

    /// Stops or goes on handing out a partition, without giving it up.
    pub(super) fn pause(&mut self, partition: &TopicPartition, paused: bool) {
        let Some(part) = self.partitions.get_mut(partition).filter(|p| p.paused != paused) else {
            return;
        };
        part.paused = paused;
        part.read_again();
        self.drop_stale();
        self.version += 1;
    }

    /// Reads partitions again that were being given up and are assigned anew. Somebody else may have had them
    /// in between, so their position is looked up.
    pub(super) fn take_back<'a>(
        &mut self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) {
        for partition in partitions {
            self.lives += 1;
            if let Some(part) = self.partitions.get_mut(partition)
                && matches!(part.phase, Phase::Revoking { .. })
            {
                *part = part.anew(self.lives);
                self.version += 1;
            }
        }
    }

    /// Stops a partition; the error is told after what was fetched before it.
    pub(super) fn stop(&mut self, partition: &TopicPartition, error: Error) {
        let Some(part) = self.partitions.get_mut(partition) else { return };
        if matches!(part.phase, Phase::Revoking { .. }) {
            return;
        }
        part.phase = Phase::Stopped;
        let (partition, life) = (partition.clone(), part.life);
        self.queue.push(Item::Stop { partition, life, error });
        self.version += 1;
        self.wake();
    }

    /// Stops every partition of a topic that was deleted: what was fetched before is still handed out, then
    /// the error, once.
    pub(super) fn topic_deleted(&mut self, topic: &str, error: Error) {
        let mut name = None;
        for (partition, part) in &mut self.partitions {
            if *partition.topic == *topic && !part.deleted {
                part.phase = Phase::Stopped;
                part.deleted = true;
                name = Some(partition.topic.clone());
            }
        }
        let Some(topic) = name else { return };
        self.queue.push(Item::Deleted { topic, error });
        self.version += 1;
        self.wake();
    }

    /// Starts partitions over whose topic was deleted and created again: what was fetched of the old one is
    /// dropped.
    pub(super) fn replace(&mut self, replaced: impl IntoIterator<Item = Added>) {
        self.assign(replaced);
        self.drop_stale();
    }

    /// Whether the last error ended everything: there is nothing left to read.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some() && self.queue.is_empty()
    }

    /// Tells the consumer of an error, once while it is not taken.
    pub(super) fn tell(&mut self, error: Error) {
        let same = |told: &Error| told.code() == error.code() && told.message() == error.message();
        if !self.errors.iter().any(same) {
            self.errors.push_back(error);
        }
        self.wake();
    }

    /// Takes what was fetched, if it still fits where the partition is read.
    pub(super) fn fetched(&mut self, batch: Batch, high_watermark: Offset) {
        let Some(part) = self.partitions.get_mut(&batch.partition) else { return };
        if !part.fetches(batch.life, batch.start) {
            return;
        }
        part.high_watermark = Some(high_watermark);
        part.hold = None;
        if batch.next <= batch.start {
            return;
        }
        part.fetch_position = batch.next;
        // An answer without records, of a range that compaction emptied, has no epoch.
        part.leader_epoch =
            Some(batch.leader_epoch).filter(|epoch| *epoch > 0).or(part.leader_epoch);
        self.queue.push(Item::Batch(batch));
        self.wake();
    }

    /// The next batch with records, or an error; or leaves `waker` to be woken.
    ///
    /// With a tracker nothing is handed out while `open_max` records are not done.
    pub(super) fn take(&mut self, waker: &Waker, open_max: usize) -> Option<Result<Batch>> {
        if let Some(error) = self.errors.pop_front() {
            return Some(Err(error));
        }
        while !self.is_full(open_max)
            && let Some(item) = self.queue.pop()
        {
            match item {
                Item::Stop { error, .. } => return Some(Err(error)),
                Item::Deleted { topic, error } => {
                    self.partitions.retain(|partition, _| partition.topic != topic);
                    if self.partitions.is_empty() {
                        self.ended = Some(error.clone());
                    }
                    return Some(Err(error));
                }
                Item::Batch(batch) => {
                    self.hand_out(&batch);
                    if !batch.is_empty() {
                        return Some(Ok(batch));
                    }
                }
            }
        }
        if let Some(error) = &self.ended {
            return Some(Err(error.clone()));
        }
        self.waker = Some(waker.clone());
        None
    }

    fn hand_out(&mut self, batch: &Batch) {
        let tracking = self.tracking;
        if let Some(part) = self.partitions.get_mut(&batch.partition) {
            part.hand_out(batch, tracking);
        }
    }

    fn is_full(&self, open_max: usize) -> bool {
        self.tracking && self.open() >= open_max
    }

    /// Wakes who waits for a batch.
    pub(super) fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    /// Bytes fetched and not handed out.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Whether the partition is still read in this life.
    pub(super) fn lives(&self, partition: &TopicPartition, life: u64) -> bool {
        self.partitions.get(partition).is_some_and(|part| part.life == life)
    }

    /// Whether a record received in this life may still be handed out.
    pub(super) fn hands_out(&self, partition: &TopicPartition, life: u64) -> bool {
        let part = self.partitions.get(partition);
        part.is_some_and(|part| part.life == life && part.hands_out())
    }

    /// The next offset to hand out, where it is known.
    pub(super) fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.partitions.get(partition).filter(|part| part.is_placed()).map(|part| part.position)
    }

    /// How far behind each partition is of which an answer came, also one without records.
    pub(super) fn lag(&self) -> Vec<PartitionLag> {
        let lag = |(partition, part): (&TopicPartition, &Part)| {
            let high_watermark = part.high_watermark?;
            Some(PartitionLag {
                partition: partition.clone(),
                position: part.position,
                high_watermark,
                lag: high_watermark.since(part.position),
            })
        };
        self.partitions.iter().filter_map(lag).collect()
    }

    /// The partitions that are read.
    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        let kept = |part: &Part| !matches!(part.phase, Phase::Revoking { .. });
        let parts = self.partitions.iter().filter(|(_, part)| kept(part));
        parts.map(|(partition, _)| partition.clone()).collect()
    }

    /// Whether some partition is being given up.
    pub(super) fn is_giving_up(&self) -> bool {
        self.partitions.values().any(|part| matches!(part.phase, Phase::Revoking { .. }))
    }

    /// When the next partition being given up is let go at the latest.
    pub(super) fn next_release(&self) -> Option<Instant> {
        let until = |part: &Part| match part.phase {
            Phase::Revoking { until } => Some(until),
            Phase::Resolving | Phase::Active | Phase::Stopped => None,
        };
        self.partitions.values().filter_map(until).min()
    }

    /// Drops what is queued for partitions that are not read any more, or in another life.
    fn drop_stale(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|item| match item {
            Item::Batch(batch) => self.hands_out(&batch.partition, batch.life),
            Item::Stop { partition, life, .. } => self.hands_out(partition, *life),
            Item::Deleted { .. } => true,
        });
        self.queue = queue;
    }
}

#[cfg(test)]
mod tests;

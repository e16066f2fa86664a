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
//! A partition's *life* rises whenever its position is set from outside (assignment, seek, reset, pause).
//! What was fetched for an earlier life is dropped, and commits of it are refused.
//!
//! Invariants: position <= fetch position; records wait in the queue only for active partitions of the
//! same life; a partition that was let go is not in the book, so nothing of it can be handed out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    task::Waker,
};

use riverrun_proto::{Offset, TopicPartition};

use super::{PartitionLag, batch::Batch, prefix::Prefix};
use crate::{
    clock::Instant,
    error::{Error, ErrorCode, Result},
};

/// Everything that changes while a consumer runs. Guarded by `Shared::book`.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) partitions: BTreeMap<TopicPartition, Part>,
    /// Fetched and not handed out, oldest first.
    queue: VecDeque<Item>,
    /// Bytes in `queue`.
    pub(super) queued_bytes: usize,
    /// Errors of no partition, one per cause.
    errors: VecDeque<Error>,
    /// Rises with every change of what is to be fetched.
    pub(super) version: u64,
    /// Lives given so far.
    lives: u64,
    /// Who waits for a batch.
    waker: Option<Waker>,
    /// Set by the first tracker: completion of single records is followed.
    pub(super) tracking: bool,
}

/// What waits to be handed out.
#[derive(Debug)]
enum Item {
    Batch(Batch),
    /// Why nothing more of the partition follows.
    Stop {
        partition: TopicPartition,
        life: u64,
        error: Error,
    },
}

/// One partition.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) life: u64,
    pub(super) phase: Phase,
    /// Where this life began.
    origin: Offset,
    /// Next offset to hand out.
    pub(super) position: Offset,
    /// Next offset to fetch.
    pub(super) fetch_position: Offset,
    /// Leader epoch of the last record fetched.
    pub(super) leader_epoch: Option<u32>,
    pub(super) paused: bool,
    /// Not fetched before this.
    pub(super) hold: Option<Instant>,
    /// As last told by the broker.
    pub(super) high_watermark: Option<Offset>,
    /// Everything below was processed, as far as the consumer shows it by going on.
    pub(super) processed: Offset,
    /// Committed in this life.
    pub(super) committed: Option<Offset>,
    /// Single records, while a tracker follows them.
    pub(super) prefix: Option<Prefix>,
}

/// What a partition is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its position is to be looked up.
    Resolving,
    /// It is read.
    Active,
    /// An error was told; a seek makes it active again.
    Stopped,
    /// It is given up: nothing is handed out any more, commits still go.
    Revoking { until: Instant },
}

/// Something to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) partition: TopicPartition,
    pub(super) life: u64,
    pub(super) offset: Offset,
}

impl Book {
    /// Adds partitions whose position is to be looked up.
    pub(super) fn assign(&mut self, added: impl IntoIterator<Item = TopicPartition>) {
        for partition in added {
            self.lives += 1;
            self.partitions.insert(partition, Part::new(self.lives));
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
                let paused = part.paused;
                let old = std::mem::replace(part, Part { paused, ..Part::new(self.lives) });
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
        if matches!(part.phase, Phase::Revoking { .. }) {
            return false;
        }
        let paused = part.paused;
        *part = Part { paused, ..Part::new(self.lives) };
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
    pub(super) fn take_back(&mut self, partitions: &BTreeSet<TopicPartition>) {
        for partition in partitions {
            self.lives += 1;
            if let Some(part) = self.partitions.get_mut(partition)
                && matches!(part.phase, Phase::Revoking { .. })
            {
                *part = Part { paused: part.paused, ..Part::new(self.lives) };
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
        self.queue.push_back(Item::Stop { partition, life, error });
        self.version += 1;
        self.wake();
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
        self.queued_bytes += batch.bytes();
        self.queue.push_back(Item::Batch(batch));
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
            && let Some(item) = self.queue.pop_front()
        {
            match item {
                Item::Stop { error, .. } => return Some(Err(error)),
                Item::Batch(batch) => {
                    self.hand_out(&batch);
                    if !batch.is_empty() {
                        return Some(Ok(batch));
                    }
                }
            }
        }
        self.waker = Some(waker.clone());
        None
    }

    fn hand_out(&mut self, batch: &Batch) {
        self.queued_bytes -= batch.bytes();
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

    /// Whether the partition is still read in this life.
    pub(super) fn lives(&self, partition: &TopicPartition, life: u64) -> bool {
        self.partitions.get(partition).is_some_and(|part| part.life == life)
    }

    /// Whether a record received in this life may still be handed out.
    pub(super) fn hands_out(&self, partition: &TopicPartition, life: u64) -> bool {
        let part = self.partitions.get(partition);
        part.is_some_and(|part| part.life == life && part.hands_out())
    }

    /// Notes that everything below `offset` was processed.
    pub(super) fn processed(&mut self, partition: &TopicPartition, life: u64, offset: Offset) {
        if let Some(part) = self.partitions.get_mut(partition)
            && part.life == life
        {
            part.processed = part.processed.max(offset);
        }
    }

    /// Marks one record as done. An error when the partition is no longer read in this life.
    pub(super) fn done(
        &mut self,
        partition: &TopicPartition,
        life: u64,
        offset: Offset,
    ) -> Result<()> {
        let part = self.partitions.get_mut(partition).filter(|part| part.life == life);
        let prefix = part.and_then(|part| part.prefix.as_mut());
        let Some(prefix) = prefix else { return Err(gone(partition)) };
        if prefix.done(offset.0) {
            self.wake();
        }
        Ok(())
    }

    /// What could be committed now and is not, by tracker or by going on.
    pub(super) fn progress(&self, by_going_on: bool) -> Vec<Progress> {
        let progress = |(partition, part): (&TopicPartition, &Part)| {
            let offset = match &part.prefix {
                Some(prefix) => Offset(prefix.floor()),
                None if by_going_on => part.processed,
                None => return None,
            };
            let new = part.is_placed() && part.committed_or_origin() < offset;
            new.then(|| Progress { partition: partition.clone(), life: part.life, offset })
        };
        self.partitions.iter().filter_map(progress).collect()
    }

    /// Notes a commit.
    pub(super) fn committed(&mut self, progress: &Progress) {
        if let Some(part) = self.partitions.get_mut(&progress.partition)
            && part.life == progress.life
        {
            part.committed =
                Some(part.committed.map_or(progress.offset, |c| c.max(progress.offset)));
        }
    }

    /// Partitions being given up whose time is over, or of which everything handed out is committed.
    pub(super) fn released(&self, now: Instant) -> BTreeSet<TopicPartition> {
        let released = |part: &Part| match part.phase {
            Phase::Revoking { until } => until <= now || part.is_committed(),
            Phase::Resolving | Phase::Active | Phase::Stopped => false,
        };
        let parts = self.partitions.iter().filter(|(_, part)| released(part));
        parts.map(|(partition, _)| partition.clone()).collect()
    }

    /// Records handed out and not done.
    pub(super) fn open(&self) -> usize {
        let open = |part: &Part| part.prefix.as_ref().map_or(0, Prefix::open);
        self.partitions.values().map(open).sum()
    }

    /// The next offset to hand out, where it is known.
    pub(super) fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.partitions.get(partition).filter(|part| part.is_placed()).map(|part| part.position)
    }

    /// How far behind each partition is of which something was read.
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
        let queue = std::mem::take(&mut self.queue);
        self.queued_bytes = 0;
        for item in queue {
            let (partition, life) = match &item {
                Item::Batch(batch) => (&batch.partition, batch.life),
                Item::Stop { partition, life, .. } => (partition, *life),
            };
            if self.hands_out(partition, life) {
                self.queued_bytes += item.bytes();
                self.queue.push_back(item);
            }
        }
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Item::Batch(batch) => batch.bytes(),
            Item::Stop { .. } => 0,
        }
    }
}

impl Part {
    fn new(life: u64) -> Part {
        Part {
            life,
            phase: Phase::Resolving,
            origin: Offset::ZERO,
            position: Offset::ZERO,
            fetch_position: Offset::ZERO,
            leader_epoch: None,
            paused: false,
            hold: None,
            high_watermark: None,
            processed: Offset::ZERO,
            committed: None,
            prefix: None,
        }
    }

    /// Its position is known.
    pub(super) fn start_at(&mut self, offset: Offset) {
        self.phase = Phase::Active;
        self.origin = offset;
        self.position = offset;
        self.fetch_position = offset;
        self.processed = offset;
    }

    /// Whether something fetched from `start` in `life` is what comes next.
    fn fetches(&self, life: u64, start: Offset) -> bool {
        self.life == life
            && self.phase == Phase::Active
            && !self.paused
            && self.fetch_position == start
    }

    fn hand_out(&mut self, batch: &Batch, tracking: bool) {
        let floor = self.position;
        self.position = batch.next;
        if tracking {
            let prefix = self.prefix.get_or_insert_with(|| Prefix::new(floor.0));
            let offsets = batch.views().map(|view| view.offset.0);
            prefix.hand_out(floor.0, offsets, batch.next.0);
        }
    }

    /// Whether what is queued may go to the consumer.
    fn hands_out(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Stopped) && !self.paused
    }

    /// Fetches again what was fetched and not handed out.
    fn read_again(&mut self) {
        self.fetch_position = self.position;
        self.hold = None;
        if self.phase == Phase::Stopped {
            self.phase = Phase::Active;
        }
    }

    fn is_placed(&self) -> bool {
        self.phase != Phase::Resolving
    }

    /// Everything below is committed, or was never handed out in this life.
    fn committed_or_origin(&self) -> Offset {
        self.committed.unwrap_or(self.origin)
    }

    /// Whether everything handed out is committed.
    fn is_committed(&self) -> bool {
        self.committed_or_origin() >= self.position
    }
}

/// The partition was taken away or moved since.
pub(super) fn gone(partition: &TopicPartition) -> Error {
    Error::new(
        ErrorCode::FencedMemberEpoch,
        format!("partition `{partition}` was given up, sought or reset since this was received"),
    )
}

#[cfg(test)]
mod tests;

//! One partition of a consumer: where it is read, and what may be handed out of it.

use riverrun_proto::{Offset, TopicId, TopicPartition};

use crate::{
    clock::Instant,
    consumer::{batch::Batch, prefix::Prefix},
};

/// A partition that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consumer) struct Added {
    pub(in crate::consumer) partition: TopicPartition,
    /// The topic that is meant, whatever is created under its name later.
    pub(in crate::consumer) topic_id: Option<TopicId>,
    /// It came to be while the consumer ran: none of its records may be skipped.
    pub(in crate::consumer) late: bool,
}

impl From<TopicPartition> for Added {
    fn from(partition: TopicPartition) -> Added {
        Added { partition, topic_id: None, late: false }
    }
}

/// One partition.
#[derive(Debug)]
pub(in crate::consumer) struct Part {
    pub(in crate::consumer) life: u64,
    /// As in [`Added`]. Constant.
    pub(in crate::consumer) topic_id: Option<TopicId>,
    /// As in [`Added`]. Constant.
    pub(in crate::consumer) late: bool,
    /// Its topic was deleted; it leaves the book when that is told.
    pub(super) deleted: bool,
    pub(in crate::consumer) phase: Phase,
    /// Where this life began.
    origin: Offset,
    /// Next offset to hand out.
    pub(in crate::consumer) position: Offset,
    /// Next offset to fetch.
    pub(in crate::consumer) fetch_position: Offset,
    /// Leader epoch of the last record fetched.
    pub(in crate::consumer) leader_epoch: Option<u32>,
    pub(in crate::consumer) paused: bool,
    /// Not fetched before this.
    pub(in crate::consumer) hold: Option<Instant>,
    /// As last told by the broker.
    pub(in crate::consumer) high_watermark: Option<Offset>,
    /// Everything below was processed, as far as the consumer shows it by going on.
    pub(in crate::consumer) processed: Offset,
    /// Committed in this life.
    pub(in crate::consumer) committed: Option<Offset>,
    /// Single records, while a tracker follows them.
    pub(in crate::consumer) prefix: Option<Prefix>,
}

/// What a partition is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum Phase {
    /// Its position is to be looked up.
    Resolving,
    /// It is read.
    Active,
    /// An error was told; a seek makes it active again.
    Stopped,
    /// It is given up: nothing is handed out any more, commits still go.
    Revoking { until: Instant },
}

impl Part {
    pub(super) fn new(life: u64, topic_id: Option<TopicId>, late: bool) -> Part {
        Part {
            life,
            topic_id,
            late,
            deleted: false,
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

    /// The same partition in another life.
    pub(super) fn anew(&self, life: u64) -> Part {
        Part { paused: self.paused, ..Part::new(life, self.topic_id, self.late) }
    }

    /// Its position is known.
    pub(in crate::consumer) fn start_at(&mut self, offset: Offset) {
        self.phase = Phase::Active;
        self.origin = offset;
        self.position = offset;
        self.fetch_position = offset;
        self.processed = offset;
    }

    /// Whether something fetched from `start` in `life` is what comes next.
    pub(super) fn fetches(&self, life: u64, start: Offset) -> bool {
        self.life == life
            && self.phase == Phase::Active
            && !self.paused
            && self.fetch_position == start
    }

    pub(super) fn hand_out(&mut self, batch: &Batch, tracking: bool) {
        let floor = self.position;
        self.position = batch.next;
        if tracking {
            let prefix = self.prefix.get_or_insert_with(|| Prefix::new(floor.0));
            let offsets = batch.views().map(|view| view.offset.0);
            prefix.hand_out(floor.0, offsets, batch.next.0);
        }
    }

    /// Whether what is queued may go to the consumer.
    pub(super) fn hands_out(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Stopped) && !self.paused
    }

    /// Fetches again what was fetched and not handed out.
    pub(super) fn read_again(&mut self) {
        self.fetch_position = self.position;
        self.hold = None;
        if self.phase == Phase::Stopped && !self.deleted {
            self.phase = Phase::Active;
        }
    }

    pub(super) fn is_placed(&self) -> bool {
        self.phase != Phase::Resolving
    }

    /// Everything below is committed, or was never handed out in this life.
    pub(super) fn committed_or_origin(&self) -> Offset {
        self.committed.unwrap_or(self.origin)
    }

    /// Whether everything handed out is committed.
    pub(super) fn is_committed(&self) -> bool {
        self.committed_or_origin() >= self.position
    }
}

//! A lane as it is remembered, and the parts in which it is written down.
//!
//! A part says the same whether it is news or belongs to a snapshot, so both are read by the same code. Parts of one
//! lane count in their order.
//!
//! Invariant: an intent stands only beside a record that is to become a dead letter.

use std::collections::BTreeMap;

use riverrun_proto::TopicId;

use crate::delivery::{Attempt, DeadCause, LaneImage, OffsetSet, Piece, Run};

/// A dead letter about to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadIntent {
    /// Id of the dead-letter topic.
    pub topic_id: TopicId,
    /// Partition of it.
    pub partition: u32,
    /// Its log end before: a dead letter that is there already stands at or past it.
    pub end_before: u64,
}

/// A lane as it is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RememberedLane {
    /// What delivery remembers.
    pub image: LaneImage,
    /// Dead letters about to be written, by the offset of their record.
    pub intents: BTreeMap<u64, DeadIntent>,
}

/// One part of what is written down about a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanePart {
    /// The position was set.
    Seek(u64),
    /// The records of this hour wait no longer.
    HourCame(i64),
    /// Records that wait for an hour.
    Scheduled {
        /// Hours since 1970-01-01 UTC.
        hour: i64,
        /// Records.
        run: Run,
    },
    /// A record is to be tried again.
    Failed {
        /// Record.
        offset: u64,
        /// Failures so far.
        failures: u32,
        /// In milliseconds since 1970-01-01 UTC.
        not_before_ms: i64,
        /// Failures not told before, oldest first.
        attempts: Vec<Attempt>,
    },
    /// A record is to become a dead letter.
    WornOut {
        /// Record.
        offset: u64,
        /// Why.
        cause: DeadCause,
        /// Failures so far.
        failures: u32,
        /// Failures not told before, oldest first.
        attempts: Vec<Attempt>,
    },
    /// A dead letter is about to be written.
    Intended {
        /// Record.
        offset: u64,
        /// Where.
        intent: DeadIntent,
    },
    /// The dead letter of a record is written.
    Dead(u64),
    /// Offsets that are settled.
    Done(Piece),
}

impl RememberedLane {
    /// A lane that begins at `floor`.
    pub fn at(floor: u64) -> RememberedLane {
        RememberedLane { image: LaneImage::at(floor), intents: BTreeMap::new() }
    }

    /// Takes in one part.
    pub fn apply(&mut self, part: &LanePart) {
        let image = &mut self.image;
        match part {
            LanePart::Seek(offset) => {
                image.seek(*offset);
                self.forget_intents();
            }
            LanePart::HourCame(hour) => {
                image.far.remove(hour);
            }
            LanePart::Scheduled { hour, run } => {
                image.far.entry(*hour).or_default().insert(run.offsets());
            }
            LanePart::Failed { offset, failures, not_before_ms, attempts } => {
                image.fail(*offset, (*failures, *not_before_ms), attempts);
            }
            LanePart::WornOut { offset, cause, failures, attempts } => {
                image.wear_out(*offset, (*cause, *failures), attempts);
            }
            LanePart::Intended { offset, intent } => {
                if image.dead.contains_key(offset) {
                    self.intents.insert(*offset, *intent);
                }
            }
            LanePart::Dead(offset) => {
                image.bury(*offset);
                self.intents.remove(offset);
            }
            LanePart::Done(piece) => {
                piece.runs().for_each(|run| image.settle(Run::new(run.start, run.end)));
                self.forget_intents();
            }
        }
    }

    /// Forgets what was about to be written for records that wait for it no more.
    fn forget_intents(&mut self) {
        let dead = &self.image.dead;
        self.intents.retain(|offset, _| dead.contains_key(offset));
    }

    /// The parts that make this lane out of one that is new at its floor.
    pub fn parts(&self) -> impl Iterator<Item = LanePart> {
        let image = &self.image;
        let far = image.far.iter().flat_map(|(hour, offsets)| scheduled(*hour, offsets));
        let failed = image.failures.iter().map(|(offset, failed)| LanePart::Failed {
            offset: *offset,
            failures: failed.failures,
            not_before_ms: failed.not_before_ms,
            attempts: failed.history.clone(),
        });
        let dead = image.dead.iter().map(|(offset, dead)| LanePart::WornOut {
            offset: *offset,
            cause: dead.cause,
            failures: dead.failures,
            attempts: dead.history.clone(),
        });
        let intents = self.intents.iter();
        let intents =
            intents.map(|(offset, intent)| LanePart::Intended { offset: *offset, intent: *intent });
        let done = image.done.pieces().map(LanePart::Done);
        far.chain(failed).chain(dead).chain(intents).chain(done)
    }
}

/// What waits for `hour`, in parts.
pub(super) fn scheduled(hour: i64, offsets: &OffsetSet) -> impl Iterator<Item = LanePart> {
    let run = |run: std::ops::Range<u64>| Run::new(run.start, run.end);
    offsets.runs().map(move |offsets| LanePart::Scheduled { hour, run: run(offsets) })
}

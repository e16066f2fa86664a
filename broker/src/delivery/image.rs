//! A lane as it is remembered.
//!
//! The sum of its [`super::Change`]s. What is neither below the floor, nor done, nor waiting for a far hour, nor a
//! pending dead letter is read from the log again.

use std::collections::BTreeMap;

use super::{
    change::{ATTEMPTS_KEPT, Attempt, Change, DeadCause},
    offset_set::OffsetSet,
    run::Run,
};

/// A lane as it is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneImage {
    /// Every offset below is settled.
    pub floor: u64,
    /// Settled offsets past the floor; the floor itself is not settled.
    pub done: OffsetSet,
    /// Failures of records that are not settled.
    pub failures: BTreeMap<u64, FailureImage>,
    /// Records to become dead letters.
    pub dead: BTreeMap<u64, DeadImage>,
    /// Records that wait for a far hour, by hours since 1970-01-01 UTC. Some may be settled meanwhile.
    pub far: BTreeMap<i64, OffsetSet>,
    /// Dead letters written so far.
    pub dead_count: u64,
}

/// How a record failed so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureImage {
    /// How often.
    pub failures: u32,
    /// When it may be tried again, in milliseconds since 1970-01-01 UTC.
    pub not_before_ms: i64,
    /// The latest failures, oldest first, at most [`super::change::ATTEMPTS_KEPT`].
    pub history: Vec<Attempt>,
}

/// A record to become a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadImage {
    /// Why.
    pub cause: DeadCause,
    /// Failures.
    pub failures: u32,
    /// The latest failures, oldest first.
    pub history: Vec<Attempt>,
}

impl LaneImage {
    /// A lane that begins at `floor`.
    pub fn at(floor: u64) -> LaneImage {
        LaneImage { floor, ..LaneImage::default() }
    }

    /// Whether `offset` is settled.
    pub fn is_settled(&self, offset: u64) -> bool {
        offset < self.floor || self.done.contains(offset)
    }

    /// Takes in one change of this lane. What is settled stays settled until a [`Change::Seek`]; a failure of a
    /// record that is settled or to become a dead letter changes nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Done { run, .. } => self.settle(*run),
            Change::Failed { offset, failures, not_before_ms, attempt, .. } => {
                self.fail(*offset, (*failures, *not_before_ms), std::slice::from_ref(attempt));
            }
            Change::DeadPending { offset, cause, failures, attempt, .. } => {
                self.wear_out(*offset, (*cause, *failures), attempt.as_slice());
            }
            Change::Dead { offset, .. } => self.bury(*offset),
            Change::Seek { offset, .. } => self.seek(*offset),
            Change::Scheduled { hour, run, .. } => {
                self.far.entry(*hour).or_default().insert(run.offsets());
            }
            Change::ScheduleCame { hour, .. } => {
                self.far.remove(hour);
            }
        }
    }

    /// These offsets are settled.
    pub fn settle(&mut self, run: Run) {
        if run.is_empty() || run.end <= self.floor {
            return;
        }
        if run.start <= self.floor {
            self.floor = self.done.advance_floor(run.end);
        } else {
            self.done.insert(run.offsets());
        }
        forget(&mut self.failures, run);
        forget(&mut self.dead, run);
    }

    /// A record failed `failures` times so far and is to be tried again at `not_before_ms`.
    pub fn fail(
        &mut self,
        offset: u64,
        (failures, not_before_ms): (u32, i64),
        attempts: &[Attempt],
    ) {
        if self.is_settled(offset) || self.dead.contains_key(&offset) {
            return;
        }
        let failed = self.failures.entry(offset).or_default();
        failed.failures = failures;
        failed.not_before_ms = not_before_ms;
        remember(&mut failed.history, attempts);
    }

    /// A record is to become a dead letter.
    pub fn wear_out(
        &mut self,
        offset: u64,
        (cause, failures): (DeadCause, u32),
        attempts: &[Attempt],
    ) {
        if self.is_settled(offset) || self.dead.contains_key(&offset) {
            return;
        }
        let mut history = self.failures.remove(&offset).unwrap_or_default().history;
        remember(&mut history, attempts);
        self.dead.insert(offset, DeadImage { cause, failures, history });
    }

    /// The dead letter of a record is written.
    pub fn bury(&mut self, offset: u64) {
        if !self.is_settled(offset) {
            self.dead_count += 1;
            self.settle(Run::one(offset));
        }
    }

    /// The position was set.
    pub fn seek(&mut self, offset: u64) {
        *self = LaneImage { dead_count: self.dead_count, ..LaneImage::at(offset) };
    }
}

/// Removes what stands under offsets of `run`.
fn forget<T>(map: &mut BTreeMap<u64, T>, run: Run) {
    while let Some(offset) = map.range(run.offsets()).next().map(|(offset, _)| *offset) {
        map.remove(&offset);
    }
}

/// Adds to a history and keeps the latest.
fn remember(history: &mut Vec<Attempt>, attempts: &[Attempt]) {
    history.extend_from_slice(attempts);
    let excess = history.len().saturating_sub(ATTEMPTS_KEPT);
    history.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        delivery::{FailureCause, LaneKey},
        test_random::Random,
    };

    fn lane() -> LaneKey {
        LaneKey::new(riverrun_proto::TopicId(uuid::Uuid::nil()), 0)
    }

    fn attempt(time_ms: i64) -> Attempt {
        Attempt { time_ms, cause: FailureCause::Nack, session: "s".into(), reason: "why".into() }
    }

    fn failed(offset: u64, failures: u32) -> Change {
        let attempt = attempt(failures.into());
        Change::Failed { lane: lane(), offset, failures, not_before_ms: 5, attempt }
    }

    fn done(start: u64, end: u64) -> Change {
        Change::Done { lane: lane(), run: Run::new(start, end) }
    }

    #[test]
    fn what_is_settled_in_any_order_moves_the_floor() {
        Random::each(50, |random| {
            let mut image = LaneImage::at(10);
            let mut left: Vec<u64> = (10..200).collect();
            while !left.is_empty() {
                let at = usize::try_from(random.below(left.len() as u64)).unwrap();
                let offset = left.swap_remove(at);
                image.apply(&done(offset, offset + 1));
                assert_eq!(image.floor, left.iter().min().copied().unwrap_or(200));
                assert_eq!(image.floor + image.done.len() + left.len() as u64, 200);
                assert!(!image.done.contains(image.floor));
            }
        });
    }

    #[test]
    fn a_settled_record_has_no_failures() {
        let mut image = LaneImage::at(0);
        for change in [failed(3, 1), failed(4, 1), failed(4, 2), failed(7, 1)] {
            image.apply(&change);
        }
        assert_eq!(image.failures[&4].history.len(), 2);
        image.apply(&done(4, 7));
        image.apply(&failed(5, 1));
        assert_eq!(image.failures.keys().copied().collect::<Vec<_>>(), [3, 7]);
        image.apply(&done(0, 4));
        assert_eq!((image.floor, image.failures.len()), (7, 1));
    }

    #[test]
    fn a_dead_letter_is_settled_once_it_is_written() {
        let mut image = LaneImage::at(0);
        image.apply(&failed(2, 1));
        let attempt = Some(attempt(2));
        let (cause, failures) = (DeadCause::FailuresMax, 2);
        image.apply(&Change::DeadPending { lane: lane(), offset: 2, cause, failures, attempt });
        assert_eq!((image.failures.len(), image.dead[&2].history.len()), (0, 2));
        assert!(!image.is_settled(2));
        for _ in 0..2 {
            image.apply(&Change::Dead { lane: lane(), offset: 2 });
            assert_eq!((image.is_settled(2), image.dead.len(), image.dead_count), (true, 0, 1));
        }
    }

    #[test]
    fn a_history_is_bounded_and_keeps_the_latest() {
        let mut image = LaneImage::at(0);
        (1..=40).for_each(|failures| image.apply(&failed(1, failures)));
        let history = &image.failures[&1].history;
        assert_eq!((history.len(), history[0].time_ms, history[15].time_ms), (16, 25, 40));
        image.apply(&Change::Seek { lane: lane(), offset: 1 });
        assert_eq!(image, LaneImage::at(1));
    }
}

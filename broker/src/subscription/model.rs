//! What a lane should remember, told with plain sets; and random changes to tell it.

use std::collections::{BTreeMap, BTreeSet};

use riverrun_proto::TopicId;
use uuid::Uuid;

use super::lane::{DeadIntent, RememberedLane};
use crate::{
    delivery::{Attempt, Change, DeadCause, FailureCause, LaneKey, Run},
    test_random::Random,
};

/// Offsets of a model: a few chunks.
const END: u64 = 1_600;

/// What a lane should remember.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) settled: BTreeSet<u64>,
    failures: BTreeMap<u64, (u32, i64, Vec<i64>)>,
    dead: BTreeMap<u64, (DeadCause, u32, Vec<i64>)>,
    intents: BTreeMap<u64, DeadIntent>,
    far: BTreeMap<i64, BTreeSet<u64>>,
    dead_count: u64,
}

/// Something handed in.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Change(Change),
    Intend(u64, DeadIntent),
}

pub(super) fn topic(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

pub(super) fn key(topic_id: u128, partition: u32) -> LaneKey {
    LaneKey::new(topic(topic_id), partition)
}

impl Step {
    /// Something random about `lane`. Offsets lie close together, so that steps meet.
    pub(super) fn random(lane: LaneKey, random: &mut Random) -> Step {
        let offset = random.below(END);
        let near = random.below(40);
        let hour = i64::try_from(random.below(4)).unwrap() - 1;
        let time_ms = i64::try_from(random.below(1_000)).unwrap();
        let attempt = Attempt {
            time_ms,
            cause: *random.pick(&[FailureCause::Nack, FailureCause::Crashed]),
            session: "s".into(),
            reason: "".into(),
        };
        let failures = u32::try_from(random.below(20)).unwrap();
        let cause = *random.pick(&[DeadCause::FailuresMax, DeadCause::Rejected]);
        Step::Change(match random.below(40) {
            0 => Change::Seek { lane, offset },
            1..4 => Change::Scheduled { lane, hour, run: Run::new(offset, offset + near) },
            4 => Change::ScheduleCame { lane, hour },
            5..12 => {
                Change::Failed { lane, offset: near, failures, not_before_ms: time_ms, attempt }
            }
            12..15 => {
                let attempt = random.chance(2).then_some(attempt);
                Change::DeadPending { lane, offset: near, cause, failures, attempt }
            }
            15..18 => {
                let partition = failures;
                let intent = DeadIntent { topic_id: topic(7), partition, end_before: offset };
                return Step::Intend(near, intent);
            }
            18..20 => Change::Dead { lane, offset: near },
            20..25 => Change::Done { lane, run: Run::one(near) },
            25..32 => Change::Done { lane, run: Run::one(offset) },
            32..38 => Change::Done { lane, run: Run::new(offset, offset + near) },
            _ => Change::Done { lane, run: Run::new(offset, offset + 10 * near) },
        })
    }
}

impl Model {
    pub(super) fn at(floor: u64) -> Model {
        Model { settled: (0..floor).collect(), ..Model::default() }
    }

    /// Whether it may happen now: a dead letter is intended once its record is worn out.
    pub(super) fn allows(&self, step: &Step) -> bool {
        match step {
            Step::Intend(offset, _) => self.dead.contains_key(offset),
            Step::Change(_) => true,
        }
    }

    pub(super) fn apply(&mut self, step: &Step) {
        let change = match step {
            Step::Intend(offset, intent) => {
                self.intents.insert(*offset, *intent);
                return;
            }
            Step::Change(change) => change,
        };
        match change {
            Change::Done { run, .. } => run.offsets().for_each(|offset| self.settle(offset)),
            Change::Failed { offset, failures, not_before_ms, attempt, .. } => {
                if !self.settled.contains(offset) && !self.dead.contains_key(offset) {
                    let failed = self.failures.entry(*offset).or_default();
                    (failed.0, failed.1) = (*failures, *not_before_ms);
                    failed.2.push(attempt.time_ms);
                }
            }
            Change::DeadPending { offset, cause, failures, attempt, .. } => {
                if !self.settled.contains(offset) && !self.dead.contains_key(offset) {
                    let (_, _, mut times) = self.failures.remove(offset).unwrap_or_default();
                    times.extend(attempt.iter().map(|attempt| attempt.time_ms));
                    self.dead.insert(*offset, (*cause, *failures, times));
                }
            }
            Change::Dead { offset, .. } => {
                self.dead_count += u64::from(!self.settled.contains(offset));
                self.settle(*offset);
            }
            Change::Seek { offset, .. } => {
                *self = Model { dead_count: self.dead_count, ..Model::at(*offset) };
            }
            Change::Scheduled { hour, run, .. } => {
                self.far.entry(*hour).or_default().extend(run.offsets());
            }
            Change::ScheduleCame { hour, .. } => {
                self.far.remove(hour);
            }
        }
    }

    fn settle(&mut self, offset: u64) {
        self.settled.insert(offset);
        self.failures.remove(&offset);
        self.dead.remove(&offset);
        self.intents.remove(&offset);
    }

    /// What `lane` remembers, told in the same way.
    pub(super) fn of(lane: &RememberedLane) -> Model {
        let image = &lane.image;
        let times = |history: &[Attempt]| history.iter().map(|attempt| attempt.time_ms).collect();
        let mut settled: BTreeSet<u64> = (0..image.floor).collect();
        settled.extend(image.done.runs().flatten());
        let failures = image.failures.iter();
        let failures = failures.map(|(offset, failed)| {
            (*offset, (failed.failures, failed.not_before_ms, times(&failed.history)))
        });
        let dead = image.dead.iter();
        let dead =
            dead.map(|(offset, dead)| (*offset, (dead.cause, dead.failures, times(&dead.history))));
        let far = image.far.iter();
        let far =
            far.map(|(hour, offsets)| (*hour, offsets.runs().flatten().collect::<BTreeSet<_>>()));
        Model {
            settled,
            failures: failures.collect(),
            dead: dead.collect(),
            intents: lane.intents.clone(),
            far: far.filter(|(_, offsets)| !offsets.is_empty()).collect(),
            dead_count: image.dead_count,
        }
    }

    /// As a lane tells it: the latest attempts only, and no hour without records.
    pub(super) fn bounded(&self) -> Model {
        let mut model = self.clone();
        let times = model.failures.values_mut().map(|failed| &mut failed.2);
        for times in times.chain(model.dead.values_mut().map(|dead| &mut dead.2)) {
            times.drain(..times.len().saturating_sub(16));
        }
        model.far.retain(|_, offsets| !offsets.is_empty());
        model
    }
}

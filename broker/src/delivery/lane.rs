//! One lane: a subscription on one partition.
//!
//! ```text
//!  floor                                   frontier       high watermark
//!    |  done, open, dead, scheduled, deferred |  not looked at |
//!  --+----------------------------------------+----------------+-->
//!    everything below is settled         gaps: to be looked at (again)
//! ```
//!
//! Invariants:
//! - Every offset in `[floor, frontier)` is in exactly one of: done, open, dead, waiting for its time, deferred with its
//!   key, or a gap. (A gap may cover offsets that are done, dead or far: they are skipped when it is read.)
//! - `floor` is not done, and only a seek moves it back.
//! - Of a key at most `pipeline` records are in hands, all of one session, and they are the first of the key.
//!
//! It knows no sessions but their slots, and no grants but their indexes.

mod hands;
mod intake;
mod memory;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub(super) use self::hands::{Closed, hand_out};
use self::{intake::Intake, memory::Memory};
use super::{
    change::{ATTEMPTS_KEPT, Attempt, Change, DeadCause},
    entry::{Entry, NONE, State},
    image::{DeadImage, FailureImage, LaneImage},
    keys::KeyTable,
    lane_key::LaneKey,
    now::Now,
    offset_set::OffsetSet,
    open_table::OpenTable,
    run::Run,
    schedule::Schedule,
    settings::{Order, Settings},
};

/// Bytes of reasons that the failures of one lane may hold in memory; past it reasons are left out.
const REASON_BYTES_PER_LANE: usize = 8 << 20;

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    /// Constant.
    pub(super) key: LaneKey,
    /// Every offset below is settled.
    pub(super) floor: u64,
    /// Settled offsets past the floor.
    pub(super) done: OffsetSet,
    pub(super) open: OpenTable,
    /// Empty in an unordered subscription.
    pub(super) keys: KeyTable,
    /// Records that wait for their next try.
    pub(super) retry: BTreeSet<(Duration, u64)>,
    /// Failures of records that are not settled.
    pub(super) failed: BTreeMap<u64, Failed>,
    /// Records to become dead letters.
    pub(super) dead: BTreeMap<u64, Dying>,
    /// When dead letters that could not be written are asked for again.
    pub(super) dead_retry: BTreeSet<(Duration, u64)>,
    /// Ready records to be handed out alone.
    pub(super) isolated: BTreeSet<u64>,
    pub(super) schedule: Schedule,
    pub(super) intake: Intake,
    /// Records that only the holder of their key may have next: (session, offset). Drained after every call.
    pub(super) offers: Vec<(u32, u64)>,
    pub(super) memory: Memory,
    /// Dead letters written.
    pub(super) dead_count: u64,
    reason_bytes: usize,
}

/// How a record failed so far.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// When it may be tried again.
    pub(super) not_before: Duration,
    /// How often.
    pub(super) failures: u32,
    /// The latest failures.
    pub(super) history: Vec<Attempt>,
    /// Number of the latest failure, among those of the subscription since it was loaded.
    pub(super) number: u64,
}

/// A record to become a dead letter.
#[derive(Clone, Debug)]
pub(super) struct Dying {
    pub(super) image: DeadImage,
    /// Why it could not be written, and when to try again.
    pub(super) error: Option<(Arc<str>, Duration)>,
}

impl Lane {
    /// A lane as it is remembered.
    pub(super) fn new(key: LaneKey, image: LaneImage, now: Now) -> Lane {
        let end = |run: Option<u64>| run.map_or(0, |last| last + 1);
        let far = image.far.values().flat_map(|set| set.runs().last()).map(|run| run.end).max();
        let done = image.done.runs().last().map_or(0, |run| run.end);
        let dead = end(image.dead.last_key_value().map(|(offset, _)| *offset));
        let frontier = image.floor.max(done).max(dead).max(far.unwrap_or(0));
        let failed = image.failures.into_iter().map(|(offset, image)| {
            let not_before = now.elapsed_of(image.not_before_ms);
            let FailureImage { failures, history, .. } = image;
            (offset, Failed { not_before, failures, history, number: 0 })
        });
        let dead = image.dead.into_iter();
        let schedule = Schedule::new(image.far, image.floor, &image.done);
        let mut lane = Lane {
            key,
            floor: image.floor,
            done: image.done,
            open: OpenTable::default(),
            keys: KeyTable::default(),
            retry: BTreeSet::new(),
            failed: failed.collect(),
            dead: dead.map(|(offset, image)| (offset, Dying { image, error: None })).collect(),
            dead_retry: BTreeSet::new(),
            isolated: BTreeSet::new(),
            schedule,
            intake: Intake::new(Run::new(image.floor, frontier)),
            offers: Vec::new(),
            memory: Memory::default(),
            dead_count: image.dead_count,
            reason_bytes: 0,
        };
        let histories = lane.failed.values().flat_map(|failed| &failed.history);
        lane.reason_bytes = histories.map(|attempt| attempt.reason.len()).sum();
        lane
    }

    /// The lane as it is to be remembered.
    pub(super) fn image(&self, now: Now) -> LaneImage {
        let failures = self.failed.iter().map(|(offset, failed)| {
            let (failures, history) = (failed.failures, failed.history.clone());
            let not_before_ms = now.wall_of(failed.not_before);
            (*offset, FailureImage { failures, not_before_ms, history })
        });
        let dead = self.dead.iter().map(|(offset, dying)| (*offset, dying.image.clone()));
        LaneImage {
            floor: self.floor,
            done: self.done.clone(),
            failures: failures.collect(),
            dead: dead.collect(),
            far: self.schedule.far().clone(),
            dead_count: self.dead_count,
        }
    }

    /// Records that are not settled, among those visible.
    pub(super) fn lag(&self) -> u64 {
        let high_watermark = self.intake.high_watermark;
        high_watermark.saturating_sub(self.floor).saturating_sub(self.done.len())
    }

    /// Whether `offset` is settled.
    pub(super) fn is_settled(&self, offset: u64) -> bool {
        offset < self.floor || self.done.contains(offset)
    }

    /// Offsets are settled; none of them is open.
    pub(super) fn settle(&mut self, run: Run) {
        let run = Run::new(run.start.max(self.floor), run.end);
        if run.is_empty() {
            return;
        }
        if run.start == self.floor {
            self.floor = self.done.advance_floor(run.end);
        } else {
            self.done.insert(run.offsets());
        }
        self.memory.settled(run);
    }

    /// An open record is settled for good: it is neither open nor failed any more. Returns it as it was.
    pub(super) fn close(&mut self, offset: u64, settings: &Settings) -> Option<Entry> {
        let entry = self.open.remove(offset)?;
        if entry.failures > 0 {
            self.forget_failures(offset);
        }
        if entry.isolated() {
            self.isolated.remove(&offset);
        }
        if entry.key != NONE {
            self.keys.remove(entry.key, offset, entry.state() == State::InFlight);
            self.intake.wake(&mut self.keys, entry.key);
            self.advance_key(entry.key, settings);
        }
        Some(entry)
    }

    /// The failures of a record, which it no longer has.
    pub(super) fn forget_failures(&mut self, offset: u64) -> Option<Failed> {
        let failed = self.failed.remove(&offset)?;
        self.retry.remove(&(failed.not_before, offset));
        let reasons: usize = failed.history.iter().map(|attempt| attempt.reason.len()).sum();
        self.reason_bytes = self.reason_bytes.saturating_sub(reasons);
        Some(failed)
    }

    /// A record that is open and in nobody's hands failed, which has this number: it waits for its next try.
    pub(super) fn fail(
        &mut self,
        offset: u64,
        (attempt, number): (Attempt, u64),
        not_before: Duration,
        now: Now,
    ) {
        let attempt = self.shorten(attempt);
        let failed = self.failed.entry(offset).or_insert_with(|| Failed {
            not_before,
            failures: 0,
            history: Vec::new(),
            number: 0,
        });
        failed.failures = failed.failures.saturating_add(1);
        failed.not_before = not_before;
        failed.number = number;
        if failed.history.len() >= ATTEMPTS_KEPT {
            let oldest = failed.history.remove(0);
            self.reason_bytes = self.reason_bytes.saturating_sub(oldest.reason.len());
        }
        self.reason_bytes += attempt.reason.len();
        failed.history.push(attempt.clone());
        let failures = failed.failures;
        self.retry.insert((not_before, offset));
        self.open.update(offset, |entry| {
            entry.failures = u16::try_from(failures).unwrap_or(u16::MAX);
            entry.set_state(State::RetryWait);
        });
        let not_before_ms = now.wall_of(not_before);
        let lane = self.key;
        self.memory.note(Change::Failed { lane, offset, failures, not_before_ms, attempt });
    }

    /// A record whose wait is over, while its failure is not stored yet, waits a little longer.
    pub(super) fn put_off(&mut self, offset: u64, until: Duration) {
        if let Some(failed) = self.failed.get_mut(&offset) {
            self.retry.remove(&(failed.not_before, offset));
            failed.not_before = until;
            self.retry.insert((until, offset));
        }
    }

    /// A record that is open and in nobody's hands is to become a dead letter.
    pub(super) fn die(
        &mut self,
        offset: u64,
        cause: DeadCause,
        attempt: Attempt,
        settings: &Settings,
    ) {
        let attempt = self.shorten(attempt);
        let before = self.forget_failures(offset);
        self.close(offset, settings);
        let counted = before.as_ref().map_or(0, |failed| failed.failures);
        let failures = counted.saturating_add(u32::from(cause == DeadCause::FailuresMax));
        let mut history = before.map(|failed| failed.history).unwrap_or_default();
        if history.len() >= ATTEMPTS_KEPT {
            history.remove(0);
        }
        history.push(attempt.clone());
        let image = DeadImage { cause, failures, history };
        self.dead.insert(offset, Dying { image, error: None });
        let (lane, attempt) = (self.key, Some(attempt));
        self.memory.note(Change::DeadPending { lane, offset, cause, failures, attempt });
    }

    /// The position is set: nothing else is remembered. Nothing may be in hands.
    pub(super) fn seek(&mut self, offset: u64) {
        let (intake, key) = (&self.intake, self.key);
        let mut lane = Lane::new(key, LaneImage::at(offset), Now::default());
        lane.intake.see(intake.log_start, intake.high_watermark, intake.log_end);
        lane.intake.scan_id = intake.scan_id;
        lane.dead_count = self.dead_count;
        std::mem::swap(&mut lane.memory, &mut self.memory);
        *self = lane;
        self.memory.note(Change::Seek { lane: key, offset });
    }

    /// When the lane has something to do by itself.
    pub(super) fn next_wake(&self, now: Now) -> Option<Duration> {
        let retry = self.retry.first().map(|(at, _)| *at);
        let failure = self.intake.failure.as_ref().map(|failure| failure.retry_at);
        let dead = self.dead_retry.first().map(|(at, _)| *at);
        // The wall clock may be set at any time, so it is looked at now and then.
        let due = self
            .schedule
            .next_ms()
            .map(|due_ms| now.elapsed_of(due_ms).min(now.elapsed + Duration::from_secs(60)));
        [retry, failure, dead, due].into_iter().flatten().min()
    }

    /// How many records may be open at once.
    pub(super) fn open_max(settings: &Settings) -> usize {
        let whole_lane = matches!(settings.order, Order::PartitionFifo | Order::Exclusive);
        let key_max = if whole_lane { settings.key_open_max } else { u32::MAX };
        settings.open_max.min(key_max).max(1) as usize
    }

    /// Bytes of memory for what is settled and what was put off.
    pub(super) fn ack_state_bytes(&self) -> u64 {
        (self.done.state_bytes() + self.intake.state_bytes()) as u64
    }

    /// Cuts a reason, and leaves it out when the lane holds too many.
    fn shorten(&self, mut attempt: Attempt) -> Attempt {
        if self.reason_bytes > REASON_BYTES_PER_LANE {
            attempt.reason = "".into();
        }
        attempt.reason = super::change::cut_reason(&attempt.reason);
        attempt
    }
}

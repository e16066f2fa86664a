//! Changes of one lane between two flushes, merged: what is written is their sum.
//!
//! Invariant: the parts of a delta, applied in their order, do to a lane what the changes did one by one. A seek
//! therefore begins a new delta behind those before it.

use std::collections::{BTreeMap, BTreeSet};

use riverrun_storage::planted::{Bug, planted};

use super::lane::{DeadIntent, LanePart, scheduled};
use crate::delivery::{Attempt, Change, DeadCause, OffsetSet, Run, change::ATTEMPTS_KEPT};

/// Bytes of memory counted for an entry in one of the maps.
const ENTRY_BYTES: usize = 160;

/// Merged changes of one lane.
#[derive(Debug, Default)]
pub struct LaneDelta {
    seek: Option<u64>,
    came: BTreeSet<i64>,
    scheduled: BTreeMap<i64, OffsetSet>,
    failed: BTreeMap<u64, Failed>,
    worn_out: BTreeMap<u64, WornOut>,
    intended: BTreeMap<u64, DeadIntent>,
    dead: BTreeSet<u64>,
    done: OffsetSet,
    /// Memory counted for everything but `done`; what was taken out again still counts.
    map_bytes: usize,
}

#[derive(Debug, Default)]
struct Failed {
    failures: u32,
    not_before_ms: i64,
    attempts: Vec<Attempt>,
}

#[derive(Debug)]
struct WornOut {
    cause: DeadCause,
    failures: u32,
    attempt: Option<Attempt>,
}

impl LaneDelta {
    /// A delta that begins with the position set to `offset`.
    pub fn seek(offset: u64) -> LaneDelta {
        LaneDelta { seek: Some(offset), map_bytes: ENTRY_BYTES, ..LaneDelta::default() }
    }

    /// Bytes of memory, roughly.
    pub fn bytes(&self) -> usize {
        self.map_bytes + self.done.state_bytes()
    }

    /// Adds a change. A seek is not added: it is returned, and a delta of its own.
    pub fn add(&mut self, change: Change) -> Option<LaneDelta> {
        if !matches!(change, Change::Done { .. }) {
            self.map_bytes += ENTRY_BYTES;
        }
        match change {
            Change::Done { run, .. } => self.settle(run),
            Change::Failed { offset, failures, not_before_ms, attempt, .. } => {
                self.fail(offset, (failures, not_before_ms), attempt);
            }
            Change::DeadPending { offset, cause, failures, attempt, .. } => {
                if !self.is_over(offset) {
                    self.map_bytes += attempt.as_ref().map_or(0, attempt_bytes);
                    self.worn_out.insert(offset, WornOut { cause, failures, attempt });
                }
            }
            Change::Dead { offset, .. } => {
                if !self.done.contains(offset) {
                    self.dead.insert(offset);
                }
            }
            Change::Seek { offset, .. } => return Some(LaneDelta::seek(offset)),
            Change::Scheduled { hour, run, .. } => {
                self.scheduled.entry(hour).or_default().insert(run.offsets());
            }
            Change::ScheduleCame { hour, .. } => {
                self.scheduled.remove(&hour);
                self.came.insert(hour);
            }
        }
        None
    }

    /// Adds that a dead letter is about to be written.
    pub fn intend(&mut self, offset: u64, intent: DeadIntent) {
        if !self.done.contains(offset) && !self.dead.contains(&offset) {
            self.map_bytes += ENTRY_BYTES;
            self.intended.insert(offset, intent);
        }
    }

    /// The sum in parts.
    pub fn into_parts(self) -> Vec<LanePart> {
        let mut parts: Vec<LanePart> = self.seek.into_iter().map(LanePart::Seek).collect();
        parts.extend(self.came.into_iter().map(LanePart::HourCame));
        for (hour, offsets) in &self.scheduled {
            parts.extend(scheduled(*hour, offsets));
        }
        parts.extend(self.failed.into_iter().map(|(offset, failed)| LanePart::Failed {
            offset,
            failures: failed.failures,
            not_before_ms: failed.not_before_ms,
            attempts: failed.attempts,
        }));
        parts.extend(self.worn_out.into_iter().map(|(offset, worn)| LanePart::WornOut {
            offset,
            cause: worn.cause,
            failures: worn.failures,
            attempts: worn.attempt.into_iter().collect(),
        }));
        let intended = self.intended.into_iter();
        parts.extend(intended.map(|(offset, intent)| LanePart::Intended { offset, intent }));
        parts.extend(self.dead.into_iter().map(LanePart::Dead));
        if !planted(Bug::ForgetAck) {
            parts.extend(self.done.pieces().map(LanePart::Done));
        }
        parts
    }

    /// The record is settled here or to become a dead letter.
    fn is_over(&self, offset: u64) -> bool {
        self.done.contains(offset)
            || self.dead.contains(&offset)
            || self.worn_out.contains_key(&offset)
    }

    fn fail(&mut self, offset: u64, (failures, not_before_ms): (u32, i64), attempt: Attempt) {
        if self.is_over(offset) {
            return;
        }
        self.map_bytes += attempt_bytes(&attempt);
        let failed = self.failed.entry(offset).or_default();
        failed.failures = failures;
        failed.not_before_ms = not_before_ms;
        if failed.attempts.len() >= ATTEMPTS_KEPT {
            failed.attempts.remove(0);
        }
        failed.attempts.push(attempt);
    }

    fn settle(&mut self, run: Run) {
        self.done.insert(run.offsets());
        forget(&mut self.failed, run);
        forget(&mut self.worn_out, run);
        forget(&mut self.intended, run);
    }
}

fn attempt_bytes(attempt: &Attempt) -> usize {
    size_of::<Attempt>() + attempt.session.len() + attempt.reason.len()
}

fn forget<T>(map: &mut BTreeMap<u64, T>, run: Run) {
    while let Some(offset) = map.range(run.offsets()).next().map(|(offset, _)| *offset) {
        map.remove(&offset);
    }
}

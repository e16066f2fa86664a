//! What happened to a record in a subscription.

use super::{Anomaly, life::Life, rules::Rules, scene::Scene};
use crate::history::{Delivered, Outcome, Part};

/// What happened to a record in a subscription.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) at: Part,
    pub(super) offset: u64,
    /// Somebody said `ack`.
    acked: bool,
    /// Somebody said `nack` or `reject`.
    pub(super) failed: bool,
    /// The last to get it did not settle it and was not told that it lost it.
    pub(super) held: bool,
    pub(super) last: Given,
    /// The broker confirmed an `ack`: when, and after how many starts.
    pub(super) confirmed: Option<(u64, u32)>,
    /// Failures that the broker confirmed.
    confirmed_failures: u32,
    /// The broker confirmed a `reject`.
    rejected: bool,
}

/// The last time that a record was handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) proc: u32,
    pub(super) t_ns: u64,
    starts: u32,
    faults: u32,
    /// Power cuts before.
    cuts: u32,
    /// Surely of the broker that ran then; what comes right after a start may be of the one before.
    is_sure: bool,
    pub(super) attempts: u32,
    failures: u32,
}

impl Item {
    /// A record that is handed out now for the first time.
    pub(super) fn new(at: Part, record: Delivered, scene: &Scene<'_>) -> Item {
        Item {
            at,
            offset: record.offset,
            acked: false,
            failed: false,
            held: true,
            last: Given::now(record, scene),
            confirmed: None,
            confirmed_failures: 0,
            rejected: false,
        }
    }

    /// It is handed out again.
    pub(super) fn again(&mut self, record: Delivered, scene: &Scene<'_>) {
        self.offset = record.offset;
        self.held = true;
        self.last = Given::now(record, scene);
    }

    /// Whether somebody said that it is done.
    pub(super) fn is_acked(&self) -> bool {
        self.acked
    }

    /// Whether it must have a dead letter.
    pub(super) fn is_dead(&self, failures_max: Option<u32>) -> bool {
        self.rejected || failures_max.is_some_and(|max| self.confirmed_failures >= max)
    }

    /// Whether its last holder, whose leases last `ack_wait_ns`, surely still has it at `t_ns`.
    pub(super) fn is_held(&self, ack_wait_ns: u64, t_ns: u64, life: &Life, rules: &Rules) -> bool {
        let lease_end = (self.last.t_ns + ack_wait_ns).saturating_sub(rules.lag_ns());
        self.held && self.last.is_sure && self.last.faults == life.faults && t_ns < lease_end
    }

    /// A session tells an outcome.
    pub(super) fn say(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Ack => self.acked = true,
            Outcome::Nack | Outcome::Reject => self.failed = true,
            Outcome::Release | Outcome::Extend => {}
        }
    }

    /// The broker confirms an outcome that `proc` told.
    pub(super) fn confirm(&mut self, outcome: Outcome, proc: u32, now: (u64, u32)) {
        match outcome {
            Outcome::Ack => {
                self.confirmed.get_or_insert(now);
            }
            Outcome::Reject => self.rejected = true,
            Outcome::Nack if self.last.proc == proc => {
                self.confirmed_failures = self.confirmed_failures.max(self.last.failures + 1);
            }
            Outcome::Nack | Outcome::Release | Outcome::Extend => {}
        }
    }

    /// Attempts rise while the broker runs. Failures never fall: what is shown is stored, so that a kill takes none of
    /// them, nor does a power cut of those that were confirmed.
    pub(super) fn compare(&self, record: Delivered, scene: &mut Scene<'_>) {
        let last = self.last;
        let is_same_broker = last.is_sure && last.starts == scene.life.starts;
        let is_same_session = last.proc == scene.event.proc;
        let is_ordered = is_same_session || scene.is_long_after(last.t_ns);
        let is_back = if is_same_session {
            record.attempts < last.attempts
        } else {
            record.attempts == last.attempts || is_ordered && record.attempts < last.attempts
        };
        let is_later = is_ordered || last.starts < scene.life.starts;
        let forgot = is_later && record.failures < self.confirmed_failures;
        let fell = is_ordered && record.failures < last.failures;
        if is_same_broker && is_back || last.cuts == scene.life.cuts && fell || forgot {
            let known = last.failures.max(self.confirmed_failures);
            scene.add(Anomaly::AttemptRegress, || {
                format!(
                    "{:?}: attempt {} after {}, {} failures after {known}",
                    record.value, record.attempts, last.attempts, record.failures
                )
            });
        }
    }
}

impl Given {
    fn now(record: Delivered, scene: &Scene<'_>) -> Given {
        Given {
            proc: scene.event.proc,
            t_ns: scene.event.t_ns,
            starts: scene.life.starts,
            faults: scene.life.faults,
            cuts: scene.life.cuts,
            is_sure: scene.is_of_this_start(),
            attempts: record.attempts,
            failures: record.failures,
        }
    }
}

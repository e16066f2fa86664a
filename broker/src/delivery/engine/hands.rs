//! Records leave hands: settled, failed or given back.

use std::{sync::Arc, time::Duration};

use super::Delivery;
use crate::delivery::{
    change::{Attempt, DeadCause, FailureCause},
    effects::{DeadLetter, RevokeReason, Told},
    entry::Entry,
    now::Now,
    run::Run,
};

/// A failure of a record in hands.
#[derive(Clone, Debug)]
pub(super) struct Failing {
    pub(super) cause: FailureCause,
    pub(super) reason: Arc<str>,
    /// Instead of the backoff.
    pub(super) delay: Option<Duration>,
}

impl Delivery {
    /// A record in hands failed. It waits for its next try, or is to become a dead letter. Records of its key behind it come
    /// back with it, unless it is out of the order from now on.
    pub(super) fn fail(&mut self, lane: u32, offset: u64, failing: Failing, now: Now) {
        let Some(entry) = self.lanes.get(lane).open.get(offset) else { return };
        self.tally.fail(failing.cause);
        let holder = self.sessions.get(self.grants.get(entry.grant).session);
        let attempt = Attempt {
            time_ms: now.wall_ms,
            cause: failing.cause,
            session: holder.map_or_else(|| "".into(), |session| Arc::clone(&session.id)),
            reason: failing.reason,
        };
        let counted = self.lanes.get(lane).failed.get(&offset).map_or(0, |failed| failed.failures);
        let failures = counted.saturating_add(1);
        let failures_max = self.settings.failures_max;
        if failing.cause == FailureCause::Rejected {
            self.die(lane, offset, DeadCause::Rejected, attempt);
        } else if failures_max > 0 && failures >= failures_max {
            self.die(lane, offset, DeadCause::FailuresMax, attempt);
        } else {
            self.take_back(lane, offset);
            let delay = failing.delay.unwrap_or_else(|| self.settings.backoff(offset, failures));
            let not_before = now.elapsed.saturating_add(delay);
            self.failures += 1;
            let number = self.failures;
            self.lanes.get_mut(lane).fail(offset, (attempt, number), not_before, now);
        }
    }

    /// A record in hands comes back untouched, and may be handed out again.
    pub(super) fn give_back(&mut self, lane: u32, offset: u64) {
        self.tally.released += 1;
        self.take_back(lane, offset);
        self.lanes.get_mut(lane).offer(offset, &self.settings);
    }

    /// A record in hands is settled; `settle` is for the caller.
    pub(super) fn close_held(&mut self, lane: u32, offset: u64) {
        if let Some(entry) = self.lanes.get_mut(lane).close(offset, &self.settings) {
            self.leave_grant(lane, offset, entry);
        }
    }

    /// Asks for a dead letter to be written.
    pub(super) fn ask_for_dead_letter(&mut self, lane: u32, offset: u64) {
        let lane = self.lanes.get(lane);
        let Some(dying) = lane.dead.get(&offset) else { return };
        let image = &dying.image;
        self.effects.dead.push(DeadLetter {
            lane: lane.key,
            offset,
            cause: image.cause,
            failures: image.failures,
            history: image.history.clone().into(),
        });
    }

    /// Tells the session in `slot` that it no longer holds a record, when a stream is open.
    pub(super) fn revoke(&mut self, slot: u32, lane: u32, offset: u64, reason: RevokeReason) {
        let Some(session) = self.sessions.name(slot) else { return };
        let lane = self.lanes.get(lane).key;
        if let Some((last, Told::Revoked(last_lane, run, last_reason))) =
            self.effects.told.last_mut()
            && (*last, *last_lane, *last_reason) == (session, lane, reason)
        {
            if run.end == offset {
                run.end += 1;
                return;
            }
            if run.start == offset + 1 {
                run.start = offset;
                return;
            }
        }
        self.effects.told.push((session, Told::Revoked(lane, Run::one(offset), reason)));
    }

    /// `offset` was `entry` in hands and is no longer part of its grant.
    fn leave_grant(&mut self, lane: u32, offset: u64, entry: Entry) {
        let slot = self.grants.get(entry.grant).session;
        let ended = self.grants.leave(entry.grant, 1);
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if let Some(ended) = ended {
            session.grants.remove(&ended.seq);
        }
        session.leave(1, u64::from(entry.bytes));
        if session.alone == Some((lane, offset)) {
            session.alone = None;
        }
        self.sessions.refresh(slot);
    }

    /// A record leaves hands unsettled, and those of its key behind it with it.
    fn take_back(&mut self, lane: u32, offset: u64) {
        for behind in self.lanes.get(lane).held_behind(offset) {
            let slot = self.put_back(lane, behind);
            if let Some(slot) = slot {
                self.revoke(slot, lane, behind, RevokeReason::Order);
            }
        }
        self.put_back(lane, offset);
    }

    fn put_back(&mut self, lane: u32, offset: u64) -> Option<u32> {
        let entry = self.lanes.get(lane).open.get(offset)?;
        let slot = self.grants.get(entry.grant).session;
        self.lanes.get_mut(lane).put_back(offset);
        self.leave_grant(lane, offset, entry);
        Some(slot)
    }

    fn die(&mut self, lane: u32, offset: u64, cause: DeadCause, attempt: Attempt) {
        let Some(entry) = self.lanes.get(lane).open.get(offset) else { return };
        self.lanes.get_mut(lane).die(offset, cause, attempt, &self.settings);
        self.leave_grant(lane, offset, entry);
        self.ask_for_dead_letter(lane, offset);
    }
}

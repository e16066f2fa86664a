//! Time passes.

use std::time::Duration;

use super::{
    Delivery,
    hands::Failing,
    sessions::{Ending, UNARY_IDLE},
};
use crate::delivery::{
    change::FailureCause, effects::RevokeReason, entry::State, now::Now, session::Link,
};

/// A record whose failure is not stored when its wait is over is looked at again after this: about one write.
const STORE_PAUSE: Duration = Duration::from_millis(5);

impl Delivery {
    /// Ends leases and waits that are over. To be called at [`Delivery::next_deadline`].
    pub fn tick(&mut self, now: Now) {
        self.end_leases(now);
        while let Some((slot, link)) = self.sessions.pop_timer(now.elapsed) {
            self.session_timer(slot, link, now);
        }
        while let Some(lane) = self.lanes.pop_wake(now.elapsed) {
            self.wake_lane(lane, now);
        }
        self.conclude(now);
    }

    /// What is left of the grants whose lease ended failed: the first of each key, which brings the others back with it.
    fn end_leases(&mut self, now: Now) {
        let mut expired: Vec<(u32, u64, u32)> = Vec::new();
        while let Some(index) = self.grants.pop_expired(now.elapsed) {
            let grant = self.grants.get(index);
            let offsets = grant.runs.iter().flat_map(|run| run.offsets());
            expired.extend(offsets.map(|offset| (grant.lane, offset, index)));
        }
        expired.sort_unstable();
        expired.retain(|(lane, offset, index)| self.is_by(*lane, *offset, *index));
        // Before the first comes back and takes others with it: those were as much in hands as it was.
        for (_, offset, index) in &expired {
            self.late.add(self.grants.get(self.grants.root(*index)), *offset);
        }
        let mut last_lane = None;
        for (lane, offset, index) in expired {
            if last_lane.is_some_and(|last| last != lane) {
                last_lane.into_iter().for_each(|last| self.refresh_lane(last, now));
            }
            last_lane = Some(lane);
            if self.is_by(lane, offset, index) {
                self.expire(lane, offset, index, now);
            }
        }
        last_lane.into_iter().for_each(|last| self.refresh_lane(last, now));
    }

    /// `offset` is in hands by this very grant.
    fn is_by(&self, lane: u32, offset: u64, index: u32) -> bool {
        let entry = self.lanes.get(lane).open.get(offset);
        entry.is_some_and(|entry| entry.state() == State::InFlight && entry.grant == index)
    }

    fn expire(&mut self, lane: u32, offset: u64, index: u32, now: Now) {
        let slot = self.grants.get(index).session;
        self.revoke(slot, lane, offset, RevokeReason::LeaseExpired);
        let (cause, reason) = (FailureCause::Expired, "".into());
        self.fail(lane, offset, Failing { cause, reason, delay: None }, now);
    }

    fn session_timer(&mut self, slot: u32, link: Option<Link>, now: Now) {
        match link {
            Some(Link::Detached(until)) if until <= now.elapsed => {
                self.end_session(slot, Ending::Crash, now);
            }
            Some(Link::Unary(since)) => {
                let session = self.sessions.get(slot);
                let busy = session.is_some_and(|one| one.asking || one.in_flight > 0);
                if !busy && since + UNARY_IDLE <= now.elapsed {
                    self.sessions.remove(slot);
                } else {
                    self.sessions
                        .set_timer(slot, (since + UNARY_IDLE).max(now.elapsed + UNARY_IDLE));
                }
            }
            Some(Link::Detached(_) | Link::Attached) | None => {}
        }
    }

    /// A lane has something to do: retries, its schedule, a read or a dead letter to be tried again.
    fn wake_lane(&mut self, index: u32, now: Now) {
        let lane = self.lanes.get_mut(index);
        while let Some((_, offset)) =
            lane.retry.first().copied().filter(|(at, _)| *at <= now.elapsed)
        {
            if lane.failed.get(&offset).is_some_and(|failed| failed.number > self.failures_stored) {
                lane.put_off(offset, now.elapsed + STORE_PAUSE);
                continue;
            }
            lane.retry.pop_first();
            lane.offer(offset, &self.settings);
        }
        lane.wake_scheduled(now);
        if lane.intake.failure.as_ref().is_some_and(|failure| failure.retry_at <= now.elapsed) {
            lane.intake.failure = None;
        }
        let mut again = Vec::new();
        while let Some((_, offset)) =
            lane.dead_retry.first().copied().filter(|(at, _)| *at <= now.elapsed)
        {
            lane.dead_retry.pop_first();
            again.push(offset);
        }
        for offset in again {
            self.ask_for_dead_letter(index, offset);
        }
        self.refresh_lane(index, now);
    }
}

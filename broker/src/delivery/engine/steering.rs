//! What operators and the surroundings of a subscription do to it.

use std::{sync::Arc, time::Duration};

use thiserror::Error;

use super::Delivery;
use crate::delivery::change::Change;
use crate::delivery::{
    effects::RevokeReason, entry::State, image::LaneImage, lane_key::LaneKey, now::Now, run::Run,
    settings::Settings,
};

/// Settings cannot be changed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// The order, while somebody is there.
    #[error("the order cannot be changed while `{sessions}` sessions are open")]
    OrderInUse {
        /// How many.
        sessions: usize,
    },
}

impl Delivery {
    /// Changes the settings. Leases and retries under way keep their times.
    ///
    /// # Errors
    /// When the order changes while sessions are open; nothing changed then.
    pub fn set_settings(&mut self, settings: Arc<Settings>, now: Now) -> Result<(), SettingsError> {
        let reordered = settings.order != self.settings.order;
        if reordered && self.sessions.len() > 0 {
            return Err(SettingsError::OrderInUse { sessions: self.sessions.len() });
        }
        self.settings = settings;
        for index in self.lanes.indexes() {
            if reordered {
                self.lanes.get_mut(index).close_all();
            }
            self.lanes.get_mut(index).advance_keys(&self.settings);
            self.refresh_lane(index, now);
        }
        self.conclude(now);
        Ok(())
    }

    /// Stops or continues delivery to all sessions. Leases go on.
    pub fn set_paused(&mut self, paused: bool, now: Now) {
        self.paused = paused;
        self.conclude(now);
    }

    /// The state cannot be stored any more: nothing is delivered until the broker starts again.
    pub fn set_state_failed(&mut self) {
        (self.paused, self.state_failed) = (true, true);
    }

    /// Moves the position: everything below `offset` is settled, everything from there on is delivered, again where it was
    /// before. What is in hands is revoked.
    pub fn seek(&mut self, key: &LaneKey, offset: u64, now: Now) {
        let Some(index) = self.lanes.index_of(key) else { return };
        let open = self.lanes.get(index).open.range(0);
        let held: Vec<u64> = open
            .filter(|(_, entry)| entry.state() == State::InFlight)
            .map(|(offset, _)| offset)
            .collect();
        for held in held {
            let grant = self.lanes.get(index).open.get(held).map(|entry| entry.grant);
            let holder = grant.map(|grant| self.grants.get(grant).session);
            self.close_held(index, held);
            if let Some(slot) = holder {
                self.revoke(slot, index, held, RevokeReason::Seek);
            }
        }
        self.sessions.forget_lane(index);
        self.late.forget_lane(index);
        let lane = self.lanes.get_mut(index);
        lane.seek(offset.max(lane.intake.log_start));
        self.refresh_lane(index, now);
        self.conclude(now);
    }

    /// Settles everything below `offset` that is in nobody's hands and is not to become a dead letter: a reader that
    /// pulls stored its position. Returns the floor.
    pub fn advance(&mut self, key: &LaneKey, offset: u64, now: Now) -> Option<u64> {
        let index = self.lanes.index_of(key)?;
        let lane = self.lanes.get_mut(index);
        let end = offset.min(lane.intake.high_watermark);
        let open = lane.open.range(0).take_while(|(at, _)| *at < end);
        let open: Vec<(u64, State)> = open.map(|(at, entry)| (at, entry.state())).collect();
        let mut kept: Vec<u64> = lane.dead.range(..end).map(|(at, _)| *at).collect();
        for (at, state) in open {
            match state {
                State::InFlight => kept.push(at),
                State::Ready | State::RetryWait | State::Blocked => {
                    lane.close(at, &self.settings);
                }
            }
        }
        kept.sort_unstable();
        lane.advance(end, &kept);
        self.refresh_lane(index, now);
        self.conclude(now);
        Some(self.lanes.get(index).floor)
    }

    /// A record is not to be delivered any more. False when it is in hands, was settled, or is to become a dead letter.
    pub fn cancel(&mut self, key: &LaneKey, offset: u64, now: Now) -> bool {
        let Some(index) = self.lanes.index_of(key) else { return false };
        let cancelled = self.lanes.get_mut(index).cancel(offset, &self.settings);
        self.refresh_lane(index, now);
        self.conclude(now);
        cancelled
    }

    /// A dead letter is durable: the record is settled.
    pub fn dead_stored(&mut self, key: &LaneKey, offset: u64, now: Now) {
        self.dead_settled(key, offset, true, now);
    }

    /// The record of a dead letter is not in the log any more: it is settled, and nobody has a letter of it.
    pub fn dead_lost(&mut self, key: &LaneKey, offset: u64, now: Now) {
        self.dead_settled(key, offset, false, now);
    }

    fn dead_settled(&mut self, key: &LaneKey, offset: u64, is_written: bool, now: Now) {
        let Some(index) = self.lanes.index_of(key) else { return };
        let lane = self.lanes.get_mut(index);
        let Some(dying) = lane.dead.remove(&offset) else { return };
        if let Some((_, retry_at)) = dying.error {
            lane.dead_retry.remove(&(retry_at, offset));
        }
        if is_written {
            lane.dead_count += 1;
            self.tally.dead += 1;
            lane.memory.note(Change::Dead { lane: lane.key, offset });
        }
        lane.settle(Run::one(offset));
        self.refresh_lane(index, now);
        self.conclude(now);
    }

    /// A dead letter could not be written; it is asked for again at `retry_at`.
    pub fn dead_failed(
        &mut self,
        key: &LaneKey,
        offset: u64,
        failed: (Arc<str>, Duration),
        now: Now,
    ) {
        let Some(index) = self.lanes.index_of(key) else { return };
        let lane = self.lanes.get_mut(index);
        let Some(dying) = lane.dead.get_mut(&offset) else { return };
        if let Some((_, retry_at)) = dying.error.replace(failed.clone()) {
            lane.dead_retry.remove(&(retry_at, offset));
        }
        lane.dead_retry.insert((failed.1, offset));
        self.refresh_lane(index, now);
    }

    /// A lane as it is to be remembered, everything included that [`Delivery::take_effects`] has not given yet.
    pub fn lane_image(&self, key: &LaneKey, now: Now) -> Option<LaneImage> {
        self.lanes.index_of(key).map(|index| self.lanes.get(index).image(now))
    }
}

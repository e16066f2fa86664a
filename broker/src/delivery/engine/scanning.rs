//! Lanes come and go, and are read.

use super::Delivery;
use crate::delivery::{
    effects::Told,
    entry::State,
    image::LaneImage,
    lane::Lane,
    lane_key::LaneKey,
    now::Now,
    open::SessionRef,
    run::Run,
    scan::{Scan, ScanFailure, Scanned},
};

/// What of a partition is there and visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visible {
    /// First record kept.
    pub log_start: u64,
    /// First offset not visible.
    pub high_watermark: u64,
    /// Next offset to be assigned.
    pub log_end: u64,
}

impl Delivery {
    /// Adds a lane as it is remembered; one that is there already is left alone. Its pending dead letters are asked
    /// for again.
    pub fn add_lane(&mut self, key: LaneKey, image: LaneImage, now: Now) {
        if self.lanes.index_of(&key).is_some() {
            return;
        }
        let index = self.lanes.insert(Lane::new(key, image, now));
        let dead: Vec<u64> = self.lanes.get(index).dead.keys().copied().collect();
        for offset in dead {
            self.ask_for_dead_letter(index, offset);
        }
        self.refresh_lane(index, now);
    }

    /// Removes a lane; sessions that hold records of it hear that they are lost.
    pub fn remove_lane(&mut self, key: &LaneKey, now: Now) {
        let Some(index) = self.lanes.index_of(key) else { return };
        self.lose(index, u64::MAX);
        self.sessions.forget_lane(index);
        self.late.forget_lane(index);
        self.kept.retain(|(lane, _), _| *lane != index);
        let lane = self.lanes.get_mut(index);
        lane.memory.take(lane.key, &mut self.effects.changes);
        self.lanes.remove(index);
        self.conclude(now);
    }

    /// Notes what of the partition is visible. What retention removed is settled, and those who hold it hear so.
    pub fn set_visible(&mut self, key: &LaneKey, visible: Visible, now: Now) {
        let Some(index) = self.lanes.index_of(key) else { return };
        let lane = self.lanes.get_mut(index);
        let moved = visible.log_start > lane.intake.log_start;
        let (log_start, high_watermark) = (visible.log_start, visible.high_watermark);
        lane.intake.see(log_start, high_watermark, visible.log_end);
        if moved && log_start > lane.floor {
            self.lose(index, log_start);
            self.lanes.get_mut(index).forget_below(log_start);
        }
        self.refresh_lane(index, now);
        self.conclude(now);
    }

    /// The next thing to read; it counts as being read until [`Delivery::scanned`] or [`Delivery::scan_failed`]. Nothing is
    /// read for nobody.
    pub fn next_scan(&mut self) -> Option<Scan> {
        if self.paused || self.state_failed || self.sessions.len() == 0 {
            return None;
        }
        for _ in 0..self.lanes.to_scan_count() {
            let index = self.lanes.next_to_scan(self.scan_turn)?;
            self.scan_turn = index;
            let lane = self.lanes.get_mut(index);
            if let Some(plan) = lane.plan_scan(&self.settings) {
                lane.begin_scan(plan);
                self.lanes.begin_scan(index);
                let (lane, id) = (self.lanes.get(index).key, plan.id);
                let (from, until) = (plan.run.start, plan.run.end);
                return Some(Scan { lane, id, from, until, records_max: plan.records_max });
            }
        }
        None
    }

    /// Takes in what a scan found. Where `scanned` is not the answer to the last scan of the lane, it is ignored.
    pub fn scanned(&mut self, key: &LaneKey, scanned: &Scanned, now: Now) {
        let Some(index) = self.lanes.index_of(key) else { return };
        self.lanes.get_mut(index).scanned(scanned, &self.settings, now);
        self.refresh_lane(index, now);
        self.conclude(now);
    }

    /// The records could not be read.
    pub fn scan_failed(&mut self, key: &LaneKey, id: u64, failure: ScanFailure, now: Now) {
        let Some(index) = self.lanes.index_of(key) else { return };
        self.lanes.get_mut(index).scan_failed(id, failure);
        self.refresh_lane(index, now);
    }

    /// Records below `end` are no more: whoever holds one hears so.
    fn lose(&mut self, index: u32, end: u64) {
        let below = self.lanes.get(index).open.range(0).take_while(|(offset, _)| *offset < end);
        let open: Vec<(u64, bool)> =
            below.map(|(offset, entry)| (offset, entry.state() == State::InFlight)).collect();
        for (offset, held) in open {
            if !held {
                self.lanes.get_mut(index).close(offset, &self.settings);
                continue;
            }
            let grant = self.lanes.get(index).open.get(offset).map(|entry| entry.grant);
            let holder = grant.map(|grant| self.grants.get(grant).session);
            self.close_held(index, offset);
            if let Some(name) = holder.and_then(|slot| self.sessions.name(slot)) {
                self.tell_lost(name, self.lanes.get(index).key, offset);
            }
        }
        let lane = self.lanes.get_mut(index);
        let rest = lane.dead.split_off(&end);
        lane.dead = rest;
        lane.dead_retry.retain(|(_, offset)| *offset >= end);
    }

    fn tell_lost(&mut self, session: SessionRef, lane: LaneKey, offset: u64) {
        if let Some((last_session, Told::Lost(last_lane, run))) = self.effects.told.last_mut()
            && (*last_session, *last_lane, run.end) == (session, lane, offset)
        {
            run.end += 1;
            return;
        }
        self.effects.told.push((session, Told::Lost(lane, Run::one(offset))));
    }
}

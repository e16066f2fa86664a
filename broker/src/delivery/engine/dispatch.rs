//! Who gets what.
//!
//! Lanes and sessions take turns with runs of a few records, so that a burst is shared. What one session gets of one lane in
//! one event comes in as few deliveries as their limits allow.

use riverrun_storage::planted::{Bug, planted};

use super::Delivery;
use crate::delivery::{
    effects::{DeliveryCount, Handout, Told},
    entry::Entry,
    grants::Grant,
    lane::hand_out,
    now::Now,
    open::SessionRef,
    run::Run,
    session::Session,
    settings::Order,
};

/// Records of one turn.
const TURN_RECORDS_MAX: u64 = 64;
/// Records of one delivery.
const DELIVERY_RECORDS_MAX: u64 = 4_096;
/// Bytes of one delivery; a single record may be larger. A session that is not read keeps two in memory: one on its way, of which the rest
/// waits for the window, and one that the protocol stack looks at ahead.
const DELIVERY_BYTES_MAX: u64 = 96 << 10;

/// A delivery being put together.
#[derive(Debug)]
pub(super) struct Building {
    grant: u32,
    session: SessionRef,
    runs: Vec<Run>,
    records: u64,
    bytes: u64,
    counts: Vec<DeliveryCount>,
}

impl Building {
    fn add(&mut self, offset: u64, entry: &Entry) {
        Run::push(&mut self.runs, Run::one(offset));
        self.records += 1;
        self.bytes += u64::from(entry.bytes);
        if entry.attempts > 1 || entry.failures > 0 {
            let (attempts, failures) = (u32::from(entry.attempts), u32::from(entry.failures));
            self.counts.push(DeliveryCount { offset, attempts, failures });
        }
    }

    fn is_full(&self, bytes: u32) -> bool {
        self.records >= DELIVERY_RECORDS_MAX
            || (self.records > 0 && self.bytes + u64::from(bytes) > DELIVERY_BYTES_MAX)
    }
}

impl Delivery {
    /// Gives out everything that may be given out now.
    pub(super) fn dispatch(&mut self, now: Now) {
        if self.paused {
            return;
        }
        self.dispatch_isolated(now);
        loop {
            let active = self.active_only();
            let owner = match active {
                Some(active) => active.filter(|slot| self.sessions.is_able(*slot)),
                None => self.sessions.next_owner(),
            };
            if owner.is_some_and(|slot| self.dispatch_own(slot, now)) {
                continue;
            }
            let Some(lane) = self.lanes.next_ready(self.lane_turn) else { break };
            let session = match active {
                Some(active) => active.filter(|slot| self.sessions.is_able(*slot)),
                None => self.sessions.next_able(self.session_turn),
            };
            let Some(slot) = session else { break };
            (self.lane_turn, self.session_turn) = (lane, slot);
            if !self.give_turn(slot, lane, now) {
                self.sessions.set_aside(slot);
            }
        }
        self.send_round();
    }

    /// The session that gets everything, when one does.
    pub(super) fn active_only(&self) -> Option<Option<u32>> {
        (self.settings.order == Order::Exclusive).then(|| self.sessions.active())
    }

    /// Gives a session the next record that only it may have; false when there is none or it cannot take it.
    fn dispatch_own(&mut self, slot: u32, now: Now) -> bool {
        let Some((lane, offset)) = self.sessions.pop_own(slot) else { return false };
        if !self.lanes.get(lane).is_offered_to(offset, slot, &self.settings) {
            return true;
        }
        let given = self.give_one(slot, lane, offset, now);
        if !given {
            self.sessions.own(slot, lane, offset);
            self.sessions.set_aside(slot);
        }
        given
    }

    /// Gives a session some of the lane's ready records; false when it cannot take the first.
    fn give_turn(&mut self, slot: u32, index: u32, now: Now) -> bool {
        let given = if self.settings.order == Order::Unordered {
            self.give_run(slot, index, now)
        } else {
            let offset = self.lanes.get(index).open.first_ready();
            offset.is_some_and(|offset| self.give_one(slot, index, offset, now))
        };
        self.sessions.refresh(slot);
        self.refresh_lane(index, now);
        given
    }

    /// Gives a session a run of the lane's ready records, which have no keys.
    fn give_run(&mut self, slot: u32, index: u32, now: Now) -> bool {
        let first = self.lanes.get(index).open.first_ready();
        let first = first.and_then(|offset| self.lanes.get(index).open.get(offset));
        let Some(first) = first else { return false };
        if !self.can_take(slot, first.bytes) {
            return false;
        }
        self.build(slot, index, first.bytes, now);
        let session = self.sessions.get_mut(slot).expect("it can take");
        let building = self.round.get_mut(&(slot, index)).expect("just built");
        let mut records = 0;
        self.lanes.get_mut(index).open.take_ready(|offset, entry| {
            let over = records >= TURN_RECORDS_MAX || building.is_full(entry.bytes);
            if over || !takes(session, entry.bytes) {
                return false;
            }
            hand_out(entry, building.grant);
            records += 1;
            building.add(offset, entry);
            session.take(entry.bytes);
            true
        });
        session.note_unsent(0, records);
        self.grants.get_mut(building.grant).left +=
            u32::try_from(records).expect("a turn is short");
        true
    }

    /// Gives a session one record; false when it cannot take it.
    fn give_one(&mut self, slot: u32, index: u32, offset: u64, now: Now) -> bool {
        let Some(entry) = self.lanes.get(index).open.get(offset) else { return false };
        if !self.can_take(slot, entry.bytes) {
            return false;
        }
        self.build(slot, index, entry.bytes, now);
        let building = self.round.get_mut(&(slot, index)).expect("just built");
        let lane = self.lanes.get_mut(index);
        lane.take(offset, (slot, building.grant), &self.settings);
        let entry = lane.open.get(offset).expect("it is in hands now");
        building.add(offset, &entry);
        self.grants.get_mut(building.grant).left += 1;
        let session = self.sessions.get_mut(slot).expect("it can take");
        session.take(entry.bytes);
        session.note_unsent(0, 1);
        self.sessions.refresh(slot);
        self.refresh_lane(index, now);
        true
    }

    fn can_take(&self, slot: u32, bytes: u32) -> bool {
        let session = self.sessions.get(slot);
        session.is_some_and(|session| !session.unsent.is_full() && takes(session, bytes))
    }

    /// A delivery of the session on the lane has room for a record of `bytes`.
    fn build(&mut self, slot: u32, index: u32, bytes: u32, now: Now) {
        if self.round.get(&(slot, index)).is_some_and(|building| !building.is_full(bytes)) {
            return;
        }
        if let Some(full) = self.round.remove(&(slot, index)) {
            self.send(index, full);
        }
        let session = self.sessions.name(slot).expect("it can take");
        let lease = (now.elapsed, now.elapsed.saturating_add(self.settings.ack_wait));
        // Numbered when it is sent: lanes take turns, so what was begun first need not leave first.
        let grant = self.grants.add(Grant::new((slot, session.epoch), index, 0, lease));
        let (runs, counts) = (Vec::new(), Vec::new());
        let building = Building { grant, session, runs, records: 0, bytes: 0, counts };
        self.round.insert((slot, index), building);
        self.sessions.get_mut(slot).expect("it can take").note_unsent(1, 0);
    }

    /// Sends what was put together; a call that waited for records is answered with it.
    fn send_round(&mut self) {
        while let Some(((slot, lane), building)) = self.round.pop_first() {
            self.send(lane, building);
            if let Some(session) = self.sessions.get_mut(slot)
                && session.asking
            {
                session.asking = false;
                session.credit.set(0, 0);
                self.sessions.refresh(slot);
            }
        }
    }

    fn send(&mut self, lane: u32, mut building: Building) {
        building.runs.sort_unstable();
        building.counts.sort_unstable_by_key(|count| count.offset);
        let mut runs: Vec<Run> = Vec::with_capacity(building.runs.len());
        building.runs.into_iter().for_each(|run| Run::push(&mut runs, run));
        let seq = self.next_seq;
        self.next_seq += 1;
        let grant = self.grants.get_mut(building.grant);
        grant.runs.clone_from(&runs);
        grant.seq = seq;
        let session = building.session;
        if let Some(session) = self.sessions.get_mut(session.slot) {
            session.grants.insert(seq, building.grant);
            if session.is_unary() {
                session.attempt.1.push(seq);
            }
        }
        self.sessions.refresh(session.slot);
        let handout = Handout {
            lane: self.lanes.get(lane).key,
            seq,
            epoch: session.epoch,
            runs,
            bytes: building.bytes,
            counts: building.counts,
            replayed: false,
        };
        self.tally.hand_out(&handout);
        self.effects.told.push((session, Told::Handout(handout)));
    }

    /// Records to be handed out alone: a session is kept free for each, and gets nothing else until it is settled.
    fn dispatch_isolated(&mut self, now: Now) {
        self.free_kept();
        for index in self.lanes.isolated() {
            let offsets: Vec<u64> = self.lanes.get(index).isolated.iter().copied().collect();
            for offset in offsets {
                let keeper = self.kept.get(&(index, offset)).copied();
                let Some(slot) = keeper.or_else(|| self.keep_one(index, offset)) else { break };
                let idle = self.sessions.get(slot).is_some_and(|session| session.in_flight == 0);
                if idle && self.give_one(slot, index, offset, now) {
                    self.kept.remove(&(index, offset));
                }
            }
        }
    }

    /// Chooses the session that holds least, and gives it nothing else.
    fn keep_one(&mut self, index: u32, offset: u64) -> Option<u32> {
        let slot = match self.active_only() {
            Some(active) => active.filter(|slot| self.sessions.is_able(*slot))?,
            None => {
                let held = |slot: &u32| self.sessions.get(*slot).map(|session| session.in_flight);
                self.sessions.able().min_by_key(held)?
            }
        };
        self.sessions.get_mut(slot)?.alone = Some((index, offset));
        self.kept.insert((index, offset), slot);
        self.sessions.refresh(slot);
        Some(slot)
    }

    /// Frees sessions kept for records that are no longer to be handed out, or that they cannot take.
    fn free_kept(&mut self) {
        let kept: Vec<((u32, u64), u32)> =
            self.kept.iter().map(|(at, slot)| (*at, *slot)).collect();
        for ((index, offset), slot) in kept {
            let session = self.sessions.get(slot);
            let there = session.is_some_and(|session| session.alone == Some((index, offset)));
            let stuck = session.is_none_or(|session| {
                !session.is_willing() || (session.in_flight == 0 && !session.is_able())
            });
            if there && !stuck && self.lanes.get(index).isolated.contains(&offset) {
                continue;
            }
            self.kept.remove(&(index, offset));
            if let Some(session) = self.sessions.get_mut(slot).filter(|_| there) {
                session.alone = None;
                self.sessions.refresh(slot);
            }
        }
    }
}

/// A session may be given a record of `bytes`.
fn takes(session: &Session, bytes: u32) -> bool {
    if planted(Bug::WindowOffByOne) && session.in_flight == session.in_flight_max {
        return true;
    }
    session.has_room(bytes) && session.credit.allows(bytes, session.in_flight)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use riverrun_proto::TopicId;
    use uuid::Uuid;

    use crate::delivery::{
        Delivery, Found, LaneImage, LaneKey, Now, Open, Scanned, Settings, Visible,
    };

    fn scan_all(delivery: &mut Delivery, now: Now) {
        while let Some(scan) = delivery.next_scan() {
            let found = |offset| Found { offset, key: None, bytes: 100, not_before_ms: None };
            let records: Vec<Found> =
                (scan.from..scan.until).take(scan.records_max).map(found).collect();
            let next = records.last().map_or(scan.until, |last| last.offset + 1);
            let scanned = Scanned { id: scan.id, from: scan.from, next, records };
            delivery.scanned(&scan.lane, &scanned, now);
        }
    }

    #[test]
    fn deliveries_of_a_session_leave_in_the_order_of_their_numbers() {
        let now = Now { elapsed: Duration::ZERO, wall_ms: 1 };
        let mut delivery = Delivery::new(Arc::new(Settings::default()), 1);
        for partition in 0..3 {
            let lane = LaneKey::new(TopicId(Uuid::nil()), partition);
            delivery.add_lane(lane, LaneImage::at(0), now);
            let visible = Visible { log_start: 0, high_watermark: 5_000, log_end: 5_000 };
            delivery.set_visible(&lane, visible, now);
        }
        let open = Open {
            id: "s".into(),
            client_id: "client".into(),
            host: "host".into(),
            in_flight_max: 100_000,
            in_flight_bytes_max: u64::MAX,
            reports_started: true,
            resume: None,
        };
        let session = delivery.open_session(open, now).unwrap().session;
        let mut last = 0;
        for round in 1..20 {
            // Lanes take turns of some records, so a round ends with any of them.
            delivery.credit(session, round * 100, u64::MAX >> 2, now);
            scan_all(&mut delivery, now);
            for (_, handout) in delivery.take_effects().handouts() {
                assert!(handout.seq > last, "{} after {last}", handout.seq);
                last = handout.seq;
            }
        }
        assert!(last >= 19);
    }
}

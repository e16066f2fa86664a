//! Sessions come, change and go.

use std::{sync::Arc, time::Duration};

use super::{Delivery, hands::Failing};
use crate::delivery::{
    change::FailureCause,
    credit::Credit,
    effects::{DeliveryCount, Handout, Told},
    now::Now,
    open::{Ask, GoneReason, Open, OpenError, Opened, ResumePoint, SESSIONS_MAX, SessionRef, Used},
    run::Run,
    session::{Link, Session, Unsent},
};

/// How long a session of unary calls is remembered when it holds nothing.
pub(super) const UNARY_IDLE: Duration = Duration::from_secs(60);

/// What becomes of the records of a session that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Those it handled failed, the others come back.
    Crash,
    /// All come back.
    Release,
}

impl Delivery {
    /// Opens a session, or resumes one. A stream of the same id that is still open is replaced: it is gone, and
    /// unless the new one resumes, what it held is treated as after a crash.
    ///
    /// # Errors
    /// When there are too many sessions.
    pub fn open_session(&mut self, open: Open, now: Now) -> Result<Opened, OpenError> {
        let old = self.sessions.by_id(&open.id);
        let resumes = old.is_some_and(|slot| self.resumes(slot, open.resume));
        if let Some(slot) = old {
            self.replace(slot, resumes, now);
        }
        let slot = match old.filter(|_| resumes) {
            Some(slot) => slot,
            None if self.sessions.len() >= SESSIONS_MAX => return Err(OpenError::TooManySessions),
            None => {
                let id = Arc::clone(&open.id);
                self.sessions.insert(Session::new(id, self.next_epoch, Link::Attached))
            }
        };
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        let session = self.sessions.get_mut(slot).expect("just made or found");
        let was_unary = session.is_unary();
        session.epoch = epoch;
        if !resumes {
            session.instead_of = open.resume.map(|point| point.epoch);
        }
        session.link = Link::Attached;
        session.client_id = open.client_id;
        session.host = open.host;
        session.in_flight_max = open.in_flight_max.max(1);
        session.in_flight_bytes_max = open.in_flight_bytes_max;
        session.reports_started |= open.reports_started;
        if was_unary {
            // Totals of a stream count from its beginning; those of calls are none of its.
            session.credit = Credit::default();
        }
        (session.paused, session.draining, session.asking) = (false, false, false);
        self.sessions.refresh(slot);
        let replay = match open.resume.filter(|_| resumes && !was_unary) {
            Some(point) => self.replay(slot, point.last_seq),
            None => Vec::new(),
        };
        if let Some(session) = self.sessions.get_mut(slot) {
            // What waited for the old stream waits no more.
            session.unsent = Unsent::of(&replay);
        }
        self.sessions.refresh(slot);
        let used = self.used_without(slot, &replay);
        self.conclude(now);
        let session = SessionRef { slot, epoch };
        Ok(Opened { session, resumed: resumes && !was_unary, replay, used })
    }

    /// Asks for records once. They come as handouts of one round of effects; [`Delivery::stop_asking`] ends the wait. A call
    /// repeated under the name of the last one gets what that got, under the same lease.
    ///
    /// # Errors
    /// When a stream has the id, or there are too many sessions.
    pub fn receive(&mut self, ask: Ask, now: Now) -> Result<Opened, OpenError> {
        let slot = match self.sessions.by_id(&ask.id) {
            Some(slot) => slot,
            None if self.sessions.len() >= SESSIONS_MAX => return Err(OpenError::TooManySessions),
            None => {
                let (id, link) = (Arc::clone(&ask.id), Link::Unary(now.elapsed));
                let slot = self.sessions.insert(Session::new(id, self.next_epoch, link));
                self.next_epoch += 1;
                self.sessions.set_timer(slot, now.elapsed + UNARY_IDLE);
                slot
            }
        };
        let session = self.sessions.get_mut(slot).expect("just made or found");
        if !session.is_unary() {
            return Err(OpenError::StreamOpen { id: ask.id });
        }
        (session.client_id, session.host) = (ask.client_id, ask.host);
        session.link = Link::Unary(now.elapsed);
        let name = SessionRef { slot, epoch: session.epoch };
        let repeated = !ask.attempt.is_empty() && session.attempt.0 == ask.attempt;
        let seqs = if repeated { std::mem::take(&mut session.attempt.1) } else { Vec::new() };
        let mut replay: Vec<Handout> =
            seqs.iter().filter_map(|seq| self.again(slot, *seq)).collect();
        replay.iter_mut().for_each(|handout| handout.replayed = true);
        let session = self.sessions.get_mut(slot).expect("found above");
        session.attempt = (ask.attempt, seqs);
        if replay.is_empty() {
            session.attempt.1.clear();
            session.asking = true;
            session.in_flight_max = session.in_flight.saturating_add(ask.records_max.max(1));
            session.credit.set(u64::from(ask.records_max.max(1)), ask.bytes_max.max(1));
        }
        self.sessions.refresh(slot);
        self.conclude(now);
        Ok(Opened { session: name, resumed: !replay.is_empty(), replay, used: Used::default() })
    }

    /// The call no longer waits for records.
    pub fn stop_asking(&mut self, session: SessionRef, now: Now) {
        self.change_session(session, now, |session| session.asking = false);
    }

    /// The session of this id, by stream or by calls.
    pub fn session_of(&self, id: &str) -> Option<SessionRef> {
        self.sessions.by_id(id).and_then(|slot| self.sessions.name(slot))
    }

    /// A stream of this id is open, and is neither the one of `epoch` nor one that went on with its leases, nor one opened in its place: whoever
    /// asks for that epoch again then did not get the answer.
    pub fn is_elsewhere(&self, id: &str, epoch: u64) -> bool {
        let session = self.sessions.by_id(id).and_then(|slot| self.sessions.get(slot));
        session.is_some_and(|session| {
            let is_its = session.had_epoch(epoch) || session.instead_of == Some(epoch);
            session.link == Link::Attached && !is_its
        })
    }

    /// Raises the session's credit to these running totals.
    pub fn credit(&mut self, session: SessionRef, records_total: u64, bytes_total: u64, now: Now) {
        self.change_session(session, now, |session| {
            session.credit.raise(records_total, bytes_total);
        });
    }

    /// So many deliveries, with so many records, are on their way to the session. While too much waits to be sent it is given
    /// nothing.
    pub fn sent(&mut self, session: SessionRef, deliveries: u32, records: u64, now: Now) {
        self.change_session(session, now, |session| {
            session.unsent.deliveries = session.unsent.deliveries.saturating_sub(deliveries);
            session.unsent.records = session.unsent.records.saturating_sub(records);
        });
    }

    /// Gives the session nothing until it resumes; leases go on.
    pub fn pause_session(&mut self, session: SessionRef, now: Now) {
        self.change_session(session, now, |session| session.paused = true);
    }

    /// Goes on with a paused session.
    pub fn resume_session(&mut self, session: SessionRef, now: Now) {
        self.change_session(session, now, |session| session.paused = false);
    }

    /// Lets the session hold at most so many records from now on; what it holds stays with it.
    pub fn limit_session(&mut self, session: SessionRef, in_flight_max: u32, now: Now) {
        self.change_session(session, now, |session| session.in_flight_max = in_flight_max.max(1));
    }

    /// Gives the session nothing any more; it is gone once everything is settled.
    pub fn drain(&mut self, session: SessionRef, now: Now) {
        self.change_session(session, now, |session| session.draining = true);
    }

    /// The stream broke. The session may be resumed for a while, and keeps its records so long. One that drains is gone at
    /// once, and what it held is given back.
    pub fn lost(&mut self, session: SessionRef, now: Now) {
        let until = now.elapsed.saturating_add(self.settings.resume_grace);
        let Some(slot) = self.sessions.slot_of(session) else { return };
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if session.draining {
            self.end_session(slot, Ending::Release, now);
        } else if session.link == Link::Attached {
            session.link = Link::Detached(until);
            self.sessions.set_timer(slot, until);
            self.sessions.refresh(slot);
        }
        self.conclude(now);
    }

    /// The client ended the session in good order: what it holds is given back, uncounted.
    pub fn closed(&mut self, session: SessionRef, now: Now) {
        if let Some(slot) = self.sessions.slot_of(session) {
            self.end_session(slot, Ending::Release, now);
        }
        self.conclude(now);
    }

    /// Sessions that drained are gone.
    pub(super) fn end_drained(&mut self, now: Now) {
        while let Some(slot) = self.sessions.drained.pop() {
            if let Some(name) = self.sessions.name(slot) {
                self.end_session(slot, Ending::Release, now);
                self.effects.gone.push((name, GoneReason::Drained));
            }
        }
    }

    /// Removes a session; its records fail or come back.
    pub(super) fn end_session(&mut self, slot: u32, ending: Ending, now: Now) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        // It gets nothing any more while its records come back.
        session.link = Link::Detached(Duration::ZERO);
        session.draining = false;
        let all_count = !session.reports_started;
        let grants: Vec<u32> = session.grants.values().copied().collect();
        self.sessions.refresh(slot);
        let mut held = self.held_by(&grants);
        match ending {
            // Before the first comes back and takes others with it: those were as much in hands as it was.
            Ending::Crash => held.iter().for_each(|(_, offset, root)| {
                self.late.add(self.grants.get(*root), *offset);
            }),
            Ending::Release => held.reverse(),
        }
        for (lane, offset, _) in held {
            let Some(entry) = self.lanes.get(lane).open.get(offset) else { continue };
            if !self.holds(slot, lane, offset) {
                continue;
            }
            if ending == Ending::Crash && (all_count || entry.started()) {
                self.crash(lane, offset, now);
            } else {
                self.give_back(lane, offset);
            }
            self.refresh_lane(lane, now);
        }
        self.sessions.remove(slot);
        self.kept.retain(|_, keeper| *keeper != slot);
        let hears = |told: &Told| !matches!(told, Told::Revoked(..));
        self.effects.told.retain(|(session, told)| session.slot != slot || hears(told));
    }

    /// What is in hands by these deliveries, in order for each lane: (lane, offset, first grant).
    fn held_by(&self, grants: &[u32]) -> Vec<(u32, u64, u32)> {
        let mut held = Vec::new();
        for root in grants {
            let grant = self.grants.get(*root);
            let offsets = grant.runs.iter().flat_map(|run| run.offsets());
            let there = offsets.filter(|offset| self.is_held(*root, grant.lane, *offset));
            held.extend(there.map(|offset| (grant.lane, offset, *root)));
        }
        held.sort_unstable();
        held
    }

    /// `offset` is in hands of the session in `slot`.
    fn holds(&self, slot: u32, lane: u32, offset: u64) -> bool {
        let entry = self.lanes.get(lane).open.get(offset);
        entry.is_some_and(|entry| {
            entry.state() == crate::delivery::entry::State::InFlight
                && self.grants.get(entry.grant).session == slot
        })
    }

    /// The handler of a record in hands crashed.
    fn crash(&mut self, lane: u32, offset: u64, now: Now) {
        self.lanes.get_mut(lane).open.update(offset, |entry| entry.add_crash());
        let (cause, reason) = (FailureCause::Crashed, "".into());
        self.fail(lane, offset, Failing { cause, reason, delay: None }, now);
    }

    /// The old session goes on with the new stream: it said where it stands, or had no stream.
    fn resumes(&self, slot: u32, point: Option<ResumePoint>) -> bool {
        let Some(session) = self.sessions.get(slot) else { return false };
        session.is_unary() || point.is_some_and(|point| session.had_epoch(point.epoch))
    }

    fn replace(&mut self, slot: u32, resumes: bool, now: Now) {
        let Some(session) = self.sessions.get(slot) else { return };
        let attached = session.link == Link::Attached;
        let name = SessionRef { slot, epoch: session.epoch };
        if attached {
            self.effects.gone.push((name, GoneReason::Replaced));
        }
        if !resumes {
            let ending = if session.draining { Ending::Release } else { Ending::Crash };
            self.end_session(slot, ending, now);
        }
    }

    /// Deliveries after `last_seq` that are still in hands.
    fn replay(&self, slot: u32, last_seq: u64) -> Vec<Handout> {
        let Some(session) = self.sessions.get(slot) else { return Vec::new() };
        let after = last_seq.saturating_add(1);
        let again = session.grants.range(after..).filter_map(|(seq, _)| self.again(slot, *seq));
        again.collect()
    }

    /// What credit was used for, without what is in `replay`.
    fn used_without(&self, slot: u32, replay: &[Handout]) -> Used {
        let Some(Session { credit, .. }) = self.sessions.get(slot) else { return Used::default() };
        let mut used = Used { records: credit.records_given(), bytes: credit.bytes_given() };
        for handout in replay {
            used.records = used.records.saturating_sub(handout.count());
            used.bytes = used.bytes.saturating_sub(handout.bytes);
        }
        used
    }

    /// A delivery once more, without what was settled of it.
    fn again(&self, slot: u32, seq: u64) -> Option<Handout> {
        let session = self.sessions.get(slot)?;
        let root = *session.grants.get(&seq)?;
        let grant = self.grants.get(root);
        let lane = self.lanes.get(grant.lane);
        let (mut runs, mut bytes, mut counts) = (Vec::new(), 0, Vec::new());
        for offset in grant.runs.iter().flat_map(|run| run.offsets()) {
            let Some(entry) =
                lane.open.get(offset).filter(|_| self.is_held(root, grant.lane, offset))
            else {
                continue;
            };
            Run::push(&mut runs, Run::one(offset));
            bytes += u64::from(entry.bytes);
            if entry.attempts > 1 || entry.failures > 0 {
                let (attempts, failures) = (u32::from(entry.attempts), u32::from(entry.failures));
                counts.push(DeliveryCount { offset, attempts, failures });
            }
        }
        let (lane, epoch) = (lane.key, grant.epoch);
        (!runs.is_empty()).then_some(Handout {
            lane,
            seq,
            epoch,
            runs,
            bytes,
            counts,
            replayed: true,
        })
    }

    fn change_session(&mut self, session: SessionRef, now: Now, change: impl FnOnce(&mut Session)) {
        let Some(slot) = self.sessions.slot_of(session) else { return };
        if let Some(session) = self.sessions.get_mut(slot) {
            change(session);
        }
        self.sessions.refresh(slot);
        self.conclude(now);
    }
}

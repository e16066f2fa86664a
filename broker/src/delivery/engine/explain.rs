//! Why nothing is delivered now.

use std::sync::Arc;

use super::Delivery;
use crate::delivery::{
    entry::State,
    lane::Lane,
    lane_key::LaneKey,
    now::Now,
    open::SessionRef,
    reason::Reason,
    scan::{ScanFailure, ScanFailureCause},
    session::{Link, Session},
};

/// Records looked at in vain after which the filter is named as the reason.
const FRUITLESS_MIN: u64 = 1_000;

impl Delivery {
    /// The exact reason why the lane delivers nothing now; `None` for a lane that the subscription does not have.
    pub fn explain(&self, key: &LaneKey, now: Now) -> Option<Reason> {
        let index = self.lanes.index_of(key)?;
        Some(self.reason_of(index, now))
    }

    /// The reason why this session gets nothing now: its own, or that of the first lane with a backlog.
    pub fn idle_reason(&self, session: SessionRef, now: Now) -> Reason {
        let Some(slot) = self.sessions.slot_of(session) else { return Reason::NoSession };
        let Some(session) = self.sessions.get(slot) else { return Reason::NoSession };
        let backlog =
            self.lanes.indexes().into_iter().find(|index| self.lanes.get(*index).lag() > 0);
        let Some(index) = backlog else { return Reason::Nothing };
        if self.state_failed {
            return Reason::StateFailed;
        }
        if self.paused {
            return Reason::Paused;
        }
        if let Some(Some(active)) = self.active_only()
            && active != slot
            && let Some(active) = self.sessions.get(active)
        {
            return Reason::Standby { session: Arc::clone(&active.id) };
        }
        self.limit_of([session].into_iter()).unwrap_or_else(|| self.reason_of(index, now))
    }

    fn reason_of(&self, index: u32, now: Now) -> Reason {
        if self.state_failed {
            return Reason::StateFailed;
        }
        if self.paused {
            return Reason::Paused;
        }
        if !self.sessions.by_age().any(|(_, session)| !session.is_unary() || session.asking) {
            return self.reason_without_sessions(index);
        }
        let lane = self.lanes.get(index);
        if lane.open.count(State::Ready) > lane.isolated.len() {
            return self.reason_of_sessions();
        }
        let isolated = || self.isolated_reason(index, lane);
        self.reason_of_reading(lane, now)
            .or_else(isolated)
            .or_else(|| self.reason_of_key(lane, now))
            .unwrap_or_else(|| self.reason_of_waiting(lane, now))
    }

    /// Nobody is there; but dead letters need nobody, so where all that is left is one that cannot be written, that is the reason.
    fn reason_without_sessions(&self, index: u32) -> Reason {
        let lane = self.lanes.get(index);
        let is_all = lane.lag() == lane.dead.len() as u64;
        let blocked = || self.dead_letter_blocked(lane).filter(|_| is_all);
        blocked().unwrap_or(Reason::NoSession)
    }

    /// Records are ready: it must be the sessions.
    fn reason_of_sessions(&self) -> Reason {
        let sessions = self.sessions.by_age().map(|(_, session)| session);
        if let Some(active) = self.active_only() {
            let active = active.and_then(|slot| self.sessions.get(slot));
            return match (active, self.sessions.len()) {
                (None, _) => self.limit_of(sessions).unwrap_or(Reason::SessionsPaused),
                (Some(active), 1) => self.limit_of([active].into_iter()).unwrap_or(Reason::Nothing),
                (Some(active), _) => Reason::Standby { session: Arc::clone(&active.id) },
            };
        }
        match self.limit_of(sessions) {
            Some(reason) => reason,
            None => match self.kept.iter().next() {
                Some(((_, offset), slot)) => {
                    let session = self.sessions.get(*slot).map(|one| Arc::clone(&one.id));
                    Reason::Isolated { offset: *offset, session }
                }
                // Bytes are left, but not enough for the next record.
                None => Reason::NoCredit,
            },
        }
    }

    /// Why none of these sessions can be given anything.
    fn limit_of<'a>(&self, sessions: impl Iterator<Item = &'a Session>) -> Option<Reason> {
        let (mut willing, mut with_credit) = (false, false);
        for session in sessions {
            let credit = session.credit.allows(1, session.in_flight);
            if session.is_willing() {
                willing = true;
                with_credit |= credit;
                let full = session.unsent.is_full();
                if credit && session.has_room(1) && !full {
                    return None;
                }
            }
        }
        Some(match (willing, with_credit) {
            (false, _) => Reason::SessionsPaused,
            (true, false) => Reason::NoCredit,
            (true, true) => Reason::SessionLimit,
        })
    }

    /// Something visible was not read.
    fn reason_of_reading(&self, lane: &Lane, now: Now) -> Option<Reason> {
        let intake = &lane.intake;
        if let Some(ScanFailure { cause, error, retry_at }) = &intake.failure {
            let (error, until_ms) = (Arc::clone(error), now.wall_of(*retry_at));
            return Some(match cause {
                ScanFailureCause::Partition => {
                    Reason::PartitionError { error, until_ms: Some(until_ms) }
                }
                ScanFailureCause::Quota => Reason::Quota { error, until_ms },
            });
        }
        if !intake.has_unread() && !intake.is_scanning() {
            return None;
        }
        if lane.room(&self.settings) == 0 {
            return Some(self.dead_letter_blocked(lane).unwrap_or(Reason::OpenLimit));
        }
        if !intake.has_gaps() && !intake.is_scanning() {
            if lane.ack_state_bytes() >= self.settings.ack_state_bytes_max {
                return Some(Reason::AckStateLimit);
            }
            if lane.schedule.state_bytes() as u64 >= self.settings.scheduled_bytes_max {
                return Some(Reason::ScheduledLimit);
            }
        }
        Some(match intake.fruitless >= FRUITLESS_MIN {
            true => Reason::Filter,
            false => Reason::Reading,
        })
    }

    fn dead_letter_blocked(&self, lane: &Lane) -> Option<Reason> {
        lane.dead.iter().find_map(|(offset, dying)| {
            let (error, _) = dying.error.as_ref()?;
            Some(Reason::DeadLetterBlocked { offset: *offset, error: Arc::clone(error) })
        })
    }

    fn isolated_reason(&self, index: u32, lane: &Lane) -> Option<Reason> {
        let offset = *lane.isolated.first()?;
        let keeper = self.kept.get(&(index, offset)).and_then(|slot| self.sessions.get(*slot));
        let session = keeper.map(|session| Arc::clone(&session.id));
        Some(Reason::Isolated { offset, session })
    }

    /// The first record in the way of another of its key.
    fn reason_of_key(&self, lane: &Lane, now: Now) -> Option<Reason> {
        if lane.open.count(State::Blocked) == 0 {
            return None;
        }
        let blocked = lane.open.range(0).find(|(_, entry)| entry.state() == State::Blocked)?;
        let offset = lane.keys.nth(blocked.1.key, 0)?;
        let first = lane.open.get(offset)?;
        let (session, until) = match first.state() {
            State::InFlight => {
                let grant = self.grants.get(first.grant);
                let holder = self.sessions.get(grant.session);
                (holder.map(|session| Arc::clone(&session.id)), grant.deadline)
            }
            State::RetryWait => (None, lane.failed.get(&offset)?.not_before),
            State::Ready | State::Blocked => (None, now.elapsed),
        };
        Some(Reason::KeyBlocked { offset, session, until_ms: now.wall_of(until) })
    }

    fn reason_of_waiting(&self, lane: &Lane, now: Now) -> Reason {
        if let Some((at, offset)) = lane.retry.first() {
            return Reason::RetryWait { offset: *offset, until_ms: now.wall_of(*at) };
        }
        if let Some(blocked) = self.dead_letter_blocked(lane) {
            return blocked;
        }
        if let Some((until_ms, offset)) = lane.schedule.first(|offset| !lane.is_settled(offset)) {
            return Reason::Scheduled { offset, until_ms };
        }
        if lane.intake.log_end > lane.intake.high_watermark {
            return Reason::NotVisible;
        }
        Reason::Nothing
    }

    /// A session whose stream is gone.
    pub(super) fn detached_until(session: &Session) -> Option<std::time::Duration> {
        match session.link {
            Link::Detached(until) => Some(until),
            Link::Attached | Link::Unary(_) => None,
        }
    }
}

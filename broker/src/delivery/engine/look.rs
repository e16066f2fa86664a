//! How a subscription stands.

use std::sync::Arc;

use super::Delivery;
use crate::delivery::{
    entry::State,
    lane::Lane,
    lane_key::LaneKey,
    now::Now,
    open::SessionRef,
    view::{Counts, Peeked, RecordState, SessionView},
};

impl Delivery {
    /// Counts of a lane.
    pub fn counts(&self, key: &LaneKey) -> Option<Counts> {
        let lane = self.lanes.get(self.lanes.index_of(key)?);
        let count = |state| lane.open.count(state) as u64;
        Some(Counts {
            floor: lane.floor,
            high_watermark: lane.intake.high_watermark,
            lag: lane.lag(),
            ready: count(State::Ready),
            in_flight: count(State::InFlight),
            retrying: count(State::RetryWait),
            blocked: count(State::Blocked) + lane.intake.deferred_count() as u64,
            scheduled: lane.schedule.count(lane.floor, &lane.done),
            dead: lane.dead_count,
            dead_pending: lane.dead.len() as u64,
            ack_state_bytes: lane.ack_state_bytes(),
        })
    }

    /// Bytes of memory for everything open in a lane, without histories of failures.
    pub fn open_bytes(&self, key: &LaneKey) -> Option<usize> {
        let lane = self.lanes.get(self.lanes.index_of(key)?);
        Some(lane.open.state_bytes() + lane.keys.state_bytes())
    }

    /// The lowest `count` records that are not settled.
    pub fn peek(&self, key: &LaneKey, count: usize, now: Now) -> Vec<Peeked> {
        let Some(index) = self.lanes.index_of(key) else { return Vec::new() };
        let lane = self.lanes.get(index);
        let mut peeked: Vec<Peeked> = lane
            .open
            .range(0)
            .take(count)
            .map(|(offset, entry)| self.peek_open(lane, offset, entry.state(), now))
            .collect();
        peeked.extend(lane.dead.iter().take(count).map(|(offset, dying)| Peeked {
            failures: dying.image.failures,
            ..bare(*offset, RecordState::DeadPending)
        }));
        peeked.extend(
            lane.schedule.lowest(count, |offset| !lane.is_settled(offset)).into_iter().map(
                |(offset, due_ms)| Peeked {
                    until_ms: Some(due_ms),
                    ..bare(offset, RecordState::Scheduled)
                },
            ),
        );
        let unread = lane.intake.lowest_unread(&lane.done, count);
        peeked.extend(unread.into_iter().map(|offset| Peeked {
            failures: lane.failed.get(&offset).map_or(0, |failed| failed.failures),
            ..bare(offset, RecordState::Unread)
        }));
        peeked.sort_by_key(|record| record.offset);
        peeked.dedup_by_key(|record| record.offset);
        peeked.truncate(count);
        peeked
    }

    /// The sessions, the oldest first.
    pub fn sessions(&self) -> Vec<SessionView> {
        let views = self.sessions.by_age().map(|(slot, session)| SessionView {
            session: SessionRef { slot, epoch: session.epoch },
            id: Arc::clone(&session.id),
            client_id: Arc::clone(&session.client_id),
            host: Arc::clone(&session.host),
            in_flight: session.in_flight,
            credit_records: session.credit.records_left(),
            credit_bytes: session.credit.bytes_left(),
            delivered: session.credit.records_given(),
            detached_until: Delivery::detached_until(session),
            draining: session.draining,
            paused: session.paused,
            unary: session.is_unary(),
        });
        views.collect()
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    fn peek_open(&self, lane: &Lane, offset: u64, state: State, now: Now) -> Peeked {
        let Some(entry) = lane.open.get(offset) else { return bare(offset, RecordState::Unread) };
        let failed = lane.failed.get(&offset);
        let (shown, session, until) = match state {
            State::Ready => (RecordState::Ready, None, None),
            State::Blocked => (RecordState::Blocked, None, None),
            State::RetryWait => {
                (RecordState::RetryWait, None, failed.map(|failed| failed.not_before))
            }
            State::InFlight => {
                let grant = self.grants.get(entry.grant);
                let holder = self.sessions.get(grant.session);
                let id = holder.map(|session| Arc::clone(&session.id));
                (RecordState::InFlight, id, Some(grant.deadline))
            }
        };
        Peeked {
            attempts: u32::from(entry.attempts),
            failures: failed.map_or(0, |failed| failed.failures),
            session,
            until_ms: until.map(|until| now.wall_of(until)),
            ..bare(offset, shown)
        }
    }
}

fn bare(offset: u64, state: RecordState) -> Peeked {
    Peeked { offset, state, attempts: 0, failures: 0, session: None, until_ms: None }
}

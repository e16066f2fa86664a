//! The sessions of a subscription.
//!
//! Invariants: `able` are those that may be given something and are not kept for one record; `owned` are those with
//! records that only they may have next. Both are right after [`Sessions::refresh`].

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use super::{
    open::SessionRef,
    session::{Link, Session},
};

/// The sessions, by slot.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Vec<Option<Box<Session>>>,
    free: Vec<u32>,
    by_id: BTreeMap<Arc<str>, u32>,
    able: BTreeSet<u32>,
    owned: BTreeSet<u32>,
    /// Sessions by age.
    ages: BTreeSet<(u64, u32)>,
    /// When something ends by itself.
    timers: BTreeSet<(Duration, u32)>,
    /// Sessions that drain and hold nothing.
    pub(super) drained: Vec<u32>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn insert(&mut self, session: Session) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).expect("sessions are bounded")
            }
        };
        self.by_id.insert(Arc::clone(&session.id), slot);
        self.ages.insert((session.first_epoch, slot));
        self.slots[slot as usize] = Some(Box::new(session));
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Session> {
        let session = *self.slots.get_mut(slot as usize)?.take()?;
        self.by_id.remove(&session.id);
        self.ages.remove(&(session.first_epoch, slot));
        self.able.remove(&slot);
        self.owned.remove(&slot);
        self.timers.retain(|(_, other)| *other != slot);
        self.drained.retain(|other| *other != slot);
        self.free.push(slot);
        Some(session)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Session> {
        self.slots.get(slot as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Session> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The slot of a session that was not replaced, resumed or ended since.
    pub(super) fn slot_of(&self, session: SessionRef) -> Option<u32> {
        let current = self.get(session.slot)?;
        (current.epoch == session.epoch).then_some(session.slot)
    }

    pub(super) fn by_id(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// The name of the session in `slot` now.
    pub(super) fn name(&self, slot: u32) -> Option<SessionRef> {
        self.get(slot).map(|session| SessionRef { slot, epoch: session.epoch })
    }

    /// All sessions, the oldest first.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (u32, &Session)> {
        self.ages.iter().filter_map(|(_, slot)| self.get(*slot).map(|session| (*slot, session)))
    }

    /// The one session that gets everything when one does: the one that holds something, or else the oldest that wants
    /// records at all and reads what it is sent.
    pub(super) fn active(&self) -> Option<u32> {
        let holder = self.by_age().find(|(_, session)| session.in_flight > 0);
        let oldest = || {
            self.by_age().find(|(_, session)| {
                let wants = !session.draining && (!session.is_unary() || session.asking);
                wants && !session.unsent.is_full()
            })
        };
        holder.or_else(oldest).map(|(slot, _)| slot)
    }

    /// The next after `turn` of those that may be given something.
    pub(super) fn next_able(&self, turn: u32) -> Option<u32> {
        let after = self.able.range((Bound::Excluded(turn), Bound::Unbounded)).next();
        after.or_else(|| self.able.first()).copied()
    }

    pub(super) fn is_able(&self, slot: u32) -> bool {
        self.able.contains(&slot)
    }

    /// Those that may be given something.
    pub(super) fn able(&self) -> impl Iterator<Item = u32> {
        self.able.iter().copied()
    }

    /// The session refused what is next; it is not asked again before something happens to it.
    pub(super) fn set_aside(&mut self, slot: u32) {
        self.able.remove(&slot);
    }

    /// A session that may be given something and has records that only it may have.
    pub(super) fn next_owner(&self) -> Option<u32> {
        self.owned.iter().find(|slot| self.able.contains(slot)).copied()
    }

    /// Only `session` may have this record next.
    pub(super) fn own(&mut self, slot: u32, lane: u32, offset: u64) {
        if let Some(session) = self.get_mut(slot) {
            session.own.insert((lane, offset));
            self.owned.insert(slot);
        }
    }

    /// Takes the lowest record that only `session` may have.
    pub(super) fn pop_own(&mut self, slot: u32) -> Option<(u32, u64)> {
        let session = self.get_mut(slot)?;
        let first = session.own.pop_first();
        if session.own.is_empty() {
            self.owned.remove(&slot);
        }
        first
    }

    /// Forgets the records of a lane that only single sessions may have.
    pub(super) fn forget_lane(&mut self, lane: u32) {
        for session in self.slots.iter_mut().flatten() {
            session.own.retain(|(other, _)| *other != lane);
        }
    }

    /// Looks what a session may have, after something happened to it.
    pub(super) fn refresh(&mut self, slot: u32) {
        let Some(session) = self.get(slot) else { return };
        let able = session.is_able() && session.alone.is_none();
        let drained = session.draining && session.in_flight == 0;
        if able {
            self.able.insert(slot);
        } else {
            self.able.remove(&slot);
        }
        if drained && !self.drained.contains(&slot) {
            self.drained.push(slot);
        }
    }

    /// Something about the session may end then.
    pub(super) fn set_timer(&mut self, slot: u32, at: Duration) {
        self.timers.insert((at, slot));
    }

    pub(super) fn first_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A session whose timer came, and how it is linked.
    pub(super) fn pop_timer(&mut self, now: Duration) -> Option<(u32, Option<Link>)> {
        let (at, slot) = *self.timers.first()?;
        (at <= now).then(|| {
            self.timers.pop_first();
            (slot, self.get(slot).map(|session| session.link))
        })
    }
}

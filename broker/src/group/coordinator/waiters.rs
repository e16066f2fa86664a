//! Heartbeats that are held until there is something to tell.
//!
//! At most one per member: a newer heartbeat of the same member lets the older one go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::group::topics::MemberId;

/// Held heartbeats of one group. Guarded by the lock of the group.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    by_member: BTreeMap<MemberId, Waiter>,
    deadlines: BTreeSet<(Duration, MemberId)>,
    /// Tells heartbeats of one member apart.
    next_id: u64,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    deadline: Duration,
    /// Dropped to wake.
    _wake: oneshot::Sender<()>,
}

impl Waiters {
    /// Holds a heartbeat until it is woken or `deadline` passes; returns its id and what resolves then.
    pub(super) fn hold(
        &mut self,
        member: &MemberId,
        deadline: Duration,
    ) -> (u64, oneshot::Receiver<()>) {
        self.wake(member);
        let (wake, woken) = oneshot::channel();
        self.next_id += 1;
        let waiter = Waiter { id: self.next_id, deadline, _wake: wake };
        self.by_member.insert(member.clone(), waiter);
        self.deadlines.insert((deadline, member.clone()));
        (self.next_id, woken)
    }

    /// Lets the heartbeat of `member` go, if one is held.
    pub(super) fn wake(&mut self, member: &MemberId) {
        if let Some(waiter) = self.by_member.remove(member) {
            self.deadlines.remove(&(waiter.deadline, member.clone()));
        }
    }

    /// Forgets the heartbeat `id` of `member`: its caller went away.
    pub(super) fn forget(&mut self, member: &MemberId, id: u64) {
        if self.by_member.get(member).is_some_and(|waiter| waiter.id == id) {
            self.wake(member);
        }
    }

    /// Lets go whatever was held long enough.
    pub(super) fn tick(&mut self, now: Duration) {
        while let Some((deadline, member)) = self.deadlines.first().cloned()
            && deadline <= now
        {
            self.wake(&member);
        }
    }

    /// Lets everything go.
    pub(super) fn wake_all(&mut self) {
        self.by_member.clear();
        self.deadlines.clear();
    }

    /// When [`Waiters::tick`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Number of held heartbeats.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.by_member.len()
    }
}

//! All groups while they live: locks, held heartbeats, deadlines and the order of what is stored.
//!
//! Each group has one lock, held for a few lines: an event goes into the state, and what must be stored is queued
//! under the same lock, so the log has the lock's order. Answers go out after everything their
//! group queued before is durable; so nobody learns of an assignment that a crash could take back, and
//! whoever is told that a partition is his finds every offset that was committed before.
//!
//! Lock order: map of groups, group, then the store's queue or the schedule. Nothing is awaited under a lock.

mod call;
mod change;
mod heartbeat;
mod live;
mod schedule;
mod waiters;

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use riverrun_proto::{Offset, TopicId};

pub use self::call::{Answer, Caller, CommitOutcome, CoordinatorError};
use self::{
    live::{Group, Live},
    schedule::Schedule,
    waiters::Waiters,
};
use super::{assignor::Assignor, error::GroupError, image, state::GroupState, topics::AllTopics};
use crate::{
    clock::Clock,
    offset::{
        OffsetStore, PartitionKey, StartPolicy, StoreError,
        record::RecordError,
        store::{OffsetWrite, Permit, Ticket, Write},
    },
};

/// Bytes of room taken for a change of members.
const MEMBERSHIP_BYTES: usize = 4 << 10;
/// Deadlines are looked at no more often than this.
const TICK_MIN: Duration = Duration::from_millis(20);

/// All groups; cheap to clone.
#[derive(Clone, Debug)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: OffsetStore,
    clock: Clock,
    /// Replaced as a whole when topics change.
    topics: RwLock<Arc<AllTopics>>,
    groups: RwLock<HashMap<Arc<str>, Arc<Group>>>,
    schedule: Schedule,
    /// Most members of one group. Constant.
    members_max: usize,
}

impl Coordinator {
    /// Brings every stored group back to life.
    ///
    /// # Errors
    /// When what is stored contradicts itself.
    pub fn new(
        store: OffsetStore,
        topics: AllTopics,
        clock: Clock,
        members_max: usize,
    ) -> Result<Coordinator, RecordError> {
        let shared = Shared {
            store,
            clock,
            topics: RwLock::new(Arc::new(topics)),
            groups: RwLock::default(),
            schedule: Schedule::default(),
            members_max,
        };
        let coordinator = Coordinator { shared: Arc::new(shared) };
        let names: Vec<Arc<str>> = coordinator
            .shared
            .store
            .read(|groups| groups.iter().map(|(name, _)| name.clone()).collect());
        for name in names {
            coordinator.revive(&name)?;
        }
        Ok(coordinator)
    }

    /// Makes a group unless it exists. Its start position and assignor never change.
    ///
    /// # Errors
    /// When it could not be stored, or there are too many groups.
    pub async fn create(
        &self,
        name: &Arc<str>,
        start: StartPolicy,
        assignor: Assignor,
    ) -> Result<(), CoordinatorError> {
        while self.find(name).is_none() {
            let (group, assignor) = (name.clone(), assignor.name());
            self.shared.store.write(Write::Create { group, start, assignor }, 0).await?;
            // It may be deleted again before it is found.
            self.revive(name).map_err(|error| self.unreadable(&error))?;
        }
        Ok(())
    }

    /// Whether the group exists.
    pub fn exists(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Says for each partition whether the caller may read it.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn check(
        &self,
        group: &Arc<str>,
        (member_id, epoch): (&str, i32),
        keys: &[PartitionKey],
    ) -> Result<Vec<Result<(), GroupError>>, CoordinatorError> {
        let group = self.get(group)?;
        let live = group.live.lock();
        Ok(keys.iter().map(|key| live.state.check(member_id, epoch, key)).collect())
    }

    /// Stores offsets; each succeeds or fails alone. Offsets must not be past the visible end.
    ///
    /// # Errors
    /// When nothing could be stored: no such group, it has members and the caller is none, or the log failed.
    pub async fn commit(
        &self,
        caller: &Caller,
        offsets: Vec<OffsetWrite>,
    ) -> Result<Vec<CommitOutcome>, CoordinatorError> {
        let bytes = offsets.iter().map(|one| one.metadata.len() + 64).sum();
        let group = self.get(&caller.group)?;
        let permit = self.shared.store.reserve(bytes).await?;
        let mut outcomes = Vec::with_capacity(offsets.len());
        let mut places = Vec::with_capacity(offsets.len());
        let ticket = {
            let live = group.live.lock();
            live.check_outsider(&group.name, caller)?;
            let mut fit = Vec::with_capacity(offsets.len());
            for (place, one) in offsets.into_iter().enumerate() {
                match live.check(caller, &one.key) {
                    Ok(()) => {
                        outcomes.push(CommitOutcome::Stored);
                        places.push(place);
                        fit.push(one);
                    }
                    Err(refusal) => outcomes.push(CommitOutcome::Refused(refusal)),
                }
            }
            let member_id = caller.member.as_ref().map_or_else(|| "".into(), |(id, _)| id.clone());
            permit.send(Write::Commit { group: group.name.clone(), member_id, offsets: fit })
        };
        for conflict in ticket.wait().await? {
            outcomes[places[conflict.index]] = CommitOutcome::Conflict(conflict.stored);
        }
        Ok(outcomes)
    }

    /// Fixes where a group begins on a topic, on partitions without a stored offset.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn pin(
        &self,
        group: &Arc<str>,
        topic: (TopicId, u32),
        offsets: Vec<(PartitionKey, Offset)>,
    ) -> Result<(), CoordinatorError> {
        let bytes = offsets.len() * 32;
        let write = Write::Pin { group: group.clone(), topic, offsets };
        self.shared.store.write(write, bytes).await?;
        Ok(())
    }

    /// Looks at a group's state, for a few lines.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn look<R>(
        &self,
        name: &Arc<str>,
        look: impl FnOnce(&GroupState) -> R,
    ) -> Result<R, CoordinatorError> {
        let group = self.get(name)?;
        let live = group.live.lock();
        Ok(look(&live.state))
    }

    /// Names of all groups, sorted.
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self.shared.groups.read().keys().cloned().collect();
        names.sort();
        names
    }

    /// The topics as the groups see them.
    pub fn topics(&self) -> Arc<AllTopics> {
        self.shared.topics.read().clone()
    }

    /// The store below, for reads of stored offsets.
    pub fn store(&self) -> &OffsetStore {
        &self.shared.store
    }

    /// Watches all deadlines until the store fails or closes.
    pub async fn run(self) {
        loop {
            let first = self.shared.schedule.first();
            let wait = first.map(|first| first.saturating_sub(self.shared.clock.elapsed()));
            let sleep = tokio::time::sleep(wait.unwrap_or(Duration::MAX).max(TICK_MIN));
            tokio::select! {
                () = sleep => {}
                () = self.shared.schedule.closer() => continue,
            }
            if self.tick().await.is_err() {
                return;
            }
        }
    }

    /// Does whatever is due now.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn tick(&self) -> Result<(), CoordinatorError> {
        let now = self.shared.clock.elapsed();
        for name in self.shared.schedule.due(now) {
            let Some(group) = self.find(&name) else { continue };
            let permit = self.shared.store.reserve(MEMBERSHIP_BYTES).await?;
            let mut live = group.live.lock();
            live.scheduled = None;
            live.state.tick(now);
            live.waiters.tick(now);
            self.finish(&group, &mut live, permit);
        }
        Ok(())
    }

    /// Lets all held heartbeats go, for shutdown.
    pub fn release(&self) {
        let groups: Vec<Arc<Group>> = self.shared.groups.read().values().cloned().collect();
        for group in groups {
            group.live.lock().waiters.wake_all();
        }
    }

    /// After an event: stores what it changed, wakes whom it concerns, sets the next deadline.
    fn finish(&self, group: &Arc<Group>, live: &mut Live, permit: Permit) {
        self.store_effects(group, live, permit, Vec::new());
    }

    fn store_effects(
        &self,
        group: &Arc<Group>,
        live: &mut Live,
        permit: Permit,
        offsets: Vec<OffsetWrite>,
    ) -> Option<Ticket> {
        let effects = live.state.take_effects();
        for member in &effects.wake {
            live.waiters.wake(member);
        }
        let ticket = (effects.must_store() || !offsets.is_empty()).then(|| {
            let change = image::membership(&live.state, &effects);
            permit.send(Write::Members { group: group.name.clone(), change, offsets })
        });
        live.sequence = ticket.as_ref().map_or(live.sequence, Ticket::sequence);
        self.reschedule(group, live);
        ticket
    }

    fn reschedule(&self, group: &Group, live: &mut Live) {
        let next = [live.state.next_deadline(), live.waiters.next_deadline()];
        let next = next.into_iter().flatten().min();
        if next != live.scheduled {
            self.shared.schedule.set(&group.name, live.scheduled, next);
            live.scheduled = next;
        }
    }

    fn find(&self, name: &str) -> Option<Arc<Group>> {
        let group = self.shared.groups.read().get(name).cloned();
        group.filter(|group| !group.live.lock().gone)
    }

    fn get(&self, name: &Arc<str>) -> Result<Arc<Group>, CoordinatorError> {
        self.find(name).ok_or_else(|| CoordinatorError::UnknownGroup { group: name.clone() })
    }

    /// Puts a stored group into memory, unless it is there.
    fn revive(&self, name: &Arc<str>) -> Result<(), RecordError> {
        let mut groups = self.shared.groups.write();
        if groups.get(name).is_some_and(|group| !group.live.lock().gone) {
            return Ok(());
        }
        let topics = self.shared.topics.read().clone();
        let now = self.shared.clock.elapsed();
        let restored = self.shared.store.read(|stored| {
            stored
                .get(name)
                .map(|image| image::restore(image, self.shared.members_max, &*topics, now))
                .transpose()
        })?;
        if let Some(state) = restored {
            let live = Live {
                state,
                waiters: Waiters::default(),
                sequence: 0,
                scheduled: None,
                gone: false,
            };
            let group = Arc::new(Group { name: name.clone(), live: Mutex::new(live) });
            self.reschedule(&group, &mut group.live.lock());
            groups.insert(name.clone(), group);
        }
        Ok(())
    }

    fn unreadable(&self, error: &RecordError) -> CoordinatorError {
        StoreError::Failed { reason: error.to_string().into() }.into()
    }
}

#[cfg(test)]
mod tests;

//! One group: its members, who owns which partition, and who shall.
//!
//! Pure: an event and the time go in, a reply and [`Effects`] come out. No clock, lock or I/O.
//!
//! ```text
//!   join, leave, timeout, subscription,          heartbeat of a member whose target differs
//!   topics, reset ──▶ group epoch + 1 ──▶ target ───────────────────────────────▶ transition:
//!                                        (assignor)  give up what is not in the target,
//!                                                    take what is in it and has no owner
//! ```
//!
//! Invariants:
//! - A partition has at most one owner; it has one exactly while some member holds or revokes it.
//! - An owner changes only after the old one reported the partition given up with the epoch that told it to,
//!   joined anew, left, was silent for its session timeout, or let its rebalance timeout pass.
//! - The group epoch never falls, and no member epoch is above it.
//!
//! A member's epoch rises only when its own assignment changes (see [`super::member`]), so a group epoch that
//! rose for others' sake asks nothing of it.

mod membership;
mod reconcile;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    assignor::{Assignor, Target},
    error::GroupError,
    event::{EPOCH_JOIN, EPOCH_LEAVE, EPOCH_PAUSE, Effects, Heartbeat, Phase, Reply},
    member::Member,
    topics::{GroupTopics, MemberId, Subscription, TopicLookup},
};
use crate::offset::PartitionKey;

/// Session timeout of a member that names none.
pub const SESSION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Rebalance timeout of a member that names none.
pub const REBALANCE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Heartbeats that fit into one session timeout.
const HEARTBEATS_PER_SESSION: u32 = 6;
/// Joins are refused from here on: no event raises the epoch by more than a few.
const EPOCH_MAX: i32 = i32::MAX - 1_000_000;

/// One group. Guarded by the lock of its group in the coordinator.
#[derive(Clone, Debug, Default)]
pub struct GroupState {
    /// Rises with every change of members, subscriptions, partitions and offsets set by an operator.
    epoch: i32,
    /// Constant after creation.
    assignor: Assignor,
    members: BTreeMap<MemberId, Member>,
    /// Member of each instance id.
    statics: BTreeMap<Arc<str>, MemberId>,
    /// How many members have each subscription.
    subscriptions: BTreeMap<Subscription, usize>,
    topics: GroupTopics,
    owners: BTreeMap<PartitionKey, MemberId>,
    target: Target,
    /// Members whose next heartbeat may bring a transition.
    pending: BTreeSet<MemberId>,
    /// When each member is removed unless it is heard from.
    sessions: BTreeSet<(Duration, MemberId)>,
    /// When each partition being given up is taken.
    revocations: BTreeSet<(Duration, MemberId, PartitionKey)>,
    /// What happened since it was last drained.
    effects: Effects,
    /// Most members. Constant.
    members_max: usize,
}

impl GroupState {
    /// A group without members, for at most `members_max`, whose epochs go on from `epoch`.
    pub fn new(assignor: Assignor, epoch: i32, members_max: usize) -> GroupState {
        GroupState { assignor, epoch, members_max, ..GroupState::default() }
    }

    /// Takes a sign of life; what is not told in the reply can be fetched with [`GroupState::poll`].
    ///
    /// # Errors
    /// The refusal to send; nothing changed then.
    pub fn heartbeat(
        &mut self,
        heartbeat: &Heartbeat,
        topics: &dyn TopicLookup,
        now: Duration,
    ) -> Result<Reply, GroupError> {
        match heartbeat.epoch {
            EPOCH_LEAVE => Ok(self.leave(&heartbeat.member_id)),
            EPOCH_PAUSE => self.pause(&heartbeat.member_id, now),
            _ if self.epoch >= EPOCH_MAX => Err(GroupError::EpochsUsedUp),
            EPOCH_JOIN => self.join(heartbeat, topics, now),
            _ => self.beat(heartbeat, topics, now),
        }
    }

    /// Asks again on behalf of a held heartbeat: is there something to tell now?
    ///
    /// # Errors
    /// As for [`GroupState::heartbeat`].
    pub fn poll(
        &mut self,
        member_id: &str,
        epoch: i32,
        now: Duration,
    ) -> Result<Reply, GroupError> {
        let member = self.known(member_id, epoch)?;
        let (id, behind) = (member.id.clone(), epoch != member.epoch);
        let told = behind || self.transition(&id, now);
        Ok(self.reply(&id, told))
    }

    /// Looks at the topics anew: some may have been created, deleted or grown.
    pub fn topics_changed(&mut self, topics: &dyn TopicLookup) {
        if self.refresh_topics(topics) {
            self.bump();
            self.retarget();
        }
    }

    /// Says that the stored offsets of `keys` were moved: what their owners commit with older epochs is
    /// refused from now on, and they learn it with their next heartbeat.
    pub fn reset(&mut self, keys: &[PartitionKey]) {
        self.bump();
        for key in keys {
            if let Some(owner) = self.owners.get(key) {
                let member = self.members.get_mut(owner).expect("an owner is a member");
                member.own_since(key, self.epoch);
                member.reset_pending.insert(*key);
                self.effects.changed.insert(owner.clone());
                self.effects.wake.insert(owner.clone());
                self.pending.insert(owner.clone());
            }
        }
    }

    /// Removes members that were silent too long, and takes partitions that were not given up in time.
    pub fn tick(&mut self, now: Duration) {
        while let Some((deadline, member, key)) = self.revocations.first().cloned()
            && deadline <= now
        {
            self.give_up(&member, &key);
            self.effects.changed.insert(member);
        }
        let mut removed = false;
        while let Some((deadline, member)) = self.sessions.first().cloned()
            && deadline <= now
        {
            self.remove(&member);
            removed = true;
        }
        if removed {
            self.bump();
            self.retarget();
        }
    }

    /// Says whether a member may read and commit a partition with its epoch.
    ///
    /// # Errors
    /// The refusal to send.
    pub fn check(&self, member_id: &str, epoch: i32, key: &PartitionKey) -> Result<(), GroupError> {
        let member = self.members.get(member_id);
        let member = member.ok_or_else(|| unknown(member_id))?;
        member.check(epoch, key)
    }

    /// When [`GroupState::tick`] has something to do, if ever.
    pub fn next_deadline(&self) -> Option<Duration> {
        let session = self.sessions.first().map(|(deadline, _)| *deadline);
        let revocation = self.revocations.first().map(|(deadline, _, _)| *deadline);
        session.into_iter().chain(revocation).min()
    }

    /// Takes what happened since the last call.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// The group epoch.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The assignor.
    pub fn assignor(&self) -> Assignor {
        self.assignor
    }

    /// Members by id.
    pub fn members(&self) -> &BTreeMap<MemberId, Member> {
        &self.members
    }

    /// The topics the group deals with.
    pub fn topics(&self) -> &GroupTopics {
        &self.topics
    }

    /// Whether some member wants the topic `name`.
    pub fn is_subscribed(&self, name: &str) -> bool {
        self.subscriptions.keys().any(|wanted| wanted.contains(name))
    }

    /// The owner of each partition that has one.
    pub fn owners(&self) -> &BTreeMap<PartitionKey, MemberId> {
        &self.owners
    }

    /// What an operator calls its state.
    pub fn phase(&self) -> Phase {
        if self.members.is_empty() {
            Phase::Empty
        } else if self.members.values().all(Member::is_settled) {
            Phase::Stable
        } else {
            Phase::Reconciling
        }
    }

    /// A heartbeat of a member that is in the group.
    fn beat(
        &mut self,
        heartbeat: &Heartbeat,
        topics: &dyn TopicLookup,
        now: Duration,
    ) -> Result<Reply, GroupError> {
        let member = self.known(&heartbeat.member_id, heartbeat.epoch)?;
        let wanted = heartbeat.profile.subscription.as_ref();
        let resubscribes = wanted.is_some_and(|wanted| *wanted != *member.profile.subscription);
        let behind = heartbeat.epoch != member.epoch;
        if behind && resubscribes {
            return Err(member.stale(heartbeat.epoch));
        }
        let id = member.id.clone();
        self.touch(&id, now);
        if behind {
            return Ok(self.reply(&id, true));
        }
        self.confirm(&id);
        self.update_profile(&id, &heartbeat.profile);
        if let Some(owned) = &heartbeat.owned {
            self.acknowledge(&id, owned);
        }
        let moved = if resubscribes {
            self.resubscribe(&id, heartbeat, topics);
            self.move_on(&id, now);
            true
        } else {
            self.transition(&id, now)
        };
        Ok(self.reply(&id, moved || wanted.is_some()))
    }

    /// The member, if `epoch` is its epoch or the one before.
    fn known(&self, member_id: &str, epoch: i32) -> Result<&Member, GroupError> {
        let member = self.members.get(member_id).filter(|member| !member.away);
        let member = member.ok_or_else(|| unknown(member_id))?;
        if member.is_recent(epoch) { Ok(member) } else { Err(member.fenced(epoch)) }
    }

    /// The reply for a member, with its assignment when there is something to tell.
    fn reply(&self, id: &MemberId, told: bool) -> Reply {
        let member = &self.members[id];
        let lives = |key: &&PartitionKey| self.topics.name(key.topic_id).is_some();
        let reset = member.reset_told.iter().filter(lives).filter(|_| told);
        Reply {
            member_epoch: member.epoch,
            heartbeat_interval: member.profile.session_timeout / HEARTBEATS_PER_SESSION,
            assignment: told.then(|| member.held.keys().filter(lives).copied().collect()),
            reset: reset.copied().collect(),
        }
    }
}

fn unknown(member_id: &str) -> GroupError {
    GroupError::UnknownMember { member: member_id.into() }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

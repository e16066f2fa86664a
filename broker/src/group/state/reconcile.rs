//! Moving members towards the target: transitions, revocations, owners.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use riverrun_proto::TopicPartition;

use super::GroupState;
use crate::{
    group::{
        assignor::{Candidate, Input},
        event::Effects,
        member::{Member, Revoking},
        topics::{GroupTopics, MemberId, TopicLookup},
    },
    offset::PartitionKey,
};

impl GroupState {
    /// Raises the group epoch.
    pub(super) fn bump(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.effects.epoch_rose = true;
    }

    /// Looks up every topic that somebody wants or owns; says whether anything differs.
    pub(super) fn refresh_topics(&mut self, topics: &dyn TopicLookup) -> bool {
        let mut names: BTreeSet<_> =
            self.subscriptions.keys().flat_map(|wanted| wanted.iter().cloned()).collect();
        let owned: BTreeSet<_> = self.owners.keys().map(|key| key.topic_id).collect();
        names.extend(owned.into_iter().filter_map(|id| topics.name(id)));
        let found = GroupTopics::look_up(&names, topics);
        let differs = found != self.topics;
        self.topics = found;
        self.forget_dead_revocations();
        differs
    }

    /// Takes members back from what was stored: each keeps what it owned, and its timeouts begin anew.
    ///
    /// # Errors
    /// The partition that two of them own.
    pub fn restore(
        &mut self,
        members: Vec<Member>,
        topics: &dyn TopicLookup,
        now: Duration,
    ) -> Result<(), PartitionKey> {
        for mut member in members {
            member.profile.subscription = self.share(&member.profile.subscription.clone());
            let deadline = now + member.profile.rebalance_timeout;
            for (key, revoking) in &mut member.revoking {
                revoking.deadline = deadline;
                self.revocations.insert((deadline, member.id.clone(), *key));
            }
            for key in member.owned() {
                if self.owners.insert(key, member.id.clone()).is_some() {
                    return Err(key);
                }
            }
            let held = member.held.keys().map(|key| (*key, member.id.clone()));
            self.target.extend(held);
            let id = member.id.clone();
            self.pending.insert(id.clone());
            self.insert(member);
            self.touch(&id, now);
        }
        self.refresh_topics(topics);
        self.retarget();
        self.effects = Effects::default();
        Ok(())
    }

    /// Nobody waits for partitions of a deleted topic to be given up.
    fn forget_dead_revocations(&mut self) {
        let dead: Vec<_> = self
            .revocations
            .iter()
            .filter(|(_, _, key)| self.topics.name(key.topic_id).is_none())
            .map(|(_, member, key)| (member.clone(), *key))
            .collect();
        for (member, key) in dead {
            self.give_up(&member, &key);
            self.effects.changed.insert(member);
        }
    }

    /// Computes the target anew and notes who must move.
    pub(super) fn retarget(&mut self) {
        let candidates: Vec<Candidate> = self.members.values().map(candidate).collect();
        let target = self.assignor.assign(&Input {
            members: &candidates,
            topics: self.topics.by_name(),
            current: &self.target,
        });
        self.target = target;
        for member in self.members.values_mut() {
            member.target.clear();
        }
        for (key, id) in &self.target {
            let member = self.members.get_mut(id).expect("the target names members");
            member.target.insert(*key);
        }
        let members = &self.members;
        self.pending.retain(|id| members.contains_key(id));
        for (id, member) in members {
            if has_to_move(member, &self.owners) {
                self.pending.insert(id.clone());
                self.effects.wake.insert(id.clone());
            }
        }
    }

    /// Moves a member towards its target if there is anything to move; says whether it did.
    pub(super) fn transition(&mut self, id: &MemberId, now: Duration) -> bool {
        if !self.pending.contains(id) {
            return false;
        }
        let member = &self.members[id];
        if member.reset_pending.is_empty() && !has_to_move(member, &self.owners) {
            self.pending.remove(id);
            return false;
        }
        self.move_on(id, now);
        true
    }

    /// Gives a member its next epoch, and with it everything there is to tell.
    pub(super) fn move_on(&mut self, id: &MemberId, now: Duration) {
        let member = self.members.get_mut(id).expect("only members move");
        if self.epoch <= member.epoch {
            self.epoch = member.epoch + 1;
            self.effects.epoch_rose = true;
        }
        member.previous_epoch = member.epoch;
        member.epoch = self.epoch;
        member.confirmed = false;
        member.reset_told = std::mem::take(&mut member.reset_pending);
        self.pending.remove(id);
        self.effects.changed.insert(id.clone());
        let replaced = self.revoke(id, now);
        self.grant(id, replaced);
    }

    /// Tells a member to give up what is not in its target; says whether a deleted topic was among it.
    fn revoke(&mut self, id: &MemberId, now: Duration) -> bool {
        let member = self.members.get_mut(id).expect("only members move");
        let unwanted: Vec<PartitionKey> =
            member.held.keys().filter(|key| !member.target.contains(key)).copied().collect();
        let deadline = now + member.profile.rebalance_timeout;
        let mut dead = false;
        for key in unwanted {
            let owner_epoch = member.held.remove(&key).expect("just listed");
            if self.topics.name(key.topic_id).is_none() {
                dead = true;
                member.reset_told.remove(&key);
                self.owners.remove(&key);
            } else {
                member.revoking.insert(key, Revoking { owner_epoch, deadline });
                self.revocations.insert((deadline, id.clone(), key));
            }
        }
        dead
    }

    /// Gives a member what is in its target and has no owner. A partition that may be known to it under the
    /// same name from a deleted topic is marked, so that its old position is not used.
    fn grant(&mut self, id: &MemberId, mark: bool) {
        let member = self.members.get_mut(id).expect("only members move");
        for key in &member.target {
            if !self.owners.contains_key(key) {
                self.owners.insert(*key, id.clone());
                member.held.insert(*key, member.epoch);
                if mark {
                    member.reset_told.insert(*key);
                }
            }
        }
    }

    /// Notes that the member gave up whatever it no longer lists.
    pub(super) fn acknowledge(&mut self, id: &MemberId, owned: &BTreeSet<TopicPartition>) {
        let kept: BTreeSet<PartitionKey> = owned
            .iter()
            .filter_map(|tp| Some(PartitionKey::new(self.topics.id(&tp.topic)?, tp.partition.0)))
            .collect();
        let member = &self.members[id];
        let given: Vec<PartitionKey> =
            member.revoking.keys().filter(|key| !kept.contains(key)).copied().collect();
        for key in &given {
            self.give_up(id, key);
            self.effects.changed.insert(id.clone());
        }
    }

    /// Ends the ownership of a partition that was being given up.
    pub(super) fn give_up(&mut self, id: &MemberId, key: &PartitionKey) {
        let member = self.members.get_mut(id).expect("only members give up");
        if let Some(revoking) = member.revoking.remove(key) {
            self.revocations.remove(&(revoking.deadline, id.clone(), *key));
            member.reset_pending.remove(key);
            member.reset_told.remove(key);
            self.set_free(key);
        }
    }

    /// Takes the owner away from a partition and calls whoever shall have it.
    pub(super) fn set_free(&mut self, key: &PartitionKey) {
        self.owners.remove(key);
        if let Some(next) = self.target.get(key) {
            self.pending.insert(next.clone());
            self.effects.wake.insert(next.clone());
        }
    }
}

fn candidate(member: &Member) -> Candidate {
    Candidate {
        id: member.id.clone(),
        rank: member.profile.instance_id.clone().unwrap_or_else(|| member.id.clone()),
        subscription: member.profile.subscription.clone(),
    }
}

/// Whether a transition would change what the member holds.
fn has_to_move(member: &Member, owners: &BTreeMap<PartitionKey, MemberId>) -> bool {
    member.held.keys().any(|key| !member.target.contains(key))
        || member.target.iter().any(|key| !owners.contains_key(key))
}

//! Coming and going: join, take over, leave, leave for a while, removal.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{GroupState, REBALANCE_TIMEOUT_DEFAULT, SESSION_TIMEOUT_DEFAULT, unknown};
use crate::group::{
    error::GroupError,
    event::{EPOCH_LEAVE, EPOCH_PAUSE, Heartbeat, ProfileUpdate, Reply},
    member::{Member, Profile},
    topics::{MemberId, Subscription, TopicLookup},
};

impl GroupState {
    /// Adds a member. A member that is known and joins again has lost everything it held, unless it repeats a
    /// join whose answer it never got.
    pub(super) fn join(
        &mut self,
        heartbeat: &Heartbeat,
        topics: &dyn TopicLookup,
        now: Duration,
    ) -> Result<Reply, GroupError> {
        let wanted = heartbeat.profile.subscription.as_ref().ok_or(GroupError::NoSubscription)?;
        let id = &heartbeat.member_id;
        let holder = self.holder_away(heartbeat)?;
        if holder.is_none()
            && !self.members.contains_key(id)
            && self.members.len() >= self.members_max
        {
            return Err(GroupError::Full { max: self.members_max });
        }
        if self.is_repeated_join(heartbeat) {
            self.touch(id, now);
            return Ok(self.reply(id, true));
        }
        self.bump();
        let subscription = self.share(wanted);
        let mut member = Member::new(id.clone(), profile(&heartbeat.profile, subscription), 0);
        match holder {
            Some(holder) => self.take_over(&holder, &mut member),
            None => self.forget(id),
        }
        self.insert(member);
        self.effects.profiles.insert(id.clone());
        self.touch(id, now);
        self.refresh_topics(topics);
        self.retarget();
        self.move_on(id, now);
        Ok(self.reply(id, true))
    }

    /// The member that holds the instance id and left for a while, if there is one to take over from.
    fn holder_away(&self, heartbeat: &Heartbeat) -> Result<Option<MemberId>, GroupError> {
        let Some(instance_id) = &heartbeat.profile.instance_id else { return Ok(None) };
        let Some(holder) = self.statics.get(instance_id) else { return Ok(None) };
        if self.members[holder].away {
            Ok(Some(holder.clone()))
        } else if *holder == heartbeat.member_id {
            Ok(None)
        } else {
            let (instance_id, holder) = (instance_id.clone(), holder.clone());
            Err(GroupError::InstanceIdInUse { instance_id, holder })
        }
    }

    /// Whether the member joined, got no answer (as far as is known), and asks again for the same.
    fn is_repeated_join(&self, heartbeat: &Heartbeat) -> bool {
        self.members.get(&heartbeat.member_id).is_some_and(|member| {
            let again = &heartbeat.profile;
            member.previous_epoch == 0
                && !member.confirmed
                && !member.away
                && member.profile.instance_id == again.instance_id
                && again.subscription.as_ref() == Some(&*member.profile.subscription)
        })
    }

    /// Moves the partitions of a static member that left for a while to its successor.
    fn take_over(&mut self, holder: &MemberId, successor: &mut Member) {
        if *holder != successor.id {
            self.forget(&successor.id);
        }
        let old = self.detach(holder);
        successor.held = old.held.into_keys().map(|key| (key, self.epoch)).collect();
        for key in successor.held.keys() {
            self.owners.insert(*key, successor.id.clone());
        }
        for key in &old.target {
            self.target.insert(*key, successor.id.clone());
        }
        if *holder != successor.id {
            self.effects.removed.insert(holder.clone());
        }
    }

    /// Removes a member that leaves; one that is not there has left already.
    pub(super) fn leave(&mut self, id: &MemberId) -> Reply {
        if self.members.contains_key(id) {
            self.remove(id);
            self.bump();
            self.retarget();
        }
        farewell(EPOCH_LEAVE)
    }

    /// Lets a static member go for a while: it keeps what it holds until its session times out.
    pub(super) fn pause(&mut self, id: &MemberId, now: Duration) -> Result<Reply, GroupError> {
        let member = self.members.get_mut(id).ok_or_else(|| unknown(id))?;
        if member.profile.instance_id.is_none() {
            return Err(GroupError::NotStatic);
        }
        member.away = true;
        let revoking: Vec<_> = member.revoking.keys().copied().collect();
        for key in revoking {
            self.give_up(id, &key);
        }
        self.touch(id, now);
        self.effects.changed.insert(id.clone());
        Ok(farewell(EPOCH_PAUSE))
    }

    /// Removes a member for good. The caller raises the epoch and computes the target anew.
    pub(super) fn remove(&mut self, id: &MemberId) {
        self.forget(id);
        self.effects.removed.insert(id.clone());
    }

    /// Removes a member, if it is there, and frees everything it owns.
    fn forget(&mut self, id: &MemberId) {
        if self.members.contains_key(id) {
            let member = self.detach(id);
            for key in member.held.keys() {
                self.set_free(key);
            }
            self.pending.remove(id);
        }
    }

    /// Takes a member out. What it was giving up is free; what it held is left to the caller.
    fn detach(&mut self, id: &MemberId) -> Member {
        let revoking: Vec<_> = self.members[id].revoking.keys().copied().collect();
        for key in revoking {
            self.give_up(id, &key);
        }
        let member = self.members.remove(id).expect("the caller found it");
        self.sessions.remove(&(member.session_deadline, id.clone()));
        self.pending.remove(id);
        self.effects.wake.insert(id.clone());
        if let Some(instance_id) = &member.profile.instance_id {
            self.statics.remove(instance_id);
        }
        self.effects.profiles.remove(id);
        self.effects.changed.remove(id);
        self.unshare(&member.profile.subscription);
        member
    }

    /// Puts a member in; its subscription was counted by [`GroupState::share`].
    pub(super) fn insert(&mut self, member: Member) {
        if let Some(instance_id) = &member.profile.instance_id {
            self.statics.insert(instance_id.clone(), member.id.clone());
        }
        self.effects.removed.remove(&member.id);
        self.sessions.insert((member.session_deadline, member.id.clone()));
        self.members.insert(member.id.clone(), member);
    }

    /// Counts one more member with this subscription.
    pub(super) fn share(&mut self, wanted: &BTreeSet<Arc<str>>) -> Subscription {
        let known = self.subscriptions.get_key_value(wanted).map(|(known, _)| known.clone());
        let subscription = known.unwrap_or_else(|| Arc::new(wanted.clone()));
        *self.subscriptions.entry(subscription.clone()).or_default() += 1;
        subscription
    }

    fn unshare(&mut self, subscription: &Subscription) {
        if let Some(count) = self.subscriptions.get_mut(subscription) {
            *count -= 1;
            if *count == 0 {
                self.subscriptions.remove(subscription);
            }
        }
    }

    /// Gives a member another subscription; the caller moves it on, so that its epoch tells old from new.
    pub(super) fn resubscribe(
        &mut self,
        id: &MemberId,
        heartbeat: &Heartbeat,
        topics: &dyn TopicLookup,
    ) {
        let Some(wanted) = &heartbeat.profile.subscription else { return };
        let subscription = self.share(wanted);
        let member = self.members.get_mut(id).expect("the caller found it");
        let old = std::mem::replace(&mut member.profile.subscription, subscription);
        self.unshare(&old);
        self.effects.profiles.insert(id.clone());
        self.bump();
        self.refresh_topics(topics);
        self.retarget();
    }

    /// Takes over timeouts and texts that a heartbeat names.
    pub(super) fn update_profile(&mut self, id: &MemberId, update: &ProfileUpdate) {
        let member = self.members.get_mut(id).expect("the caller found it");
        let profile = &mut member.profile;
        let old = profile.clone();
        profile.session_timeout = update.session_timeout.unwrap_or(old.session_timeout);
        profile.rebalance_timeout = update.rebalance_timeout.unwrap_or(old.rebalance_timeout);
        if !update.client_id.is_empty() {
            profile.client_id = update.client_id.clone();
        }
        profile.host = update.host.clone();
        // Where it connects from is only shown; it is stored with the next change of something else.
        if (Profile { host: old.host.clone(), ..profile.clone() }) != old {
            self.effects.profiles.insert(id.clone());
        }
    }

    /// Notes that the member knows its epoch, and with it everything it was told.
    pub(super) fn confirm(&mut self, id: &MemberId) {
        let member = self.members.get_mut(id).expect("the caller found it");
        member.confirmed = true;
        if !member.reset_told.is_empty() {
            member.reset_told.clear();
            self.effects.changed.insert(id.clone());
        }
    }

    /// Starts a member's session timeout anew.
    pub(super) fn touch(&mut self, id: &MemberId, now: Duration) {
        let member = self.members.get_mut(id).expect("the caller found it");
        let deadline = now + member.profile.session_timeout;
        self.sessions.remove(&(member.session_deadline, id.clone()));
        member.session_deadline = deadline;
        self.sessions.insert((deadline, id.clone()));
    }
}

fn profile(update: &ProfileUpdate, subscription: Subscription) -> Profile {
    Profile {
        instance_id: update.instance_id.clone(),
        client_id: update.client_id.clone(),
        host: update.host.clone(),
        subscription,
        session_timeout: update.session_timeout.unwrap_or(SESSION_TIMEOUT_DEFAULT),
        rebalance_timeout: update.rebalance_timeout.unwrap_or(REBALANCE_TIMEOUT_DEFAULT),
    }
}

fn farewell(epoch: i32) -> Reply {
    let heartbeat_interval = Duration::ZERO;
    Reply { member_epoch: epoch, heartbeat_interval, assignment: None, reset: Vec::new() }
}

//! One group in memory: its state, its held heartbeats, and where it stands in the log.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use riverrun_proto::{TopicId, TopicPartition};

use super::{Answer, Caller, CoordinatorError, waiters::Waiters};
use crate::{
    group::{
        error::GroupError,
        event::{EPOCH_JOIN, Heartbeat, Reply},
        state::GroupState,
        topics::MemberId,
    },
    offset::PartitionKey,
};

/// A held heartbeat uses at most this part of the session timeout.
const HOLDS_PER_SESSION: u32 = 3;

#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) live: Mutex<Live>,
}

/// A group in memory. Guarded by `Group::live`.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) state: GroupState,
    pub(super) waiters: Waiters,
    /// Place of the last write about this group; answers wait for it.
    pub(super) sequence: u64,
    /// Deadline that stands in the schedule.
    pub(super) scheduled: Option<Duration>,
    /// Deleted, or about to be.
    pub(super) gone: bool,
}

impl Live {
    /// Holds a heartbeat that has nothing to tell yet, if its sender waits.
    pub(super) fn hold(
        &mut self,
        group: &Arc<Group>,
        heartbeat: &Heartbeat,
        reply: &Reply,
        (now, max_wait): (Duration, Duration),
    ) -> Option<Held> {
        if reply.assignment.is_some() || heartbeat.epoch <= EPOCH_JOIN {
            return None;
        }
        let member = self.state.members().get(&heartbeat.member_id)?;
        let hold = max_wait.min(member.profile.session_timeout / HOLDS_PER_SESSION);
        let member = member.id.clone();
        if hold.is_zero() {
            self.waiters.wake(&member);
            return None;
        }
        let (id, woken) = self.waiters.hold(&member, now + hold);
        Some(Held { group: group.clone(), member, id, woken })
    }

    pub(super) fn answer(&self, reply: &Reply) -> Answer {
        let name = |key: &PartitionKey| {
            let topic = self.state.topics().name(key.topic_id)?;
            Some(TopicPartition::new(topic.clone(), key.partition))
        };
        let names = |keys: &[PartitionKey]| keys.iter().filter_map(name).collect();
        let assigned = reply.assignment.iter().flatten().map(|key| key.topic_id);
        let ids: BTreeSet<TopicId> = assigned.collect();
        let named = |id: TopicId| Some((self.state.topics().name(id)?.clone(), id));
        Answer {
            member_epoch: reply.member_epoch,
            heartbeat_interval: reply.heartbeat_interval,
            assignment: reply.assignment.as_deref().map(names),
            topics: ids.into_iter().filter_map(named).collect(),
            reset: names(&reply.reset),
            group_epoch: self.state.epoch(),
        }
    }

    pub(super) fn check(&self, caller: &Caller, key: &PartitionKey) -> Result<(), GroupError> {
        match &caller.member {
            Some((member_id, epoch)) => self.state.check(member_id, *epoch, key),
            None => Ok(()),
        }
    }

    /// Refuses somebody outside the group while it has members.
    pub(super) fn check_outsider(
        &self,
        name: &Arc<str>,
        caller: &Caller,
    ) -> Result<(), CoordinatorError> {
        let members = self.state.members().len();
        if self.gone {
            Err(CoordinatorError::UnknownGroup { group: name.clone() })
        } else if caller.member.is_none() && members > 0 {
            Err(CoordinatorError::NotEmpty { group: name.clone(), members })
        } else {
            Ok(())
        }
    }
}

/// A held heartbeat; forgotten when its caller goes away.
#[derive(Debug)]
pub(super) struct Held {
    group: Arc<Group>,
    member: MemberId,
    id: u64,
    pub(super) woken: tokio::sync::oneshot::Receiver<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.group.live.lock().waiters.forget(&self.member, self.id);
    }
}

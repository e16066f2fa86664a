//! What goes into a group's state and what comes out of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use riverrun_proto::TopicPartition;

use super::topics::MemberId;
use crate::offset::PartitionKey;

/// Epoch with which a member joins.
pub const EPOCH_JOIN: i32 = 0;
/// Epoch with which a member leaves.
pub const EPOCH_LEAVE: i32 = -1;
/// Epoch with which a static member leaves for a while.
pub const EPOCH_PAUSE: i32 = -2;

/// A sign of life, checked for size and form.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    /// Who sends it.
    pub member_id: Arc<str>,
    /// [`EPOCH_JOIN`], [`EPOCH_LEAVE`], [`EPOCH_PAUSE`], or the epoch of the last reply.
    pub epoch: i32,
    /// Partitions the member holds now; only this finishes a revocation.
    pub owned: Option<BTreeSet<TopicPartition>>,
    /// What it says of itself.
    pub profile: ProfileUpdate,
}

/// What a member says of itself; what is `None` stays as it is, or has its default on a join.
#[derive(Clone, Debug, Default)]
pub struct ProfileUpdate {
    /// Static name.
    pub instance_id: Option<Arc<str>>,
    /// Free text shown to operators.
    pub client_id: Arc<str>,
    /// Address it connects from.
    pub host: Arc<str>,
    /// Topics it wants.
    pub subscription: Option<BTreeSet<Arc<str>>>,
    /// Silence after which it is removed.
    pub session_timeout: Option<Duration>,
    /// Time to give up revoked partitions in.
    pub rebalance_timeout: Option<Duration>,
}

/// Answer to a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Epoch to send from now on.
    pub member_epoch: i32,
    /// Send the next one within this time.
    pub heartbeat_interval: Duration,
    /// What the member may read from now on, when there is something to tell.
    pub assignment: Option<Vec<PartitionKey>>,
    /// Partitions whose stored offset was moved, or that are new under an old name.
    pub reset: Vec<PartitionKey>,
}

/// What an event did besides the reply. Drained by the coordinator under the lock of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Members whose stored profile is out of date.
    pub profiles: BTreeSet<MemberId>,
    /// Members whose stored assignment is out of date.
    pub changed: BTreeSet<MemberId>,
    /// Members that are gone.
    pub removed: BTreeSet<MemberId>,
    /// The group epoch rose.
    pub epoch_rose: bool,
    /// Members for whom a held heartbeat may have something to tell now.
    pub wake: BTreeSet<MemberId>,
}

impl Effects {
    /// Whether anything must be stored.
    pub fn must_store(&self) -> bool {
        self.epoch_rose
            || !self.profiles.is_empty()
            || !self.changed.is_empty()
            || !self.removed.is_empty()
    }
}

/// State of a group, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No members.
    Empty,
    /// Partitions are moving between members.
    Reconciling,
    /// Every member has its assignment.
    Stable,
}

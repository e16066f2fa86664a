//! One member of a group: what it holds, what it must give up, and which epoch proves it knows.
//!
//! ```text
//!              granted                 no longer wanted             reported without it,
//!   (free) ───────────────▶ held ───────────────────────▶ revoking ── or its time ran out ──▶ (free)
//! ```
//!
//! A member's epoch rises each time it is told a different assignment (a *transition*), and only in the
//! answer to a heartbeat that carries its current epoch. So a member is never more than one
//! transition behind, and a heartbeat with the current epoch proves that the member knows
//! everything it was told. Only such a heartbeat can finish a revocation; one that was sent
//! before the revocation was known carries an older epoch.
//!
//! Invariants: `held` and `revoking` are disjoint; an owner epoch is never above the epoch that the
//! member's next transition will have.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    error::GroupError,
    topics::{MemberId, Subscription},
};
use crate::offset::PartitionKey;

/// A partition that a member was told to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoking {
    /// As in [`Member::held`].
    pub owner_epoch: i32,
    /// When it is taken without the member's word.
    pub deadline: Duration,
}

/// What a member says of itself; it may change while the member lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Static name.
    pub instance_id: Option<Arc<str>>,
    /// Free text shown to operators.
    pub client_id: Arc<str>,
    /// Address it connects from.
    pub host: Arc<str>,
    /// Topics it wants.
    pub subscription: Subscription,
    /// Silence after which it is removed.
    pub session_timeout: Duration,
    /// Time to give up revoked partitions in.
    pub rebalance_timeout: Duration,
}

/// One member. Guarded by the lock of its group.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// What it says of itself.
    pub profile: Profile,
    /// Epoch of the last transition. Changed by transitions only.
    pub epoch: i32,
    /// Epoch before the last transition; 0 after a join.
    pub previous_epoch: i32,
    /// A heartbeat with `epoch` came, so the member knows its assignment.
    pub confirmed: bool,
    /// Left for a while (epoch -2): keeps its partitions until the session times out, and may not use them.
    pub away: bool,
    /// Partitions it may read, each with the epoch it owns them since: commits below are refused.
    pub held: BTreeMap<PartitionKey, i32>,
    /// Partitions it was told to give up and still owns.
    pub revoking: BTreeMap<PartitionKey, Revoking>,
    /// Partitions it shall have.
    pub target: BTreeSet<PartitionKey>,
    /// Partitions whose offset was moved, not told yet.
    pub reset_pending: BTreeSet<PartitionKey>,
    /// Partitions whose offset was moved, told with `epoch`.
    pub reset_told: BTreeSet<PartitionKey>,
    /// When it is removed unless it is heard from.
    pub session_deadline: Duration,
}

impl Member {
    /// A member that just joined with `epoch` and holds nothing.
    pub fn new(id: MemberId, profile: Profile, epoch: i32) -> Member {
        Member {
            id,
            profile,
            epoch,
            previous_epoch: 0,
            confirmed: false,
            away: false,
            held: BTreeMap::new(),
            revoking: BTreeMap::new(),
            target: BTreeSet::new(),
            reset_pending: BTreeSet::new(),
            reset_told: BTreeSet::new(),
            session_deadline: Duration::ZERO,
        }
    }

    /// The epoch since which it owns `key`, or `None` when it does not.
    pub fn owner_epoch(&self, key: &PartitionKey) -> Option<i32> {
        let held = self.held.get(key).copied();
        held.or_else(|| self.revoking.get(key).map(|revoking| revoking.owner_epoch))
    }

    /// Every partition it owns, held or being given up.
    pub fn owned(&self) -> impl Iterator<Item = PartitionKey> + '_ {
        self.held.keys().chain(self.revoking.keys()).copied()
    }

    /// Says whether the member may read and commit `key` with `epoch`.
    ///
    /// An epoch behind the member's is good as long as the partition was owned all the time since.
    ///
    /// # Errors
    /// The refusal to send: unknown, fenced, stale (retriable) or not owned.
    pub fn check(&self, epoch: i32, key: &PartitionKey) -> Result<(), GroupError> {
        if self.away || epoch <= 0 {
            return Err(GroupError::UnknownMember { member: self.id.clone() });
        }
        self.check_known(epoch)?;
        match self.owner_epoch(key) {
            Some(since) if since <= epoch => Ok(()),
            _ if !self.is_recent(epoch) => Err(self.fenced(epoch)),
            Some(since) => Err(GroupError::StaleEpoch { epoch, current: self.epoch.max(since) }),
            None if epoch < self.epoch => Err(self.stale(epoch)),
            None => Err(GroupError::NotOwned),
        }
    }

    /// Whether `epoch` is that of the last transition or of the one before it.
    pub fn is_recent(&self, epoch: i32) -> bool {
        epoch == self.epoch || (epoch == self.previous_epoch && epoch > 0)
    }

    /// Refuses an epoch that was never given to this member since it joined.
    fn check_known(&self, epoch: i32) -> Result<(), GroupError> {
        if epoch > self.epoch { Err(self.fenced(epoch)) } else { Ok(()) }
    }

    /// The refusal of an epoch older than the last transition but one.
    pub fn fenced(&self, epoch: i32) -> GroupError {
        GroupError::FencedEpoch { epoch, current: self.epoch }
    }

    /// The refusal of an epoch one transition behind.
    pub fn stale(&self, epoch: i32) -> GroupError {
        GroupError::StaleEpoch { epoch, current: self.epoch }
    }

    /// Whether everything it shall have is held and nothing is being given up.
    pub fn is_settled(&self) -> bool {
        self.revoking.is_empty()
            && self.held.len() == self.target.len()
            && self.held.keys().all(|key| self.target.contains(key))
    }
}

impl Member {
    /// Says that the ownership of `key` counts from `epoch` on.
    pub fn own_since(&mut self, key: &PartitionKey, epoch: i32) {
        if let Some(since) = self.held.get_mut(key) {
            *since = epoch;
        }
        if let Some(revoking) = self.revoking.get_mut(key) {
            revoking.owner_epoch = epoch;
        }
    }
}

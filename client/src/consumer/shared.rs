//! What a consumer's handle, its trackers and its tasks share.
//!
//! Locks, each held for a few instructions and never two together: `book`, `membership`.

use std::{collections::BTreeSet, time::Duration};

use parking_lot::Mutex;
use riverrun_proto::{Offset, TopicPartition, grpc::v1};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::{Commit, OutOfRange, Start, book::Book};
use crate::{client::Client, error::Error};

/// Changes of the assignment kept for readers that are slow.
const REBALANCES_KEPT: usize = 64;

/// The settings that do not change.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) topics: Vec<String>,
    pub(super) group: Option<GroupSettings>,
    pub(super) start: Start,
    pub(super) out_of_range: OutOfRange,
    pub(super) max_wait: Duration,
    pub(super) max_bytes: u32,
    pub(super) partition_max_bytes: u32,
    pub(super) max_records: u32,
    pub(super) prefetch_bytes: usize,
    pub(super) commit: Commit,
    pub(super) open_max: usize,
    /// Without a group: how often it is looked for partitions that were added.
    pub(super) topics_interval: Duration,
}

/// Settings of a group's member.
#[derive(Clone, Debug)]
pub(super) struct GroupSettings {
    pub(super) group: String,
    /// False when the consumer assigned partitions to itself and only stores offsets.
    pub(super) joins: bool,
    pub(super) instance_id: Option<String>,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) revoke_grace: Duration,
}

/// A change of the assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// These are read from now on.
    Assigned(Vec<TopicPartition>),
    /// These will be given up: nothing more of them is received; commit what was processed.
    Revoking(Vec<TopicPartition>),
    /// These were given up.
    Revoked(Vec<TopicPartition>),
    /// These were lost without notice: somebody else may read them already.
    Lost(Vec<TopicPartition>),
    /// The topic of these was deleted and created again under the same name. What was received of the old one
    /// can not be committed any more; reading goes on in the new one, where the group begins there.
    Replaced(Vec<TopicPartition>),
}

/// Who the consumer is in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) member_id: String,
    /// 0 before the first answer.
    pub(super) epoch: i32,
}

/// What a consumer's handle, its trackers and its tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) book: Mutex<Book>,
    /// Changed by the membership task only.
    pub(super) membership: watch::Sender<Membership>,
    /// Told when what is to be fetched changed, or room came free.
    pub(super) fetcher: Notify,
    /// Told when a revocation may be over, or the broker says that we are not a member.
    pub(super) member: Notify,
    /// Told when there is progress to commit.
    pub(super) committer: Notify,
    /// The broker refused us as a member.
    pub(super) suspect: Mutex<bool>,
    pub(super) rebalances: broadcast::Sender<Rebalance>,
    /// One commit at a time, so that an older one never overtakes a newer.
    pub(super) committing: tokio::sync::Mutex<()>,
    /// The consumer is closed or dropped.
    pub(super) closing: CancellationToken,
    /// Every task has ended.
    pub(super) ended: CancellationToken,
}

impl Shared {
    pub(super) fn new(client: Client, settings: Settings, member_id: String) -> Shared {
        Shared {
            client,
            settings,
            book: Mutex::default(),
            membership: watch::Sender::new(Membership { member_id, epoch: 0 }),
            fetcher: Notify::new(),
            member: Notify::new(),
            committer: Notify::new(),
            suspect: Mutex::new(false),
            rebalances: broadcast::Sender::new(REBALANCES_KEPT),
            committing: tokio::sync::Mutex::new(()),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Whether the group decides what is read.
    pub(super) fn joins(&self) -> bool {
        self.settings.group.as_ref().is_some_and(|group| group.joins)
    }

    /// The member epoch; 0 before the first answer.
    pub(super) fn epoch(&self) -> i32 {
        self.membership.borrow().epoch
    }

    /// How calls name this member; `None` outside of a group, or before it joined.
    pub(super) fn as_member(&self) -> Option<v1::GroupMember> {
        let group = self.settings.group.as_ref().filter(|group| group.joins)?;
        let membership = self.membership.borrow().clone();
        Some(v1::GroupMember {
            group: group.group.clone(),
            member_id: membership.member_id,
            member_epoch: membership.epoch,
        })
    }

    /// How commits name this consumer: a member, or somebody outside of the group.
    pub(super) fn as_committer(&self) -> Option<v1::GroupMember> {
        let group = self.settings.group.as_ref()?;
        let outside = || v1::GroupMember {
            group: group.group.clone(),
            member_id: String::new(),
            member_epoch: -1,
        };
        Some(self.as_member().unwrap_or_else(outside))
    }

    /// The broker refused a call made with `epoch`: if that is still ours, we are no member any more.
    pub(super) fn suspect(&self, error: &Error, epoch: i32) {
        if error.is_fenced() && self.joins() && self.epoch() == epoch {
            *self.suspect.lock() = true;
            self.member.notify_one();
        }
    }

    /// Tells of a change of the assignment. Nobody needs to listen.
    pub(super) fn announce(
        &self,
        change: fn(Vec<TopicPartition>) -> Rebalance,
        of: &BTreeSet<TopicPartition>,
    ) {
        if !of.is_empty() {
            let _nobody = self.rebalances.send(change(of.iter().cloned().collect()));
        }
    }

    /// Goes on reading at `offset`, before which lies a record of `leader_epoch`, if that is known.
    pub(super) fn place(
        &self,
        partition: &TopicPartition,
        life: u64,
        (offset, leader_epoch): (Offset, Option<u32>),
    ) {
        let mut book = self.book.lock();
        if let Some(part) = book.partitions.get_mut(partition)
            && part.life == life
        {
            part.start_at(offset);
            part.leader_epoch = leader_epoch;
            book.version += 1;
        }
    }
}

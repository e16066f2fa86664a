//! The remembered state of all groups: a fold over the entries of their log.
//!
//! Applying a change reads no clock and no randomness. A snapshot is a run of ordinary entries that begins with
//! [`SnapshotBegun`], so it is read by the same code.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use prost::Message;
use riverrun_proto::{
    LeaderEpoch, Offset, TopicId,
    grpc::state::v1::{
        GroupChange, GroupCreated, MemberImage, MembershipChanged, OffsetsStored, PartitionOffset,
        SnapshotBegun, StartPolicy as WireStart, TopicOffsets, TopicPinned, group_change::Change,
        start_policy::Policy,
    },
};

use super::{
    PartitionKey,
    once_wanted::OnceWanted,
    record::{self, RecordError, change, topic_id, topic_id_bytes},
};

/// Where a group begins on partitions without a stored offset; fixed when it is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartPolicy {
    /// The first offset kept.
    #[default]
    Earliest,
    /// The first offset not visible yet.
    Latest,
    /// The first record at or after this time, in milliseconds since 1970-01-01 UTC.
    TimestampMs(i64),
    /// Nowhere: the reader decides.
    Fail,
}

/// One stored offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOffset {
    /// The next offset to read.
    pub offset: Offset,
    /// Leader epoch of the last record read.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The reader's note.
    pub metadata: Box<str>,
    /// When it was stored, in milliseconds since 1970-01-01 UTC.
    pub commit_time_ms: i64,
    /// Who stored it; empty when it was nobody of the group.
    pub member_id: Arc<str>,
}

/// One group as it is remembered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupImage {
    /// When it was created, in milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// Where it begins.
    pub start: StartPolicy,
    /// Name of its assignor.
    pub assignor: String,
    /// Its epoch.
    pub epoch: i32,
    /// Its members.
    pub members: BTreeMap<String, MemberImage>,
    /// Topics it met, with the partitions they had then.
    pub pinned: BTreeMap<TopicId, u32>,
    /// Topics that members wanted who are gone or want others now.
    pub once_wanted: OnceWanted,
    /// Its stored offsets.
    pub offsets: BTreeMap<PartitionKey, StoredOffset>,
}

/// All groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Groups {
    groups: BTreeMap<Arc<str>, GroupImage>,
}

impl Groups {
    /// The group `name`.
    pub fn get(&self, name: &str) -> Option<&GroupImage> {
        self.groups.get(name)
    }

    /// Every group, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &GroupImage)> {
        self.groups.iter()
    }

    /// Number of groups.
    pub fn count(&self) -> usize {
        self.groups.len()
    }

    /// Topics that something is stored for and that `exists` denies.
    pub fn topics_without(&self, exists: impl Fn(TopicId) -> bool) -> Vec<TopicId> {
        let mut gone = BTreeSet::new();
        for group in self.groups.values() {
            gone.extend(group.pinned.keys().copied().filter(|id| !exists(*id)));
            gone.extend(group.offsets.keys().map(|key| key.topic_id).filter(|id| !exists(*id)));
        }
        gone.into_iter().collect()
    }

    /// Takes in one entry of the log.
    ///
    /// # Errors
    /// When the entry cannot be read or contradicts the state.
    pub fn apply(&mut self, entry: &[u8]) -> Result<(), RecordError> {
        for (group, change) in record::decode(entry)? {
            self.apply_change(&group, change)?;
        }
        Ok(())
    }

    fn apply_change(&mut self, name: &str, change: Change) -> Result<(), RecordError> {
        match change {
            Change::SnapshotBegun(_) => self.groups.clear(),
            Change::TopicsForgotten(forgotten) => {
                for id in &forgotten.topic_ids {
                    self.forget(topic_id(id)?);
                }
            }
            Change::Created(created) => {
                let group = GroupImage {
                    created_ms: created.created_ms,
                    start: start_from_wire(created.start.unwrap_or_default()),
                    assignor: created.assignor,
                    ..GroupImage::default()
                };
                self.groups.insert(name.into(), group);
            }
            Change::Deleted(_) => {
                self.groups.remove(name);
            }
            Change::Membership(_) | Change::Offsets(_) | Change::TopicPinned(_) => {
                let group = self.groups.get_mut(name).ok_or_else(|| RecordError::UnknownGroup {
                    group: name.to_owned(),
                    kind: record::kind(&change),
                })?;
                group.apply(change)?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, topic: TopicId) {
        for group in self.groups.values_mut() {
            group.pinned.remove(&topic);
            group.offsets.retain(|key, _| key.topic_id != topic);
        }
    }

    /// Entries of about `entry_bytes` that describe the whole state.
    pub fn snapshot(&self, entry_bytes: usize) -> Vec<Bytes> {
        let mut entries = Vec::new();
        let mut open = vec![change("", Change::SnapshotBegun(SnapshotBegun {}))];
        let mut bytes = 0;
        for (name, group) in &self.groups {
            for change in group.changes(name) {
                let length = change.encoded_len();
                if bytes + length > entry_bytes && !open.is_empty() {
                    entries.push(record::encode(std::mem::take(&mut open)));
                    bytes = 0;
                }
                bytes += length;
                open.push(change);
            }
        }
        entries.push(record::encode(open));
        entries
    }
}

/// Offsets in one change of a snapshot: with the largest notes about 1 MiB.
const OFFSETS_PER_CHANGE: usize = 256;

impl GroupImage {
    fn apply(&mut self, change: Change) -> Result<(), RecordError> {
        match change {
            Change::Membership(change) => {
                self.epoch = self.epoch.max(change.group_epoch);
                self.once_wanted.note(change.once_wanted);
                for id in &change.removed {
                    let profile = self.members.remove(id).and_then(|member| member.profile);
                    self.once_wanted.note(profile.unwrap_or_default().subscription);
                }
                for member in change.members {
                    self.merge(member);
                }
            }
            Change::Offsets(stored) => self.store(stored)?,
            Change::TopicPinned(pinned) => {
                self.pinned.insert(topic_id(&pinned.topic_id)?, pinned.partitions);
            }
            Change::Created(_)
            | Change::Deleted(_)
            | Change::TopicsForgotten(_)
            | Change::SnapshotBegun(_) => {}
        }
        Ok(())
    }

    /// Whether a member wants the topic `name`, or one did who is gone.
    pub fn has_wanted(&self, name: &str) -> bool {
        let wants = |member: &MemberImage| {
            let profile = member.profile.as_ref();
            profile.is_some_and(|profile| profile.subscription.iter().any(|one| one == name))
        };
        self.once_wanted.contains(name) || self.members.values().any(wants)
    }

    fn merge(&mut self, news: MemberImage) {
        let member = self.members.entry(news.member_id.clone()).or_default();
        member.member_id = news.member_id;
        if let Some(profile) = news.profile {
            let before = member.profile.replace(profile).unwrap_or_default();
            self.once_wanted.note(before.subscription);
        }
        member.assignment = news.assignment.or(member.assignment.take());
    }

    fn store(&mut self, stored: OffsetsStored) -> Result<(), RecordError> {
        let member_id: Arc<str> = stored.member_id.into();
        for topic in stored.topics {
            let id = topic_id(&topic.topic_id)?;
            for one in topic.partitions {
                let offset = StoredOffset {
                    offset: Offset(one.offset),
                    leader_epoch: one.leader_epoch.map(LeaderEpoch),
                    metadata: one.metadata.into(),
                    commit_time_ms: stored.commit_time_ms,
                    member_id: member_id.clone(),
                };
                self.offsets.insert(PartitionKey::new(id, one.partition), offset);
            }
        }
        Ok(())
    }

    /// Changes that make this group out of nothing.
    fn changes(&self, name: &str) -> Vec<GroupChange> {
        let created = GroupCreated {
            created_ms: self.created_ms,
            start: Some(start_to_wire(self.start)),
            assignor: self.assignor.clone(),
        };
        let mut changes = vec![change(name, Change::Created(created))];
        let epoch = MembershipChanged {
            group_epoch: self.epoch,
            once_wanted: self.once_wanted.oldest_first(),
            ..MembershipChanged::default()
        };
        changes.push(change(name, Change::Membership(epoch)));
        for member in self.members.values() {
            let members = vec![member.clone()];
            let membership =
                MembershipChanged { group_epoch: self.epoch, members, ..Default::default() };
            changes.push(change(name, Change::Membership(membership)));
        }
        for (id, partitions) in &self.pinned {
            let pinned = TopicPinned { topic_id: topic_id_bytes(*id), partitions: *partitions };
            changes.push(change(name, Change::TopicPinned(pinned)));
        }
        let mut alike: BTreeMap<(&str, i64), Vec<(PartitionKey, &StoredOffset)>> = BTreeMap::new();
        for (key, stored) in &self.offsets {
            let commit = (&*stored.member_id, stored.commit_time_ms);
            alike.entry(commit).or_default().push((*key, stored));
        }
        for ((member_id, commit_time_ms), offsets) in alike {
            for some in offsets.chunks(OFFSETS_PER_CHANGE) {
                let values = some.iter().map(|(key, stored)| (*key, to_wire(key, stored)));
                let stored = offsets_stored(member_id, commit_time_ms, values);
                changes.push(change(name, Change::Offsets(stored)));
            }
        }
        changes
    }
}

fn to_wire(key: &PartitionKey, stored: &StoredOffset) -> PartitionOffset {
    PartitionOffset {
        partition: key.partition,
        offset: stored.offset.0,
        leader_epoch: stored.leader_epoch.map(|epoch| epoch.0),
        metadata: stored.metadata.to_string(),
    }
}

/// One change that stores `values`, gathered by topic.
pub fn offsets_stored(
    member_id: &str,
    commit_time_ms: i64,
    values: impl Iterator<Item = (PartitionKey, PartitionOffset)>,
) -> OffsetsStored {
    let mut topics: Vec<TopicOffsets> = Vec::new();
    let mut last = None;
    for (key, value) in values {
        match topics.last_mut() {
            Some(topic) if last == Some(key.topic_id) => topic.partitions.push(value),
            Some(_) | None => topics.push(TopicOffsets {
                topic_id: topic_id_bytes(key.topic_id),
                partitions: vec![value],
            }),
        }
        last = Some(key.topic_id);
    }
    OffsetsStored { member_id: member_id.to_owned(), commit_time_ms, topics }
}

/// A start policy as it is stored.
pub fn start_to_wire(start: StartPolicy) -> WireStart {
    let policy = match start {
        StartPolicy::Earliest => None,
        StartPolicy::Latest => Some(Policy::Latest(true)),
        StartPolicy::TimestampMs(time_ms) => Some(Policy::TimestampMs(time_ms)),
        StartPolicy::Fail => Some(Policy::Fail(true)),
    };
    WireStart { policy }
}

fn start_from_wire(start: WireStart) -> StartPolicy {
    match start.policy {
        None => StartPolicy::Earliest,
        Some(Policy::Latest(_)) => StartPolicy::Latest,
        Some(Policy::TimestampMs(time_ms)) => StartPolicy::TimestampMs(time_ms),
        Some(Policy::Fail(_)) => StartPolicy::Fail,
    }
}

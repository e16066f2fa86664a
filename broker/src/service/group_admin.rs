//! Groups for operators: list, describe, delete.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{StreamExt, stream};
use riverrun_proto::{Offset, TopicPartition};

use super::group::{
    GroupCallError, GroupPartitionError, GroupService, LOOKUPS_AT_ONCE, check_group,
};
use crate::{
    group::{
        event::Phase,
        member::Member,
        state::GroupState,
        topics::{AllTopics, TopicLookup},
    },
    offset::{PartitionKey, StoredOffset},
    partition::{Partition, VisibleRange},
    topic::error::FindError,
};

/// One group in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    /// Its name.
    pub group: Arc<str>,
    /// Its state.
    pub phase: Phase,
    /// Members.
    pub member_count: usize,
    /// Records not read yet, over all partitions.
    pub lag: u64,
}

/// One group in detail.
#[derive(Clone, Debug)]
pub struct GroupDescription {
    /// Its name.
    pub group: Arc<str>,
    /// Its state.
    pub phase: Phase,
    /// Its epoch.
    pub epoch: i32,
    /// Name of its assignor.
    pub assignor: &'static str,
    /// Its members, by id.
    pub members: Vec<MemberDescription>,
    /// Partitions with a stored offset or an owner, by name.
    pub partitions: Vec<PartitionDescription>,
}

/// One member.
#[derive(Clone, Debug)]
pub struct MemberDescription {
    /// The member.
    pub member: Member,
    /// Partitions it owns.
    pub owned: Vec<TopicPartition>,
    /// Partitions it shall own.
    pub target: Vec<TopicPartition>,
}

/// One partition as the group sees it.
#[derive(Clone, Debug)]
pub struct PartitionDescription {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: u32,
    /// What is stored.
    pub stored: Option<StoredOffset>,
    /// Who owns it.
    pub owner: Option<Arc<str>>,
    /// Lag, or why it could not be found.
    pub lag: Result<Lag, GroupPartitionError>,
}

/// How far a group is behind on one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// First offset kept.
    pub log_start: Offset,
    /// First offset not visible yet.
    pub high_watermark: Offset,
    /// Records not read yet.
    pub records: u64,
    /// Age of the oldest of them, in milliseconds; 0 when there is none.
    pub age_ms: u64,
}

impl GroupService {
    /// Every group, by name.
    pub fn list(&self) -> Vec<GroupSummary> {
        let summary = |group: Arc<str>| {
            let (phase, member_count) =
                self.groups.look(&group, |state| (state.phase(), state.members().len())).ok()?;
            let lag = self.stored_partitions(&group).into_iter().map(|(name, key)| {
                let found = self.find(&name, key.partition).ok();
                let visible = found.map(|(_, partition)| partition.visible());
                let stored = self.stored(&group, &key).map(|stored| stored.offset);
                visible.map_or(0, |visible| records_behind(visible, stored))
            });
            Some(GroupSummary { lag: lag.sum(), group, phase, member_count })
        };
        self.groups.names().into_iter().filter_map(summary).collect()
    }

    /// One group.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn describe(&self, group: &str) -> Result<GroupDescription, GroupCallError> {
        let group = check_group(group)?;
        let topics = self.groups.topics();
        let seen = self.groups.look(&group, |state| see(state, &topics))?;
        let mut named: BTreeSet<(Arc<str>, u32)> = self
            .stored_partitions(&group)
            .into_iter()
            .map(|(name, key)| (name, key.partition))
            .collect();
        named.extend(seen.owners.iter().map(|(tp, _)| (tp.topic.clone(), tp.partition.0)));
        let partitions = stream::iter(named)
            .map(|(topic, number)| self.describe_partition(&group, topic, number))
            .buffered(LOOKUPS_AT_ONCE);
        let mut partitions: Vec<PartitionDescription> = partitions.collect().await;
        for one in &mut partitions {
            let named = TopicPartition::new(one.topic.clone(), one.partition);
            let owner = seen.owners.binary_search_by(|(tp, _)| tp.cmp(&named));
            one.owner = owner.ok().map(|at| seen.owners[at].1.clone());
        }
        let Seen { phase, epoch, assignor, members, owners: _ } = seen;
        Ok(GroupDescription { group, phase, epoch, assignor, members, partitions })
    }

    /// Deletes a group without members, and its stored offsets.
    ///
    /// # Errors
    /// When it does not exist, has members, or the deletion could not be stored.
    pub async fn delete(&self, group: &str) -> Result<(), GroupCallError> {
        Ok(self.groups.delete(&check_group(group)?).await?)
    }

    /// How a group stands on one partition.
    pub(super) fn standing(
        &self,
        group: &str,
        topic: &str,
        number: u32,
    ) -> Result<Standing, FindError> {
        let (key, partition) = self.find(topic, number)?;
        let stored = self.stored(group, &key);
        let offset = stored.as_ref().map(|stored| stored.offset);
        let visible = partition.visible();
        let lag = Lag {
            log_start: visible.log_start,
            high_watermark: visible.high_watermark,
            records: records_behind(visible, offset),
            age_ms: 0,
        };
        Ok(Standing { stored, lag, partition, first_unread: first_unread(visible, offset) })
    }

    async fn describe_partition(
        &self,
        group: &Arc<str>,
        topic: Arc<str>,
        number: u32,
    ) -> PartitionDescription {
        let (stored, lag) = match self.standing(group, &topic, number) {
            Ok(Standing { stored, mut lag, partition, first_unread }) => {
                let lag = match partition.append_time_ms(first_unread).await {
                    Ok(Some(time_ms)) if lag.records > 0 => {
                        let age_ms = self.clock.wall_ms().saturating_sub(time_ms);
                        lag.age_ms = u64::try_from(age_ms).unwrap_or(0);
                        Ok(lag)
                    }
                    Ok(_) => Ok(lag),
                    Err(error) => Err(error.into()),
                };
                (stored, lag)
            }
            Err(error) => (None, Err(error.into())),
        };
        PartitionDescription { topic, partition: number, stored, owner: None, lag }
    }
}

/// How a group stands on one partition, without the age of what it has not read.
pub(super) struct Standing {
    pub(super) stored: Option<StoredOffset>,
    /// Its age is 0.
    pub(super) lag: Lag,
    pub(super) partition: Arc<Partition>,
    /// The oldest record that is kept and not read.
    pub(super) first_unread: Offset,
}

/// What the state of a group says, in names.
struct Seen {
    phase: Phase,
    epoch: i32,
    assignor: &'static str,
    members: Vec<MemberDescription>,
    /// Sorted.
    owners: Vec<(TopicPartition, Arc<str>)>,
}

fn see(state: &GroupState, topics: &AllTopics) -> Seen {
    let named = |key: &PartitionKey| {
        topics.name(key.topic_id).map(|topic| TopicPartition::new(topic, key.partition))
    };
    let members = state.members().values().map(|member| MemberDescription {
        member: member.clone(),
        owned: member.owned().filter_map(|key| named(&key)).collect(),
        target: member.target.iter().filter_map(named).collect(),
    });
    let owners = state.owners().iter().filter_map(|(key, id)| Some((named(key)?, id.clone())));
    let mut owners: Vec<(TopicPartition, Arc<str>)> = owners.collect();
    owners.sort();
    Seen {
        phase: state.phase(),
        epoch: state.epoch(),
        assignor: state.assignor().name(),
        members: members.collect(),
        owners,
    }
}

/// The oldest record that is kept and not read.
fn first_unread(visible: VisibleRange, stored: Option<Offset>) -> Offset {
    stored.unwrap_or(visible.log_start).clamp(visible.log_start, visible.high_watermark)
}

fn records_behind(visible: VisibleRange, stored: Option<Offset>) -> u64 {
    visible.high_watermark.since(first_unread(visible, stored))
}

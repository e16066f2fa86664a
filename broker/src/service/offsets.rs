//! Stored offsets: an error is never "no offset".
//!
//! A member that asks for a partition without one gets the group's start position, stored before it is told; so
//! whoever reads next begins at the same place.

use std::sync::Arc;

use super::{
    commit::GroupCaller,
    group::{GroupCallError, GroupPartitionError, GroupService, check_count, check_group},
};
use crate::{
    group::{coordinator::Caller, topics::TopicLookup},
    offset::{PartitionKey, StoredOffset},
};

/// Most partitions of one request.
pub const PARTITIONS_MAX: usize = 100_000;

/// What is stored for one partition.
#[derive(Clone, Debug)]
pub struct OffsetFound {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: u32,
    /// The offset; `None` when none is stored.
    pub stored: Result<Option<StoredOffset>, GroupPartitionError>,
}

impl GroupService {
    /// Reads stored offsets: of `partitions`, or all there are. With `member`, as that member.
    ///
    /// # Errors
    /// When the group does not exist or a missing offset could not be stored.
    pub async fn offsets(
        &self,
        group: &str,
        partitions: Vec<(String, u32)>,
        member: Option<&GroupCaller>,
    ) -> Result<Vec<OffsetFound>, GroupCallError> {
        check_count("partitions", partitions.len(), PARTITIONS_MAX)?;
        let group = check_group(group)?;
        let caller = match member {
            Some(member) => self.check_caller(member)?,
            None => Caller { group: group.clone(), member: None },
        };
        self.groups.look(&group, |_| ())?;
        let wanted: Vec<(Arc<str>, u32)> = if partitions.is_empty() {
            self.stored_partitions(&group)
                .into_iter()
                .map(|(name, key)| (name, key.partition))
                .collect()
        } else {
            partitions.into_iter().map(|(topic, number)| (topic.into(), number)).collect()
        };
        let mut found = Vec::with_capacity(wanted.len());
        for (topic, partition) in wanted {
            let stored = self.offset(&caller, &topic, partition).await?;
            found.push(OffsetFound { topic, partition, stored });
        }
        Ok(found)
    }

    /// Partitions that the group has a stored offset for, of topics that exist, by name.
    pub(super) fn stored_partitions(&self, group: &str) -> Vec<(Arc<str>, PartitionKey)> {
        let topics = self.groups.topics();
        let named = |key: &PartitionKey| Some((topics.name(key.topic_id)?, *key));
        let mut stored: Vec<(Arc<str>, PartitionKey)> = self.groups.store().read(|groups| {
            let keys = groups.get(group).into_iter().flat_map(|image| image.offsets.keys());
            keys.filter_map(named).collect()
        });
        stored.sort();
        stored
    }

    /// What is stored for one partition.
    pub(super) fn stored(&self, group: &str, key: &PartitionKey) -> Option<StoredOffset> {
        self.groups.store().read(|groups| groups.get(group)?.offsets.get(key).cloned())
    }

    async fn offset(
        &self,
        caller: &Caller,
        topic: &str,
        partition: u32,
    ) -> Result<Result<Option<StoredOffset>, GroupPartitionError>, GroupCallError> {
        let (key, found) = match self.find(topic, partition) {
            Ok(found) => found,
            Err(error) => return Ok(Err(error.into())),
        };
        if let Some((member_id, epoch)) = &caller.member {
            let mut checked = self.groups.check(&caller.group, (member_id, *epoch), &[key])?;
            if let Some(Err(refusal)) = checked.pop() {
                return Ok(Err(refusal.into()));
            }
        }
        let stored = self.stored(&caller.group, &key);
        if stored.is_some() || caller.member.is_none() {
            return Ok(Ok(stored));
        }
        match self.pin_partition(&caller.group, (key, &found)).await? {
            Ok(_) => Ok(Ok(self.stored(&caller.group, &key))),
            Err(error) => Ok(Err(error)),
        }
    }
}

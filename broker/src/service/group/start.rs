//! Where a group begins: fixed and stored before a member reads.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{StreamExt, stream};
use riverrun_proto::Offset;

use super::{GroupCallError, GroupPartitionError, GroupService, LOOKUPS_AT_ONCE};
use crate::{
    offset::{PartitionKey, StartPolicy},
    partition::Partition,
    topic::Topic,
};

impl GroupService {
    /// Fixes the position of a group on every topic that it meets for the first time.
    pub(super) async fn pin_topics(
        &self,
        group: &Arc<str>,
        wanted: &BTreeSet<Arc<str>>,
    ) -> Result<(), GroupCallError> {
        for name in wanted {
            let Ok(topic) = self.registry.topic(name) else { continue };
            let met = self.groups.store().read(|groups| {
                let image = groups.get(group)?;
                let is_new = !image.pinned.contains_key(&topic.id);
                is_new.then_some((image.start, image.has_wanted(name)))
            });
            let Some((start, wanted_before)) = met else { continue };
            // The group wanted this topic before it was created: nothing of it may be skipped.
            let awaited = self.groups.look(group, |state| state.is_subscribed(name));
            let awaited = wanted_before || awaited.unwrap_or(false);
            let count = if awaited { 0 } else { topic.partition_count() };
            let offsets = self.start_offsets(&topic, count, start).await;
            self.groups.pin(group, (topic.id, count), offsets).await?;
        }
        Ok(())
    }

    /// The first `count` partitions of a topic with the offset to begin at. Partitions that cannot be read are
    /// left out: they are pinned when a member asks for its offset.
    async fn start_offsets(
        &self,
        topic: &Arc<Topic>,
        count: u32,
        start: StartPolicy,
    ) -> Vec<(PartitionKey, Offset)> {
        let found = stream::iter(0..count).map(|number| {
            let topic = topic.clone();
            async move {
                let partition = topic.partition(number).ok()?;
                let offset = start_offset(&partition, start).await.ok()??;
                Some((PartitionKey::new(topic.id, number), offset))
            }
        });
        found.buffered(LOOKUPS_AT_ONCE).filter_map(std::future::ready).collect().await
    }

    /// Fixes the position of a group on one partition without a stored offset; `None` when the group's start
    /// policy leaves it to the reader.
    pub(in crate::service) async fn pin_partition(
        &self,
        group: &Arc<str>,
        (key, partition): (PartitionKey, &Arc<Partition>),
    ) -> Result<Result<Option<Offset>, GroupPartitionError>, GroupCallError> {
        let met = self.groups.store().read(|groups| {
            let image = groups.get(group)?;
            Some((image.start, image.pinned.get(&key.topic_id).copied().unwrap_or(0)))
        });
        let Some((start, count)) = met else { return Ok(Ok(None)) };
        let start = if key.partition < count { start } else { StartPolicy::Earliest };
        let offset = match start_offset(partition, start).await {
            Ok(Some(offset)) => offset,
            Ok(None) => return Ok(Ok(None)),
            Err(error) => return Ok(Err(error)),
        };
        self.groups.pin(group, (key.topic_id, count), vec![(key, offset)]).await?;
        let stored = self.groups.store().read(|groups| {
            groups.get(group).and_then(|image| image.offsets.get(&key)).map(|one| one.offset)
        });
        Ok(Ok(stored))
    }
}

/// The offset that `start` means on a partition now.
async fn start_offset(
    partition: &Arc<Partition>,
    start: StartPolicy,
) -> Result<Option<Offset>, GroupPartitionError> {
    let visible = partition.visible();
    Ok(match start {
        StartPolicy::Earliest => Some(visible.log_start),
        StartPolicy::Latest => Some(visible.high_watermark),
        StartPolicy::TimestampMs(time_ms) => Some(partition.find_by_time(time_ms).await?.offset),
        StartPolicy::Fail => None,
    })
}

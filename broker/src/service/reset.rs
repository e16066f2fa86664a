//! Reset: moves stored offsets, also while the group has members.
//!
//! Every position is brought into the visible range. The members learn with their next heartbeat; what
//! they commit before that is refused. A group that does not exist is made when topics or partitions are
//! named and at least one of them can be stored; elsewhere it begins with the first record.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{StreamExt, stream};
use riverrun_proto::Offset;

use super::group::{
    GroupCallError, GroupPartitionError, GroupService, LOOKUPS_AT_ONCE, check_count, check_group,
};
use crate::{
    group::assignor::Assignor,
    offset::{PartitionKey, StartPolicy},
    partition::{Partition, VisibleRange},
};

/// Most partitions of one request.
const PARTITIONS_MAX: usize = 100_000;
/// Most topics of one request.
const TOPICS_MAX: usize = 1_000;

/// Where offsets are moved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetTarget {
    /// The first offset kept.
    Earliest,
    /// The first offset not visible yet.
    Latest,
    /// The first record at or after this time.
    TimestampMs(i64),
    /// The first record not older than this.
    DurationMs(u64),
    /// So many records forward, or back when negative.
    ShiftBy(i64),
    /// This offset.
    Offset(u64),
    /// Where another group stands.
    FromGroup(String),
}

/// Stored offsets to move.
#[derive(Clone, Debug)]
pub struct ResetRequest {
    /// Name of the group.
    pub group: String,
    /// Partitions; none and no topics means all the group has offsets for.
    pub partitions: Vec<(String, u32)>,
    /// Every partition of these topics, besides.
    pub topics: Vec<String>,
    /// Where to.
    pub target: ResetTarget,
    /// Compute and change nothing.
    pub dry_run: bool,
}

/// One offset moved.
#[derive(Clone, Debug)]
pub struct OffsetMoved {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: u32,
    /// Stored offset before.
    pub from: Option<Offset>,
    /// Stored offset now and the lag there.
    pub to: Result<(Offset, u64), GroupPartitionError>,
}

impl GroupService {
    /// Moves stored offsets, or says how they would be moved.
    ///
    /// # Errors
    /// When the group does not exist and nothing is named, a field is out of bounds, or nothing could be stored.
    pub async fn reset(&self, request: ResetRequest) -> Result<Vec<OffsetMoved>, GroupCallError> {
        let group = check_group(&request.group)?;
        if request.partitions.is_empty() && request.topics.is_empty() {
            self.groups.look(&group, |_| ())?;
        }
        let target = request.target.clone();
        if let ResetTarget::FromGroup(other) = &target {
            let other = check_group(other)?;
            self.groups.look(&other, |_| ())?;
        }
        let wanted = self.wanted(&group, request.partitions, &request.topics)?;
        let moved = stream::iter(wanted)
            .map(|(topic, number)| self.move_offset(&group, (topic, number), &target))
            .buffered(LOOKUPS_AT_ONCE);
        let moved: Vec<(Option<PartitionKey>, OffsetMoved)> = moved.collect().await;
        let offsets: Vec<(PartitionKey, Offset)> = moved
            .iter()
            .filter_map(|(key, one)| Some(((*key)?, one.to.as_ref().ok()?.0)))
            .collect();
        if !request.dry_run && !offsets.is_empty() {
            self.groups.create(&group, StartPolicy::Earliest, Assignor::default()).await?;
            self.groups.reset(&group, offsets).await?;
        }
        Ok(moved.into_iter().map(|(_, one)| one).collect())
    }

    /// The partitions that are meant, each once.
    fn wanted(
        &self,
        group: &Arc<str>,
        partitions: Vec<(String, u32)>,
        topics: &[String],
    ) -> Result<BTreeSet<(Arc<str>, u32)>, GroupCallError> {
        check_count("partitions", partitions.len(), PARTITIONS_MAX)?;
        check_count("topics", topics.len(), TOPICS_MAX)?;
        if partitions.is_empty() && topics.is_empty() {
            let stored = self.stored_partitions(group);
            return Ok(stored.into_iter().map(|(name, key)| (name, key.partition)).collect());
        }
        let mut wanted: BTreeSet<(Arc<str>, u32)> =
            partitions.into_iter().map(|(topic, number)| (topic.into(), number)).collect();
        for name in topics {
            // A topic that does not exist answers as its first partition.
            let count = self.registry.topic(name).map_or(1, |topic| topic.partition_count());
            wanted.extend((0..count).map(|number| (Arc::from(name.as_str()), number)));
        }
        Ok(wanted)
    }

    async fn move_offset(
        &self,
        group: &Arc<str>,
        (topic, number): (Arc<str>, u32),
        target: &ResetTarget,
    ) -> (Option<PartitionKey>, OffsetMoved) {
        let (key, found) = match self.find(&topic, number) {
            Ok(found) => found,
            Err(error) => {
                let to = Err(error.into());
                return (None, OffsetMoved { topic, partition: number, from: None, to });
            }
        };
        let from = self.stored(group, &key).map(|stored| stored.offset);
        let to = self.find_target((group, &key), &found, target, from).await.map(|to| {
            let VisibleRange { log_start, high_watermark } = found.visible();
            let to = to.clamp(log_start, high_watermark);
            (to, high_watermark.since(to))
        });
        (Some(key), OffsetMoved { topic, partition: number, from, to })
    }

    async fn find_target(
        &self,
        (group, key): (&str, &PartitionKey),
        partition: &Arc<Partition>,
        target: &ResetTarget,
        from: Option<Offset>,
    ) -> Result<Offset, GroupPartitionError> {
        let visible = partition.visible();
        let no_offset = |group: &str| GroupPartitionError::NoOffset { group: group.to_owned() };
        Ok(match target {
            ResetTarget::Earliest => visible.log_start,
            ResetTarget::Latest => visible.high_watermark,
            ResetTarget::TimestampMs(time_ms) => partition.find_by_time(*time_ms).await?.offset,
            ResetTarget::DurationMs(age_ms) => {
                let age_ms = i64::try_from(*age_ms).unwrap_or(i64::MAX);
                let time_ms = self.clock.wall_ms().saturating_sub(age_ms);
                partition.find_by_time(time_ms).await?.offset
            }
            ResetTarget::ShiftBy(count) => {
                let from = from.ok_or_else(|| no_offset(group))?;
                Offset(from.0.saturating_add_signed(*count))
            }
            ResetTarget::Offset(offset) => Offset(*offset),
            ResetTarget::FromGroup(other) => {
                self.stored(other, key).ok_or_else(|| no_offset(other))?.offset
            }
        })
    }
}

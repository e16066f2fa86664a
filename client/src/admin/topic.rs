//! Topics: to create, to change, and as the broker describes them.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use riverrun_proto::{LeaderEpoch, Offset, PartitionId, TopicId, grpc::v1};

use super::{Limit, TopicConfig, missing};
use crate::{
    durability::Durability,
    error::{Error, Result},
};

/// A topic to create.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    topic: String,
    partitions: u32,
    config: TopicConfig,
    validate_only: bool,
}

impl TopicSpec {
    /// A topic with one partition and the default settings.
    pub fn new(topic: impl Into<String>) -> TopicSpec {
        TopicSpec {
            topic: topic.into(),
            partitions: 1,
            config: TopicConfig::default(),
            validate_only: false,
        }
    }

    /// Number of partitions, 1 to 10,000.
    pub fn partitions(mut self, count: u32) -> TopicSpec {
        self.partitions = count;
        self
    }

    /// All settings at once; the ones set before are replaced.
    pub fn config(mut self, config: TopicConfig) -> TopicSpec {
        self.config = config;
        self
    }

    /// When produce is acknowledged.
    pub fn durability(mut self, durability: Durability) -> TopicSpec {
        self.config.durability = Some(durability);
        self
    }

    /// Records older than this may be dropped.
    pub fn retain(mut self, time: Duration) -> TopicSpec {
        self.config.retention_time = Some(Limit::At(time));
        self
    }

    /// Old segments may be dropped once a partition is larger than this.
    pub fn retain_bytes(mut self, bytes: u64) -> TopicSpec {
        self.config.retention_bytes = Some(Limit::At(bytes));
        self
    }

    /// Check everything and create nothing.
    pub fn validate_only(mut self) -> TopicSpec {
        self.validate_only = true;
        self
    }

    pub(super) fn into_wire(self) -> v1::CreateTopicRequest {
        v1::CreateTopicRequest {
            config: Some(self.config.to_wire()),
            topic: self.topic,
            partitions: self.partitions,
            validate_only: self.validate_only,
        }
    }
}

/// A change of a topic.
#[derive(Clone, Debug, Default)]
pub struct TopicChange {
    partitions: u32,
    config: TopicConfig,
    reset: Vec<String>,
    validate_only: bool,
}

impl TopicChange {
    /// No change yet.
    pub fn new() -> TopicChange {
        TopicChange::default()
    }

    /// New number of partitions; not fewer than now.
    pub fn partitions(mut self, count: u32) -> TopicChange {
        self.partitions = count;
        self
    }

    /// Settings to change; those that are `None` stay.
    pub fn config(mut self, config: TopicConfig) -> TopicChange {
        self.config = config;
        self
    }

    /// Puts a setting back to its default; named as in the protocol, for instance `retention_ms`.
    pub fn reset(mut self, setting: impl Into<String>) -> TopicChange {
        self.reset.push(setting.into());
        self
    }

    /// Check everything and change nothing.
    pub fn validate_only(mut self) -> TopicChange {
        self.validate_only = true;
        self
    }

    pub(super) fn into_wire(self, topic: &str) -> v1::AlterTopicRequest {
        v1::AlterTopicRequest {
            topic: topic.to_owned(),
            partitions: self.partitions,
            config: Some(self.config.to_wire()),
            reset: self.reset,
            validate_only: self.validate_only,
        }
    }
}

/// The cluster and its topics.
#[derive(Clone, Debug)]
pub struct ClusterInfo {
    /// Identity of the cluster, made with its data directory: 16 bytes.
    pub cluster_id: Bytes,
    /// Id and address of each node; an empty address means the one already used.
    pub nodes: Vec<(u32, String)>,
    /// Version of the broker.
    pub version: String,
    /// Every topic, by name.
    pub topics: Vec<TopicInfo>,
}

impl ClusterInfo {
    pub(super) fn from_wire(wire: v1::GetMetadataResponse) -> Result<ClusterInfo> {
        Ok(ClusterInfo {
            cluster_id: wire.cluster_id,
            nodes: wire.nodes.into_iter().map(|node| (node.node_id, node.address)).collect(),
            version: wire.version,
            topics: wire.topics.into_iter().map(TopicInfo::from_wire).collect::<Result<_>>()?,
        })
    }
}

/// One topic.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    /// Its name.
    pub topic: String,
    /// Its identity; a topic created anew under the same name has another. All zeros after a check only.
    pub topic_id: TopicId,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionInfo>,
    /// Every setting with its value in force.
    pub config: TopicConfig,
    /// Settings that were given, without defaults.
    pub overrides: TopicConfig,
}

/// One partition and who leads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number.
    pub partition: PartitionId,
    /// Node that leads it.
    pub leader_node_id: u32,
    /// Epoch of the leadership.
    pub leader_epoch: LeaderEpoch,
}

impl TopicInfo {
    pub(crate) fn from_wire(wire: v1::TopicMetadata) -> Result<TopicInfo> {
        if let Some(error) = wire.error {
            return Err(Error::from_wire(&error));
        }
        // A topic that was only checked and not created has none.
        let topic_id = match wire.topic_id.is_empty() {
            true => TopicId(uuid::Uuid::nil()),
            false => TopicId::from_slice(&wire.topic_id).ok_or_else(|| missing("topic id"))?,
        };
        let partition = |partition: v1::PartitionMetadata| PartitionInfo {
            partition: PartitionId(partition.partition),
            leader_node_id: partition.leader_node_id,
            leader_epoch: LeaderEpoch(partition.leader_epoch),
        };
        Ok(TopicInfo {
            topic: wire.topic,
            topic_id,
            partitions: wire.partitions.into_iter().map(partition).collect(),
            config: TopicConfig::from_wire(&wire.config.unwrap_or_default()),
            overrides: TopicConfig::from_wire(&wire.overrides.unwrap_or_default()),
        })
    }
}

/// One topic with sizes and offsets of its partitions.
#[derive(Clone, Debug)]
pub struct TopicDescription {
    /// The topic.
    pub info: TopicInfo,
    /// One per partition.
    pub partitions: Vec<PartitionDescription>,
}

/// One partition in detail.
#[derive(Clone, Debug)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: PartitionId,
    /// First offset kept.
    pub log_start: Offset,
    /// Everything below is on disk.
    pub flushed: Offset,
    /// First offset not visible yet.
    pub high_watermark: Offset,
    /// Next offset to be given.
    pub log_end: Offset,
    /// Bytes of records kept.
    pub size_bytes: u64,
    /// Segments kept.
    pub segment_count: u32,
    /// Why the partition refuses writes, when it does.
    pub failure: Option<Error>,
    /// Places whose bytes are not what was written, as far as they are known.
    pub damaged_places: u64,
    /// The first of them, at most 16. Reads of these offsets are refused, those of others are not.
    pub damaged: Vec<DamagedOffsets>,
}

/// Offsets that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedOffsets {
    /// From the first that cannot be read to the first that can.
    pub offsets: Range<Offset>,
    /// The file, the position in it, and what is wrong there.
    pub reason: String,
}

impl DamagedOffsets {
    fn from_wire(wire: v1::DamagedOffsets) -> DamagedOffsets {
        let offsets = Offset(wire.start_offset)..Offset(wire.end_offset);
        DamagedOffsets { offsets, reason: wire.reason }
    }
}

impl TopicDescription {
    pub(super) fn from_wire(wire: v1::DescribeTopicResponse) -> Result<TopicDescription> {
        let partition = |partition: v1::PartitionDescription| PartitionDescription {
            partition: PartitionId(partition.partition),
            log_start: Offset(partition.log_start_offset),
            flushed: Offset(partition.flushed_offset),
            high_watermark: Offset(partition.high_watermark),
            log_end: Offset(partition.log_end_offset),
            size_bytes: partition.size_bytes,
            segment_count: partition.segment_count,
            failure: partition.failure.as_ref().map(Error::from_wire),
            damaged_places: partition.damaged_places,
            damaged: partition.damaged.into_iter().map(DamagedOffsets::from_wire).collect(),
        };
        Ok(TopicDescription {
            info: TopicInfo::from_wire(wire.topic.ok_or_else(|| missing("topic"))?)?,
            partitions: wire.partitions.into_iter().map(partition).collect(),
        })
    }
}

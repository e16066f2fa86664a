//! How one partition is written, acknowledged and trimmed.

use std::time::Duration;

use riverrun_proto::{PartitionId, TopicId};
use riverrun_storage::{CompactionOptions, INDEX_INTERVAL_BYTES, LogOptions, RetentionPolicy};

use super::Durability;

/// Settings of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSettings {
    /// When produce is acknowledged.
    pub durability: Durability,
    /// Longest time between background flushes.
    pub flush_interval: Duration,
    /// How the log is written.
    pub log: LogOptions,
    /// What is dropped.
    pub retention: RetentionPolicy,
    /// How keys are compacted; `None` leaves them.
    pub compaction: Option<CompactionOptions>,
    /// Records are never refused for lack of room: the log is the broker's own and small.
    pub is_internal: bool,
}

impl PartitionSettings {
    /// Settings of an internal log: flushed before it is acknowledged, kept until its owner trims it.
    pub fn internal(topic_id: TopicId) -> PartitionSettings {
        PartitionSettings {
            durability: Durability::Fsync,
            flush_interval: Duration::ZERO,
            log: LogOptions {
                topic_id,
                partition: PartitionId(0),
                segment_bytes_max: 16 << 20,
                segment_age_max: Duration::MAX,
                batch_bytes_max: 8 << 20,
                index_interval_bytes: INDEX_INTERVAL_BYTES,
                producer_count_max: 1,
                producer_age_max: Duration::MAX,
                sealed_files_max: 1,
            },
            retention: RetentionPolicy::default(),
            compaction: None,
            is_internal: true,
        }
    }
}

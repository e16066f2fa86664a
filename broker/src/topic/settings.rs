//! What a partition needs to know of its topic's settings.

use std::time::Duration;

use riverrun_proto::{PartitionId, TopicId};
use riverrun_storage::{
    CompactionOptions, INDEX_INTERVAL_BYTES, LogOptions, PRODUCER_COUNT_MAX, RetentionPolicy,
    SEALED_FILES_MAX,
};

use super::{CleanupPolicy, TopicConfig};
use crate::partition::PartitionSettings;

/// A producer silent for longer than this is forgotten.
const PRODUCER_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Memory for the keys of one compaction pass; one pass runs at a time.
const KEY_MAP_BYTES_MAX: usize = 64 << 20;
/// A compaction pass begins when this share of the sealed bytes was never compacted, in percent.
const DIRTY_PERCENT_MIN: u8 = 50;

/// Settings of a partition of a topic.
pub(super) fn partition_settings(
    topic_id: TopicId,
    partition: PartitionId,
    config: &TopicConfig,
) -> PartitionSettings {
    let log = LogOptions {
        topic_id,
        partition,
        segment_bytes_max: u32::try_from(config.segment_bytes).unwrap_or(u32::MAX),
        segment_age_max: config.segment_age,
        batch_bytes_max: config.message_bytes_max,
        index_interval_bytes: INDEX_INTERVAL_BYTES,
        producer_count_max: PRODUCER_COUNT_MAX,
        producer_age_max: PRODUCER_AGE_MAX,
        sealed_files_max: SEALED_FILES_MAX,
    };
    let drops = config.cleanup_policy != CleanupPolicy::Compact;
    let retention = RetentionPolicy {
        age_max: config.retention.filter(|_| drops),
        bytes_max: config.retention_bytes.filter(|_| drops),
    };
    let compacts = config.cleanup_policy != CleanupPolicy::Delete;
    let compaction = compacts.then_some(CompactionOptions {
        map_bytes_max: KEY_MAP_BYTES_MAX,
        lag: config.compaction_lag,
        tombstone_retention: config.tombstone_retention,
        producer_age_max: PRODUCER_AGE_MAX,
        dirty_percent_min: DIRTY_PERCENT_MIN,
    });
    let (durability, flush_interval) = (config.durability, config.flush_interval);
    let is_internal = false;
    PartitionSettings { durability, flush_interval, log, retention, compaction, is_internal }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn retention_is_for_what_is_dropped_and_compaction_for_keys() {
        for (policy, drops, compacts) in [
            (CleanupPolicy::Delete, true, false),
            (CleanupPolicy::Compact, false, true),
            (CleanupPolicy::CompactDelete, true, true),
        ] {
            let config = TopicConfig {
                cleanup_policy: policy,
                retention: Some(Duration::from_secs(5)),
                retention_bytes: Some(7),
                ..TopicConfig::default()
            };
            let topic_id = TopicId(Uuid::from_u128(1));
            let settings = partition_settings(topic_id, PartitionId(0), &config);
            let kept = RetentionPolicy {
                age_max: drops.then_some(Duration::from_secs(5)),
                bytes_max: drops.then_some(7),
            };
            assert_eq!(settings.retention, kept, "{policy:?}");
            assert_eq!(settings.compaction.is_some(), compacts, "{policy:?}");
        }
    }
}

//! Settings of a topic as JSON, by the names of the protocol.

use riverrun_proto::grpc::v1;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Settings as they come; what is absent stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(super) struct Settings {
    durability: Option<Durability>,
    flush_interval_ms: Option<u32>,
    retention_ms: Option<i64>,
    retention_bytes: Option<i64>,
    segment_bytes: Option<u64>,
    segment_ms: Option<u64>,
    message_bytes_max: Option<u32>,
    cleanup_policy: Option<CleanupPolicy>,
    tombstone_retention_ms: Option<u64>,
    compaction_lag_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Durability {
    Os,
    Interval,
    Fsync,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CleanupPolicy {
    Delete,
    Compact,
    CompactDelete,
}

impl Settings {
    /// As the services take them.
    pub(super) fn given(&self) -> v1::TopicConfig {
        let durability = self.durability.map(|durability| match durability {
            Durability::Os => v1::Durability::Os as i32,
            Durability::Interval => v1::Durability::Interval as i32,
            Durability::Fsync => v1::Durability::Fsync as i32,
        });
        let cleanup_policy = self.cleanup_policy.map(|policy| match policy {
            CleanupPolicy::Delete => v1::CleanupPolicy::Delete as i32,
            CleanupPolicy::Compact => v1::CleanupPolicy::Compact as i32,
            CleanupPolicy::CompactDelete => v1::CleanupPolicy::CompactDelete as i32,
        });
        v1::TopicConfig {
            durability,
            flush_interval_ms: self.flush_interval_ms,
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes,
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_ms,
            message_bytes_max: self.message_bytes_max,
            cleanup_policy,
            tombstone_retention_ms: self.tombstone_retention_ms,
            compaction_lag_ms: self.compaction_lag_ms,
        }
    }
}

/// The settings that are set, as JSON.
pub(super) fn settings(config: &v1::TopicConfig) -> Value {
    let durability = config.durability.map(|_| match config.durability() {
        v1::Durability::Os => "os",
        v1::Durability::Interval => "interval",
        v1::Durability::Fsync | v1::Durability::Unspecified => "fsync",
    });
    let cleanup_policy = config.cleanup_policy.map(|_| match config.cleanup_policy() {
        v1::CleanupPolicy::Delete | v1::CleanupPolicy::Unspecified => "delete",
        v1::CleanupPolicy::Compact => "compact",
        v1::CleanupPolicy::CompactDelete => "compact_delete",
    });
    let all: [(&str, Option<Value>); 10] = [
        ("durability", durability.map(Value::from)),
        ("flush_interval_ms", config.flush_interval_ms.map(Value::from)),
        ("retention_ms", config.retention_ms.map(Value::from)),
        ("retention_bytes", config.retention_bytes.map(Value::from)),
        ("segment_bytes", config.segment_bytes.map(Value::from)),
        ("segment_ms", config.segment_ms.map(Value::from)),
        ("message_bytes_max", config.message_bytes_max.map(Value::from)),
        ("cleanup_policy", cleanup_policy.map(Value::from)),
        ("tombstone_retention_ms", config.tombstone_retention_ms.map(Value::from)),
        ("compaction_lag_ms", config.compaction_lag_ms.map(Value::from)),
    ];
    let set = all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(set.collect::<Map<_, _>>())
}

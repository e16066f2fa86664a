//! Settings of a topic.

use std::time::Duration;

use riverrun_proto::grpc::v1;

use crate::durability::Durability;

/// What retention does with old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// Drops whole segments past the retention limits. The default.
    Delete,
    /// Keeps the newest record of each key.
    Compact,
    /// Both.
    CompactDelete,
}

/// A limit that may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit<T> {
    /// No limit.
    Unlimited,
    /// Up to here.
    At(T),
}

/// Settings of a topic. `None` has the default when creating, and keeps its value when altering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicConfig {
    /// When produce is acknowledged. Default `Fsync`.
    pub durability: Option<Durability>,
    /// Longest time between background flushes with `Interval`: 1 ms to 60 s. Default 50 ms.
    pub flush_interval: Option<Duration>,
    /// Age at which records may be dropped. Default 7 days.
    pub retention_time: Option<Limit<Duration>>,
    /// Size of a partition past which old segments may be dropped. Default unlimited.
    pub retention_bytes: Option<Limit<u64>>,
    /// Size at which a segment is sealed: 1 MiB to 1 GiB. Default 256 MiB.
    pub segment_bytes: Option<u64>,
    /// Age at which a segment is sealed: 1 s or more. Default 7 days.
    pub segment_time: Option<Duration>,
    /// Largest record batch: 1 KiB to 64 MiB. Default 4 MiB.
    pub message_bytes_max: Option<u32>,
    /// What retention does. Default `Delete`.
    pub cleanup_policy: Option<CleanupPolicy>,
    /// Tombstones are kept at least this long by compaction. Default 1 day.
    pub tombstone_retention: Option<Duration>,
    /// Records younger than this are not compacted. Default 0.
    pub compaction_lag: Option<Duration>,
}

impl TopicConfig {
    pub(super) fn from_wire(wire: &v1::TopicConfig) -> TopicConfig {
        let cleanup = |policy| match v1::CleanupPolicy::try_from(policy) {
            Ok(v1::CleanupPolicy::Compact) => CleanupPolicy::Compact,
            Ok(v1::CleanupPolicy::CompactDelete) => CleanupPolicy::CompactDelete,
            Ok(v1::CleanupPolicy::Delete | v1::CleanupPolicy::Unspecified) | Err(_) => {
                CleanupPolicy::Delete
            }
        };
        TopicConfig {
            durability: wire
                .durability
                .and_then(|level| v1::Durability::try_from(level).ok())
                .map(Durability::from_wire),
            flush_interval: wire.flush_interval_ms.map(|ms| Duration::from_millis(ms.into())),
            retention_time: wire.retention_ms.map(|ms| limit(ms, Duration::from_millis)),
            retention_bytes: wire.retention_bytes.map(|bytes| limit(bytes, |bytes| bytes)),
            segment_bytes: wire.segment_bytes,
            segment_time: wire.segment_ms.map(Duration::from_millis),
            message_bytes_max: wire.message_bytes_max,
            cleanup_policy: wire.cleanup_policy.map(cleanup),
            tombstone_retention: wire.tombstone_retention_ms.map(Duration::from_millis),
            compaction_lag: wire.compaction_lag_ms.map(Duration::from_millis),
        }
    }

    pub(super) fn to_wire(&self) -> v1::TopicConfig {
        let cleanup = |policy| match policy {
            CleanupPolicy::Delete => v1::CleanupPolicy::Delete,
            CleanupPolicy::Compact => v1::CleanupPolicy::Compact,
            CleanupPolicy::CompactDelete => v1::CleanupPolicy::CompactDelete,
        };
        v1::TopicConfig {
            durability: self.durability.map(|level| level.to_wire().into()),
            flush_interval_ms: self.flush_interval.map(|time| u32_of(millis(time))),
            retention_ms: self.retention_time.map(|limit| signed(limit, millis)),
            retention_bytes: self.retention_bytes.map(|limit| signed(limit, |bytes| bytes)),
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_time.map(millis),
            message_bytes_max: self.message_bytes_max,
            cleanup_policy: self.cleanup_policy.map(|policy| cleanup(policy).into()),
            tombstone_retention_ms: self.tombstone_retention.map(millis),
            compaction_lag_ms: self.compaction_lag.map(millis),
        }
    }
}

/// Whole milliseconds, rounded up so that a time that was set is never sent as zero.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn u32_of(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}

fn limit<T>(wire: i64, of: impl Fn(u64) -> T) -> Limit<T> {
    u64::try_from(wire).map_or(Limit::Unlimited, |value| Limit::At(of(value)))
}

fn signed<T>(limit: Limit<T>, of: impl Fn(T) -> u64) -> i64 {
    match limit {
        Limit::Unlimited => -1,
        Limit::At(value) => i64::try_from(of(value)).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_wire() {
        let config = TopicConfig {
            durability: Some(Durability::Interval),
            flush_interval: Some(Duration::from_millis(20)),
            retention_time: Some(Limit::Unlimited),
            retention_bytes: Some(Limit::At(1 << 30)),
            segment_bytes: Some(1 << 20),
            segment_time: Some(Duration::from_secs(60)),
            message_bytes_max: Some(1024),
            cleanup_policy: Some(CleanupPolicy::CompactDelete),
            tombstone_retention: Some(Duration::from_secs(3)),
            compaction_lag: Some(Duration::from_micros(1)),
        };
        let back = TopicConfig::from_wire(&config.to_wire());
        let rounded = Some(Duration::from_millis(1));
        assert_eq!(back, TopicConfig { compaction_lag: rounded, ..config });
        let empty = TopicConfig::default();
        assert_eq!(TopicConfig::from_wire(&empty.to_wire()), empty);
    }
}

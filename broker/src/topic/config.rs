//! Settings of a topic: which are given, what the others default to, and their bounds.
//!
//! The settings that were given are kept as the message `riverrun.v1.TopicConfig`, because that message is
//! what the metadata log stores; [`TopicConfig`] is the typed value in force that the house works with.

use std::{borrow::Cow, time::Duration};

use riverrun_proto::{grpc::v1, limits};
use thiserror::Error;

use crate::partition::Durability;

/// What retention does with old records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// Drop whole segments past the limits.
    #[default]
    Delete,
    /// Keep the newest record of each key.
    Compact,
    /// Both.
    CompactDelete,
}

/// Every setting of a topic with its value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// When produce is acknowledged.
    pub durability: Durability,
    /// Longest time between background flushes with [`Durability::Interval`].
    pub flush_interval: Duration,
    /// Age at which records may be dropped; `None` keeps them for ever.
    pub retention: Option<Duration>,
    /// Size past which old segments may be dropped; `None` has no limit.
    pub retention_bytes: Option<u64>,
    /// Size at which a segment is sealed.
    pub segment_bytes: u64,
    /// Age at which a segment is sealed.
    pub segment_age: Duration,
    /// Largest record batch.
    pub message_bytes_max: u32,
    /// What retention does.
    pub cleanup_policy: CleanupPolicy,
    /// Compaction keeps tombstones at least this long.
    pub tombstone_retention: Duration,
    /// Compaction leaves records younger than this alone.
    pub compaction_lag: Duration,
}

/// A setting that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`config.{setting}` must be {expected}, found `{found}`")]
pub struct InvalidSetting {
    /// Name as in the message.
    pub setting: &'static str,
    /// What is allowed.
    pub expected: Cow<'static, str>,
    /// What came.
    pub found: String,
}

/// A name in `reset` that is no setting.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`reset` must name settings of a topic, found `{}`", .name.escape_debug())]
pub struct UnknownSetting {
    /// What came.
    pub name: String,
}

const MS_MAX: u64 = i64::MAX as u64;

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig {
            durability: Durability::Fsync,
            flush_interval: Duration::from_millis(50),
            retention: Some(Duration::from_millis(604_800_000)),
            retention_bytes: None,
            segment_bytes: 256 << 20,
            segment_age: Duration::from_millis(604_800_000),
            message_bytes_max: limits::BATCH_BYTES_DEFAULT,
            cleanup_policy: CleanupPolicy::Delete,
            tombstone_retention: Duration::from_millis(86_400_000),
            compaction_lag: Duration::ZERO,
        }
    }
}

impl TopicConfig {
    /// The values in force when `given` are the settings that were given.
    ///
    /// # Errors
    /// The first setting outside its bounds.
    pub fn from_given(given: &v1::TopicConfig) -> Result<TopicConfig, InvalidSetting> {
        let default = TopicConfig::default();
        Ok(TopicConfig {
            durability: durability(given.durability)?,
            flush_interval: match given.flush_interval_ms {
                None => default.flush_interval,
                Some(ms @ 1..=60_000) => Duration::from_millis(u64::from(ms)),
                Some(ms) => return Err(invalid("flush_interval_ms", "1 to 60000", ms)),
            },
            retention: match given.retention_ms {
                None => default.retention,
                Some(ms) => limit("retention_ms", ms)?.map(Duration::from_millis),
            },
            retention_bytes: match given.retention_bytes {
                None => default.retention_bytes,
                Some(bytes) => limit("retention_bytes", bytes)?,
            },
            segment_bytes: match given.segment_bytes {
                None => default.segment_bytes,
                Some(bytes @ 0x10_0000..=0x4000_0000) => bytes,
                Some(bytes) => {
                    return Err(invalid(
                        "segment_bytes",
                        "1048576 (1 MiB) to 1073741824 (1 GiB)",
                        bytes,
                    ));
                }
            },
            segment_age: match given.segment_ms {
                None => default.segment_age,
                Some(ms @ 1_000..=MS_MAX) => Duration::from_millis(ms),
                Some(ms) => return Err(invalid("segment_ms", "1000 or more", ms)),
            },
            message_bytes_max: match given.message_bytes_max {
                None => default.message_bytes_max,
                Some(bytes @ 0x400..=limits::BATCH_BYTES_MAX) => bytes,
                Some(bytes) => {
                    return Err(invalid(
                        "message_bytes_max",
                        "1024 (1 KiB) to 67108864 (64 MiB)",
                        bytes,
                    ));
                }
            },
            cleanup_policy: cleanup_policy(given.cleanup_policy)?,
            tombstone_retention: age("tombstone_retention_ms", given.tombstone_retention_ms)?
                .unwrap_or(default.tombstone_retention),
            compaction_lag: age("compaction_lag_ms", given.compaction_lag_ms)?
                .unwrap_or(default.compaction_lag),
        })
        .and_then(TopicConfig::check_together)
    }

    /// A segment must hold at least one batch of the largest size.
    fn check_together(self) -> Result<TopicConfig, InvalidSetting> {
        let (message, segment) = (u64::from(self.message_bytes_max), self.segment_bytes);
        if message + SEGMENT_OVERHEAD_BYTES > segment {
            let (most, least) =
                (segment - SEGMENT_OVERHEAD_BYTES, message + SEGMENT_OVERHEAD_BYTES);
            let expected = format!(
                "at least 16 KiB less than `segment_bytes`, which is `{segment}`: also give \
                 `message_bytes_max={most}` or less, or `segment_bytes={least}` or more"
            );
            return Err(invalid("message_bytes_max", expected, message));
        }
        Ok(self)
    }

    /// Every setting as the message shows it.
    pub fn to_message(&self) -> v1::TopicConfig {
        v1::TopicConfig {
            durability: Some(durability_message(self.durability) as i32),
            flush_interval_ms: Some(
                u32::try_from(self.flush_interval.as_millis()).unwrap_or(u32::MAX),
            ),
            retention_ms: Some(self.retention.map_or(-1, signed_ms)),
            retention_bytes: Some(
                self.retention_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            ),
            segment_bytes: Some(self.segment_bytes),
            segment_ms: Some(signed_ms(self.segment_age).unsigned_abs()),
            message_bytes_max: Some(self.message_bytes_max),
            cleanup_policy: Some(match self.cleanup_policy {
                CleanupPolicy::Delete => v1::CleanupPolicy::Delete as i32,
                CleanupPolicy::Compact => v1::CleanupPolicy::Compact as i32,
                CleanupPolicy::CompactDelete => v1::CleanupPolicy::CompactDelete as i32,
            }),
            tombstone_retention_ms: Some(signed_ms(self.tombstone_retention).unsigned_abs()),
            compaction_lag_ms: Some(signed_ms(self.compaction_lag).unsigned_abs()),
        }
    }
}

/// Room in a segment that a batch does not get: header block, entry headers, seal.
const SEGMENT_OVERHEAD_BYTES: u64 = 16 << 10;

/// As the message names it.
pub fn durability_message(durability: Durability) -> v1::Durability {
    match durability {
        Durability::Os => v1::Durability::Os,
        Durability::Interval => v1::Durability::Interval,
        Durability::Fsync => v1::Durability::Fsync,
    }
}

/// `base` with the settings of `change` put over it.
pub fn overlaid(base: &v1::TopicConfig, change: &v1::TopicConfig) -> v1::TopicConfig {
    v1::TopicConfig {
        durability: change.durability.or(base.durability),
        flush_interval_ms: change.flush_interval_ms.or(base.flush_interval_ms),
        retention_ms: change.retention_ms.or(base.retention_ms),
        retention_bytes: change.retention_bytes.or(base.retention_bytes),
        segment_bytes: change.segment_bytes.or(base.segment_bytes),
        segment_ms: change.segment_ms.or(base.segment_ms),
        message_bytes_max: change.message_bytes_max.or(base.message_bytes_max),
        cleanup_policy: change.cleanup_policy.or(base.cleanup_policy),
        tombstone_retention_ms: change.tombstone_retention_ms.or(base.tombstone_retention_ms),
        compaction_lag_ms: change.compaction_lag_ms.or(base.compaction_lag_ms),
    }
}

/// Forgets one setting, so that it has its default again.
///
/// # Errors
/// When there is no setting of that name.
pub fn forget(given: &mut v1::TopicConfig, name: &str) -> Result<(), UnknownSetting> {
    match name {
        "durability" => given.durability = None,
        "flush_interval_ms" => given.flush_interval_ms = None,
        "retention_ms" => given.retention_ms = None,
        "retention_bytes" => given.retention_bytes = None,
        "segment_bytes" => given.segment_bytes = None,
        "segment_ms" => given.segment_ms = None,
        "message_bytes_max" => given.message_bytes_max = None,
        "cleanup_policy" => given.cleanup_policy = None,
        "tombstone_retention_ms" => given.tombstone_retention_ms = None,
        "compaction_lag_ms" => given.compaction_lag_ms = None,
        other => return Err(UnknownSetting { name: other.chars().take(100).collect() }),
    }
    Ok(())
}

fn durability(given: Option<i32>) -> Result<Durability, InvalidSetting> {
    let Some(number) = given else { return Ok(Durability::default()) };
    match v1::Durability::try_from(number) {
        Ok(v1::Durability::Unspecified) => Ok(Durability::default()),
        Ok(v1::Durability::Os) => Ok(Durability::Os),
        Ok(v1::Durability::Interval) => Ok(Durability::Interval),
        Ok(v1::Durability::Fsync) => Ok(Durability::Fsync),
        Err(_) => Err(invalid("durability", "OS, INTERVAL or FSYNC", number)),
    }
}

fn cleanup_policy(given: Option<i32>) -> Result<CleanupPolicy, InvalidSetting> {
    let Some(number) = given else { return Ok(CleanupPolicy::default()) };
    match v1::CleanupPolicy::try_from(number) {
        Ok(v1::CleanupPolicy::Unspecified | v1::CleanupPolicy::Delete) => Ok(CleanupPolicy::Delete),
        Ok(v1::CleanupPolicy::Compact) => Ok(CleanupPolicy::Compact),
        Ok(v1::CleanupPolicy::CompactDelete) => Ok(CleanupPolicy::CompactDelete),
        Err(_) => Err(invalid("cleanup_policy", "DELETE, COMPACT or COMPACT_DELETE", number)),
    }
}

/// A limit where -1 means none.
fn limit(setting: &'static str, given: i64) -> Result<Option<u64>, InvalidSetting> {
    match u64::try_from(given) {
        Ok(number) => Ok(Some(number)),
        Err(_) if given == -1 => Ok(None),
        Err(_) => Err(invalid(setting, "-1 (no limit) or 0 or more", given)),
    }
}

fn age(setting: &'static str, given: Option<u64>) -> Result<Option<Duration>, InvalidSetting> {
    match given {
        None => Ok(None),
        Some(ms @ 0..=MS_MAX) => Ok(Some(Duration::from_millis(ms))),
        Some(ms) => Err(invalid(setting, "0 to 9223372036854775807", ms)),
    }
}

fn invalid(
    setting: &'static str,
    expected: impl Into<Cow<'static, str>>,
    found: impl ToString,
) -> InvalidSetting {
    InvalidSetting { setting, expected: expected.into(), found: found.to_string() }
}

fn signed_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_given_is_the_documented_defaults() {
        let config = TopicConfig::from_given(&v1::TopicConfig::default()).unwrap();
        assert_eq!(config, TopicConfig::default());
        let shown = config.to_message();
        assert_eq!(shown.durability, Some(v1::Durability::Fsync as i32));
        assert_eq!(shown.flush_interval_ms, Some(50));
        assert_eq!((shown.retention_ms, shown.retention_bytes), (Some(604_800_000), Some(-1)));
        assert_eq!((shown.segment_bytes, shown.segment_ms), (Some(256 << 20), Some(604_800_000)));
        assert_eq!(shown.message_bytes_max, Some(4 << 20));
        assert_eq!(
            (shown.tombstone_retention_ms, shown.compaction_lag_ms),
            (Some(86_400_000), Some(0))
        );
    }

    #[test]
    fn what_is_shown_is_accepted_and_means_the_same() {
        let given = v1::TopicConfig {
            durability: Some(v1::Durability::Interval as i32),
            flush_interval_ms: Some(7),
            retention_ms: Some(-1),
            retention_bytes: Some(1 << 30),
            segment_bytes: Some(1 << 20),
            segment_ms: Some(1_000),
            message_bytes_max: Some(64 << 10),
            cleanup_policy: Some(v1::CleanupPolicy::CompactDelete as i32),
            tombstone_retention_ms: Some(0),
            compaction_lag_ms: Some(5),
        };
        let config = TopicConfig::from_given(&given).unwrap();
        assert_eq!(config.to_message(), given);
    }

    #[test]
    fn settings_outside_their_bounds_are_named() {
        let check = |given: v1::TopicConfig, setting: &str| {
            assert_eq!(TopicConfig::from_given(&given).unwrap_err().setting, setting);
        };
        let none = v1::TopicConfig::default();
        check(v1::TopicConfig { durability: Some(9), ..none }, "durability");
        check(v1::TopicConfig { flush_interval_ms: Some(0), ..none }, "flush_interval_ms");
        check(v1::TopicConfig { flush_interval_ms: Some(60_001), ..none }, "flush_interval_ms");
        check(v1::TopicConfig { retention_ms: Some(-2), ..none }, "retention_ms");
        check(v1::TopicConfig { retention_bytes: Some(i64::MIN), ..none }, "retention_bytes");
        check(v1::TopicConfig { segment_bytes: Some((1 << 20) - 1), ..none }, "segment_bytes");
        check(v1::TopicConfig { segment_bytes: Some((1 << 30) + 1), ..none }, "segment_bytes");
        check(v1::TopicConfig { segment_ms: Some(999), ..none }, "segment_ms");
        check(v1::TopicConfig { message_bytes_max: Some(1_023), ..none }, "message_bytes_max");
        check(
            v1::TopicConfig { message_bytes_max: Some((64 << 20) + 1), ..none },
            "message_bytes_max",
        );
        check(v1::TopicConfig { cleanup_policy: Some(-1), ..none }, "cleanup_policy");
        check(v1::TopicConfig { compaction_lag_ms: Some(u64::MAX), ..none }, "compaction_lag_ms");
        let tight = v1::TopicConfig { segment_bytes: Some(1 << 20), ..none };
        check(tight, "message_bytes_max");
    }

    #[test]
    fn changes_lie_over_what_was_given() {
        let base = v1::TopicConfig {
            segment_ms: Some(5_000),
            flush_interval_ms: Some(9),
            ..Default::default()
        };
        let change = v1::TopicConfig { segment_ms: Some(6_000), ..Default::default() };
        let mut given = overlaid(&base, &change);
        assert_eq!((given.segment_ms, given.flush_interval_ms), (Some(6_000), Some(9)));
        forget(&mut given, "flush_interval_ms").unwrap();
        assert_eq!(given, change);
        assert!(forget(&mut given, "flush_interval").is_err());
    }
}

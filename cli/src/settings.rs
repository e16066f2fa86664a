//! Settings of a topic as `key=value`, and back as text and JSON. Keys are spelled as in the protocol.

use std::time::Duration;

use riverrun_client::{CleanupPolicy, Durability, Limit, TopicConfig};
use serde_json::{Map, Value, json};

use crate::units;

/// Every key, in the order shown.
pub(crate) const KEYS: [&str; 10] = [
    "durability",
    "flush_interval_ms",
    "retention_ms",
    "retention_bytes",
    "segment_bytes",
    "segment_ms",
    "message_bytes_max",
    "cleanup_policy",
    "tombstone_retention_ms",
    "compaction_lag_ms",
];

/// Reads `key=value` pairs into one configuration; a key given twice is refused.
pub(crate) fn parse(pairs: &[String]) -> Result<TopicConfig, String> {
    let mut config = TopicConfig::default();
    let mut seen = Vec::new();
    for pair in pairs {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            format!("`{pair}` is not a setting; write KEY=VALUE, for instance retention_ms=7d")
        })?;
        let key = check_key(key.trim())?;
        if seen.contains(&key) {
            return Err(format!("`{key}` is set twice"));
        }
        seen.push(key);
        set(&mut config, key, value.trim()).map_err(|why| format!("`{key}`: {why}"))?;
    }
    Ok(config)
}

/// The key as listed, or a message with the nearest one.
pub(crate) fn check_key(key: &str) -> Result<&'static str, String> {
    if let Some(known) = KEYS.iter().find(|known| **known == key) {
        return Ok(known);
    }
    let hint = match units::nearest(key, KEYS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", KEYS.join(", ")),
    };
    Err(format!("a topic has no setting `{key}`; {hint}"))
}

fn set(config: &mut TopicConfig, key: &str, value: &str) -> Result<(), String> {
    let millis = |value: &str| units::parse_millis(value).map(Duration::from_millis);
    match key {
        "durability" => config.durability = Some(parse_durability(value)?),
        "flush_interval_ms" => config.flush_interval = Some(millis(value)?),
        "retention_ms" => config.retention_time = Some(limit(value, millis)?),
        "retention_bytes" => config.retention_bytes = Some(limit(value, units::parse_bytes)?),
        "segment_bytes" => config.segment_bytes = Some(units::parse_bytes(value)?),
        "segment_ms" => config.segment_time = Some(millis(value)?),
        "message_bytes_max" => {
            let size = units::parse_bytes(value)?;
            let size = u32::try_from(size).map_err(|_| format!("`{value}` is more than 4 GiB"))?;
            config.message_bytes_max = Some(size);
        }
        "cleanup_policy" => config.cleanup_policy = Some(parse_cleanup(value)?),
        "tombstone_retention_ms" => config.tombstone_retention = Some(millis(value)?),
        _ => config.compaction_lag = Some(millis(value)?),
    }
    Ok(())
}

/// A limit, where `-1`, `unlimited` and `forever` stand for none.
fn limit<T>(value: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Limit<T>, String> {
    match value {
        "-1" | "unlimited" | "forever" => Ok(Limit::Unlimited),
        _ => parse(value).map(Limit::At).map_err(|why| format!("{why}, or -1 for no limit")),
    }
}

fn parse_durability(value: &str) -> Result<Durability, String> {
    match value {
        "os" => Ok(Durability::Os),
        "interval" => Ok(Durability::Interval),
        "fsync" => Ok(Durability::Fsync),
        _ => Err(format!("`{value}` is not a durability; there are os, interval and fsync")),
    }
}

fn parse_cleanup(value: &str) -> Result<CleanupPolicy, String> {
    match value {
        "delete" => Ok(CleanupPolicy::Delete),
        "compact" => Ok(CleanupPolicy::Compact),
        "compact,delete" | "compact_delete" => Ok(CleanupPolicy::CompactDelete),
        _ => Err(format!(
            "`{value}` is not a cleanup policy; there are delete, compact and compact_delete"
        )),
    }
}

/// A durability as it is spelled.
pub(crate) fn durability(level: Durability) -> &'static str {
    match level {
        Durability::Accepted => "accepted",
        Durability::Os => "os",
        Durability::Interval => "interval",
        Durability::Fsync => "fsync",
    }
}

/// One value, for people and for programs.
struct Shown {
    text: String,
    json: Value,
}

fn word(word: &'static str) -> Shown {
    Shown { text: word.to_owned(), json: json!(word) }
}

fn size(bytes: u64) -> Shown {
    Shown { text: units::bytes(bytes), json: json!(bytes) }
}

fn time(time: Duration) -> Shown {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Shown { text: units::millis(ms), json: json!(ms) }
}

fn limited<T>(limit: Limit<T>, shown: fn(T) -> Shown) -> Shown {
    match limit {
        Limit::Unlimited => Shown { text: "unlimited".to_owned(), json: json!(-1) },
        Limit::At(value) => shown(value),
    }
}

fn shown(config: &TopicConfig) -> Vec<(&'static str, Shown)> {
    let cleanup = |policy| match policy {
        CleanupPolicy::Delete => "delete",
        CleanupPolicy::Compact => "compact",
        CleanupPolicy::CompactDelete => "compact_delete",
    };
    let values = [
        config.durability.map(|level| word(durability(level))),
        config.flush_interval.map(time),
        config.retention_time.map(|limit| limited(limit, time)),
        config.retention_bytes.map(|limit| limited(limit, size)),
        config.segment_bytes.map(size),
        config.segment_time.map(time),
        config.message_bytes_max.map(|bytes| size(bytes.into())),
        config.cleanup_policy.map(|policy| word(cleanup(policy))),
        config.tombstone_retention.map(time),
        config.compaction_lag.map(time),
    ];
    KEYS.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Keys with their values for people, those that are set.
pub(crate) fn rows(config: &TopicConfig) -> Vec<(&'static str, String)> {
    shown(config).into_iter().map(|(key, value)| (key, value.text)).collect()
}

/// Keys with their values, those that are set.
pub(crate) fn to_json(config: &TopicConfig) -> Value {
    let fields: Map<String, Value> =
        shown(config).into_iter().map(|(key, value)| (key.to_owned(), value.json)).collect();
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &[&str]) -> Result<TopicConfig, String> {
        parse(&pairs.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_key_can_be_set_and_shown() {
        let pairs = [
            "durability=interval",
            "flush_interval_ms=200ms",
            "retention_ms=-1",
            "retention_bytes=10GiB",
            "segment_bytes=64MiB",
            "segment_ms=1h",
            "message_bytes_max=1MiB",
            "cleanup_policy=compact",
            "tombstone_retention_ms=2d",
            "compaction_lag_ms=0",
        ];
        let config = parsed(&pairs).unwrap();
        let keys: Vec<&str> = rows(&config).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, KEYS);
        let expected = json!({
            "durability": "interval", "flush_interval_ms": 200, "retention_ms": -1,
            "retention_bytes": 10_737_418_240_u64, "segment_bytes": 67_108_864, "segment_ms": 3_600_000,
            "message_bytes_max": 1_048_576, "cleanup_policy": "compact",
            "tombstone_retention_ms": 172_800_000, "compaction_lag_ms": 0,
        });
        assert_eq!(to_json(&config), expected);
    }

    #[test]
    fn wrong_settings_are_refused_with_what_is_valid() {
        let cases = [
            ("durabilty=fsync", "did you mean `durability`?"),
            ("colour=red", "there are durability"),
            ("retention_ms", "write KEY=VALUE"),
            ("retention_ms=soon", "or -1 for no limit"),
            ("segment_bytes=1kb", "is not a size"),
            ("durability=sync", "there are os, interval and fsync"),
            ("message_bytes_max=5GiB", "more than 4 GiB"),
        ];
        for (pair, message) in cases {
            let refusal = parsed(&[pair]).unwrap_err();
            assert!(refusal.contains(message), "{pair}: {refusal}");
        }
        assert!(parsed(&["segment_ms=1h", "segment_ms=2h"]).unwrap_err().contains("twice"));
    }
}

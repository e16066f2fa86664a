//! The table of all keys: name, bounds, meaning, how to set and how to show.

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf, time::Duration};

use http::Uri;
use ipnet::IpNet;
use toml::Value;

use super::{
    Config,
    units::{format_duration, format_size, parse_duration, parse_size},
};
use crate::traces::WHOLE;

/// One key as documentation shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReference {
    /// Name with its table, for instance `grpc.listen`.
    pub key: &'static str,
    /// Default as TOML.
    pub default: String,
    /// What is allowed.
    pub bounds: String,
    /// What it does.
    pub meaning: &'static str,
}

/// One key.
pub(super) struct Key {
    /// Name with its table.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) meaning: &'static str,
    /// Type, bounds and place.
    pub(super) field: Field,
}

/// Type and bounds of a key, and where it lies in [`Config`].
pub(super) enum Field {
    Flag(fn(&mut Config) -> &mut bool),
    Path(fn(&mut Config) -> &mut PathBuf),
    Address(fn(&mut Config) -> &mut SocketAddr),
    Count32(fn(&mut Config) -> &mut u32, u32, u32),
    Count(fn(&mut Config) -> &mut usize, usize, usize),
    Size32(fn(&mut Config) -> &mut u32, u32, u32),
    Size(fn(&mut Config) -> &mut usize, usize, usize),
    Size64(fn(&mut Config) -> &mut u64, u64, u64),
    Time(fn(&mut Config) -> &mut Duration, Duration, Duration),
    Words(fn(&mut Config) -> &mut Vec<String>),
    Networks(fn(&mut Config) -> &mut Vec<IpNet>),
    /// Empty, or the URL of a server without a path.
    Server(fn(&mut Config) -> &mut String),
    /// A share, kept in millionths.
    Ratio(fn(&mut Config) -> &mut u32),
}

const fn key(name: &'static str, field: Field, meaning: &'static str) -> Key {
    Key { name, meaning, field }
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const TIB: usize = 1 << 40;

/// Every key there is, grouped by table.
pub(super) const KEYS: &[Key] = &[
    key(
        "data_dir",
        Field::Path(|c| &mut c.data_dir),
        "Directory that holds everything the broker keeps. Made when it does not exist.",
    ),
    key(
        "insecure",
        Field::Flag(|c| &mut c.insecure),
        "Allows a non-loopback `grpc.listen` or `http.listen` although connections are neither encrypted nor authenticated.",
    ),
    key(
        "grpc.listen",
        Field::Address(|c| &mut c.grpc.listen),
        "Address of the gRPC door. Port 0 takes a free port.",
    ),
    key(
        "grpc.connections_max",
        Field::Count32(|c| &mut c.grpc.connections_max, 1, 1_000_000),
        "Most connections at once; further ones are closed on arrival.",
    ),
    key(
        "grpc.connections_per_ip_max",
        Field::Count32(|c| &mut c.grpc.connections_per_ip_max, 1, 1_000_000),
        "Most connections at once from one address. Loopback addresses are free of it.",
    ),
    key(
        "grpc.streams_per_connection_max",
        Field::Count32(|c| &mut c.grpc.streams_per_connection_max, 1, 100_000),
        "Most calls at once on one connection.",
    ),
    key(
        "grpc.message_bytes_max",
        Field::Size(|c| &mut c.grpc.message_bytes_max, 64 * KIB, 128 * MIB),
        "Largest request message. A topic's `message_bytes_max` cannot be used beyond it.",
    ),
    key(
        "grpc.window_bytes",
        Field::Size32(|c| &mut c.grpc.window_bytes, 128 << 10, 64 << 20),
        "Bytes of requests that a client may send on one connection before the broker takes them up; one call may send half of it.",
    ),
    key(
        "grpc.header_list_bytes_max",
        Field::Size32(|c| &mut c.grpc.header_list_bytes_max, 1 << 10, 1 << 20),
        "Largest header list of a call.",
    ),
    key(
        "grpc.keepalive_interval",
        Field::Time(|c| &mut c.grpc.keepalive_interval, SECOND, HOUR),
        "Silence after which a connection is asked for a sign of life.",
    ),
    key(
        "grpc.keepalive_timeout",
        Field::Time(|c| &mut c.grpc.keepalive_timeout, SECOND, HOUR),
        "Time a connection has to give a sign of life before it is closed.",
    ),
    key(
        "grpc.handshake_timeout",
        Field::Time(|c| &mut c.grpc.handshake_timeout, MS, HOUR),
        "Time a new connection has to begin speaking HTTP/2 before it is closed.",
    ),
    key("http.enabled", Field::Flag(|c| &mut c.http.enabled), "Whether there is a web door."),
    key(
        "http.listen",
        Field::Address(|c| &mut c.http.listen),
        "Address of the web door. Port 0 takes a free port.",
    ),
    key(
        "http.connections_max",
        Field::Count32(|c| &mut c.http.connections_max, 1, 1_000_000),
        "Most connections at once; further ones are closed on arrival.",
    ),
    key(
        "http.connections_per_ip_max",
        Field::Count32(|c| &mut c.http.connections_per_ip_max, 1, 1_000_000),
        "Most connections at once from one address. Loopback addresses are free of it.",
    ),
    key(
        "http.body_bytes_max",
        Field::Size(|c| &mut c.http.body_bytes_max, 64 * KIB, 128 * MIB),
        "Largest body that is taken as a whole, and largest line of one that is taken line by line.",
    ),
    key(
        "http.header_bytes_max",
        Field::Size(|c| &mut c.http.header_bytes_max, KIB, MIB),
        "Largest request line and headers together.",
    ),
    key(
        "http.header_timeout",
        Field::Time(|c| &mut c.http.header_timeout, MS, HOUR),
        "Time a request line and its headers have to arrive before the connection is closed; also how long a connection may stay without a request.",
    ),
    key(
        "http.body_timeout",
        Field::Time(|c| &mut c.http.body_timeout, MS, HOUR),
        "Longest silence within a body before the request is refused, and longest that a body, or a line of one that is taken line by line, may be behind 1 KiB a second.",
    ),
    key(
        "http.write_timeout",
        Field::Time(|c| &mut c.http.write_timeout, MS, HOUR),
        "Longest time a client may take nothing of a reply that is there before the connection is closed, and longest that it may be behind 1 KiB a second.",
    ),
    key(
        "http.stream_wait",
        Field::Time(|c| &mut c.http.stream_wait, MS, Duration::from_secs(60)),
        "Longest time a long poll of a stream (`/v1/stream/{topic}?live=long-poll`) waits for data.",
    ),
    key(
        "http.cors_origins",
        Field::Words(|c| &mut c.http.cors_origins),
        "Origins whose pages may call, such as `https://example.org`, beyond the door's own; `*` allows all. Requests of other pages are refused.",
    ),
    key(
        "http.hosts",
        Field::Words(|c| &mut c.http.hosts),
        "Names by which a door on a loopback address may be called, beyond `localhost` and addresses. Others are refused, because a page of any site can make its name lead to this machine.",
    ),
    key(
        "limits.in_flight_bytes_max",
        Field::Size(|c| &mut c.limits.in_flight_bytes_max, MIB, TIB),
        "Most bytes of produced batches that wait to be appended, over all connections.",
    ),
    key(
        "limits.in_flight_bytes_per_connection_max",
        Field::Size(|c| &mut c.limits.in_flight_bytes_per_connection_max, 64 * KIB, TIB),
        "Most bytes of produced batches that wait to be appended, for one connection; also the most that it may take of `receive_bytes_max`.",
    ),
    key(
        "limits.receive_bytes_max",
        Field::Size(|c| &mut c.limits.receive_bytes_max, MIB, TIB),
        "Most bytes of request messages being received or worked on, over all connections, beyond `connection_bytes` of each.",
    ),
    key(
        "limits.read_bytes_max",
        Field::Size(|c| &mut c.limits.read_bytes_max, MIB, TIB),
        "Most bytes of replies being made or not yet sent, over all connections, beyond `connection_bytes` of each.",
    ),
    key(
        "limits.read_bytes_per_connection_max",
        Field::Size(|c| &mut c.limits.read_bytes_per_connection_max, MIB, TIB),
        "Most that one connection may take of `read_bytes_max`.",
    ),
    key(
        "limits.connection_bytes",
        Field::Size(|c| &mut c.limits.connection_bytes, 64 * KIB, 1 << 30),
        "Bytes of requests, and as many of replies, that each connection has of its own, whatever others hold.",
    ),
    key(
        "limits.quota_wait",
        Field::Time(|c| &mut c.limits.quota_wait, MS, Duration::from_secs(60)),
        "Longest time a call waits for a free share of a bound before it is refused with `QUOTA_EXCEEDED`.",
    ),
    key(
        "limits.waiters_max",
        Field::Count(|c| &mut c.limits.waiters_max, 1, 10_000_000),
        "Most long polls and watches that wait at once.",
    ),
    key(
        "limits.fetch_bytes_max",
        Field::Size32(|c| &mut c.limits.fetch_bytes_max, 64 << 10, 1 << 30),
        "Largest reply of a fetch, whatever the caller asks for. One batch always fits.",
    ),
    key(
        "limits.topics_max",
        Field::Count32(|c| &mut c.limits.topics_max, 1, 1_000_000),
        "Most topics.",
    ),
    key(
        "limits.partitions_max",
        Field::Count32(|c| &mut c.limits.partitions_max, 1, 1_000_000),
        "Most partitions over all topics.",
    ),
    key(
        "threads.io",
        Field::Count(|c| &mut c.threads.io, 0, 1_024),
        "Threads that serve connections. 0 is one per core.",
    ),
    key(
        "threads.writers",
        Field::Count(|c| &mut c.threads.writers, 0, 256),
        "Threads that append. 0 is one per core, at most 4.",
    ),
    key(
        "threads.flushers",
        Field::Count(|c| &mut c.threads.flushers, 1, 256),
        "Threads that flush; so many partitions are flushed at once.",
    ),
    key(
        "threads.readers",
        Field::Count(|c| &mut c.threads.readers, 1, 256),
        "Most threads that read cold data, for each thread that serves connections.",
    ),
    key(
        "disk.free_bytes_min",
        Field::Size64(|c| &mut c.disk.free_bytes_min, 0, 1 << 50),
        "Produce is refused with `DISK_FULL` while less than this is free; reads, commits and deletes go on.",
    ),
    key(
        "disk.housekeeping_interval",
        Field::Time(|c| &mut c.disk.housekeeping_interval, Duration::from_millis(10), HOUR),
        "Time between rounds of retention, segment ageing and the check of free space.",
    ),
    key(
        "disk.recycle_files_max",
        Field::Count(|c| &mut c.disk.recycle_files_max, 0, 10_000),
        "Most files of dropped segments kept to be written again, which makes flushes cheaper. 0 keeps none.",
    ),
    key(
        "disk.recycle_bytes_max",
        Field::Size64(|c| &mut c.disk.recycle_bytes_max, 0, 1 << 50),
        "Most bytes of those files. All are given back when the disk gets full.",
    ),
    key(
        "disk.scrub_bytes_per_second",
        Field::Size64(|c| &mut c.disk.scrub_bytes_per_second, 0, 1 << 40),
        "Sealed segments are re-read from the disk in the background, to find damage before somebody needs them: at most so much in a second, over all partitions. \"0B\" re-reads nothing.",
    ),
    key(
        "disk.scrub_interval",
        Field::Time(|c| &mut c.disk.scrub_interval, Duration::ZERO, YEAR),
        "Time between the beginnings of two passes over all sealed segments; one that takes longer is followed by the next at once. The first begins a minute after the start. \"0ms\" re-reads nothing.",
    ),
    key(
        "groups.groups_max",
        Field::Count32(|c| &mut c.groups.groups_max, 1, 10_000_000),
        "Most consumer groups.",
    ),
    key(
        "groups.members_per_group_max",
        Field::Count32(|c| &mut c.groups.members_per_group_max, 1, 100_000),
        "Most members of one consumer group.",
    ),
    key(
        "subscriptions.subscriptions_max",
        Field::Count32(|c| &mut c.subscriptions.subscriptions_max, 1, 1_000_000),
        "Most push subscriptions.",
    ),
    key(
        "subscriptions.sessions_max",
        Field::Count32(|c| &mut c.subscriptions.sessions_max, 1, 10_000_000),
        "Most open sessions over all push subscriptions.",
    ),
    key(
        "subscriptions.cache_bytes_max",
        Field::Size(|c| &mut c.subscriptions.cache_bytes_max, MIB, TIB),
        "Most bytes of records kept in memory between the log and the sessions, shared by all subscriptions.",
    ),
    key(
        "webhooks.enabled",
        Field::Flag(|c| &mut c.webhooks.enabled),
        "Whether the records of subscriptions with a webhook are posted. Without it they wait.",
    ),
    key(
        "webhooks.requests_max",
        Field::Count(|c| &mut c.webhooks.requests_max, 1, 100_000),
        "Most requests of webhooks at once, over all endpoints, beyond one of each. Also the most connections that are kept for later requests.",
    ),
    key(
        "webhooks.allow_networks",
        Field::Networks(|c| &mut c.webhooks.allow_networks),
        "Networks that webhooks may post to although they are loopback, private, link-local or otherwise not of the public internet.",
    ),
    key(
        "webhooks.ca_files",
        Field::Words(|c| &mut c.webhooks.ca_files),
        "PEM files of the authorities whose certificates webhooks trust beside those that Mozilla trusts.",
    ),
    key(
        "metrics.partition_labels",
        Field::Flag(|c| &mut c.metrics.partition_labels),
        "Metrics by partition. Without it those of partitions are left out or summed up by topic, which keeps the text short with thousands of partitions.",
    ),
    key(
        "metrics.kafka_exporter_names",
        Field::Flag(|c| &mut c.metrics.kafka_exporter_names),
        "Tells lag and offsets of groups also by the names that Kafka's exporter has, always by partition, so that dashboards and alerts made for it work.",
    ),
    key(
        "traces.otlp_endpoint",
        Field::Server(|c| &mut c.traces.otlp_endpoint),
        "Collector that spans of calls are sent to, by OTLP over gRPC. Only in programs built with the feature `otlp`; others refuse it.",
    ),
    key(
        "traces.sample_ratio",
        Field::Ratio(|c| &mut c.traces.sample_millionths),
        "Share of the calls that become spans, where the caller does not decide by the flag in `traceparent`; in steps of a millionth.",
    ),
];

pub(super) fn reference() -> Vec<KeyReference> {
    let mut defaults = Config::default();
    KEYS.iter()
        .map(|key| KeyReference {
            key: key.name,
            default: key.field.show(&mut defaults),
            bounds: key.field.bounds(),
            meaning: key.meaning,
        })
        .collect()
}

pub(super) fn to_toml(config: &Config) -> String {
    let mut config = config.clone();
    let mut text = String::new();
    let mut table = "";
    for key in KEYS {
        let (key_table, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if key_table != table {
            table = key_table;
            let _ = writeln!(text, "\n[{table}]");
        }
        let _ = writeln!(text, "{name} = {}", key.field.show(&mut config));
    }
    text
}

pub(super) fn to_json(config: &Config) -> serde_json::Value {
    let table = to_toml(config).parse::<toml::Table>();
    json(Value::Table(table.expect("what is shown reads back")))
}

/// A value as JSON has it.
fn json(value: Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.into(),
        Value::Integer(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Boolean(flag) => flag.into(),
        Value::Datetime(time) => time.to_string().into(),
        Value::Array(list) => list.into_iter().map(json).collect(),
        Value::Table(table) => table.into_iter().map(|(key, value)| (key, json(value))).collect(),
    }
}

impl Field {
    /// Sets the field; `None` when the value has the wrong type or lies outside the bounds.
    pub(super) fn set(&self, config: &mut Config, value: &Value) -> Option<()> {
        match self {
            Field::Flag(place) => *place(config) = value.as_bool()?,
            Field::Path(place) => {
                *place(config) = PathBuf::from(value.as_str().filter(|text| !text.is_empty())?);
            }
            Field::Address(place) => *place(config) = value.as_str()?.parse().ok()?,
            Field::Count32(place, min, max) => *place(config) = count(value, *min, *max)?,
            Field::Count(place, min, max) => *place(config) = count(value, *min, *max)?,
            Field::Size32(place, min, max) => *place(config) = size(value, *min, *max)?,
            Field::Size(place, min, max) => *place(config) = size(value, *min, *max)?,
            Field::Size64(place, min, max) => *place(config) = size(value, *min, *max)?,
            Field::Time(place, min, max) => {
                let time = parse_duration(value.as_str()?)?;
                *place(config) = Some(time).filter(|time| (*min..=*max).contains(time))?;
            }
            Field::Words(place) => {
                let words = value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned));
                *place(config) = words.collect::<Option<_>>()?;
            }
            Field::Networks(place) => {
                let networks = value.as_array()?.iter().map(|text| text.as_str()?.parse().ok());
                *place(config) = networks.collect::<Option<_>>()?;
            }
            Field::Server(place) => {
                *place(config) = value.as_str().filter(|text| is_server(text))?.to_owned();
            }
            Field::Ratio(place) => *place(config) = millionths(value)?,
        }
        Some(())
    }

    /// The value in force, as TOML.
    fn show(&self, config: &mut Config) -> String {
        match self {
            Field::Flag(place) => place(config).to_string(),
            Field::Path(place) => Value::from(place(config).to_string_lossy().as_ref()).to_string(),
            Field::Address(place) => format!("\"{}\"", place(config)),
            Field::Count32(place, ..) => place(config).to_string(),
            Field::Count(place, ..) => place(config).to_string(),
            Field::Size32(place, ..) => format!("\"{}\"", format_size(u64::from(*place(config)))),
            Field::Size(place, ..) => format!("\"{}\"", format_size(*place(config) as u64)),
            Field::Size64(place, ..) => format!("\"{}\"", format_size(*place(config))),
            Field::Time(place, ..) => format!("\"{}\"", format_duration(*place(config))),
            Field::Words(place) => Value::from(place(config).clone()).to_string(),
            Field::Networks(place) => {
                let networks: Vec<String> = place(config).iter().map(IpNet::to_string).collect();
                Value::from(networks).to_string()
            }
            Field::Server(place) => Value::from(place(config).as_str()).to_string(),
            Field::Ratio(place) => {
                Value::from(f64::from(*place(config)) / f64::from(WHOLE)).to_string()
            }
        }
    }

    /// What is allowed, as a phrase that follows "must be".
    pub(super) fn bounds(&self) -> String {
        match self {
            Field::Flag(_) => "true or false".into(),
            Field::Path(_) => "a path".into(),
            Field::Address(_) => "an address with a port, such as \"127.0.0.1:7070\"".into(),
            Field::Count32(_, min, max) => format!("a number from {min} to {max}"),
            Field::Count(_, min, max) => format!("a number from {min} to {max}"),
            Field::Size32(_, min, max) => size_bounds(u64::from(*min), u64::from(*max)),
            Field::Size(_, min, max) => size_bounds(*min as u64, *max as u64),
            Field::Size64(_, min, max) => size_bounds(*min, *max),
            Field::Time(_, min, max) => format!(
                "a duration from \"{}\" to \"{}\"",
                format_duration(*min),
                format_duration(*max)
            ),
            Field::Words(_) => "a list of texts".into(),
            Field::Networks(_) => "a list of networks, such as [\"10.0.0.0/8\"]".into(),
            Field::Server(_) => {
                "empty, or http:// with host and port, such as \"http://127.0.0.1:4317\"".into()
            }
            Field::Ratio(_) => "a number from 0 to 1".into(),
        }
    }
}

fn size_bounds(min: u64, max: u64) -> String {
    format!("a size from \"{}\" to \"{}\"", format_size(min), format_size(max))
}

/// Whether this is no server, or one that is spoken to without encryption.
fn is_server(text: &str) -> bool {
    let is_url = |uri: Uri| {
        uri.scheme_str() == Some("http")
            && uri.port_u16().is_some_and(|port| port > 0)
            && uri.path_and_query().is_none_or(|rest| rest.as_str() == "/")
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    };
    text.is_empty() || text.parse().is_ok_and(is_url)
}

/// A number from 0 to 1, in millionths.
#[expect(clippy::cast_possible_truncation, reason = "looked at before: at most a million")]
fn millionths(value: &Value) -> Option<u32> {
    let ratio = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))?;
    (0.0..=1.0).contains(&ratio).then(|| (ratio * f64::from(WHOLE)).round() as u32)
}

fn count<T: TryFrom<i64> + PartialOrd>(value: &Value, min: T, max: T) -> Option<T> {
    T::try_from(value.as_integer()?).ok().filter(|count| (min..=max).contains(count))
}

fn size<T: TryFrom<u64> + PartialOrd>(value: &Value, min: T, max: T) -> Option<T> {
    T::try_from(parse_size(value.as_str()?)?).ok().filter(|bytes| (min..=max).contains(bytes))
}

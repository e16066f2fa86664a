//! Settings of the whole broker: typed, bounded, and described in one table.
//!
//! The file is TOML. Every key stands in [`reference::KEYS`], which parses it, prints it and documents
//! it, so that none can be read without being described. A key that is unknown, has the wrong type or
//! lies outside its bounds is refused with its line; no key is ever ignored.
//!
//! Settings of a topic are not here: see `topic/config.rs`.

mod authorities;
mod error;
mod origins;
mod parse;
mod reference;
#[cfg(test)]
mod tests;
mod units;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::traces::WHOLE;
pub use error::ConfigError;
use ipnet::IpNet;
pub use origins::{Origins, Said};
pub use reference::KeyReference;

pub use units::{format_duration, format_size, parse_duration, parse_size};

/// Settings of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directory that holds everything the broker keeps.
    pub data_dir: PathBuf,
    /// Allows listening on a non-loopback address without TLS and authentication.
    pub insecure: bool,
    /// The gRPC door.
    pub grpc: GrpcConfig,
    /// The web door.
    pub http: HttpConfig,
    /// Bounds of memory.
    pub limits: LimitsConfig,
    /// Numbers of threads.
    pub threads: ThreadsConfig,
    /// The disk.
    pub disk: DiskConfig,
    /// Consumer groups.
    pub groups: GroupsConfig,
    /// Push subscriptions.
    pub subscriptions: SubscriptionsConfig,
    /// Webhooks of push subscriptions.
    pub webhooks: WebhooksConfig,
    /// Metrics.
    pub metrics: MetricsConfig,
    /// Traces.
    pub traces: TracesConfig,
    /// Where all of this came from.
    pub origins: Origins,
}

/// The gRPC door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcConfig {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Most connections at once.
    pub connections_max: u32,
    /// Most connections at once from one address that is not a loopback address.
    pub connections_per_ip_max: u32,
    /// Most calls at once on one connection.
    pub streams_per_connection_max: u32,
    /// Largest request message, in bytes.
    pub message_bytes_max: usize,
    /// Bytes of requests that a client may send before they are taken up, on one connection. A call has half.
    pub window_bytes: u32,
    /// Largest header list of a call, in bytes.
    pub header_list_bytes_max: u32,
    /// Silence after which a connection is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// Time it has to give one.
    pub keepalive_timeout: Duration,
    /// Time a new connection has to begin speaking HTTP/2.
    pub handshake_timeout: Duration,
}

/// The web door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Most connections at once.
    pub connections_max: u32,
    /// Most connections at once from one address that is not a loopback address.
    pub connections_per_ip_max: u32,
    /// Largest body that is taken as a whole, and largest line of one that is taken line by line, in bytes.
    pub body_bytes_max: usize,
    /// Largest request line and header list, in bytes.
    pub header_bytes_max: usize,
    /// Time that a request line and its headers have to arrive; also how long a connection may stay without a
    /// request.
    pub header_timeout: Duration,
    /// Longest silence within a body.
    pub body_timeout: Duration,
    /// Longest time a client may take nothing of a reply that is there.
    pub write_timeout: Duration,
    /// Longest time that a long poll of a stream waits for data.
    pub stream_wait: Duration,
    /// Origins whose pages may call, beyond the door's own.
    pub cors_origins: Vec<String>,
    /// Names by which a door on a loopback address may be called, beyond `localhost` and addresses.
    pub hosts: Vec<String>,
}

/// Bounds of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Most bytes of produced batches that wait to be appended, over all connections.
    pub in_flight_bytes_max: usize,
    /// The same for one connection.
    pub in_flight_bytes_per_connection_max: usize,
    /// Most bytes of request messages being received or worked on, over all connections, beyond what each
    /// connection has of its own.
    pub receive_bytes_max: usize,
    /// Most bytes of replies being made or sent, over all connections, beyond what each connection has of its
    /// own.
    pub read_bytes_max: usize,
    /// The same for one connection.
    pub read_bytes_per_connection_max: usize,
    /// Bytes of requests, and as many of replies, that every connection has of its own.
    pub connection_bytes: usize,
    /// Longest time a call waits for a free share of a bound before it is refused.
    pub quota_wait: Duration,
    /// Most long polls and watches that wait at once.
    pub waiters_max: usize,
    /// Largest reply of a fetch, in bytes, whatever the caller asks for.
    pub fetch_bytes_max: u32,
    /// Most topics.
    pub topics_max: u32,
    /// Most partitions over all topics.
    pub partitions_max: u32,
}

/// Numbers of threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadsConfig {
    /// Threads that serve connections; 0 is one per core.
    pub io: usize,
    /// Threads that append; 0 is one per core, at most 4.
    pub writers: usize,
    /// Threads that flush.
    pub flushers: usize,
    /// Most threads that read cold data, per serving thread.
    pub readers: usize,
}

/// The disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Produce is refused while less than this is free, in bytes.
    pub free_bytes_min: u64,
    /// Time between rounds of retention, segment ageing and the check of free space.
    pub housekeeping_interval: Duration,
    /// Most files of dropped segments kept to be written again.
    pub recycle_files_max: usize,
    /// Most bytes of them.
    pub recycle_bytes_max: u64,
    /// Most bytes a second that are re-read to find damage, over all partitions; 0 re-reads nothing.
    pub scrub_bytes_per_second: u64,
    /// Time between the beginnings of two passes over all sealed segments; zero re-reads nothing.
    pub scrub_interval: Duration,
}

/// Consumer groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupsConfig {
    /// Most groups.
    pub groups_max: u32,
    /// Most members of one group.
    pub members_per_group_max: u32,
}

/// Push subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionsConfig {
    /// Most subscriptions.
    pub subscriptions_max: u32,
    /// Most open sessions over all subscriptions.
    pub sessions_max: u32,
    /// Most bytes of records kept in memory between the log and the sessions.
    pub cache_bytes_max: usize,
}

/// Webhooks of push subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhooksConfig {
    /// Whether records are posted.
    pub enabled: bool,
    /// Most requests at once over all endpoints, beyond one of each.
    pub requests_max: usize,
    /// Networks that may be posted to although they are not of the public internet.
    pub allow_networks: Vec<IpNet>,
    /// PEM files of authorities that are trusted beside the public ones.
    pub ca_files: Vec<String>,
}

/// Metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Series by partition, not only by topic.
    pub partition_labels: bool,
    /// Also the names of lag and offsets that Kafka's exporter has.
    pub kafka_exporter_names: bool,
}

/// Traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracesConfig {
    /// Where spans are sent, as `http://` with host and port; empty for nowhere.
    pub otlp_endpoint: String,
    /// Calls that are told of where their caller does not decide, in millionths.
    pub sample_millionths: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: PathBuf::from("./riverrun-data"),
            insecure: false,
            grpc: GrpcConfig::default(),
            http: HttpConfig::default(),
            limits: LimitsConfig::default(),
            threads: ThreadsConfig { io: 0, writers: 0, flushers: 4, readers: 4 },
            disk: DiskConfig {
                free_bytes_min: 128 << 20,
                housekeeping_interval: Duration::from_secs(1),
                recycle_files_max: 16,
                recycle_bytes_max: 1 << 30,
                scrub_bytes_per_second: 8 << 20,
                scrub_interval: Duration::from_secs(7 * 24 * 3600),
            },
            groups: GroupsConfig { groups_max: 10_000, members_per_group_max: 1_000 },
            subscriptions: SubscriptionsConfig {
                subscriptions_max: 10_000,
                sessions_max: 50_000,
                cache_bytes_max: 64 << 20,
            },
            webhooks: WebhooksConfig {
                enabled: true,
                requests_max: 1_000,
                allow_networks: Vec::new(),
                ca_files: Vec::new(),
            },
            metrics: MetricsConfig { partition_labels: true, kafka_exporter_names: false },
            traces: TracesConfig { otlp_endpoint: String::new(), sample_millionths: WHOLE },
            origins: Origins::default(),
        }
    }
}

impl Default for GrpcConfig {
    fn default() -> GrpcConfig {
        GrpcConfig {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070),
            connections_max: 10_000,
            connections_per_ip_max: 256,
            streams_per_connection_max: 256,
            message_bytes_max: 16 << 20,
            window_bytes: 4 << 20,
            header_list_bytes_max: 16 << 10,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig {
            enabled: true,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7080),
            connections_max: 10_000,
            connections_per_ip_max: 256,
            body_bytes_max: 16 << 20,
            header_bytes_max: 16 << 10,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            stream_wait: Duration::from_secs(20),
            cors_origins: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig {
            in_flight_bytes_max: 256 << 20,
            in_flight_bytes_per_connection_max: 32 << 20,
            receive_bytes_max: 256 << 20,
            read_bytes_max: 512 << 20,
            read_bytes_per_connection_max: 128 << 20,
            connection_bytes: 1 << 20,
            quota_wait: Duration::from_secs(2),
            waiters_max: 20_000,
            fetch_bytes_max: 64 << 20,
            topics_max: 10_000,
            partitions_max: 20_000,
        }
    }
}

impl Config {
    /// Reads settings from the text of a file; `path` is named in errors.
    ///
    /// # Errors
    /// Names file, line, key, bound and what came; for an unknown key also the nearest valid one.
    pub fn from_toml(text: &str, path: &Path) -> Result<Config, ConfigError> {
        parse::parse(text, path)
    }

    /// Reads settings from a file.
    ///
    /// # Errors
    /// As [`Config::from_toml`], and when the file cannot be read.
    pub fn from_file(path: &Path) -> Result<Config, ConfigError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one file read outside the data directory"
        )]
        let bytes = std::fs::read(path)
            .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
        let text = String::from_utf8(bytes).map_err(|error| parse::no_text(&error, path))?;
        Config::from_toml(&text, path)
    }

    /// Checks what no single key can: keys against each other.
    ///
    /// # Errors
    /// Names the keys that contradict each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        let http = self.http.enabled.then_some(("http.listen", self.http.listen));
        for (key, listen) in [("grpc.listen", self.grpc.listen)].into_iter().chain(http) {
            if !listen.ip().is_loopback() && !self.insecure {
                let listen = self.origins.said(key, listen.to_string());
                return Err(ConfigError::NotLoopback { listen });
            }
        }
        let in_flight = ("limits.in_flight_bytes_max", self.limits.in_flight_bytes_max);
        let receive = ("limits.receive_bytes_max", self.limits.receive_bytes_max);
        let message = ("grpc.message_bytes_max", self.grpc.message_bytes_max);
        let body = ("http.body_bytes_max", self.http.body_bytes_max);
        for (small, large) in [(in_flight, message), (receive, message), (receive, body)] {
            if small.1 < large.1 {
                let said =
                    |(key, bytes)| Box::new(self.origins.said(key, format_size(bytes as u64)));
                let (small, large) = (said(small), said(large));
                return Err(ConfigError::Contradiction { small, large });
            }
        }
        Ok(())
    }

    /// Every key with its default, bounds and meaning, for generated documentation.
    pub fn reference() -> Vec<KeyReference> {
        reference::reference()
    }

    /// Every key with its value in force, as TOML.
    pub fn to_toml(&self) -> String {
        reference::to_toml(self)
    }

    /// The same as JSON: an object with one for each table.
    pub fn to_json(&self) -> serde_json::Value {
        reference::to_json(self)
    }
}

impl ThreadsConfig {
    /// Threads that serve connections, with `cores` cores.
    pub fn io_count(&self, cores: usize) -> usize {
        if self.io == 0 { cores.max(1) } else { self.io }
    }

    /// Threads that append, with `cores` cores.
    pub fn writer_count(&self, cores: usize) -> usize {
        if self.writers == 0 { cores.clamp(1, 4) } else { self.writers }
    }
}

//! Whom the comparison is with: how each is had, started, and spoken to.
//!
//! A peer is a server in a process tree of its own on an empty directory, at its documented settings for production. The client side of each is in
//! `drive/`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{case::Workload, error::Result, process::Process};

mod kafka;
mod nats;
mod rabbitmq;
mod redis;
mod riverrun;
mod rocketmq;

/// Longest time a server may take to open its port.
const PORT_TIMEOUT: Duration = Duration::from_secs(120);

/// A queue under test.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// The broker of this repository.
    Riverrun,
    /// Apache Kafka.
    Kafka,
    /// NATS JetStream.
    Nats,
    /// Redis streams.
    Redis,
    /// RabbitMQ, a stream.
    RabbitStream,
    /// RabbitMQ, a quorum queue.
    RabbitQuorum,
    /// Apache RocketMQ.
    Rocketmq,
}

/// What an acknowledgement means.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// On disk, after fsync.
    Fsync,
    /// In memory or in the page cache, as most are shipped.
    Relaxed,
}

impl Level {
    /// Its name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Fsync => "fsync",
            Level::Relaxed => "relaxed",
        }
    }
}

/// A peer that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Install {
    /// The queue.
    pub(crate) peer: Peer,
    /// Version of the server.
    pub(crate) version: String,
    /// Where its files are; the binary itself, or the folder they were unpacked to.
    pub(crate) path: PathBuf,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    /// Its process. This one is measured.
    pub(crate) process: Process,
    /// What it needs beside it, and what ends with it.
    pub(crate) beside: Vec<Process>,
    /// Where clients connect.
    pub(crate) address: String,
    /// Its settings file; empty when it has none.
    pub(crate) settings: String,
}

impl Peer {
    /// Its name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Riverrun => "Riverrun",
            Peer::Nats => "NATS JetStream",
            Peer::Redis => "Redis streams",
            Peer::Kafka => "Apache Kafka",
            Peer::RabbitStream => "RabbitMQ stream",
            Peer::RabbitQuorum => "RabbitMQ quorum queue",
            Peer::Rocketmq => "Apache RocketMQ",
        }
    }

    /// How many times fewer records, or in W6 waiting consumers, than Riverrun it gets.
    pub(crate) fn slowness(self, workload: Workload) -> u64 {
        match (workload, self) {
            // Each consumer of these is a client with threads of its own, or a connection and a process in the server.
            (Workload::W6, Peer::Kafka | Peer::Rocketmq) => 100,
            (Workload::W6, Peer::RabbitStream | Peer::RabbitQuorum) => 10,
            (_, Peer::RabbitQuorum) | (Workload::W4, Peer::Rocketmq) => 40,
            (Workload::W6 | Workload::W7, _) => 1,
            (_, Peer::Nats | Peer::Redis | Peer::RabbitStream) => 4,
            (_, Peer::Riverrun | Peer::Kafka | Peer::Rocketmq) => 1,
        }
    }

    /// Why it cannot do this workload at all.
    pub(crate) fn lacks(self, workload: Workload) -> Option<&'static str> {
        match (self, workload) {
            (Peer::Kafka, Workload::W4) => Some(kafka::NO_SHARE),
            (Peer::RabbitStream, Workload::W4) => {
                Some("a stream has no acknowledgement of one record")
            }
            (Peer::RabbitQuorum, Workload::W7) => Some(rabbitmq::NO_RECORD),
            (Peer::RabbitQuorum, Workload::W5) => {
                Some("each consumer needs a queue with a copy of its own")
            }
            _ => None,
        }
    }

    /// The client library that speaks to it, and how it is used.
    pub(crate) fn client(self) -> &'static str {
        match self {
            Peer::Riverrun => {
                "riverrun-client of this commit, with its defaults: batches of 1 MiB, 32 MiB in flight"
            }
            Peer::Nats => nats::CLIENT,
            Peer::Redis => redis::CLIENT,
            Peer::Kafka => kafka::CLIENT,
            Peer::RabbitStream => rabbitmq::STREAM_CLIENT,
            Peer::RabbitQuorum => rabbitmq::QUEUE_CLIENT,
            Peer::Rocketmq => rocketmq::CLIENT,
        }
    }

    /// Finds it or downloads it to `cache`.
    ///
    /// # Errors
    /// `Skipped` when it cannot be had here.
    pub(crate) fn install(self, cache: &Path, own: &Path) -> Result<Install> {
        match self {
            Peer::Riverrun => riverrun::install(own),
            Peer::Nats => nats::install(cache),
            Peer::Redis => redis::install(cache),
            Peer::Kafka => kafka::install(cache),
            Peer::RabbitStream | Peer::RabbitQuorum => rabbitmq::install(self, cache),
            Peer::Rocketmq => rocketmq::install(cache),
        }
    }
}

impl Install {
    /// What an acknowledgement means at this level, or why the peer has no such level.
    pub(crate) fn meaning(&self, level: Level) -> std::result::Result<&'static str, &'static str> {
        match (self.peer, level) {
            (Peer::Riverrun, Level::Fsync) => Ok("after fdatasync (its default)"),
            (Peer::Riverrun, Level::Relaxed) => Ok("in the page cache (durability `os`)"),
            (Peer::Nats, level) => nats::meaning(&self.version, level),
            (Peer::Kafka, Level::Fsync) => Ok("after fsync (`log.flush.interval.messages=1`)"),
            (Peer::Kafka, Level::Relaxed) => Ok("in the page cache (its default)"),
            (Peer::RabbitStream, Level::Fsync) => Err("the broker never flushes a stream"),
            (Peer::RabbitStream, Level::Relaxed) => Ok("in the page cache (its only mode)"),
            (Peer::RabbitQuorum, Level::Fsync) => Ok("after fsync (its only mode)"),
            (Peer::RabbitQuorum, Level::Relaxed) => Err("a quorum queue always flushes"),
            (Peer::Rocketmq, Level::Fsync) => Ok("after fsync (`flushDiskType=SYNC_FLUSH`)"),
            (Peer::Rocketmq, Level::Relaxed) => Ok("in the page cache (its default)"),
            (Peer::Redis, Level::Fsync) => Ok("after fsync (`appendfsync always`)"),
            (Peer::Redis, Level::Relaxed) => Ok("in memory (`appendfsync everysec`, its default)"),
        }
    }
}

impl Install {
    /// The client side of a measurement, which takes its job as the next argument; `dir` is for what it writes.
    ///
    /// # Errors
    /// When this program does not know where it is itself.
    pub(crate) fn driver(&self, dir: &Path) -> Result<Command> {
        if self.peer == Peer::Rocketmq {
            return Ok(rocketmq::driver(self, dir));
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("drive");
        Ok(command)
    }
}

impl Server {
    /// Kills it, and what it needs beside it.
    pub(crate) fn end(&mut self) {
        self.process.end();
        self.beside.clear();
    }

    /// Starts a server on the directory `dir`, which holds nothing yet, and waits until it takes connections.
    pub(crate) fn start(
        install: &Install,
        level: Level,
        dir: &Path,
        address: &str,
    ) -> Result<Server> {
        let mut server = Server::launch(install, level, dir, address)?;
        server.process.wait_for_port(address, PORT_TIMEOUT)?;
        Ok(server)
    }

    /// Starts a server on the directory `dir`, which holds nothing yet or what an earlier one left.
    pub(crate) fn launch(
        install: &Install,
        level: Level,
        dir: &Path,
        address: &str,
    ) -> Result<Server> {
        match install.peer {
            Peer::Riverrun => riverrun::start(install, level, dir, address),
            Peer::Nats => nats::start(install, level, dir, address),
            Peer::Redis => redis::start(install, level, dir, address),
            Peer::Kafka => kafka::start(install, level, dir, address),
            Peer::RabbitStream | Peer::RabbitQuorum => rabbitmq::start(install, dir, address),
            Peer::Rocketmq => rocketmq::start(install, level, dir, address),
        }
    }
}

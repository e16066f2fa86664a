//! Apache Kafka as a single node that is broker and controller (KRaft), on the JVM with the options of its own start script.

use std::{path::Path, process::Command};

use super::{Install, Level, Peer, Result, Server};
use crate::{
    fetch::maven,
    files,
    process::{self, Process, output},
};

/// Version of the server.
const VERSION: &str = "4.3.1";
/// The client, for the tables.
pub(super) const CLIENT: &str = "rdkafka 0.39 (librdkafka): acks=all, not idempotent (the library's default, and its fastest), batches of 1 MB, 32 MiB in \
    flight, linger 5 ms (for latency 0, and 5 requests in flight)";
/// Why acknowledgements one by one are left out.
pub(super) const NO_SHARE: &str =
    "librdkafka has no share groups, and a consumer group has no acknowledgement of one record";
/// What the start script gives the JVM.
const JVM: [&str; 8] = [
    "-Xms1G",
    "-Xmx1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];
/// Any, since there is one cluster.
const CLUSTER: &str = "AAAAAAAAAAAAAAAAAAAAAQ";

pub(super) fn install(cache: &Path) -> Result<Install> {
    let artifacts = [
        ("org.apache.kafka", "kafka_2.13", VERSION),
        ("org.apache.kafka", "kafka-tools", VERSION),
        // What it says goes to the log of the server.
        ("org.slf4j", "slf4j-simple", "1.7.36"),
    ];
    let path = maven::jars("kafka", &artifacts, cache)?;
    let java = output(Command::new("java").arg("--version"))
        .map_err(|error| crate::error::Error::Skipped(format!("no JVM: {error}")))?;
    let java = java.lines().next().unwrap_or_default();
    Ok(Install { peer: Peer::Kafka, version: format!("{VERSION} on {java}"), path })
}

pub(super) fn start(install: &Install, level: Level, dir: &Path, address: &str) -> Result<Server> {
    let config = dir.join("server.properties");
    let data = dir.join("data");
    let fresh = files::read_text(&config).is_err();
    if fresh {
        let text = properties(level, address, &process::free_address()?, &data);
        files::write_text(&config, &text)?;
        let mut format = java(install);
        format.args(["kafka.tools.StorageTool", "format", "--standalone"]);
        format.args(["--cluster-id", CLUSTER, "--config"]).arg(&config);
        output(&mut format)?;
    }
    let mut command = java(install);
    command.arg("kafka.Kafka").arg(&config);
    let process = Process::start(&command, &dir.join("server.log"))?;
    Ok(Server {
        process,
        beside: Vec::new(),
        address: address.to_owned(),
        settings: files::read_text(&config)?,
    })
}

fn java(install: &Install) -> Command {
    let mut command = Command::new("java");
    command.args(JVM).arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
    command.arg("-cp").arg(install.path.join("*"));
    command
}

/// Settings: what a single node needs, and the level; everything else is as shipped.
fn properties(level: Level, address: &str, controller: &str, data: &Path) -> String {
    let flush = match level {
        Level::Fsync => "log.flush.interval.messages=1\n",
        Level::Relaxed => "",
    };
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         listeners=PLAINTEXT://{address},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{address},CONTROLLER://{controller}\n\
         controller.listener.names=CONTROLLER\n\
         controller.quorum.bootstrap.servers={controller}\n\
         log.dirs={}\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         auto.create.topics.enable=false\n\
         {flush}",
        data.display()
    )
}

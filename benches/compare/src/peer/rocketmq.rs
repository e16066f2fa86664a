//! Apache RocketMQ: a name server and one broker, on the JVM.
//!
//! Its own client speaks to it, which is of the JVM too, so its driver is a program of its own: `rocketmq/Drive.java`, compiled when the
//! artifacts were fetched. Clients ask the name server where the broker is; so the address of this peer is that of the name server.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Install, Level, Peer, Result, Server};
use crate::{
    error::Error,
    fetch::maven,
    files,
    process::{self, Process, output},
};

/// Version of the server and of the client.
const VERSION: &str = "5.4.0";
/// The client, for the tables.
pub(super) const CLIENT: &str = "rocketmq-client of the same version, from Java: asynchronous batches of 1 MiB, 32 unacknowledged (for latency single messages, \
    10,000 unacknowledged); lite pull consumer by 1,024; push consumer in pop mode, one message a call";
/// The program that drives it.
const DRIVER: &str = include_str!("../../rocketmq/Drive.java");
/// What the broker's start script gives the JVM, with a heap of 2 GB instead of 8, which do not fit beside everything else.
const BROKER_JVM: [&str; 9] = [
    "-Xms2g",
    "-Xmx2g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:G1HeapRegionSize=16m",
    "-XX:G1ReservePercent=25",
    "-XX:InitiatingHeapOccupancyPercent=30",
    "-XX:SoftRefLRUPolicyMSPerMB=0",
    "-XX:MaxDirectMemorySize=4g",
];

pub(super) fn install(cache: &Path) -> Result<Install> {
    let names = ["rocketmq-namesrv", "rocketmq-broker", "rocketmq-client"];
    let artifacts = names.map(|name| ("org.apache.rocketmq", name, VERSION));
    let path = maven::jars("rocketmq", &artifacts, cache)?;
    let said = compile(&path)
        .map_err(|error| Error::Skipped(format!("its driver is not compiled: {error}")))?;
    Ok(Install { peer: Peer::Rocketmq, version: format!("{VERSION} on {said}"), path })
}

/// Compiles the driver beside the artifacts. Gives the name of the JVM.
fn compile(jars: &Path) -> Result<String> {
    let source = classes(jars).join("Drive.java");
    files::write_text(&source, DRIVER)?;
    let mut compiler = Command::new("javac");
    compiler.arg("-cp").arg(jars.join("*")).arg("-d").arg(classes(jars)).arg(&source);
    output(&mut compiler)?;
    let java = output(Command::new("java").arg("--version"))?;
    Ok(java.lines().next().unwrap_or_default().to_owned())
}

fn classes(jars: &Path) -> PathBuf {
    jars.with_file_name("classes")
}

/// The program that does a job in the folder `dir`.
pub(super) fn driver(install: &Install, dir: &Path) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx2g", "-XX:+UseG1GC"]).arg(home(dir));
    let jars = install.path.join("*");
    command.arg("-cp").arg(format!("{}:{}", classes(&install.path).display(), jars.display()));
    command.arg("Drive");
    command
}

/// It writes logs below the home of its user.
fn home(dir: &Path) -> String {
    format!("-Duser.home={}", dir.display())
}

pub(super) fn start(install: &Install, level: Level, dir: &Path, names: &str) -> Result<Server> {
    let (broker, namesrv) = (dir.join("broker.conf"), dir.join("namesrv.conf"));
    if files::read_text(&broker).is_err() {
        let listen = process::free_address()?;
        files::write_text(&broker, &settings(level, port(&listen), names, &dir.join("data")))?;
        let text = format!("listenPort={}\nbindAddress=127.0.0.1\n", port(names));
        files::write_text(&namesrv, &text)?;
    }
    let run = |jvm: &[&str], class: &str, config: &Path, log: &str| {
        let mut command = Command::new("java");
        command.env("ROCKETMQ_HOME", dir).args(jvm).arg(home(dir));
        command.arg("-cp").arg(install.path.join("*")).arg(class).arg("-c").arg(config);
        Process::start(&command, &dir.join(log))
    };
    let small = ["-Xms256m", "-Xmx256m"];
    let beside =
        run(&small, "org.apache.rocketmq.namesrv.NamesrvStartup", &namesrv, "namesrv.log")?;
    let process =
        run(&BROKER_JVM, "org.apache.rocketmq.broker.BrokerStartup", &broker, "server.log")?;
    let settings = files::read_text(&broker)?;
    Ok(Server { process, beside: vec![beside], address: names.to_owned(), settings })
}

/// Settings: where everything is, the level, one thread that takes messages so that a queue keeps their order, messages that may wait for it longer
/// than 200 ms, and longer answers to readers than 32 messages; everything else is as shipped.
fn settings(level: Level, port: &str, names: &str, data: &Path) -> String {
    let flush = match level {
        Level::Fsync => "SYNC_FLUSH",
        Level::Relaxed => "ASYNC_FLUSH",
    };
    let data = data.display();
    format!(
        "brokerClusterName=compare\n\
         brokerName=compare\n\
         brokerId=0\n\
         namesrvAddr={names}\n\
         brokerIP1=127.0.0.1\n\
         bindAddress=127.0.0.1\n\
         listenPort={port}\n\
         storePathRootDir={data}\n\
         storePathCommitLog={data}/commitlog\n\
         autoCreateTopicEnable=false\n\
         flushDiskType={flush}\n\
         sendMessageThreadPoolNums=1\n\
         waitTimeMillsInSendQueue=60000\n\
         maxTransferCountOnMessageInMemory=4096\n\
         maxTransferBytesOnMessageInMemory=4194304\n\
         maxTransferCountOnMessageInDisk=4096\n\
         maxTransferBytesOnMessageInDisk=4194304\n"
    )
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').map_or("", |(_, port)| port)
}

//! RabbitMQ as one node, with its stream plugin; the same server for streams and for quorum queues.
//!
//! It is started by its own script, told by variables where everything is. `epmd`, which Erlang otherwise starts as a daemon that stays, is
//! started beside it and ends with it.

use std::{path::Path, process::Command};

use super::{Install, Peer, Result, Server};
use crate::{
    error::Error,
    fetch::debian,
    files,
    process::{self, Process},
};

/// The client of streams, for the tables.
pub(super) const STREAM_CLIENT: &str =
    "rabbitmq-stream-client 0.3.0: frames of 100 records (of 1 for latency), 10,000 unconfirmed";
/// The client of queues, for the tables.
pub(super) const QUEUE_CLIENT: &str =
    "lapin 4.12: publisher confirms, 1,000 unconfirmed; 500 acknowledged at once, in W4 each";
/// Why restarting it is left out.
pub(super) const NO_RECORD: &str = "after SIGKILL and a restart no consumer of this harness was given a record; why is not understood yet";
/// Streams have a protocol of their own.
const PLUGINS: &str = "[rabbitmq_stream].\n";

pub(super) fn install(peer: Peer, cache: &Path) -> Result<Install> {
    let unpacked = debian::unpack("rabbitmq-server", cache)?;
    Ok(Install { peer, version: unpacked.version, path: unpacked.root })
}

pub(super) fn start(install: &Install, dir: &Path, address: &str) -> Result<Server> {
    let erlang = install.path.join("usr/lib/erlang");
    let other = process::free_address()?;
    let (stream, queue) = if install.peer == Peer::RabbitStream {
        (address, other.as_str())
    } else {
        (other.as_str(), address)
    };
    let config = dir.join("rabbitmq.conf");
    files::write_text(&config, &settings(stream, queue))?;
    files::write_text(&dir.join("enabled_plugins"), PLUGINS)?;
    files::write_text(&dir.join("rabbitmq-env.conf"), "")?;
    let mapper = process::free_address()?;
    let mut epmd = Command::new(binary(&erlang, "epmd")?);
    epmd.args(["-address", "127.0.0.1", "-port", port(&mapper)]);
    let epmd = Process::start(&epmd, &dir.join("epmd.log"))?;
    let mut command = Command::new(script(&install.path)?);
    files::write_script(&dir.join("bin/erl"), &starter(&erlang)?)?;
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.join("bin").display()));
    command.env("HOME", dir).env("ERL_EPMD_PORT", port(&mapper));
    command.env("ERL_EPMD_ADDRESS", "127.0.0.1");
    command.env("RABBITMQ_NODENAME", "compare@localhost");
    command.env("RABBITMQ_DIST_PORT", port(&process::free_address()?));
    command.env("RABBITMQ_MNESIA_BASE", dir.join("data"));
    command.env("RABBITMQ_LOG_BASE", dir.join("log")).env("RABBITMQ_LOGS", "-");
    command.env("RABBITMQ_PID_FILE", dir.join("pid"));
    command.env("RABBITMQ_CONF_ENV_FILE", dir.join("rabbitmq-env.conf"));
    command.env("RABBITMQ_CONFIG_FILE", &config);
    command.env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"));
    // The script becomes the server, so that it ends with the harness; without the second it would end with its input.
    command.env("RABBITMQ_ALLOW_INPUT", "1").env("RABBITMQ_SERVER_START_ARGS", "-noinput");
    // Only here, as everything else.
    let loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
    command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", loopback);
    let process = Process::start(&command, &dir.join("server.log"))?;
    Ok(Server {
        process,
        beside: vec![epmd],
        address: address.to_owned(),
        settings: files::read_text(&config)?,
    })
}

/// Where it listens; everything else is as shipped.
fn settings(stream: &str, queue: &str) -> String {
    format!(
        "listeners.tcp.1 = {queue}\n\
         stream.listeners.tcp.1 = {stream}\n\
         stream.advertised_host = 127.0.0.1\n\
         stream.advertised_port = {}\n\
         log.console.level = warning\n",
        port(stream)
    )
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').map_or("", |(_, port)| port)
}

/// What `erl` of the package does, with the runtime where it was unpacked to; the package's own knows only where it would be installed.
fn starter(erlang: &Path) -> Result<String> {
    let program = binary(erlang, "erlexec")?;
    let programs = program.parent().unwrap_or(erlang).display();
    Ok(format!(
        "#!/bin/sh\nexport ROOTDIR={} BINDIR={programs} EMU=beam PROGNAME=erl\nexec {} \"$@\"\n",
        erlang.display(),
        program.display()
    ))
}

/// A program of the runtime, whatever its version.
fn binary(erlang: &Path, name: &str) -> Result<std::path::PathBuf> {
    let folders = files::list(erlang)?.into_iter();
    let mut programs = folders.map(|folder| folder.join("bin").join(name));
    programs.find(|path| path.exists()).ok_or_else(|| Error::Skipped(format!("no `{name}`")))
}

/// The script that starts the server, whatever its version.
fn script(root: &Path) -> Result<std::path::PathBuf> {
    let folders = files::list(&root.join("usr/lib/rabbitmq/lib"))?.into_iter();
    let mut scripts = folders.map(|folder| folder.join("sbin/rabbitmq-server"));
    scripts.find(|path| path.exists()).ok_or_else(|| Error::Skipped("no start script".into()))
}

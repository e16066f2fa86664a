//! Redis with its append-only file, as its documentation on persistence asks for data that matters. Snapshots are off, which that page allows
//! when there is such a file; everything else is as shipped, rewriting of the file included.

use std::{path::Path, process::Command};

use super::{Install, Level, Peer, Result, Server};
use crate::{fetch::debian, files, process::Process};

/// The client, for the tables.
pub(super) const CLIENT: &str = "redis 1.8 (redis-rs), multiplexed connection: 2 pipelines of 500 XADD in flight; XREAD of 1,000; \
    XREADGROUP with pipelined XACK";

pub(super) fn install(cache: &Path) -> Result<Install> {
    let unpacked = debian::unpack("redis-server", cache)?;
    Ok(Install { peer: Peer::Redis, version: unpacked.version, path: unpacked.root })
}

pub(super) fn start(install: &Install, level: Level, dir: &Path, address: &str) -> Result<Server> {
    let data = dir.join("data");
    files::make_folder(&data)?;
    let unpacked =
        debian::Unpacked { root: install.path.clone(), version: install.version.clone() };
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let sync = match level {
        Level::Fsync => "always",
        Level::Relaxed => "everysec",
    };
    let mut command = Command::new(install.path.join("usr/bin/redis-server"));
    command.env("LD_LIBRARY_PATH", unpacked.libraries());
    command.args(["--bind", host, "--port", port, "--dir"]).arg(data);
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync", sync]);
    let process = Process::start(&command, &dir.join("server.log"))?;
    Ok(Server { process, beside: Vec::new(), address: address.to_owned(), settings: String::new() })
}

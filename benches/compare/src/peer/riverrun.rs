//! The broker of this repository, as it is shipped. The level is a setting of the topic.

use std::{path::Path, process::Command};

use super::{Install, Level, Peer, Server};
use crate::{
    error::{Error, Result},
    process::{self, Process},
};

/// The binary, which must have been built before.
pub(super) fn install(binary: &Path) -> Result<Install> {
    if !binary.exists() {
        let remedy = "cargo build --release -p riverrun-cli, or name one with --riverrun";
        return Err(Error::Missing { path: binary.to_owned(), remedy });
    }
    let said = process::output(Command::new(binary).arg("--version"))?;
    let version = said.split_whitespace().nth(1).unwrap_or("unknown").to_owned();
    Ok(Install { peer: Peer::Riverrun, version, path: binary.to_owned() })
}

pub(super) fn start(install: &Install, _: Level, dir: &Path, address: &str) -> Result<Server> {
    let mut command = Command::new(&install.path);
    command.arg("serve").arg("--data-dir").arg(dir.join("data")).args(["--listen", address]);
    let process = Process::start(&command, &dir.join("server.log"))?;
    Ok(Server { process, beside: Vec::new(), address: address.to_owned(), settings: String::new() })
}

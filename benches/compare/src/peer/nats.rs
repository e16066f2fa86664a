//! NATS with JetStream on files.

use std::{path::Path, process::Command};

use super::{Install, Level, Peer, Result, Server};
use crate::{fetch::debian, files, process::Process};

/// The client, for the tables.
pub(super) const CLIENT: &str = "async-nats 0.51: 5,000 publishes unacknowledged; pull consumer by 2,000 without acknowledgements; \
    explicit acknowledgements, the last one confirmed";

pub(super) fn install(cache: &Path) -> Result<Install> {
    let unpacked = debian::unpack("nats-server", cache)?;
    Ok(Install { peer: Peer::Nats, version: unpacked.version, path: unpacked.root })
}

pub(super) fn meaning(
    version: &str,
    level: Level,
) -> std::result::Result<&'static str, &'static str> {
    match level {
        Level::Fsync if has_sync_always(version) => Ok("after fsync (`sync_interval: always`)"),
        Level::Fsync => Err("it has no `sync_interval: always`, which came with 2.10"),
        Level::Relaxed => Ok("in the page cache (fsync every 2 minutes, its default)"),
    }
}

/// Whether the server can flush before it acknowledges.
fn has_sync_always(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (2, 10)
}

pub(super) fn start(install: &Install, level: Level, dir: &Path, address: &str) -> Result<Server> {
    let data = dir.join("data");
    let sync = match level {
        Level::Fsync => "always",
        Level::Relaxed => "2m",
    };
    let text = format!(
        "listen: {address:?}\njetstream {{\n  store_dir: {data:?}\n  max_file_store: 100GB\n  sync_interval: {sync}\n}}\n"
    );
    // An older server refuses a setting that it does not know.
    let known = has_sync_always(&install.version);
    let text = if known { text } else { text.replace("  sync_interval: 2m\n", "") };
    let config = dir.join("nats.conf");
    files::write_text(&config, &text)?;
    let mut command = Command::new(install.path.join("usr/sbin/nats-server"));
    command.arg("--config").arg(&config);
    let process = Process::start(&command, &dir.join("server.log"))?;
    Ok(Server {
        process,
        beside: Vec::new(),
        address: address.to_owned(),
        settings: files::read_text(&config)?,
    })
}

#[cfg(test)]
mod tests {
    use super::has_sync_always;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(!has_sync_always("2.9.10-1+b3"));
        assert!(has_sync_always("2.10.0"));
        assert!(has_sync_always("3.0"));
    }
}

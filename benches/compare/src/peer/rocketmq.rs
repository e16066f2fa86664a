//! Apache RocketMQ: only looked for. Where its artifacts were tried they could not be had, so there is no driver for it yet; a driver that was never
//! run would be worth nothing.

use std::path::Path;

use super::{Install, Peer, Result};
use crate::fetch::maven;

/// Version of the server.
const VERSION: &str = "5.5.1";
/// The client, for the tables.
pub(super) const CLIENT: &str = "none";
/// Why it does not take part even where it can be had.
pub(super) const NO_DRIVER: &str = "its artifacts are there, but this harness has no driver for it";

pub(super) fn install(cache: &Path) -> Result<Install> {
    let names = ["rocketmq-namesrv", "rocketmq-broker", "rocketmq-client"];
    let artifacts = names.map(|name| ("org.apache.rocketmq", name, VERSION));
    let path = maven::jars("rocketmq", &artifacts, cache)?;
    Ok(Install { peer: Peer::Rocketmq, version: VERSION.into(), path })
}

//! Network namespaces: one for the broker, one for its clients, one at the end of a line that can be made slow.
//!
//! ```text
//!   client ── rrc ═══ 198.18.0.0/30 ═══ rrb ── broker ── rrs ═══ 198.18.0.4/30 ═══ rrd ── slow
//! ```
//!
//! The namespaces are called `riverrun-net-PID-…`, so that what a killed run left is told by its name. Nothing is made in the
//! namespace of the machine.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    process::Command,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What every namespace and folder of these harnesses is called, before the process id.
pub(crate) const PREFIX: &str = "riverrun-net-";
/// The broker as its clients see it.
const BROKER: &str = "198.18.0.1";
/// The broker as it is seen from the slow line.
const BROKER_SLOW: &str = "198.18.0.5";

/// Where a thread or a process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Broker,
    Client,
    Slow,
}

/// The namespaces; gone when dropped.
#[derive(Debug)]
pub(crate) struct Town {
    pid: u32,
}

impl Town {
    /// Builds it.
    pub(crate) fn build() -> Result<Town, String> {
        let town = Town { pid: std::process::id() };
        for place in [Place::Broker, Place::Client, Place::Slow] {
            ip(&["netns", "add", &town.name(place)])?;
            ip(&["-n", &town.name(place), "link", "set", "lo", "up"])?;
        }
        town.line(("rrb", "198.18.0.1/30"), (Place::Client, "rrc", "198.18.0.2/30"))?;
        town.line(("rrs", "198.18.0.5/30"), (Place::Slow, "rrd", "198.18.0.6/30"))?;
        Ok(town)
    }

    /// A line from the broker to another place.
    fn line(
        &self,
        near: (&str, &str),
        (place, name, address): (Place, &str, &str),
    ) -> Result<(), String> {
        let (broker, other) = (self.name(Place::Broker), self.name(place));
        let add = ["link", "add", near.0, "netns", &broker, "type", "veth"];
        ip(&[&add[..], &["peer", "name", name, "netns", &other]].concat())?;
        for (space, name, address) in [(&broker, near.0, near.1), (&other, name, address)] {
            ip(&["-n", space, "addr", "add", address, "dev", name])?;
            ip(&["-n", space, "link", "set", name, "up"])?;
        }
        Ok(())
    }

    /// Name of a namespace.
    pub(crate) fn name(&self, place: Place) -> String {
        let place = match place {
            Place::Broker => "broker",
            Place::Client => "client",
            Place::Slow => "slow",
        };
        format!("{PREFIX}{}-{place}", self.pid)
    }

    /// A way into a place, for a thread.
    pub(crate) fn door(&self, place: Place) -> Result<Door, String> {
        let path = format!("/run/netns/{}", self.name(place));
        File::open(&path).map(Door).map_err(|error| format!("{path}: {error}"))
    }

    /// Where the broker is for those who live there.
    pub(crate) fn broker(&self, place: Place) -> IpAddr {
        let text = if place == Place::Slow { BROKER_SLOW } else { BROKER };
        text.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Takes the line of the clients down, or up again.
    pub(crate) fn link(&self, up: bool) -> Result<(), String> {
        ip(&["-n", &self.name(Place::Client), "link", "set", "rrc", if up { "up" } else { "down" }])
    }

    /// Lets everything for the broker vanish, or no more.
    pub(crate) fn blackhole(&self, on: bool) -> Result<(), String> {
        let route = ["route", if on { "add" } else { "del" }, "blackhole", BROKER];
        ip(&[&["-n", &self.name(Place::Client)], &route[..]].concat())
    }

    /// Makes the slow line slow: 8 kbit/s from the broker.
    pub(crate) fn slow_down(&self) -> Result<(), String> {
        let words = ["qdisc", "replace", "dev", "rrs", "root", "tbf", "rate", "8kbit"];
        let limits = ["burst", "1600", "latency", "500ms"];
        run("tc", &[&["-n", &self.name(Place::Broker)], &words[..], &limits[..]].concat())
    }
}

/// A way into a namespace.
#[derive(Debug)]
pub(crate) struct Door(File);

impl Door {
    /// Moves this thread, and the threads and processes that it will start.
    pub(crate) fn enter(&self) -> Result<(), String> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("cannot enter a network namespace: {error}"))
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        for place in [Place::Broker, Place::Client, Place::Slow] {
            ip(&["netns", "del", &self.name(place)]).ok();
        }
    }
}

/// Removes the namespaces of runs that are over.
pub(crate) fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_leftover(&name) {
            ip(&["netns", "del", &name]).ok();
        }
    }
}

/// Whether something was made by a run that is over.
pub(crate) fn is_leftover(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let pid = rest.split('-').next().unwrap_or_default();
    let is_number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    is_number && comm.trim() != "prove"
}

fn ip(words: &[&str]) -> Result<(), String> {
    run("ip", words)
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(words)
        .output()
        .map_err(|error| format!("cannot run `{program}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program} {}`: {}", words.join(" "), told.trim()))
}

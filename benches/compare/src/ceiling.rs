//! What the machine can do, measured in the same run: the ceilings that every figure stands beside.
//!
//! - [`disk`]: appends and `fdatasync` on the file system that the servers use.
//! - [`loopback`]: bytes over one TCP connection between two processes, and the time of a round trip.
//! - [`grpc`]: the same stack of gRPC as the broker, with nothing behind it.

use std::{path::Path, process::Command, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    drive::Figures,
    error::{Error, Result},
    process::{self, Process},
};

mod disk;
mod grpc;
mod loopback;

/// Longest time one of our own servers may take to listen.
const PORT_TIMEOUT: Duration = Duration::from_secs(10);

/// A ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ceiling {
    /// The disk.
    Disk,
    /// TCP.
    Loopback,
    /// gRPC.
    Grpc,
}

impl Ceiling {
    /// All of them.
    pub(crate) const ALL: [Ceiling; 3] = [Ceiling::Disk, Ceiling::Loopback, Ceiling::Grpc];

    /// Its name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Ceiling::Disk => "disk",
            Ceiling::Loopback => "loopback TCP",
            Ceiling::Grpc => "gRPC into a blackhole",
        }
    }

    /// Measures it, with `dir` to work in.
    pub(crate) fn measure(self, dir: &Path, quick: bool) -> Result<Figures> {
        match self {
            Ceiling::Disk => disk::measure(dir, quick),
            Ceiling::Loopback => {
                let (mut far, address) = self.start(dir)?;
                far.wait_for_port(&address, PORT_TIMEOUT)?;
                loopback::measure(&address, &far.tree(), quick)
            }
            Ceiling::Grpc => {
                let (mut far, address) = self.start(dir)?;
                far.wait_for_port(&address, PORT_TIMEOUT)?;
                runtime()?.block_on(grpc::measure(&address, &far.tree(), quick))
            }
        }
    }

    /// Starts the far end in a process of its own.
    fn start(self, dir: &Path) -> Result<(Process, String)> {
        let address = process::free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", &format!("{self:?}").to_lowercase(), &address]);
        Ok((Process::start(&command, &dir.join("server.log"))?, address))
    }

    /// Is the far end, for ever.
    pub(crate) fn serve(self, address: &str) -> Result<()> {
        match self {
            Ceiling::Disk => Err(Error::Wrong("the disk has no far end".into())),
            Ceiling::Loopback => loopback::serve(address),
            Ceiling::Grpc => runtime()?.block_on(grpc::serve(address)),
        }
    }
}

/// One thread, as each connection of the broker has.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Percentiles of times in nanoseconds, in microseconds.
fn percentiles(name: &str, times: &[u64]) -> Result<Figures> {
    let mut histogram = Histogram::<u64>::new(3).map_err(Error::peer)?;
    for time in times {
        histogram.record(*time).map_err(Error::peer)?;
    }
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Figures::from([(format!("{name}_p50_us"), at(0.5)), (format!("{name}_p99_us"), at(0.99))]))
}

//! What the kernel tells about a process.

use std::{io, time::Duration};

use crate::{clock, error::Result, files};

/// Ticks of processor time per second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// All that is resident.
    pub(crate) resident: u64,
    /// Of it, the part that is no file: heap and stacks.
    pub(crate) anonymous: u64,
    /// Most that was ever resident.
    pub(crate) peak: u64,
}

/// Memory of the process now.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = files::read_text(format!("/proc/{pid}/status"))?;
    let bytes = |name: &str| -> io::Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| io::Error::other(format!("no `{name}`")))
    };
    Ok(Memory { resident: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")?, peak: bytes("VmHWM:")? })
}

/// Processor time the process used so far, in seconds.
pub(crate) fn processor_seconds(pid: u32) -> Result<f64> {
    let stat = files::read_text(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces; what follows it does not.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().unwrap_or(0.0));
    Ok(ticks.sum::<f64>() / TICKS_PER_SECOND)
}

/// Share of one core the process uses over `window`, from 0 to the number of cores.
pub(crate) async fn processor_share(pid: u32, window: Duration) -> Result<f64> {
    let (before, start) = (processor_seconds(pid)?, clock::now());
    tokio::time::sleep(window).await;
    Ok((processor_seconds(pid)? - before) / clock::seconds_since(start))
}

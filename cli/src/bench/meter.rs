//! Processor time and memory of both sides over a stretch of time.
//!
//! Our own come from the process clock, the broker's from `/proc`, so only from a broker on this machine. The
//! broker's counts in steps of 10 ms; its memory is looked at every 50 ms and at the end.

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use crate::clock;

/// Ticks of processor time per second in `/proc`, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// How often memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What a process holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// All that is resident: mapped files, as the end of each log, included.
    pub(super) resident: u64,
    /// Of it heap and stacks.
    pub(super) heap: u64,
}

/// What was used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Seconds that passed.
    pub(super) seconds: f64,
    /// Processor seconds of this program.
    pub(super) client_seconds: f64,
    /// Most memory this program ever held, in bytes; 0 when the system does not tell.
    pub(super) client_peak: u64,
    /// The same of the broker, when it can be seen.
    pub(super) broker: Option<BrokerUsage>,
}

/// What the broker used.
#[derive(Clone, Copy, Debug)]
pub(super) struct BrokerUsage {
    /// Processor seconds.
    pub(super) seconds: f64,
    /// Most it was seen to hold, each at its own time.
    pub(super) peak: Memory,
}

/// A stretch of time that is being measured.
#[derive(Debug)]
pub(super) struct Meter {
    start: Instant,
    client_before: f64,
    broker: Option<Watched>,
}

#[derive(Debug)]
struct Watched {
    pid: u32,
    before: f64,
    /// Dropped to end the looking.
    stop: oneshot::Sender<()>,
    peak: tokio::task::JoinHandle<Memory>,
}

impl Meter {
    /// Begins. A broker that cannot be read is one that cannot be seen.
    pub(super) fn start(broker: Option<u32>) -> Meter {
        let broker = broker.and_then(|pid| {
            let before = processor_seconds(pid).ok()?;
            let (stop, stopped) = oneshot::channel();
            Some(Watched { pid, before, stop, peak: tokio::spawn(look(pid, stopped)) })
        });
        Meter { start: clock::instant(), client_before: own_seconds(), broker }
    }

    /// Ends.
    pub(super) async fn stop(self) -> Usage {
        let seconds = self.start.elapsed().as_secs_f64();
        let client_seconds = own_seconds() - self.client_before;
        let client_peak = peak_of_this_process().unwrap_or_default();
        let broker = match self.broker {
            Some(watched) => watched.stop().await,
            None => None,
        };
        Usage { seconds, client_seconds, client_peak, broker }
    }
}

impl Watched {
    /// `None` when the process is gone.
    async fn stop(self) -> Option<BrokerUsage> {
        let seconds = processor_seconds(self.pid).ok()? - self.before;
        drop(self.stop);
        let peak = self.peak.await.ok()?;
        Some(BrokerUsage { seconds, peak })
    }
}

/// The most of each kind of memory, until told to stop.
async fn look(pid: u32, mut stopped: oneshot::Receiver<()>) -> Memory {
    let mut peak = Memory::default();
    loop {
        let is_over = tokio::time::timeout(LOOK_INTERVAL, &mut stopped).await.is_ok();
        if let Ok(now) = memory(pid) {
            peak.resident = peak.resident.max(now.resident);
            peak.heap = peak.heap.max(now.heap);
        }
        if is_over {
            return peak;
        }
    }
}

/// Processor seconds of this program so far.
fn own_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn peak_of_this_process() -> io::Result<u64> {
    field(&read("/proc/self/status")?, "VmHWM:")
}

/// Memory of a process now.
pub(super) fn memory(pid: u32) -> io::Result<Memory> {
    let status = read(&format!("/proc/{pid}/status"))?;
    Ok(Memory { resident: field(&status, "VmRSS:")?, heap: field(&status, "RssAnon:")? })
}

/// Processor seconds of a process so far, in user and system.
pub(super) fn processor_seconds(pid: u32) -> io::Result<f64> {
    ticks(&read(&format!("/proc/{pid}/stat"))?).map(|ticks| ticks / TICKS_PER_SECOND)
}

fn ticks(stat: &str) -> io::Result<f64> {
    // The name in parentheses may hold spaces and parentheses; what follows the last one does not.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
    let mut fields = fields.into_iter().flatten().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    next().zip(next()).map(|(user, system)| user + system).ok_or_else(|| unclear("stat"))
}

/// A field of `/proc/PID/status` that is given in kB, in bytes.
fn field(status: &str, name: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| unclear(name))
}

fn unclear(what: &str) -> io::Error {
    io::Error::other(format!("no `{what}` that can be read"))
}

#[expect(clippy::disallowed_methods, reason = "reads what the kernel tells of a process")]
fn read(path: &str) -> io::Result<String> {
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_time_stands_behind_the_name_whatever_that_is() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1 1 1 1";
        assert_eq!(ticks(stat).unwrap(), 300.0);
        assert!(ticks("7 (a) S 1 7").is_err());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nRssAnon:\t 12 kB\n";
        assert_eq!(field(status, "VmHWM:").unwrap(), 2 << 20);
        assert_eq!(field(status, "RssAnon:").unwrap(), 12 << 10);
        assert!(field(status, "VmRSS:").is_err());
    }

    #[tokio::test]
    async fn work_of_this_process_is_seen() {
        let own = std::process::id();
        let meter = Meter::start(Some(own));
        let start = clock::instant();
        let mut sum = 0u64;
        while start.elapsed() < Duration::from_millis(60) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let usage = meter.stop().await;
        assert!(usage.client_seconds > 0.0 && usage.client_peak > 0, "{usage:?}");
        let broker = usage.broker.unwrap();
        assert!(broker.peak.resident >= broker.peak.heap && broker.peak.heap > 0, "{broker:?}");
    }
}

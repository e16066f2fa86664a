//! One point: a call that fails, what the broker does then, and what is left after a restart.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    broker::{Broker, Start},
    judge,
    load::{self, Clients, Seen, TOPICS},
    strace::{self, Call},
};
use crate::harness::Size;

/// A call that is made to fail: its name, the errors it can give, how many of its numbers are tried, and how far apart they are.
struct Kind(&'static str, &'static [&'static str], u32, u32);

/// The calls. Of opens there are many more, each path being walked name by name.
const KINDS: &[Kind] = &[
    Kind("fdatasync", &["EIO", "ENOSPC"], 40, 1),
    Kind("fsync", &["EIO", "ENOSPC"], 12, 1),
    Kind("pwritev", &["EIO", "ENOSPC"], 40, 1),
    Kind("pwrite64", &["EIO", "ENOSPC"], 2, 1),
    Kind("fallocate", &["EIO", "ENOSPC"], 12, 1),
    Kind("renameat", &["EIO", "ENOSPC"], 4, 1),
    Kind("openat", &["EIO", "ENOSPC", "EMFILE"], 30, 7),
    Kind("ftruncate", &["EIO"], 2, 1),
    Kind("mkdirat", &["EIO", "ENOSPC"], 6, 1),
    Kind("unlinkat", &["EIO"], 12, 1),
];
/// Flushes under load that fail before anything else is tried: the log must stop there, whichever it is.
const FLUSHES: u32 = 40;
/// Values a topic gets under load: enough for two rolls.
const LOAD: usize = 14;
/// What a broker says of a log that it can only recover once there is room.
const WAITS_FOR_ROOM: &str = "is only read until there is room";
/// Longest time until it has started anew and takes records.
const ROOM_DEADLINE: Duration = Duration::from_secs(10);

/// When the call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// While the broker starts after a kill, or in the load after that.
    Start,
    /// Under load only.
    Load,
}

/// A call, by its number in its thread, and its error.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// Its seed: place among all points, from 1.
    pub(super) number: u64,
    phase: Phase,
    call: &'static str,
    nth: u32,
    error: &'static str,
    /// SIGKILL after the load instead of an orderly stop.
    kill: bool,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point { phase, call, nth, error, kill, .. } = self;
        write!(f, "{phase:?}: `{call}` number {nth} gives {error}, kill {kill}")
    }
}

/// A data directory to begin with, and what it holds.
pub(super) struct Template {
    home: PathBuf,
    /// Folder of each topic's log.
    folders: [String; 2],
    seen: [Seen; 2],
    /// Opens at a start that are not the broker's.
    opens: u32,
}

/// How a point went.
#[derive(Default)]
pub(super) struct Ran {
    pub(super) hit: bool,
    pub(super) refused: bool,
    pub(super) stopped: usize,
}

fn wait<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(work)
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// A broker with some records, killed.
pub(super) fn template(folder: &Path) -> Result<Template, String> {
    let home = folder.join("template");
    std::fs::create_dir_all(&home).map_err(text)?;
    let broker = Broker::start_clean(&home)?;
    let mut seen = <[Seen; 2]>::default();
    let folders = wait(async {
        let mut clients = Clients::connect(&broker.address).await?;
        let mut folders = <[String; 2]>::default();
        for (topic, folder) in TOPICS.iter().zip(&mut folders) {
            let before = names(&home)?;
            clients.create(topic).await?.map_err(|status| status.to_string())?;
            let after = names(&home)?;
            *folder = after.into_iter().find(|n| !before.contains(n)).ok_or("no folder")?;
        }
        load::run(&mut clients, &mut seen, 8).await?;
        Ok(folders)
    })?;
    broker.end(Signal::KILL)?;
    let opens = opens_before(folder, &seen, &home.join("data"))?;
    Ok(Template { home, folders, seen, opens })
}

fn names(home: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(home.join("data/logs")).map_err(text)?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    std::fs::create_dir_all(to).map_err(text)?;
    for entry in std::fs::read_dir(from).map_err(text)? {
        let entry = entry.map_err(text)?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target).map_err(text)?;
        }
    }
    Ok(())
}

/// Every point, in an order that nothing changes: the flushes under load, then all calls by rising numbers; and all of that
/// again with SIGKILL after the load.
pub(super) fn all() -> Vec<Point> {
    let flush = |nth| (Phase::Load, "fdatasync", nth, "EIO");
    let mut found: Vec<_> = (1..=FLUSHES).map(flush).collect();
    for turn in 0..KINDS.iter().map(|kind| kind.2).max().unwrap_or(0) {
        for phase in [Phase::Start, Phase::Load] {
            for Kind(call, errors, _, step) in KINDS.iter().filter(|kind| turn < kind.2) {
                let points = errors.iter().map(|error| (phase, *call, 1 + turn * step, *error));
                found.extend(points.filter(|one| *one != flush(one.2)));
            }
        }
    }
    let both = [false, true].into_iter().flat_map(|kill| found.iter().map(move |one| (kill, one)));
    let numbered = (1..).zip(both);
    numbered
        .map(|(number, (kill, (phase, call, nth, error)))| {
            let (phase, nth) = (*phase, *nth);
            Point { number, phase, call, nth, error, kill }
        })
        .collect()
}

/// Of all points: those from a seed on, or the first so many; at full size each again with SIGKILL.
pub(super) fn choose(all: &[Point], size: &Size, count: usize) -> Vec<Point> {
    let first = usize::try_from(size.seed.saturating_sub(1)).unwrap_or(0) % all.len().max(1);
    let chosen = |first| all.iter().cycle().skip(first).take(count.min(all.len())).cloned();
    if size.full && size.count.is_none() {
        return chosen(first).chain(chosen(first + all.len() / 2)).collect();
    }
    chosen(first).collect()
}

/// Opens of the program's loader and library before its first of the data directory: not the broker's.
fn opens_before(folder: &Path, seen: &[Seen; 2], data: &Path) -> Result<u32, String> {
    let home = folder.join("dry");
    copy(data, &home.join("data"))?;
    let plan = Plan { phase: Phase::Start, call: "openat", fault: None, signal: Signal::TERM };
    let life = traced(&home, &plan, &mut seen.clone())?;
    let own = home.join("data").to_string_lossy().into_owned();
    std::fs::remove_dir_all(&home).ok();
    let before = life.calls.iter().take_while(|call| !call.text.contains(&own)).count();
    u32::try_from(before).map_err(|error| error.to_string())
}

/// What a broker with a fault did.
struct Life {
    /// Whether each topic took one more at the end; `None` when it refused to start.
    takes: Option<[bool; 2]>,
    calls: Vec<Call>,
    /// What it said.
    errors: String,
}

/// What is done to a broker in its life.
struct Plan<'a> {
    phase: Phase,
    call: &'a str,
    fault: Option<&'a str>,
    /// Ends it.
    signal: Signal,
}

/// The whole life of a broker with a fault.
fn traced(home: &Path, plan: &Plan<'_>, seen: &mut [Seen; 2]) -> Result<Life, String> {
    let Plan { phase, call, fault, signal } = *plan;
    let log = home.join("strace");
    let wrapper = match phase {
        Phase::Start => strace::around(&log, call, fault),
        Phase::Load => Vec::new(),
    };
    let mut broker = match Broker::start(home, &wrapper)? {
        Start::Running(broker) => broker,
        Start::Refused(code, errors) => {
            if errors.contains("panicked") || errors.trim().is_empty() {
                return Err(format!("the start ended with {code:?}, saying: {errors}"));
            }
            if !matches!(code, Some(1..=5)) {
                return Err(format!("a refused start ended with code {code:?}: {errors}"));
            }
            return Ok(Life { takes: None, calls: strace::read(&log), errors });
        }
    };
    let tracer = match phase {
        Phase::Start => None,
        Phase::Load => Some(strace::attach(broker.pid(), &log, call, fault)?),
    };
    let worked = wait(async {
        let mut clients = connect(&broker).await?;
        load::run(&mut clients, seen, LOAD).await?;
        take_one_more(&mut clients, &broker, seen).await
    });
    let running = broker.is_running();
    let errors = if running { broker.end(signal)? } else { broker.stderr() };
    if let Some(mut tracer) = tracer {
        tracer.wait().map_err(text)?;
    }
    if !running || errors.contains("panicked") {
        return Err(format!("it ended or panicked: {errors}"));
    }
    let takes = Some(worked.map_err(|what| format!("{what}; {errors}"))?);
    Ok(Life { takes, calls: strace::read(&log), errors })
}

/// Connects; with a broker that starts anew because there is room again, as soon as it listens.
async fn connect(broker: &Broker) -> Result<Clients, String> {
    let begun = Instant::now();
    loop {
        let connected = Clients::connect(&broker.address).await;
        let waits = broker.stderr().contains(WAITS_FOR_ROOM);
        if connected.is_ok() || !waits || begun.elapsed() > ROOM_DEADLINE {
            return connected;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether each topic takes one more. A broker that found no room to recover a log says so, and starts anew, at the same address,
/// once there is some: topics that refuse until then are asked again.
async fn take_one_more(
    clients: &mut Clients,
    broker: &Broker,
    seen: &mut [Seen; 2],
) -> Result<[bool; 2], String> {
    let begun = Instant::now();
    let mut takes = [false; 2];
    loop {
        for ((topic, seen), takes) in TOPICS.iter().zip(seen.iter_mut()).zip(&mut takes) {
            *takes = *takes || clients.send(topic, seen).await?.is_ok();
        }
        let waits = broker.stderr().contains(WAITS_FOR_ROOM);
        if takes == [true; 2] || !waits || begun.elapsed() > ROOM_DEADLINE {
            return Ok(takes);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a point in a folder of its own.
pub(super) fn run(home: &Path, template: &Template, point: &Point) -> Result<Ran, String> {
    copy(&template.home.join("data"), &home.join("data"))?;
    let mut seen = template.seen.clone();
    let skipped = match (point.phase, point.call) {
        (Phase::Start, "openat") => template.opens,
        _ => 0,
    };
    let fault = format!("error={}:when={}", point.error, point.nth + skipped);
    let signal = if point.kill { Signal::KILL } else { Signal::TERM };
    let plan = Plan { phase: point.phase, call: point.call, fault: Some(&fault), signal };
    let life = traced(home, &plan, &mut seen)?;
    let hits: Vec<&Call> = life.calls.iter().filter(|call| call.injected).collect();
    let mut ran = Ran { hit: !hits.is_empty(), refused: life.takes.is_none(), stopped: 0 };
    for (at, takes) in life.takes.into_iter().flatten().enumerate() {
        let topic = Topic { name: TOPICS[at], folder: &template.folders[at], seen: &seen[at] };
        ran.stopped += usize::from(topic.judge(point.phase, &hits, takes, &life.errors)?);
    }
    after(home, &mut seen)?;
    Ok(ran)
}

/// A topic after the load.
struct Topic<'a> {
    name: &'a str,
    folder: &'a str,
    seen: &'a Seen,
}

impl Topic<'_> {
    /// True when a failed flush stopped it; an error when one did not, or when it stopped for nothing.
    fn judge(
        &self,
        phase: Phase,
        hits: &[&Call],
        takes: bool,
        errors: &str,
    ) -> Result<bool, String> {
        let Topic { name, folder, seen } = self;
        let is_flush = |call: &&Call| {
            phase == Phase::Load && call.name == "fdatasync" && call.text.contains(".log>")
        };
        let of_log = || hits.iter().copied().filter(|call| call.text.contains(folder));
        if let Some(call) = of_log().find(is_flush) {
            if takes || seen.refused.is_empty() {
                return Err(format!("`{name}` goes on after a failed flush: {}", call.text));
            }
            if seen.acked_after_refusal {
                return Err(format!("`{name}` took more after a failed flush: {}", call.text));
            }
            return Ok(true);
        }
        if of_log().next().is_some() {
            return Ok(false);
        }
        let others_flush = !hits.is_empty() && hits.iter().copied().all(|call| is_flush(&call));
        if others_flush && !seen.refused.is_empty() {
            return Err(format!(
                "`{name}` refused {:?} for another's flush: {hits:?}",
                seen.refused
            ));
        }
        // A step on the way to a log names no log, so the broker must: which of them it stopped, and for this error.
        let told = errors.lines().any(|line| line.contains(folder) && line.contains("os error"));
        if !takes && (!told || hits.iter().all(|call| names_a_log(call))) {
            return Err(format!(
                "`{name}` stopped though nothing of it failed: {hits:?}; {errors}"
            ));
        }
        Ok(false)
    }
}

/// True when the call says which log it was for; a step on the way there, the opening of `logs`, does not.
fn names_a_log(call: &Call) -> bool {
    call.text.contains("data/logs/") || call.text.contains("data/logs>, ")
}

/// Two starts without faults: all is there, the same both times, and both topics take more.
fn after(home: &Path, seen: &mut [Seen; 2]) -> Result<(), String> {
    for view in ["first", "second"] {
        let broker = Broker::start_clean(home)?;
        let done = wait(async {
            let mut clients = Clients::connect(&broker.address).await?;
            for (topic, seen) in TOPICS.iter().zip(seen.iter_mut()) {
                let found = clients.read(topic, 0).await??;
                judge::check(topic, seen, &found)?;
                // The other view must show the same.
                seen.read = found.into_iter().collect();
                let committed = clients.committed(topic).await?;
                if committed < seen.committed {
                    return Err(format!("`{topic}`: commit {} became {committed}", seen.committed));
                }
                clients.send(topic, seen).await?.map_err(|status| status.to_string())?;
            }
            Ok(())
        });
        done.map_err(|what| format!("{view} view: {what}; {}", broker.stderr()))?;
        broker.end(Signal::KILL)?;
    }
    Ok(())
}

//! Processes that the comparison starts, and what the kernel tells about them.
//!
//! A server may be a script that starts others, so its figures are those of the whole tree below the process started. Whatever is started dies
//! with the harness: by `setpriv --pdeathsig`, and when its handle is dropped.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    clock,
    error::{Error, Result},
    files,
};

/// Ticks of processor time per second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Where servers listen: below what Linux gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How much of what a failed program said is shown.
const LINES_SHOWN: usize = 12;

/// A running server; killed with everything below it when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Variables, program and arguments.
    command: String,
    /// When it was started, as [`clock::nanos`] gives it.
    pub(crate) started: u64,
    ended: bool,
}

impl Process {
    /// Starts `command`; what it says goes to the file `log`.
    pub(crate) fn start(command: &Command, log: &Path) -> Result<Process> {
        let said = files::create(log)?;
        let name = Path::new(command.get_program()).file_name().unwrap_or_default();
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
        guarded.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            guarded.current_dir(dir);
        }
        guarded.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let started = clock::nanos();
        let child = guarded.spawn()?;
        Ok(Process {
            name: name.to_string_lossy().into_owned(),
            child,
            log: log.to_owned(),
            command: written(command),
            started,
            ended: false,
        })
    }

    /// How it was started, with these folders called by these names.
    pub(crate) fn command_line(&self, names: &[(&Path, &str)]) -> String {
        let replace = |text: String, (path, name): &(&Path, &str)| {
            text.replace(&path.display().to_string(), name)
        };
        names.iter().fold(self.command.clone(), replace)
    }

    /// The process started, and all below it.
    pub(crate) fn tree(&self) -> Vec<u32> {
        tree(self.child.id())
    }

    /// Fails when it has ended, with what it said last.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.failed(&format!("ended with {status}"))),
        }
    }

    /// Waits until it takes connections at `address`.
    pub(crate) fn wait_for_port(&mut self, address: &str, timeout: Duration) -> Result<()> {
        let start = clock::nanos();
        while std::net::TcpStream::connect(address).is_err() {
            self.check()?;
            if clock::seconds_since(start) > timeout.as_secs_f64() {
                return Err(self.failed("did not open its port"));
            }
            clock::pause(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The error for it, with what it said last.
    pub(crate) fn failed(&self, how: &str) -> Error {
        let said = files::read_text(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
        Error::Program { program: self.name.clone(), how: format!("{how}: {last}") }
    }

    /// Kills it as a crash would, with everything below it.
    pub(crate) fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            // Its number may be somebody else's by now.
            return;
        }
        // Children first known, then killed: after the parent's death they would be nobody's.
        for pid in self.tree() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                kill_process(pid, Signal::KILL).ok();
            }
        }
        self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command as it would be typed.
fn written(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(key, value)| {
        Some(format!("{}={}", key.to_string_lossy(), value?.to_string_lossy()))
    });
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    let words = words.map(|word| word.to_string_lossy().into_owned());
    variables.chain(words).collect::<Vec<String>>().join(" ")
}

/// Processor time that the processes used so far, in seconds.
pub(crate) fn processor_seconds(pids: &[u32]) -> f64 {
    // One that ended meanwhile counts nothing.
    pids.iter().filter_map(|pid| ticks(*pid)).sum::<f64>() / TICKS_PER_SECOND
}

/// Most memory that was resident since [`forget_peaks`], over all of the processes, in bytes.
pub(crate) fn peak_bytes(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|pid| status_bytes(*pid, "VmHWM:")).sum()
}

/// Memory that is resident now and no file: heaps and stacks, in bytes.
pub(crate) fn anonymous_bytes(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|pid| status_bytes(*pid, "RssAnon:")).sum()
}

/// Memory that is resident now, in bytes.
pub(crate) fn resident_bytes(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|pid| status_bytes(*pid, "VmRSS:")).sum()
}

/// Makes what is resident now the peak.
pub(crate) fn forget_peaks(pids: &[u32]) {
    for pid in pids {
        // Where it is not allowed the peak is that of the whole life, which is more, never less.
        files::write_text(Path::new(&format!("/proc/{pid}/clear_refs")), "5").ok();
    }
}

fn status_bytes(pid: u32, name: &str) -> Option<u64> {
    let status = files::read_text(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

fn ticks(pid: u32) -> Option<f64> {
    let fields = stat(pid)?;
    let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(field(11)? + field(12)?)
}

/// The fields of a process behind its name; the first is its state, the second its parent.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = files::read_text(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; what follows it does not.
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// `root` and every process below it.
fn tree(root: u32) -> Vec<u32> {
    let numbers = files::list(Path::new("/proc")).unwrap_or_default().into_iter();
    let pids = numbers.filter_map(|path| path.file_name()?.to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> =
        pids.filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// Runs a program to its end. Gives what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |how: String| Error::Program { program: name.clone(), how };
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(format!("cannot be started: {error}")))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = format!("{said}{errors}");
    let lines: Vec<&str> = told.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
    Err(failed(format!("ended with {}: {last}", output.status)))
}

/// An address of loopback that nobody listens at. Each call gives another one, and none that the system gives to outgoing connections.
pub(crate) fn free_address() -> Result<String> {
    static NEXT: AtomicU16 = AtomicU16::new(PORTS.start);
    for _ in PORTS {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (port - PORTS.start) % (PORTS.end - PORTS.start);
        let address = format!("127.0.0.1:{port}");
        if std::net::TcpListener::bind(&address).is_ok() {
            return Ok(address);
        }
    }
    Err(Error::Wrong(format!("no port is free from {} to {}", PORTS.start, PORTS.end)))
}

//! A broker in a process of its own, with or without `strace` around it.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Longest time anything may take before it counts as hanging.
const DEADLINE: Duration = Duration::from_secs(30);

/// One thread of each kind, so that a call has one number; small files.
const SETTINGS: &str = "[threads]\nio = 1\nwriters = 1\nflushers = 1\nreaders = 1\n\
    [disk]\nfree_bytes_min = \"1MiB\"\nhousekeeping_interval = \"100ms\"\nrecycle_files_max = 2\n";

/// How a start ended.
pub(super) enum Start {
    Running(Broker),
    /// It ended by itself with this code and these words.
    Refused(Option<i32>, String),
}

/// A running one; killed when dropped.
pub(super) struct Broker {
    child: Child,
    errors: PathBuf,
    pub(super) address: String,
}

impl Broker {
    /// Starts one on `home/data`, with `wrapper` as the words before the program.
    pub(super) fn start(home: &Path, wrapper: &[String]) -> Result<Start, String> {
        let text = |error: std::io::Error| error.to_string();
        let settings = home.join("riverrun.toml");
        std::fs::write(&settings, SETTINGS).map_err(text)?;
        let errors = home.join("stderr");
        let program = binary()?;
        let mut command = match wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--config"])
            .arg(settings);
        command.arg("--data-dir").arg(home.join("data"));
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child =
            command.stderr(File::create(&errors).map_err(text)?).spawn().map_err(text)?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let (found, listening) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.trim().strip_prefix("listening") {
                    let address = address.split_whitespace().next().unwrap_or_default();
                    found.send(address.to_owned()).ok();
                }
            }
        });
        let mut broker = Broker { child, errors, address: String::new() };
        match listening.recv_timeout(DEADLINE) {
            Ok(address) => broker.address = address,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = broker.wait("a start that failed")?;
                return Ok(Start::Refused(status.code(), broker.stderr()));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(format!("the start hangs: {}", broker.stderr()));
            }
        }
        Ok(Start::Running(broker))
    }

    /// Starts one that nothing is injected into: it must run.
    pub(super) fn start_clean(home: &Path) -> Result<Broker, String> {
        match Broker::start(home, &[])? {
            Start::Running(broker) => Ok(broker),
            Start::Refused(code, errors) => {
                Err(format!("a start without faults was refused with {code:?}: {errors}"))
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error.
    pub(super) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// False when it ended by itself.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it by this signal; what it wrote to standard error comes back.
    pub(super) fn end(mut self, signal: Signal) -> Result<String, String> {
        kill_process(Pid::from_child(&self.child), signal).map_err(|error| error.to_string())?;
        let status = self.wait("an orderly stop")?;
        let errors = self.stderr();
        if signal == Signal::TERM && status.code().is_none_or(|code| code > 5) {
            return Err(format!("a stop ended with {status}: {errors}"));
        }
        Ok(errors)
    }

    fn wait(&mut self, what: &str) -> Result<ExitStatus, String> {
        let begun = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if begun.elapsed() < DEADLINE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(None) => return Err(format!("{what} hangs: {}", self.stderr())),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.is_running() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// The program under test: it lies beside this one.
pub(super) fn binary() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let found = own.with_file_name("riverrun");
    if found.exists() { Ok(found) } else { Err(format!("`{}` is missing", found.display())) }
}

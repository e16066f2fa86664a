//! Worker processes that are started anew when they die.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::support::process::Broker;

/// Longest time without any decision.
const STALLED: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Number, failures and fate of a record, as a worker wrote it.
pub(super) type Decision = (u64, u32, String);

/// Workers and their log.
pub(super) struct Crew {
    workers: Vec<Child>,
    mode: &'static str,
    faults: &'static str,
    folder: TempDir,
    /// Workers that died so far.
    died: u32,
}

impl Crew {
    /// Starts the workers.
    pub(super) fn start(broker: &Broker, mode: &str, count: usize, faults: &str) -> Crew {
        let mode = if mode == "key-fifo" { "key-fifo" } else { "unordered" };
        let faults = if faults == "faults" { "faults" } else { "healed" };
        let folder = tempfile::tempdir().unwrap();
        let mut crew = Crew { workers: Vec::new(), mode, faults, folder, died: 0 };
        for _ in 0..count {
            let worker = crew.hire(broker);
            crew.workers.push(worker);
        }
        crew
    }

    fn hire(&self, broker: &Broker) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command
            .args([&broker.address, "jobs", "work", self.mode])
            .arg(self.log_path())
            .arg(self.faults);
        let errors =
            fs::File::options().append(true).create(true).open(self.errors_path()).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn errors_path(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }

    /// What was decided so far.
    fn log(&self) -> Vec<Decision> {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| {
                let mut words = line.split(' ');
                let mut word = || words.next().unwrap();
                (word().parse().unwrap(), word().parse().unwrap(), word().to_owned())
            })
            .collect()
    }

    /// Keeps the crew at work until the log is as wanted.
    pub(super) fn until(&mut self, broker: &Broker, wanted: impl Fn(&[Decision]) -> bool) {
        let (mut seen, mut moved) = (0, Instant::now());
        loop {
            self.replace_dead(broker);
            let log = self.log();
            if wanted(&log) {
                return;
            }
            if log.len() > seen {
                (seen, moved) = (log.len(), Instant::now());
            }
            assert!(
                moved.elapsed() < STALLED,
                "nothing moves after {seen} decisions: {}",
                self.describe(broker)
            );
            thread::sleep(LOOK);
        }
    }

    /// Keeps the crew at work until nothing is left to do.
    pub(super) fn until_idle(&mut self, broker: &Broker, lag: impl Fn(&Broker) -> u64) {
        let mut still = Duration::ZERO;
        while lag(broker) > 0 {
            self.replace_dead(broker);
            still += LOOK;
            assert!(still < STALLED, "{} records are left: {}", lag(broker), self.describe(broker));
            thread::sleep(LOOK);
        }
    }

    fn replace_dead(&mut self, broker: &Broker) {
        for place in 0..self.workers.len() {
            if self.workers[place].try_wait().unwrap().is_some() {
                self.died += 1;
                self.workers[place] = self.hire(broker);
            }
        }
    }

    /// What the workers and the broker say of themselves.
    fn describe(&self, broker: &Broker) -> String {
        let explain = broker.call(&["subscription", "explain", "work"]).text();
        let errors = fs::read_to_string(self.errors_path()).unwrap_or_default();
        format!("{explain}\nworkers: {errors}\nbroker: {}", broker.stderr())
    }

    /// Ends the workers and gives what they decided, and how many died before.
    pub(super) fn end(mut self) -> (Vec<Decision>, u32) {
        for worker in &mut self.workers {
            worker.kill().ok();
            worker.wait().unwrap();
        }
        (self.log(), self.died)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.kill().ok();
            worker.wait().ok();
        }
    }
}

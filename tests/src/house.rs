//! A broker in a process of its own, which a harness starts, kills and starts again.
//!
//! The binary is the one beside the running program.

#![expect(
    clippy::disallowed_methods,
    reason = "a harness keeps the folder of its broker and waits for processes"
)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::ports::lasting_address;

/// Longest time a start may take.
const START_MAX: Duration = Duration::from_secs(30);

/// How often a process is looked at that is expected to end.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Longest time it may take to end when it is asked to.
const STOP_MAX: Duration = Duration::from_secs(10);

/// How a broker is started.
#[derive(Clone, Debug, Default)]
pub struct HouseOptions {
    /// Holds settings, standard error and, unless it is given, the data directory.
    pub folder: PathBuf,
    /// The data directory, when it lies elsewhere.
    pub data_dir: Option<PathBuf>,
    /// Settings as TOML.
    pub settings: String,
    /// Environment on top of this program's.
    pub environment: Vec<(String, String)>,
    /// Words before the command: what the broker runs under.
    pub wrapper: Vec<String>,
    /// Another program than the one beside this one.
    pub program: Option<PathBuf>,
}

/// A broker. Killed when it is dropped.
#[derive(Debug)]
pub struct House {
    options: HouseOptions,
    child: Option<Child>,
    address: String,
}

impl House {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// What it wrote to standard error, when it did not start.
    pub fn start(options: HouseOptions) -> Result<House, String> {
        let mut house = House { options, child: None, address: lasting_address().to_string() };
        fs::create_dir_all(&house.options.folder).map_err(|error| error.to_string())?;
        let settings = house.options.folder.join("riverrun.toml");
        fs::write(settings, &house.options.settings).map_err(|error| error.to_string())?;
        house.restart()?;
        Ok(house)
    }

    /// Starts it again, on the same directory and port.
    ///
    /// # Errors
    /// As [`House::start`].
    pub fn restart(&mut self) -> Result<(), String> {
        let listening = self.spawn()?;
        match listening.recv_timeout(START_MAX) {
            Ok(address) => {
                self.address = address;
                Ok(())
            }
            Err(_) => {
                self.kill();
                Err(format!("the broker did not start: {}", self.stderr()))
            }
        }
    }

    /// Begins to start it and does not wait: for a harness that does something to a start.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn begin(&mut self) -> Result<(), String> {
        self.spawn().map(drop)
    }

    /// Starts it to die by itself, with `environment` on top of its own; the next start is without. True when it died before `longest` was
    /// over; it runs on otherwise.
    ///
    /// # Errors
    /// When there is no such program, or it ended in another way than by a signal.
    pub fn start_to_die(
        &mut self,
        environment: (&str, &str),
        longest: Duration,
    ) -> Result<bool, String> {
        let (name, value) = environment;
        self.options.environment.push((name.to_owned(), value.to_owned()));
        let begun = self.begin();
        self.options.environment.pop();
        begun?;
        let Some(child) = &mut self.child else { return Ok(false) };
        let ends = Instant::now() + longest;
        while Instant::now() < ends {
            match child.try_wait().map_err(|error| error.to_string())? {
                None => thread::sleep(LOOK_EVERY),
                Some(status) if status.code().is_none() => return Ok(true),
                Some(status) => return Err(format!("ended with {status}: {}", self.stderr())),
            }
        }
        Ok(false)
    }

    /// Its process, and where it listens once it does.
    fn spawn(&mut self) -> Result<mpsc::Receiver<String>, String> {
        let mut child = self.command()?.spawn().map_err(|error| format!("no broker: {error}"))?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let (found, listening) = mpsc::channel();
        // Reads on to the end, so that a full pipe never holds the broker up.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(rest) = line.trim().strip_prefix("listening") {
                    let address = rest.split_whitespace().next().unwrap_or_default();
                    let _ended = found.send(address.to_owned());
                }
            }
        });
        self.child = Some(child);
        Ok(listening)
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.options.data_dir.clone().unwrap_or_else(|| self.options.folder.join("data"))
    }

    /// What it wrote to standard error since it was started last.
    pub fn stderr(&self) -> String {
        let path = self.options.folder.join("stderr");
        fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    }

    /// Kills it as a crash would, and waits for its end.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Asks it to end, and waits. One that takes longer than it may is killed, which its status tells.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        let pid = Pid::from_child(self.child.as_ref()?);
        let (ended, waiting) = mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            if waiting.recv_timeout(STOP_MAX) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _gone = kill_process(pid, Signal::KILL);
            }
        });
        let status = self.end(Signal::TERM);
        drop(ended);
        let _ended = watchdog.join();
        status
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // One that is gone already needs no signal.
            let _gone = kill_process(Pid::from_child(child), signal);
        }
    }

    fn end(&mut self, signal: Signal) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        // One that is gone already needs no signal.
        let _gone = kill_process(Pid::from_child(&child), signal);
        child.wait().ok()
    }

    fn command(&self) -> Result<Command, String> {
        let text = |error: std::io::Error| error.to_string();
        let beside = || Ok(std::env::current_exe().map_err(text)?.with_file_name("riverrun"));
        let binary = self.options.program.clone().map_or_else(beside, Ok::<_, String>)?;
        let errors = fs::File::create(self.options.folder.join("stderr")).map_err(text)?;
        let mut words = self.options.wrapper.iter();
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        command.arg("serve").arg("--data-dir").arg(self.data_dir());
        command.arg("--listen").arg(&self.address).args(["--http-listen", "127.0.0.1:0"]);
        command.arg("--config").arg(self.options.folder.join("riverrun.toml"));
        command.env_remove("RUST_LOG").envs(self.options.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        Ok(command)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.kill();
    }
}

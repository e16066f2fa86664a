//! Runs the binary: one command to its end, or a broker that is stopped, killed and started again.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use riverrun_tests::ports::lasting_address;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::binary;

/// Longest time anything here may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Done {
    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails unless the command ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> Done {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Fails unless it ended with `code` and one line on standard error that holds every part.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, parts: &[&str]) -> Done {
        assert_eq!(self.code, Some(code), "{self:#?}");
        let line = self.stderr.trim_end();
        assert_eq!(line.lines().count(), 1, "more than one line:\n{line}");
        for part in parts {
            assert!(line.contains(part), "`{part}` is missing in `{line}`");
        }
        self
    }
}

/// Runs `riverrun` with `arguments`, gives it `input`, and waits for its end.
pub(crate) fn run(arguments: &[&str], input: &[u8]) -> Done {
    run_with(arguments, input, None)
}

fn run_with(arguments: &[&str], input: &[u8], server: Option<&str>) -> Done {
    let mut command = Command::new(binary::path());
    command.args(arguments).env_remove("RIVERRUN_SERVER").env_remove("RUST_LOG");
    if let Some(server) = server {
        command.env("RIVERRUN_SERVER", server);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The command may end without reading all of it; then the pipe is closed and that is fine.
    let feeder = thread::spawn(move || stdin.write_all(&input).is_ok());
    let watchdog = Watchdog::over(&child);
    let output = child.wait_with_output().unwrap();
    drop(watchdog);
    feeder.join().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Done { code: output.status.code(), stdout: output.stdout, stderr }
}

/// Runs any command to its end, or ends it after `most`; the reason when it does not start.
pub(crate) fn finish(command: &mut Command, most: Duration) -> Result<Output, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("`{name}` does not start: {error}"))?;
    let watchdog = Watchdog::within(&child, most);
    let output = child.wait_with_output().unwrap();
    drop(watchdog);
    Ok(output)
}

/// Kills a process that takes too long, unless it is dropped before.
#[derive(Debug)]
pub(crate) struct Watchdog {
    ended: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watchdog {
    /// With the longest time anything here may take.
    pub(crate) fn over(child: &Child) -> Watchdog {
        Watchdog::within(child, DEADLINE)
    }

    fn within(child: &Child, most: Duration) -> Watchdog {
        let pid = Pid::from_child(child);
        let (ended, waiting) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            if waiting.recv_timeout(most) == Err(mpsc::RecvTimeoutError::Timeout) {
                kill_process(pid, Signal::KILL).ok();
            }
        });
        Watchdog { ended: Some(ended), thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.ended.take());
        self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Name of a broker's settings file, where it has one.
const SETTINGS: &str = "riverrun.toml";

/// A broker in a process of its own, on a free port, with a data directory of its own.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Option<Child>,
    folder: tempfile::TempDir,
    /// Where it listens; the same port after a restart.
    pub(crate) address: String,
    /// Where its web door is; the same port after a restart.
    pub(crate) web_address: String,
}

impl Broker {
    /// Starts one on an empty directory.
    pub(crate) fn start() -> Broker {
        let folder = tempfile::tempdir().unwrap();
        let free = || lasting_address().to_string();
        let mut broker = Broker { child: None, folder, address: free(), web_address: free() };
        broker.restart();
        broker
    }

    /// Starts one on an empty directory, with a settings file.
    pub(crate) fn start_with(settings: &str) -> Broker {
        let folder = tempfile::tempdir().unwrap();
        write_file(folder.path(), SETTINGS, settings.as_bytes());
        let free = || lasting_address().to_string();
        let mut broker = Broker { child: None, folder, address: free(), web_address: free() };
        broker.restart();
        broker
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it again on the same directory and port, and waits until it listens.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let mut child = self.command().spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (found, listening) = mpsc::channel();
        // Reads on to the end, so that the broker is never held up by a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let line = line.trim();
                let told = ["listening", "web         http://"];
                if let Some(address) = told.iter().find_map(|told| line.strip_prefix(told)) {
                    let address = address.split_whitespace().next().unwrap_or_default();
                    found.send(address.to_owned()).ok();
                }
            }
        });
        let errors = self.folder.path().join("stderr");
        let heard = || listening.recv_timeout(DEADLINE);
        match heard().and_then(|grpc| Ok((grpc, heard()?))) {
            Ok((grpc, web)) => (self.address, self.web_address) = (grpc, web),
            Err(_) => {
                child.kill().ok();
                panic!(
                    "the broker did not start: {}",
                    fs::read_to_string(errors).unwrap_or_default()
                );
            }
        }
        self.child = Some(child);
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary::path());
        let errors = fs::File::create(self.folder.path().join("stderr")).unwrap();
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--listen")
            .arg(&self.address)
            .arg("--http-listen")
            .arg(&self.web_address);
        let settings = self.folder.path().join(SETTINGS);
        if settings.exists() {
            command.arg("--config").arg(settings);
        }
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        command
    }

    /// What it wrote to standard error since it was last started.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// The most memory that it ever had resident, in bytes.
    pub(crate) fn peak_bytes(&self) -> usize {
        let pid = self.child.as_ref().expect("it is running").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib << 10
    }

    /// From now on, until it is started again, it may have so many files open.
    pub(crate) fn limit_files(&self, count: u64) {
        let pid = Pid::from_child(self.child.as_ref().expect("it is running"));
        let limit = Rlimit { current: Some(count), maximum: Some(count) };
        prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Asks it to end and waits.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.end(Signal::TERM)
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        let mut child = self.child.take().expect("it is running");
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap()
    }

    /// Runs a command against it.
    pub(crate) fn run(&self, arguments: &[&str], input: &[u8]) -> Done {
        run_with(arguments, input, Some(&self.address))
    }

    /// Runs a command without input against it.
    pub(crate) fn call(&self, arguments: &[&str]) -> Done {
        self.run(arguments, b"")
    }

    /// Id of a topic.
    pub(crate) fn topic_id(&self, topic: &str) -> String {
        let text = self.call(&["topic", "describe", topic, "-o", "json"]).ok().text();
        let described: serde_json::Value = serde_json::from_str(&text).unwrap();
        described["topic_id"].as_str().unwrap().to_owned()
    }

    /// Starts a command against it whose ends the caller holds.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(binary::path());
        command.args(arguments).env("RIVERRUN_SERVER", &self.address);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Writes `bytes` into a file of a folder and gives its path as text.
pub(crate) fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

//! A broker of our own: this program as `serve`, in a process of its own that a Ctrl-C does not reach.
//!
//! What it says on standard error is kept, the last of it, for when it does not come up.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use crate::{clock, failure::Failure};

/// Longest time a broker may take until it listens: recovery of very much data takes minutes.
const READY_TIMEOUT: Duration = Duration::from_secs(600);
/// Of what it says, so many bytes are kept.
const WORDS_BYTES_MAX: usize = 4096;

/// A running broker; killed when dropped.
#[derive(Debug)]
pub(super) struct OwnBroker {
    child: Child,
    /// Where it listens.
    pub(super) address: String,
    /// When it was started.
    pub(super) start: Instant,
    /// Time from then until it said that it listens.
    pub(super) ready: Duration,
}

impl OwnBroker {
    /// Starts one on a data directory and a free port, and waits until it listens.
    pub(super) async fn start(
        data_dir: &Path,
        config: Option<&Path>,
    ) -> Result<OwnBroker, Failure> {
        let failed = |error| Failure::other(format!("cannot start a broker: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("serve").arg("--data-dir").arg(data_dir).args([
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
        ]);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        // A group of its own: the terminal's Ctrl-C is for the bench, which then ends the broker.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = clock::instant();
        let mut child = command.spawn().map_err(failed)?;
        let words = child.stderr.take().map(keep_words).unwrap_or_default();
        let listening = child.stdout.take().map(find_address);
        let mut broker = OwnBroker { child, address: String::new(), start, ready: Duration::ZERO };
        let address = async { listening?.await.ok() };
        match tokio::time::timeout(READY_TIMEOUT, address).await {
            Ok(Some(address)) => broker.address = address,
            Ok(None) | Err(_) => return Err(not_up(broker, &words)),
        }
        broker.ready = start.elapsed();
        Ok(broker)
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as a crash would, and waits until it is gone.
    pub(super) fn kill(self) -> Result<(), Failure> {
        self.end(Signal::KILL).map(|_| ())
    }

    /// Asks it to end, and waits.
    pub(super) fn stop(self) -> Result<(), Failure> {
        let status = self.end(Signal::TERM)?;
        match status.success() {
            true => Ok(()),
            false => Err(Failure::other(format!("the broker ended with {status}"))),
        }
    }

    fn end(mut self, signal: Signal) -> Result<ExitStatus, Failure> {
        let failed = |error| Failure::other(format!("cannot end the broker: {error}"));
        kill_process(Pid::from_child(&self.child), signal).map_err(|error| failed(error.into()))?;
        self.child.wait().map_err(failed)
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        // After `kill` and `stop` there is nothing left to end.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Finds the address in what the broker says; reads on to the end, so that it is never held up by a full pipe.
fn find_address(stdout: ChildStdout) -> oneshot::Receiver<String> {
    let (found, address) = oneshot::channel();
    std::thread::spawn(move || {
        let mut found = Some(found);
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let Some(rest) = line.trim().strip_prefix("listening") else { continue };
            let address = rest.split_whitespace().next().unwrap_or_default().to_owned();
            if let Some(found) = found.take() {
                // Nobody waits any more when it took too long.
                let _unheard = found.send(address);
            }
        }
    });
    address
}

/// Keeps the last of what the broker says on standard error.
fn keep_words(mut stderr: ChildStderr) -> Arc<Mutex<Vec<u8>>> {
    let words = Arc::new(Mutex::new(Vec::new()));
    let kept = words.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = stderr.read(&mut buffer) {
            let mut words = kept.lock();
            words.extend_from_slice(&buffer[..length]);
            let excess = words.len().saturating_sub(WORDS_BYTES_MAX);
            words.drain(..excess);
        }
    });
    words
}

/// Why it did not come up: its last line, and its class by how it ended.
fn not_up(mut broker: OwnBroker, words: &Mutex<Vec<u8>>) -> Failure {
    let _ended = broker.child.kill();
    let code = broker.child.wait().ok().and_then(|status| status.code());
    let words = String::from_utf8_lossy(&words.lock()).into_owned();
    let last =
        words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let message = last.strip_prefix("riverrun: ").unwrap_or(last);
    let message = format!("the broker did not start: {message}");
    match code {
        Some(2) => Failure::usage(message),
        Some(_) | None => Failure::other(message),
    }
}

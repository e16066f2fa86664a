//! A command per record: the value on its standard input, its exit status as the outcome.

use std::{
    ffi::OsString,
    io::{ErrorKind, IsTerminal},
    os::unix::{ffi::OsStringExt, process::ExitStatusExt},
    pin::pin,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use riverrun_client::{Client, Outcome, Received, Stopper, Subscriber, Work};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStderr, Command},
    time::timeout,
};

use super::{SubscribeArgs, end::End};
use crate::{
    failure::{Failure, Stop},
    signals::{hung_up, interrupted},
    units,
};

/// Exit status of input that will never be right (`sysexits.h`).
const EX_DATAERR: i32 = 65;
/// Exit statuses of a shell that cannot run the command.
const NOT_RUN: [i32; 2] = [126, 127];
/// What somebody hears who did not wait for the commands that ran.
const CUT_SHORT: &str = "ended while commands ran; their records are handed out again";
/// A command that has ended may leave somebody behind who keeps its standard error open: nobody waits longer for the last words.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Longest last line kept as a reason.
const REASON_BYTES_MAX: usize = 256;

/// What the handlers share.
struct Shop {
    command: String,
    stopper: Stopper,
    /// Records that may still be begun.
    left: AtomicU64,
    /// Being ended: a command that dies of it has not failed.
    stopping: std::sync::atomic::AtomicBool,
    acked: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    groups: Groups,
    /// Why no command can be run.
    broken: Mutex<Option<Failure>>,
}

/// Runs the command for each record until interrupted or the end is reached.
pub(super) async fn run(
    client: &Client,
    subscriber: Subscriber,
    (args, command): (SubscribeArgs, String),
) -> Result<(), Stop> {
    let mut end = End::new(client, &args.subscription, subscriber.session_id());
    let shop = Arc::new(Shop {
        command,
        stopper: subscriber.stopper(),
        left: AtomicU64::new(args.max.unwrap_or(u64::MAX)),
        stopping: false.into(),
        acked: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        rejected: AtomicU64::new(0),
        groups: Groups::default(),
        broken: Mutex::new(None),
    });
    let worker = shop.clone();
    let handler = move |work: Work| {
        let shop = worker.clone();
        async move { shop.handle(work).await }
    };
    let mut running = pin!(subscriber.run(args.concurrency as usize, handler));
    let mut reached = pin!(async {
        match args.no_follow {
            true => end.reached().await,
            false => std::future::pending().await,
        }
    });
    let mut at_end = None;
    let ended = loop {
        tokio::select! {
            ended = &mut running => break at_end.unwrap_or(Ok(())).and(ended.map_err(Stop::from)),
            reached = &mut reached, if at_end.is_none() => {
                shop.stopper.stop();
                at_end = Some(reached.map_err(Stop::from));
            }
            () = interrupted() => {
                if shop.stopping.swap(true, Ordering::AcqRel) {
                    shop.groups.end();
                    break Err(Failure::other(CUT_SHORT).into());
                }
                shop.stopper.stop();
                if std::io::stderr().is_terminal() {
                    eprintln!("riverrun: waiting for the commands that run; once more ends them");
                }
            }
            () = hung_up() => {
                // What dies of it has not failed, and nothing more is begun.
                shop.stopping.store(true, Ordering::Release);
                shop.stopper.stop();
                shop.groups.end();
                break Err(Failure::other(CUT_SHORT).into());
            }
        }
    };
    if std::io::stderr().is_terminal() {
        shop.report();
    }
    match shop.broken.lock().take() {
        Some(failure) => Err(failure.into()),
        None => ended,
    }
}

impl Shop {
    async fn handle(&self, work: Work) -> Outcome {
        let begun =
            self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        match begun {
            Err(_) => return Outcome::Release,
            Ok(1) => self.stopper.stop(),
            Ok(_) => {}
        }
        match self.run(&work).await {
            Ok((status, reason)) => self.outcome(status, reason),
            Err(error) if error.kind() == ErrorKind::ArgumentListTooLong => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                Outcome::reject("its key and headers do not fit into the environment of a command")
            }
            Err(error) => self.give_up(format!("cannot run `sh`: {error}")),
        }
    }

    /// Runs the command once; how it ended and the last line it said.
    async fn run(&self, work: &Work) -> std::io::Result<(ExitStatus, String)> {
        let record = work.record();
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).stdin(Stdio::piped()).stderr(Stdio::piped());
        command.env("RIVERRUN_ATTEMPT", work.attempts().to_string());
        command.env("RIVERRUN_FAILURES", work.failures().to_string());
        describe(&mut command, record);
        // A group of its own: what ends this program from a terminal is not meant for the command, whose end would count as a failure.
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        self.groups.add(group);
        let value = record.value.clone().unwrap_or_default();
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let feed = async move {
            if let Some(mut stdin) = stdin {
                // A command need not read its input.
                let _unread = stdin.write_all(&value).await;
            }
        };
        let mut said = Said::default();
        let status = {
            let mut talk = pin!(async { tokio::join!(feed, said.listen(stderr)) });
            let mut is_over = false;
            loop {
                tokio::select! {
                    status = child.wait() => {
                        if !is_over {
                            let _more = timeout(LAST_WORDS, talk).await;
                        }
                        break status;
                    }
                    _ = &mut talk, if !is_over => is_over = true,
                }
            }
        };
        self.groups.remove(group);
        Ok((status?, said.last_line()))
    }

    fn outcome(&self, status: ExitStatus, reason: String) -> Outcome {
        match status.code() {
            Some(0) => {
                self.acked.fetch_add(1, Ordering::Relaxed);
                Outcome::Done
            }
            Some(EX_DATAERR) => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                Outcome::reject(or(reason, "exit status 65".to_owned()))
            }
            Some(code) if NOT_RUN.contains(&code) => {
                self.give_up(format!("the command cannot be run: {reason}"))
            }
            None if self.stopping.load(Ordering::Acquire) => Outcome::Release,
            code => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let words = code.map(|code| format!("exit status {code}"));
                let signal = || format!("killed by signal {}", status.signal().unwrap_or_default());
                Outcome::retry(or(reason, words.unwrap_or_else(signal)))
            }
        }
    }

    /// No record will fare better: this one is given back, and the run ends.
    fn give_up(&self, why: String) -> Outcome {
        self.broken.lock().get_or_insert(Failure::other(why));
        self.stopper.stop();
        Outcome::Release
    }

    fn report(&self) {
        let count = |counter: &AtomicU64| units::count(counter.load(Ordering::Relaxed));
        let (acked, failed) = (count(&self.acked), count(&self.failed));
        let rejected = count(&self.rejected);
        eprintln!("{acked} acknowledged, {failed} failed, {rejected} rejected");
    }
}

/// The processes of commands that run, by their groups.
#[derive(Debug, Default)]
struct Groups(Mutex<Vec<Pid>>);

impl Groups {
    fn add(&self, group: Option<Pid>) {
        self.0.lock().extend(group);
    }

    /// The command has ended; what it left behind is none of our business.
    fn remove(&self, group: Option<Pid>) {
        self.0.lock().retain(|known| Some(*known) != group);
    }

    /// Ends all of them, and what they have started.
    fn end(&self) {
        for group in self.0.lock().drain(..) {
            // It may be gone already.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Puts what is known of a record into the command's environment. What holds a zero byte cannot be there.
fn describe(command: &mut Command, record: &Received) {
    command.env("RIVERRUN_TOPIC", &*record.partition.topic);
    command.env("RIVERRUN_PARTITION", record.partition.partition.to_string());
    command.env("RIVERRUN_OFFSET", record.offset.to_string());
    command.env("RIVERRUN_TIMESTAMP_MS", record.timestamp_ms.to_string());
    // What this program was started with is of no record.
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| is_of_record(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    let mut put = |name: OsString, value: &[u8]| {
        if !value.contains(&0) {
            command.env(name, OsString::from_vec(value.to_vec()));
        }
    };
    if let Some(key) = &record.key {
        put("RIVERRUN_KEY".into(), key);
    }
    for header in &record.headers {
        put(variable(&header.key), header.value.as_deref().unwrap_or_default());
    }
}

/// Whether a variable tells what not every record has.
fn is_of_record(name: &str) -> bool {
    name == "RIVERRUN_KEY" || name.starts_with("RIVERRUN_HEADER_")
}

/// `content-type` as `RIVERRUN_HEADER_CONTENT_TYPE`.
fn variable(header: &[u8]) -> OsString {
    let letter = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte.to_ascii_uppercase()),
        _ => '_',
    };
    let name: String = header.iter().map(letter).collect();
    format!("RIVERRUN_HEADER_{name}").into()
}

/// What a command says on its standard error.
#[derive(Debug, Default)]
struct Said {
    /// The last whole line that is not blank.
    last: Vec<u8>,
    /// The line that has begun.
    line: Vec<u8>,
}

impl Said {
    /// Passes it on to standard error.
    async fn listen(&mut self, stderr: Option<ChildStderr>) {
        let Some(stderr) = stderr else { return };
        let mut reader = BufReader::new(stderr);
        // A line longer than the buffer comes in pieces, so memory stays bounded.
        while let Ok(piece) = reader.fill_buf().await {
            if piece.is_empty() {
                break;
            }
            let end = piece.iter().position(|byte| *byte == b'\n').map_or(piece.len(), |at| at + 1);
            use std::io::Write;
            let _closed = std::io::stderr().write_all(&piece[..end]);
            self.take(&piece[..end]);
            reader.consume(end);
        }
    }

    /// Takes in a line, or a piece of one.
    fn take(&mut self, piece: &[u8]) {
        let room = (REASON_BYTES_MAX - self.line.len()).min(piece.len());
        self.line.extend_from_slice(&piece[..room]);
        if piece.ends_with(b"\n") {
            self.end_line();
        }
    }

    /// Keeps the line that has begun, unless it is blank.
    fn end_line(&mut self) {
        let text = self.line.trim_ascii();
        if !text.is_empty() {
            self.last = text.to_vec();
        }
        self.line.clear();
    }

    /// The last line that is not blank.
    fn last_line(mut self) -> String {
        self.end_line();
        String::from_utf8_lossy(&self.last).into_owned()
    }
}

fn or(reason: String, otherwise: String) -> String {
    if reason.is_empty() { otherwise } else { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_variables() {
        assert_eq!(variable(b"content-type"), "RIVERRUN_HEADER_CONTENT_TYPE");
        assert_eq!(variable("zü 1".as_bytes()), "RIVERRUN_HEADER_Z___1");
    }

    #[test]
    fn the_last_line_that_says_something_is_kept() {
        let mut said = Said::default();
        for piece in ["first\n", "  sec", "ond \n", "\n", " "] {
            said.take(piece.as_bytes());
        }
        assert_eq!(said.last_line(), "second");
        let mut cut = Said::default();
        cut.take(&[b'x'; 1_000]);
        assert_eq!(cut.last_line().len(), REASON_BYTES_MAX);
    }
}

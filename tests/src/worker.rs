//! A worker of a work queue, in a process of its own so that it can die.
//!
//! `worker ADDRESS TOPIC SUBSCRIPTION MODE LOG FAULTS`: takes jobs four at a time. What becomes of a record depends only on its number and on
//! how often it failed, so whoever reads the log can tell what should have happened. Each decision is appended to LOG, which all workers
//! share, before it is told to the broker:
//!
//! ```text
//! NUMBER FAILURES done|retry|poison|crash
//! ```

#![expect(clippy::print_stderr, reason = "a program of the checks: it tells why it ends")]

use std::{fs::File, io::Write, process::ExitCode, sync::Arc, time::Duration};

use riverrun_client::{Client, Mode, Outcome};
use riverrun_tests::work::{Fate, MAX_FAILURES};

/// Records in hand at a time.
const CONCURRENCY: usize = 4;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match work(&std::env::args().skip(1).collect::<Vec<_>>()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("worker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn work(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [address, topic, subscription, mode, log, faults] = arguments else {
        return Err("usage: worker ADDRESS TOPIC SUBSCRIPTION MODE LOG FAULTS".into());
    };
    let mode = if mode == "key-fifo" { Mode::KeyFifo } else { Mode::Unordered };
    let log = Arc::new(File::options().append(true).create(true).open(log)?);
    let faults = faults == "faults";
    let mq = Client::connect(address).await?;
    let jobs = mq
        .subscribe(topic)
        .name(subscription)
        .mode(mode)
        .credit(16, 1 << 20)
        .max_failures(MAX_FAILURES)
        .backoff(Duration::from_millis(20), Duration::from_millis(100))
        .open()
        .await?;
    jobs.run(CONCURRENCY, move |job| {
        let log = log.clone();
        async move {
            let value = job.record().value.clone().unwrap_or_default();
            let digits = value.split(|byte| *byte == b':').next().unwrap_or_default();
            let number: u64 = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(u64::MAX);
            let fate = if faults { Fate::of(number, job.failures()) } else { Fate::Done };
            // One write: lines of several workers do not mix.
            let line = format!("{number} {} {}\n", job.failures(), fate.name());
            if let Err(error) = (&*log).write_all(line.as_bytes()) {
                eprintln!("worker: {error}");
                std::process::abort();
            }
            match fate {
                Fate::Done => Outcome::Done,
                Fate::Retry => Outcome::retry("a failure that passes"),
                Fate::Poison => Outcome::retry(format!("line {number} is poison")),
                Fate::Crash => std::process::abort(),
            }
        }
    })
    .await?;
    Ok(())
}

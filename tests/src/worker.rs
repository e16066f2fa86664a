//! A worker of a work queue, in a process of its own so that it can die.
//!
//! `worker ADDRESS TOPIC SUBSCRIPTION MODE LOG FAULTS`: takes jobs four at a time. What becomes of a record depends only on its number and on
//! how often it failed, so whoever reads the log can tell what should have happened. Each decision is appended to LOG, which all workers
//! share, before it is told to the broker:
//!
//! ```text
//! NUMBER FAILURES done|retry|poison|crash
//! ```
//!
//! `worker ADDRESS TOPIC GROUP member LOG NAME` is a member of a group instead, and writes the lines of [`riverrun_tests::member`].

#![expect(clippy::print_stderr, reason = "a program of the checks: it tells why it ends")]

use std::{fs::File, io::Write, process::ExitCode, sync::Arc, time::Duration};

use riverrun_client::{Client, Mode, Outcome};
use riverrun_tests::{
    member::Line,
    work::{Fate, MAX_FAILURES},
};

/// Records in hand at a time.
const CONCURRENCY: usize = 4;
/// Silence after which a member is none any more.
const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

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
    if mode == "member" {
        return be_member(address, topic, (subscription, faults), log).await;
    }
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

/// Receives and commits until it is killed.
async fn be_member(
    address: &str,
    topic: &str,
    (group, name): (&str, &str),
    log: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut log = File::options().append(true).create(true).open(log)?;
    // One write: lines of several members do not mix.
    let mut note = move |line: &Line| log.write_all(format!("{line}\n").as_bytes());
    let mq = Client::connect(address).await?;
    let builder = mq.consumer(topic).group(group).session_timeout(SESSION_TIMEOUT);
    let mut consumer = builder.max_bytes(20_000, 5_000).build().await?;
    for serial in 0.. {
        let batch = consumer.next_batch().await?;
        let partition = batch.partition().partition.0;
        let (offset, member) = (batch.next_offset().0, name.to_owned());
        let from = batch.iter().next().map_or(offset, |record| record.offset.0);
        note(&Line::Got { member: member.clone(), partition, from, to: offset })?;
        note(&Line::Try { member: member.clone(), serial, partition, offset })?;
        match consumer.commit(&batch).await {
            Ok(()) => note(&Line::Committed { member, serial })?,
            Err(error) if error.is_fenced() => note(&Line::Fenced { member, serial })?,
            Err(error) if error.is_retriable() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

//! W7: the time from starting a broker, after it was killed, to the first record read from it.
//!
//! The only workload with a broker of its own: it starts one on a data directory, writes, kills it with SIGKILL and
//! starts it again, several times. After each start every acknowledged record is read and counted.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    Measured,
    amount::AmountArgs,
    halt::Halt,
    meter::{self, Memory},
    own_broker::OwnBroker,
    payload::RecordArgs,
    reader::{Read, Reader, Source, known},
    report::{Report, rounded},
    sender::SendArgs,
    stage::{ShownArgs, Stage},
    tally::{Expected, Tally},
    times::Times,
    topic::{BenchTopic, NewTopicArgs},
};
use crate::{args::Server, connect::connect, failure::Failure, units};

/// What `--help` says at its end.
pub(super) const NOTES: &str = "\
This workload runs a broker of its own; --server is not used. It starts `riverrun serve` on the data
directory and a free port of 127.0.0.1, writes to a topic, kills the broker with SIGKILL (or stops it,
see --stop) and starts it again, as often as --rounds says. After each start all records are read
and held against what was acknowledged; where one is missing the command ends with exit code 5.
A directory that did not exist is removed at the end; in one that did, only the topic is. The
directory must not be in use by a running broker. The page cache stays warm: after a real power cut
files are read from the disk.";

/// What `bench restart` takes.
#[derive(Debug, Args)]
pub(crate) struct RestartBench {
    /// Data directory of the broker that is started; made when it does not exist
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Settings file of that broker
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How often to end and start it
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// How it is ended
    #[arg(long, value_enum, default_value_t, value_name = "WAY")]
    stop: Way,
    #[command(flatten)]
    amount: AmountArgs,
    #[command(flatten, next_help_heading = "Records")]
    records: RecordArgs,
    #[command(flatten, next_help_heading = "Sending")]
    send: SendArgs,
    #[command(flatten, next_help_heading = "Topic")]
    topic: NewTopicArgs,
    #[command(flatten)]
    shown: ShownArgs,
}

/// How the broker is ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Way {
    /// With SIGKILL, as a crash
    #[default]
    Kill,
    /// With SIGTERM, so that it closes its files
    Term,
}

/// One start.
#[derive(Debug)]
struct Round {
    /// From the start of the process until it listened.
    ready: Duration,
    /// From there as well, until a record was read.
    first: Duration,
    /// Processor seconds of the broker until it listened.
    ready_cpu: f64,
    /// Memory of the broker after everything was read.
    memory: Memory,
    /// Records that were there.
    count: u64,
}

impl RestartBench {
    pub(super) async fn measure(self, server: &Server) -> Measured {
        let is_new = !self.data_dir.exists();
        let outcome = self.run(server.timeout).await;
        if is_new && !self.topic.is_kept() {
            remove(&self.data_dir);
        }
        Ok((outcome?, self.shown.output.output))
    }

    async fn run(&self, timeout: Duration) -> Result<Report, Failure> {
        super::check_acknowledged(&self.send)?;
        let halt = Halt::listen();
        let mut broker = self.start().await?;
        let server = Server { address: broker.address.clone(), timeout };
        let stage = Stage::of(&server, &self.shown, (Some(broker.pid()), halt)).await?;
        let topic = BenchTopic::make(&stage, &self.topic).await?;
        let args = (&self.send, &self.records);
        let expected = super::fill(&stage, &topic, args, self.amount.amount()).await?;
        stage.client.close();
        let mut rounds = Vec::new();
        while rounds.len() < self.rounds as usize && !stage.halt.is_asked() {
            let _live = stage.live(&format!("start {}", rounds.len() + 1), Some(expected.count));
            match self.stop {
                Way::Kill => broker.kill()?,
                Way::Term => broker.stop()?,
            }
            broker = self.start().await?;
            rounds.push(read_back(&stage, (&broker, &topic), &expected).await?);
        }
        if !self.topic.is_kept() {
            let server = Server { address: broker.address.clone(), timeout };
            connect(&server).await?.admin().delete_topic(&topic.name).await?;
        }
        broker.stop()?;
        Ok(self.report(&stage, &expected, &rounds))
    }

    async fn start(&self) -> Result<OwnBroker, Failure> {
        OwnBroker::start(&self.data_dir, self.config.as_deref()).await
    }

    fn report(&self, stage: &Stage<'_>, expected: &Expected, rounds: &[Round]) -> Report {
        let way = match self.stop {
            Way::Kill => "killed",
            Way::Term => "stopped",
        };
        let what = format!(
            "{} of {} each, {way} {} times",
            units::records(expected.count),
            units::bytes(self.records.size as u64),
            units::count(rounds.len() as u64)
        );
        let mut report = Report::new("restart", what, stage);
        let (mut ready, mut first) = (Times::new(), Times::new());
        for (number, round) in (1..).zip(rounds) {
            report.fact("START", format!("{number}: {}", round.text()));
            ready.add(round.ready);
            first.add(round.first);
        }
        if !rounds.is_empty() {
            report.times("listening", ready);
            report.times("first record", first);
        }
        report.put(
            "broker",
            json!({ "data_dir": self.data_dir.display().to_string(), "version": stage.version }),
        );
        report.put("rounds", rounds.iter().map(Round::to_json).collect());
        report.put("records", json!({ "acknowledged": expected.count }));
        report.put("bytes", json!(expected.bytes));
        report.put(
            "settings",
            json!({
                "stop": way, "records": self.records.to_json(), "send": self.send.to_json(),
                "partitions": self.topic.partitions(),
            }),
        );
        report
    }
}

/// Reads everything from a broker that was just started, and holds it against what was acknowledged.
async fn read_back(
    stage: &Stage<'_>,
    (broker, topic): (&OwnBroker, &BenchTopic),
    expected: &Expected,
) -> Result<Round, Failure> {
    let ready_cpu = meter::processor_seconds(broker.pid()).unwrap_or_default();
    let server = Server { address: broker.address.clone(), timeout: stage.patience() };
    let client = connect(&server).await?;
    let consumer = client.consumer(&topic.name).build().await?;
    let tally = Tally::new(Some(stage.run), []);
    let reader = Reader::new((&stage.halt, stage.patience()), Source::Pull(consumer), tally);
    let read: Read = Reader { goal: known(expected.count), ..reader }.run().await?;
    read.tally.check(expected)?;
    let first = read.first.unwrap_or(read.end);
    Ok(Round {
        ready: broker.ready,
        first: first - broker.start,
        ready_cpu,
        memory: meter::memory(broker.pid()).unwrap_or_default(),
        count: read.tally.got.count,
    })
}

impl Round {
    fn text(&self) -> String {
        format!(
            "listening after {:.1} ms, first record after {:.1} ms, {} there; {:.2} s of processor \
             until it listened, {} resident in the end",
            self.ready.as_secs_f64() * 1e3,
            self.first.as_secs_f64() * 1e3,
            units::records(self.count),
            self.ready_cpu,
            units::bytes(self.memory.resident),
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "ready_ms": rounded(self.ready.as_secs_f64() * 1e3, 1e3),
            "first_record_ms": rounded(self.first.as_secs_f64() * 1e3, 1e3),
            "broker_seconds_until_ready": self.ready_cpu,
            "broker_resident_bytes": self.memory.resident,
            "broker_heap_bytes": self.memory.heap,
            "records": self.count,
        })
    }
}

/// Removes a data directory that was made for the run.
#[expect(clippy::disallowed_methods, reason = "removes what it made")]
fn remove(dir: &Path) {
    if !dir.exists() {
        return;
    }
    if let Err(error) = std::fs::remove_dir_all(dir) {
        eprintln!("riverrun: `{}` is left: {error}", dir.display());
    }
}

//! `riverrun bench`: measures a broker with one workload, as an operator would size a machine.
//!
//! Workloads, a file each: [`produce`], [`consume`], [`latency`], [`queue`], [`fanout`], [`idle`] against a running
//! broker; [`restart`] runs one of its own. What they share: [`amount`] (how much), [`payload`] (what is sent),
//! [`pace`] (when), [`sender`] with [`acks`], [`reader`] and [`audience`] (who), [`tally`] (whether all of it came), [`times`], [`meter`] and
//! [`broker_process`] (what it took), [`report`], [`topic`], [`stage`], [`halt`], [`live`].
//!
//! Invariants: only the client library is used, by its ordinary calls; every record that counts was acknowledged
//! and found again; a time counts from when its record was due; what was made for a run is deleted.
//! Nothing here judges a figure, and nothing is compared with other systems.

mod acks;
mod amount;
mod audience;
mod broker_process;
mod consume;
mod fanout;
mod halt;
mod idle;
mod latency;
mod live;
mod meter;
mod numbers;
mod own_broker;
mod pace;
mod payload;
mod produce;
mod queue;
mod reader;
mod report;
mod restart;
mod sender;
mod stage;
mod tally;
mod times;
mod topic;

use clap::Subcommand;
use tokio::task::JoinSet;

use self::{
    amount::Amount,
    payload::RecordArgs,
    report::Report,
    sender::{Crew, SendArgs},
    stage::Stage,
    tally::Expected,
    topic::BenchTopic,
};
use crate::{
    args::Server,
    failure::{Failure, Stop},
    output::Output,
    units,
};

/// What `--help` says at the end of every workload.
const NOTES: &str = "\
Times count from the moment a record was due, so what waits behind a slow record counts as well.
Every record that is counted was acknowledged (unless --acks none was given) and found again; where
one is missing the command ends with exit code 5 and gives no figures. Ctrl-C ends a run early, shows what was measured so far
and deletes what was made for it; a second one waits for nothing more.";

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// How fast records are written
    #[command(after_long_help = NOTES)]
    Produce(produce::ProduceBench),
    /// How fast stored records are read
    #[command(after_long_help = NOTES)]
    Consume(consume::ConsumeBench),
    /// How long a record takes to its acknowledgement and to its reader, at a steady rate
    #[command(after_long_help = NOTES)]
    Latency(latency::LatencyBench),
    /// How fast stored records are handed out and acknowledged one by one
    #[command(after_long_help = NOTES)]
    Queue(queue::QueueBench),
    /// How fast records reach many readers that each get all of them
    #[command(after_long_help = NOTES)]
    Fanout(fanout::FanoutBench),
    /// What topics and readers that wait cost the broker
    #[command(after_long_help = NOTES)]
    Idle(idle::IdleBench),
    /// How soon a broker serves again after it was killed: starts and kills one of its own on --data-dir
    #[command(after_long_help = restart::NOTES)]
    Restart(restart::RestartBench),
}

/// Runs one workload and prints what it measured.
pub(crate) async fn run(server: &Server, command: BenchCommand) -> Result<(), Stop> {
    let (report, form) = match command {
        BenchCommand::Produce(args) => args.measure(server).await?,
        BenchCommand::Consume(args) => args.measure(server).await?,
        BenchCommand::Latency(args) => args.measure(server).await?,
        BenchCommand::Queue(args) => args.measure(server).await?,
        BenchCommand::Fanout(args) => args.measure(server).await?,
        BenchCommand::Idle(args) => args.measure(server).await?,
        BenchCommand::Restart(args) => args.measure(server).await?,
    };
    report.print(form)
}

/// What a workload gives: what it measured, and the form it is wanted in.
type Measured = Result<(Report, Output), Failure>;

/// Waits for all tasks; the first failure ends the others.
async fn join<T: 'static>(mut tasks: JoinSet<Result<T, Failure>>) -> Result<Vec<T>, Failure> {
    let mut done = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        done.push(ended.map_err(|error| Failure::other(error.to_string())).flatten()?);
    }
    Ok(done)
}

/// Writes records that a workload then reads, and makes sure that they are in the log.
async fn fill(
    stage: &Stage<'_>,
    topic: &BenchTopic,
    args: (&SendArgs, &RecordArgs),
    amount: Amount,
) -> Result<Expected, Failure> {
    topic.check_countable()?;
    let crew = Crew::open(stage, &topic.name, args).await?;
    let live = stage.live("writing what is read then", amount.records());
    let sent = crew.flood(amount, &live.counter()).await?;
    topic.check_written(stage, sent.total.count).await?;
    let left: u64 = topic.bounds(stage).await?.iter().map(|(_, start, end)| end - start).sum();
    if left < sent.total.count {
        return Err(Failure::usage(format!(
            "of {} that were written for the readers, retention left {}; write less, or give the \
             topic a larger retention with --set",
            units::records(sent.total.count),
            units::count(left)
        )));
    }
    Ok(sent.total)
}

/// Refuses to send without acknowledgements where readers must get everything.
fn check_acknowledged(send: &SendArgs) -> Result<(), Failure> {
    match send.are_acknowledged() {
        true => Ok(()),
        false => Err(Failure::usage(
            "`--acks none`: what is not acknowledged may be lost, and its readers would wait for \
             ever; use leader or all",
        )),
    }
}

/// `1 consumer`, `10 consumers`.
fn consumers(count: u32) -> String {
    format!("{} consumer{}", units::count(count.into()), if count == 1 { "" } else { "s" })
}

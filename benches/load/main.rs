//! The load generator: named workloads against the real release binary, for people and for recorded runs.
//!
//! Each workload starts a broker of its own on an empty directory on a real disk, does one thing, and gives
//! measurements with the target they are held to. They are printed as a table and, with `--record`,
//! kept in `benches/runs/DATE-NAME/` with the commit, the command and the machine.
//!
//! - [`sdk`]: records per second in and out through the client. [`wake`]: how fast a long poll wakes.
//! - [`idle`]: memory and processor of a broker that has nothing to do. [`restart`]: from exec to ready.
//! - [`push`]: broker-managed delivery: acknowledged one by one, many idle sessions, fan-out.
//! - [`behind`]: one record kept in hand while very many behind it are settled.
//! - [`unread`]: what sessions that read nothing cost, and take from one that works.
//! - [`hostile`]: what attacks on the gRPC door do to the calls of a client that behaves.
//! - [`scale`]: what more partitions, producers, consumers, bytes cost. [`soak`]: an hour at a steady rate with retention on.
//! - [`web`]: server-sent events and WebSocket at the tail, many readers, and many that wait.
//! - [`cli`]: a text file in and out through the command line. [`codec`]: the batch codec alone, no broker.
//!
//! Before a broker is started the memory is full, as [`memory`] says.
//!
//! Nothing here is a test: numbers depend on the machine, and no workload fails for being slow.

mod behind;
mod broker;
mod chart;
mod cli;
mod clock;
mod codec;
mod error;
mod files;
mod hostile;
mod idle;
mod machine;
mod memory;
mod process;
mod push;
mod report;
mod restart;
mod scale;
mod sdk;
mod series;
mod soak;
mod unread;
mod wake;
mod web;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{broker::Setup, error::Result, report::Report};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Riverrun. Build both sides first: cargo build --release -p riverrun-cli -p riverrun-benches
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Args {
    /// The broker's binary; the one beside this program when left out
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// Directory on a real disk to work in; `load-work` in the target folder when left out
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// Keep the result in benches/runs/DATE-NAME
    #[arg(long, global = true, value_name = "NAME")]
    record: Option<String>,
    /// Settings file for the broker
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    workload: Workload,
}

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
enum Workload {
    /// Records per second in and out through the client
    Sdk(sdk::Args),
    /// Time from a record becoming visible to the answer of a waiting long poll
    Wake(wake::Args),
    /// Memory and processor of an idle broker
    Idle(idle::Args),
    /// Time from exec to ready after SIGKILL and after a clean stop
    Restart(restart::Args),
    /// Broker-managed delivery: acknowledged one by one, credit to next record, idle sessions, fan-out
    Push(push::Args),
    /// One record kept in hand while very many behind it are settled; takes minutes and some GB of disk
    Behind(behind::Args),
    /// Sessions that read nothing: their memory, and the throughput beside them
    Unread(unread::Args),
    /// Calls of a client that behaves while another one attacks
    Hostile(hostile::Args),
    /// Server-sent events and WebSocket: how late at the tail, with many readers, with very many that wait
    Web(web::Args),
    /// A text file in and out through the command line
    Cli(cli::Args),
    /// Records per second through the batch codec alone; needs no broker
    Codec,
    /// What more partitions, producers, consumers, bytes of a record and bytes stored cost; a quarter of an hour and some GB of disk
    Scale(scale::Args),
    /// A steady rate with retention on, for an hour
    Soak(soak::Args),
    /// Every workload but `behind`, `hostile`, `scale` and `soak`, with its defaults
    All,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    // Before anything is measured: a run that cannot be kept is not worth its time.
    let folder = args.record.as_deref().map(Report::folder).transpose()?;
    let setup = Setup::new(args.binary.clone(), args.dir.clone(), args.config.clone())?;
    let mut report = Report::new(machine::describe(setup.dir())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&args.workload, &setup, &mut report))?;
    folder.map_or(Ok(()), |folder| report.record(&folder))
}

/// Runs one workload, or all of them one after another.
async fn measure(workload: &Workload, setup: &Setup, report: &mut Report) -> Result<()> {
    match workload {
        Workload::Sdk(args) => report.add("sdk", sdk::run(args, setup).await?),
        Workload::Wake(args) => report.add("wake", wake::run(args, setup).await?),
        Workload::Idle(args) => report.add("idle", idle::run(args, setup).await?),
        Workload::Restart(args) => report.add("restart", restart::run(args, setup).await?),
        Workload::Push(args) => report.add("push", push::run(args, setup).await?),
        Workload::Behind(args) => report.add("behind", behind::run(args, setup).await?),
        Workload::Unread(args) => report.add("unread", unread::run(args, setup).await?),
        Workload::Hostile(args) => report.add("hostile", hostile::run(args, setup).await?),
        Workload::Scale(args) => scale::run(args, setup, report).await?,
        Workload::Soak(args) => soak::run(args, setup, report).await?,
        Workload::Web(args) => report.add("web", web::run(args, setup).await?),
        Workload::Cli(args) => report.add("cli", cli::run(args, setup).await?),
        Workload::Codec => report.add("codec", codec::run()?),
        Workload::All => {
            report.add("codec", codec::run()?);
            report.add("sdk", sdk::run(&sdk::Args::default(), setup).await?);
            report.add("wake", wake::run(&wake::Args::default(), setup).await?);
            report.add("idle", idle::run(&idle::Args::default(), setup).await?);
            report.add("restart", restart::run(&restart::Args::default(), setup).await?);
            report.add("push", push::run(&push::Args::default(), setup).await?);
            report.add("unread", unread::run(&unread::Args::default(), setup).await?);
            report.add("web", web::run(&web::Args::default(), setup).await?);
            report.add("cli", cli::run(&cli::Args::default(), setup).await?);
        }
    }
    Ok(())
}

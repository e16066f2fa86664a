//! The comparison: the same workloads against Riverrun and its peers in one run, on one machine, alternating.
//!
//! ```text
//! harness ──starts──▶ server (one at a time, on an empty directory)
//!    │                   ▲
//!    └──starts──▶ driver ┘   a process of its own for every measurement; gives its figures as JSON
//! ```
//!
//! - [`case`]: the workloads and their sizes. [`peer`]: the servers. [`fetch`]: where they come from. [`drive`]: the clients.
//!   [`ceiling`]: what the machine can do.
//! - [`memory`]: in the same state for all. [`run`]: the rounds. [`report`]: the run folder.
//!
//! Invariants: a peer that cannot be had is skipped with its reason and never silently; a figure is only given for records that were checked to
//! have come back, or acknowledged without an error; client and server share the machine.

mod case;
mod ceiling;
mod clock;
mod drive;
mod error;
mod fetch;
mod files;
mod machine;
#[path = "../../load/memory.rs"]
mod memory;
mod peer;
mod process;
mod report;
mod run;
mod say;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    case::{Size, Workload},
    ceiling::Ceiling,
    error::{Error, Result},
    peer::{Level, Peer},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Riverrun and its peers with the same workloads in one run. From the repository: cargo xtask compare
#[derive(Debug, Parser)]
#[command(name = "compare")]
struct Args {
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    inner: Option<Inner>,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Peers to run, separated by commas; all of them when left out
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// What an acknowledgement has to mean; each in turn when left out
    #[arg(long, value_delimiter = ',')]
    levels: Vec<Level>,
    /// Workloads to run, separated by commas; all of them when left out
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// Times that everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Tiny sizes and one round, to try the harness itself; its figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Keep the run in benches/runs/DATE-NAME; without it, it goes to target/compare-runs
    #[arg(long, value_name = "NAME")]
    record: Option<String>,
    /// Riverrun's binary
    #[arg(long, default_value = "target/release/riverrun")]
    riverrun: PathBuf,
    /// Folder on a real disk for the data of the servers; it is emptied
    #[arg(long, default_value = "target/compare-work")]
    dir: PathBuf,
    /// Folder that keeps what was downloaded
    #[arg(long, default_value = "target/compare-cache")]
    cache: PathBuf,
}

/// What the harness starts itself as.
#[derive(Debug, Subcommand)]
enum Inner {
    /// The client side of one measurement
    #[command(hide = true)]
    Drive {
        /// What to do, as JSON
        job: String,
    },
    /// The far end of a ceiling
    #[command(hide = true)]
    Serve {
        /// Of which
        ceiling: Ceiling,
        /// Where to listen
        address: String,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.inner {
        Some(Inner::Drive { job }) => drive::run(&job).map(|outcome| say::line(&outcome)),
        Some(Inner::Serve { ceiling, address }) => ceiling.serve(&address),
        None => compare(args.run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn compare(args: RunArgs) -> Result<()> {
    let setup = report::Setup::now(args.quick, args.record.clone())?;
    let plan = plan(args)?;
    let machine = machine::describe(&plan.work)?;
    run::run(&plan, |results| {
        let folder = report::write(&setup, &plan, &machine, results)?;
        let (done, all) = (results.rounds, plan.rounds);
        say::line(&format!("{done} of {all} rounds written to {}", folder.display()));
        Ok(())
    })
}

fn plan(args: RunArgs) -> Result<run::Plan> {
    for folder in [&args.dir, &args.cache] {
        files::make_folder(folder)?;
    }
    let (work, cache) = (args.dir.canonicalize()?, args.cache.canonicalize()?);
    let kind = machine::file_system(&work)?;
    if kind == "tmpfs" || kind == "ramfs" {
        return Err(Error::NotADisk { dir: work, kind });
    }
    Ok(run::Plan {
        peers: all_if_empty(args.peers),
        levels: all_if_empty(args.levels),
        cases: case::cases(&all_if_empty(args.workloads)),
        rounds: if args.quick { 1 } else { args.rounds },
        size: Size { quick: args.quick },
        riverrun: args.riverrun,
        memory: memory::Memory::new(&work.with_extension("memory"))?,
        work,
        cache,
    })
}

fn all_if_empty<T: ValueEnum + Clone>(chosen: Vec<T>) -> Vec<T> {
    if chosen.is_empty() { T::value_variants().to_vec() } else { chosen }
}

//! The one binary: the broker and every operator command.
//!
//! `args` is the command line as a tree, one module per noun or verb holds what it takes and does, and
//! `failure` says how it may end. Results go to standard output, everything else to standard error.
//!
//! It decides nothing about the log itself: commands translate to calls of the client, `serve` starts
//! the broker, `log` reads stored files without one.

#![expect(clippy::print_stderr, reason = "errors of a command line program")]

use std::process::ExitCode;

use clap::FromArgMatches;

mod args;
mod bench;
mod clock;
mod config;
mod confirm;
mod connect;
mod consume;
mod escape;
mod failure;
mod group;
mod lines;
mod log;
mod output;
mod position;
mod printer;
mod produce;
mod progress;
mod reference;
mod schedule;
mod serve;
mod settings;
mod signals;
mod subscribe;
mod subscription;
mod template;
mod time;
mod topic;
mod units;
mod watch;

use args::{Cli, Command};
use connect::block_on;
use failure::Stop;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let given = args::command().get_matches();
    let cli = Cli::from_arg_matches(&given).unwrap_or_else(|error| error.exit());
    match args::check(&given).map_err(Stop::from).and_then(|()| run(cli)) {
        Ok(()) | Err(Stop::PipeClosed) => ExitCode::SUCCESS,
        Err(Stop::Failed(failure)) => {
            eprintln!("riverrun: {failure}");
            ExitCode::from(failure.class as u8)
        }
    }
}

fn run(cli: Cli) -> Result<(), Stop> {
    let server = &cli.server;
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Topic(command) => block_on(topic::run(server, command))?,
        Command::Produce(args) => block_on(produce::run(server, args))?,
        Command::Consume(args) => block_on(consume::run(server, args))?,
        Command::Watch(args) => block_on(watch::run(server, args))?,
        Command::Group(command) => block_on(group::run(server, command))?,
        Command::Subscribe(args) => block_on(subscribe::run(server, args))?,
        Command::Subscription(command) => block_on(subscription::run(server, command))?,
        Command::Schedule(command) => block_on(schedule::run(server, command))?,
        Command::Log(command) => log::run(&command),
        Command::Bench(command) => block_on(bench::run(server, command))?,
        Command::Config(command) => config::run(&command),
        Command::Completions { shell } => reference::completions(shell),
        Command::Man { dir } => reference::man(&dir),
        Command::MarkdownHelp => reference::markdown(),
    }
}

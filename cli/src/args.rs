//! The command line as a tree; what a command takes stands in the module of the command.

use std::{path::PathBuf, time::Duration};

use clap::{Arg, ArgMatches, CommandFactory, Parser, Subcommand, parser::ValueSource};
use clap_complete::Shell;

use crate::{
    bench::BenchCommand,
    config::ConfigCommand,
    consume::ConsumeArgs,
    failure::{EXIT_CODES, Failure},
    group::GroupCommand,
    log::LogCommand,
    produce::ProduceArgs,
    schedule::ScheduleCommand,
    serve::ServeArgs,
    subscribe::SubscribeArgs,
    subscription::SubscriptionCommand,
    topic::TopicCommand,
    units,
    watch::WatchArgs,
};

/// One log, every way to push and to pull: a persistent message queue in one binary.
#[derive(Debug, Parser)]
#[command(name = "riverrun", version, after_help = EXIT_CODES, propagate_version = true)]
#[command(max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) server: Server,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Commands that talk to no broker: what is said of one is not offered there, and refused.
const WITHOUT_BROKER: [&str; 6] = ["serve", "log", "config", "completions", "man", "markdown-help"];

/// The command line as it is offered.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command();
    let hidden = |arg: &Arg| arg.clone().hide(true);
    let of_brokers: Vec<Arg> =
        command.get_arguments().filter(|arg| arg.is_global_set()).map(hidden).collect();
    command.mut_subcommands(|sub| {
        if WITHOUT_BROKER.contains(&sub.get_name()) { sub.args(&of_brokers) } else { sub }
    })
}

/// Refuses what is said of a broker to commands that talk to none. What stands in the environment is not meant for them.
pub(crate) fn check(given: &ArgMatches) -> Result<(), Failure> {
    let name = given.subcommand_name().unwrap_or_default();
    let is_said = |id: &&str| given.value_source(id) == Some(ValueSource::CommandLine);
    match ["server", "timeout"].into_iter().find(is_said) {
        Some(id) if WITHOUT_BROKER.contains(&name) => {
            Err(Failure::usage(format!("`--{id}` is not for `{name}`, which talks to no broker")))
        }
        Some(_) | None => Ok(()),
    }
}

/// The broker to talk to.
#[derive(Debug, clap::Args)]
pub(crate) struct Server {
    /// Broker to talk to, host:port
    #[arg(id = "server", long = "server", global = true, env = "RIVERRUN_SERVER")]
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:7070", hide_env_values = true)]
    pub(crate) address: String,
    /// How long to wait for an answer of the broker
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = parse_timeout)]
    pub(crate) timeout: Duration,
}

/// Longest time to wait for an answer.
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match Duration::from_millis(units::parse_millis(text)?) {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        timeout if timeout > TIMEOUT_MAX => Err("must be at most 30d".to_owned()),
        timeout => Ok(timeout),
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker in the foreground
    Serve(ServeArgs),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Write records, one per line of a file or of standard input
    Produce(ProduceArgs),
    /// Read records to standard output
    Consume(ConsumeArgs),
    /// Tell when a topic has something new, without reading it
    Watch(WatchArgs),
    /// List, describe, reset and delete consumer groups
    #[command(subcommand)]
    Group(GroupCommand),
    /// Get records handed out by the broker: print each, or run a command for it, and acknowledge it
    Subscribe(SubscribeArgs),
    /// Create, list, describe, alter, move, explain and delete push subscriptions
    #[command(subcommand)]
    Subscription(SubscriptionCommand),
    /// Operate records that wait for their time of delivery
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Look into stored files without a broker, read-only
    #[command(subcommand)]
    Log(LogCommand),
    /// Measure a broker with one workload, to size a machine
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Check and show the broker's settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    Completions {
        /// Shell to complete for
        shell: Shell,
    },
    /// Write man pages
    Man {
        /// Directory to write into; made when it does not exist
        dir: PathBuf,
    },
    /// Print the reference of all commands as Markdown
    #[command(hide = true)]
    MarkdownHelp,
}

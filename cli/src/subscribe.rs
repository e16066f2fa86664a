//! `riverrun subscribe`: gets records handed out by the broker. [`mod@print`] writes them out and acknowledges
//! them; [`exec`] runs a command for each; [`end`] finds out when nothing is left.

mod end;
mod exec;
mod print;

use clap::Args;
use riverrun_client::{Client, Mode, Subscriber, SubscriberBuilder};

use crate::{
    args::Server,
    connect::{connect, report_state},
    failure::{Failure, Stop},
    output::OutputArgs,
    subscription::{FromArgs, ModeArg},
    template::{LETTERS, Template},
};

/// Records not settled at a time when they are printed.
const PRINT_CREDIT: u32 = 1_000;
/// Bytes of them, at first.
const CREDIT_BYTES: u64 = 8 << 20;

/// What `--help` says about `--exec`.
const EXEC_HELP: &str = "\
With --exec the command runs once per record, through `sh -c`, with the value on its standard
input and these variables: RIVERRUN_TOPIC, RIVERRUN_PARTITION, RIVERRUN_OFFSET,
RIVERRUN_TIMESTAMP_MS, RIVERRUN_ATTEMPT, RIVERRUN_FAILURES, RIVERRUN_KEY when there is a key, and
RIVERRUN_HEADER_NAME for each header, its name in capitals with _ for all but letters and digits.
How it ends decides:
  exit 0         acknowledged
  exit 65        rejected: goes to the dead letters now (EX_DATAERR)
  exit 126, 127  the command cannot be run: the record is given back and subscribe ends
  any other      failed: tried again after the subscription's backoff, and a dead letter when it
                 failed often enough; 75 (EX_TEMPFAIL) is the customary one
The last line on its standard error is kept as the reason. While it runs, its lease is extended. A
record whose key and headers do not fit into the environment of a command is rejected.
Interrupted once, subscribe waits for the commands that run; interrupted again, it ends them.";

/// What `subscribe` takes.
#[derive(Debug, Args)]
#[command(after_long_help = EXEC_HELP)]
pub(crate) struct SubscribeArgs {
    /// Topics to get records from
    #[arg(required = true)]
    topic: Vec<String>,
    /// Name of the subscription, made when it does not exist; who names the same one shares its records
    #[arg(long, short, value_name = "NAME")]
    subscription: String,
    /// Order of delivery; refused when the subscription exists with another one
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    #[command(flatten)]
    from: FromArgs,
    /// Most records that are not settled; 1,000, with --exec twice the concurrency
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    credit: Option<u32>,
    /// End after this many records
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// End when nothing more can be delivered now, instead of waiting for more
    #[arg(long)]
    no_follow: bool,
    /// Run this command for each record, instead of printing it; see --help
    #[arg(long, value_name = "CMD", conflicts_with_all = ["format", "output"], value_parser = command)]
    exec: Option<String>,
    /// Commands at a time
    #[arg(long, value_name = "N", default_value_t = 1, requires = "exec")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// How a record is written
    #[arg(long, short, value_name = "FORMAT", default_value = "%v\\n")]
    #[arg(value_parser = Template::parse, help = format!("How a record is written: {LETTERS}"))]
    format: Template,
    #[command(flatten)]
    output: OutputArgs,
}

/// A command to run. An empty one would acknowledge everything.
fn command(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// Runs the command against `server`.
pub(crate) async fn run(server: &Server, args: SubscribeArgs) -> Result<(), Stop> {
    if args.max == Some(0) {
        return Err(Failure::usage("`--max` must be at least 1").into());
    }
    let client = connect(server).await?;
    let subscriber = open(&client, &args).await?;
    let reporter = report_state(&client);
    let ended = match args.exec.clone() {
        Some(command) => exec::run(&client, subscriber, (args, command)).await,
        None => print::run(&client, subscriber, args).await,
    };
    drop(reporter);
    ended
}

async fn open(client: &Client, args: &SubscribeArgs) -> Result<Subscriber, Stop> {
    let credit = args.credit.unwrap_or(match args.exec {
        Some(_) => (args.concurrency * 2).max(2),
        None => PRINT_CREDIT,
    });
    let builder = client
        .subscribe_to(args.topic.iter().cloned())
        .name(&args.subscription)
        .start(args.from.start()?)
        .credit(credit, CREDIT_BYTES);
    let builder = match args.mode {
        Some(mode) => builder.mode(Mode::from(mode)),
        None => builder,
    };
    Ok(SubscriberBuilder::open(builder).await?)
}

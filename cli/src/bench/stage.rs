//! What every workload stands on: the broker, a way to be ended early, and who can be measured.

use std::time::Duration;

use clap::Args;
use riverrun_client::Client;

use super::{broker_process, halt::Halt, live::Live, meter::Meter, numbers};
use crate::{
    args::Server,
    connect::{self, Reporter, report_state},
    failure::Failure,
    output::OutputArgs,
};

/// What every workload takes.
#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    /// Process of the broker, to measure it where it is not found by its address
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    #[command(flatten)]
    pub(super) shown: ShownArgs,
}

/// What is shown.
#[derive(Debug, Args)]
pub(super) struct ShownArgs {
    /// No progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// The broker and what else a run needs.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    /// First, so that it is gone before the connection is closed, which it would tell as a loss.
    _state: Reporter,
    server: &'a Server,
    /// For topics and subscriptions; what is measured has connections of its own.
    pub(super) client: Client,
    /// The broker's version.
    pub(super) version: String,
    /// The broker's process, or why it cannot be measured.
    pub(super) broker: Result<u32, String>,
    /// Asks for an early end.
    pub(super) halt: Halt,
    /// Drawn for this run.
    pub(super) run: u32,
    quiet: bool,
}

impl<'a> Stage<'a> {
    /// Connects, and finds the broker's process.
    pub(super) async fn open(server: &'a Server, args: &CommonArgs) -> Result<Stage<'a>, Failure> {
        let named = args.broker_pid.map(broker_process::named).transpose();
        let named = named.map_err(|why| Failure::usage(format!("`--broker-pid`: {why}")))?;
        Stage::of(server, &args.shown, (named, Halt::listen())).await
    }

    /// Connects; the broker's process is `pid`, or is looked for.
    pub(super) async fn of(
        server: &'a Server,
        args: &ShownArgs,
        (pid, halt): (Option<u32>, Halt),
    ) -> Result<Stage<'a>, Failure> {
        let client = connect::connect(server).await?;
        let version = client.admin().cluster().await?.version;
        let broker = match pid {
            Some(pid) => Ok(pid),
            None => broker_process::find(&server.address).await,
        };
        Ok(Stage {
            server,
            version,
            broker,
            halt,
            run: u32::try_from(numbers::drawn() >> 32).expect("half of the bits"),
            quiet: args.quiet,
            _state: report_state(&client),
            client,
        })
    }

    /// Another connection.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        connect::connect(self.server).await
    }

    /// Where the broker is.
    pub(super) fn address(&self) -> &str {
        &self.server.address
    }

    /// How long the broker may be silent before it counts as gone.
    pub(super) fn patience(&self) -> Duration {
        self.server.timeout
    }

    /// A name for what this run makes at the broker.
    pub(super) fn name(&self) -> String {
        format!("riverrun-bench-{:08x}", self.run)
    }

    /// A line on the terminal.
    pub(super) fn live(&self, doing: &str, goal: Option<u64>) -> Live {
        Live::start(doing, goal, self.quiet)
    }

    /// Begins to measure both sides.
    pub(super) fn meter(&self) -> Meter {
        Meter::start(self.broker.as_ref().ok().copied())
    }
}

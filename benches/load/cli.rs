//! Workload `cli`: a text file in through `riverrun produce` and out through `riverrun consume`.
//!
//! What comes out is compared with the file, so a fast wrong answer is an error.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use riverrun_client::TopicSpec;

use crate::{
    broker::{Broker, Setup},
    clock,
    error::{Error, Result},
    files, process,
    report::{Measurement, Target, progress},
};

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the text file, in MiB
    #[arg(long, default_value_t = 1024)]
    mib: u64,
}

impl Default for Args {
    fn default() -> Args {
        Args { mib: 1024 }
    }
}

/// How often the memory of a command is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Measures it.
pub(crate) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let input = setup.dir().join("cli-input.txt");
    progress(&format!("cli: writing {} MiB of text", args.mib));
    let bytes = files::write_text_lines(&input, args.mib << 20)?;
    let broker = setup.start("cli").await?;
    broker.client().await?.admin().create_topic(TopicSpec::new("lines")).await?;

    progress("cli: produce");
    let mut produce = command(setup, &broker);
    produce.args(["produce", "lines", "--quiet"]).arg(&input).stdout(Stdio::null());
    let (produce_seconds, produce_peak) = timed(produce, &input, false).await?;

    progress("cli: consume");
    let mut consume = command(setup, &broker);
    consume.args(["consume", "lines", "--from", "earliest", "--no-follow"]).stdout(Stdio::piped());
    let (consume_seconds, consume_peak) = timed(consume, &input, true).await?;

    let broker_memory = process::memory(broker.pid())?;
    broker.stop()?;
    let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(vec![
        Measurement::new("text", mib(bytes), "MiB"),
        Measurement::new("produce", rate(produce_seconds), "MB/s").target(Target::AtLeast(250.0)),
        Measurement::new("produce peak memory", mib(produce_peak), "MiB"),
        Measurement::new("consume", rate(consume_seconds), "MB/s").target(Target::AtLeast(250.0)),
        Measurement::new("consume peak memory", mib(consume_peak), "MiB"),
        Measurement::new("broker heap after it", mib(broker_memory.anonymous), "MiB"),
    ])
}

fn command(setup: &Setup, broker: &Broker) -> Command {
    let mut command = setup.command();
    command.env("RIVERRUN_SERVER", broker.address()).stdin(Stdio::null());
    command
}

/// Runs a command to its end. Gives its time in seconds and the most memory it held.
async fn timed(mut command: Command, input: &Path, compare: bool) -> Result<(f64, u64)> {
    let start = clock::now();
    let mut child = command.spawn()?;
    let compared = child.stdout.take().filter(|_| compare).map(|stdout| {
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || files::compare(stdout, &input))
    });
    let peak = watch(&mut child).await?;
    let seconds = clock::seconds_since(start);
    if let Some(compared) = compared {
        compared.await.map_err(std::io::Error::other)??;
    }
    Ok((seconds, peak))
}

/// Waits for the end of a command, looking at its memory meanwhile.
async fn watch(child: &mut Child) -> Result<u64> {
    let mut peak = 0;
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() {
                Ok(peak)
            } else {
                Err(Error::Wrong(format!("the command ended with {status}")))
            };
        }
        if let Ok(memory) = process::memory(child.id()) {
            peak = peak.max(memory.peak);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

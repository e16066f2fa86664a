//! `riverrun watch`: says that there is something to read, without reading it.

use std::{io::Write, time::Duration};

use riverrun_client::{Error, ErrorCode, PartitionState};
use serde_json::json;

use crate::{
    args::Server,
    clock,
    connect::connect,
    failure::Stop,
    output::{Output, OutputArgs},
    time, units,
};

/// With `--wait`: how often it is looked whether the topics exist.
const WAIT_INTERVAL: Duration = Duration::from_millis(500);

/// What `watch` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    /// Topics to watch
    #[arg(required = true)]
    topic: Vec<String>,
    /// Wait for topics that do not exist yet, instead of refusing
    #[arg(long)]
    wait: bool,
    /// End after this many lines
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs until interrupted; a line for each partition at first, then one whenever it moves.
pub(crate) async fn run(server: &Server, args: WatchArgs) -> Result<(), Stop> {
    let admin = connect(server).await?.admin();
    let mut told = false;
    let mut watch = loop {
        match admin.watch(&args.topic).await {
            Err(error) if args.wait && error.code() == ErrorCode::UnknownTopicOrPartition => {
                if !std::mem::replace(&mut told, true) {
                    eprintln!("riverrun: {error}; waiting for it");
                }
                tokio::time::sleep(WAIT_INTERVAL).await;
            }
            opened => break opened?,
        }
    };
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 {
        for state in watch.next().await?.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            print_line(&line(state, args.output.output))?;
            left -= 1;
        }
    }
    Ok(())
}

fn line(state: &PartitionState, form: Output) -> String {
    let now = time::format(clock::now_ms());
    if form == Output::Json {
        let value = json!({
            "time": now,
            "topic": &*state.partition.topic,
            "partition": state.partition.partition.0,
            "log_start_offset": state.log_start.0,
            "high_watermark": state.high_watermark.0,
            "error": state.error.as_ref().map(Error::to_string),
        });
        return format!("{value}\n");
    }
    match &state.error {
        Some(error) => format!("{now}  {}  {error}\n", state.partition),
        None => {
            let (start, end) =
                (units::count(state.log_start.0), units::count(state.high_watermark.0));
            format!("{now}  {}  {start}..{end}\n", state.partition)
        }
    }
}

fn print_line(line: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Stop::from_stdout(&error))
}

//! `riverrun group reset`: moves stored offsets, and makes the group where it does not exist.

use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use riverrun_client::{
    Admin, Error, ErrorCode, Offset, OffsetReset, Reset, ResetOffsets, TopicPartition,
};
use serde_json::{Value, json};

use crate::{
    args::Server,
    clock, confirm,
    connect::connect,
    failure::{Class, Failure, Stop},
    output::{self, Output, OutputArgs, Table},
    position, time, units,
};

/// What `group reset` takes.
#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// Name of the group
    group: String,
    /// Topic to move, or TOPIC:PARTITION; may be repeated; all the group has offsets for when left out
    #[arg(long, short, value_name = "TOPIC[:N]")]
    topic: Vec<String>,
    #[command(flatten)]
    target: TargetArgs,
    /// Show what would move and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where to move to; exactly one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TargetArgs {
    /// To the first record kept
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last record
    #[arg(long)]
    to_latest: bool,
    /// To the first record at or after a time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to_time: Option<String>,
    /// To the first record not older than this, for instance 15m
    #[arg(long, value_name = "DURATION")]
    by_duration: Option<String>,
    /// By this many records, back when negative
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To this offset, brought into the valid range
    #[arg(long, value_name = "OFFSET")]
    to_offset: Option<u64>,
    /// To where another group stands
    #[arg(long, value_name = "GROUP")]
    from_group: Option<String>,
}

impl TargetArgs {
    /// The one target that was given.
    fn reset(&self) -> Result<Reset, String> {
        if self.to_earliest {
            return Ok(Reset::Earliest);
        }
        if let Some(text) = &self.to_time {
            let ms = time::parse(text, clock::now_ms())?;
            let ms = u64::try_from(ms).map_err(|_| format!("`{text}` lies before 1970"))?;
            return Ok(Reset::ToTime(UNIX_EPOCH + Duration::from_millis(ms)));
        }
        if let Some(text) = &self.by_duration {
            return Ok(Reset::Ago(Duration::from_millis(units::parse_millis(text)?)));
        }
        if let Some(count) = self.shift_by {
            return Ok(Reset::ShiftBy(count));
        }
        if let Some(offset) = self.to_offset {
            return Ok(Reset::ToOffset(Offset(offset)));
        }
        // The argument group lets exactly one through.
        Ok(self.from_group.clone().map_or(Reset::Latest, Reset::FromGroup))
    }
}

/// Runs the command against `server`.
pub(super) async fn run(server: &Server, args: ResetArgs) -> Result<(), Stop> {
    let target = args.target.reset().map_err(Failure::usage)?;
    let admin = connect(server).await?.admin();
    let exists = exists(&admin, &args.group).await?;
    if !exists && args.topic.is_empty() {
        let message = format!(
            "group `{}` does not exist; name a topic with --topic to make it, or see \
             `riverrun group list`",
            args.group
        );
        return Err(Failure::new(Class::Refused, message).into());
    }
    let planned = args.request(&admin, target.clone())?.dry_run().await?;
    let count = planned.iter().filter(|reset| reset.error.is_none()).count();
    if args.dry_run || count == 0 {
        show(&planned, args.output.output)?;
        if !exists && count > 0 {
            eprintln!("riverrun: group `{}` does not exist and would be made", args.group);
        }
        return finish(&planned, "cannot be moved");
    }
    if !args.yes {
        let group = &args.group;
        let question = match exists {
            true => format!("move {count} stored offsets of group `{group}`?"),
            false => format!("make group `{group}` with {count} stored offsets?"),
        };
        confirm::ask(false, &question)?;
    }
    let done = args.request(&admin, target)?.await?;
    show(&done, args.output.output)?;
    if !exists && done.iter().any(|reset| reset.error.is_none()) {
        eprintln!("riverrun: group `{}` did not exist and was made", args.group);
    }
    finish(&done, "did not move")
}

async fn exists(admin: &Admin, group: &str) -> Result<bool, Error> {
    match admin.describe_group(group).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == ErrorCode::UnknownGroup => Ok(false),
        Err(error) => Err(error),
    }
}

impl ResetArgs {
    fn request(&self, admin: &Admin, target: Reset) -> Result<ResetOffsets, Failure> {
        let mut request = admin.reset_offsets(&self.group, target);
        for topic in &self.topic {
            request = match position::parse_topic(topic)? {
                (topic, None) => request.topic(topic),
                (topic, Some(partition)) => {
                    request.partition(&TopicPartition::new(topic, partition))
                }
            };
        }
        Ok(request)
    }
}

fn show(resets: &[OffsetReset], form: Output) -> Result<(), Stop> {
    if form == Output::Json {
        let resets: Vec<Value> = resets.iter().map(reset_json).collect();
        return output::print_json(&json!({ "resets": resets }));
    }
    let mut table = Table::new(&["TOPIC", "PARTITION", "FROM", "TO", "LAG", "ERROR"]);
    for reset in resets {
        table.row(vec![
            reset.partition.topic.to_string(),
            reset.partition.partition.to_string(),
            reset.from.map_or_else(|| "-".to_owned(), |offset| units::count(offset.0)),
            units::count(reset.to.0),
            units::count(reset.lag),
            reset.error.as_ref().map(Error::to_string).unwrap_or_default(),
        ]);
    }
    output::print(&table.render())
}

fn reset_json(reset: &OffsetReset) -> Value {
    json!({
        "topic": &*reset.partition.topic,
        "partition": reset.partition.partition.0,
        "from_offset": reset.from.map(|offset| offset.0),
        "to_offset": reset.to.0,
        "lag": reset.lag,
        "error": reset.error.as_ref().map(Error::to_string),
    })
}

fn finish(resets: &[OffsetReset], verb: &str) -> Result<(), Stop> {
    let failed = resets.iter().filter(|reset| reset.error.is_some()).count();
    match failed {
        0 => Ok(()),
        _ => Err(Failure::new(
            Class::Refused,
            format!("{failed} of {} partitions {verb}", resets.len()),
        )
        .into()),
    }
}

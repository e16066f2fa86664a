//! `riverrun subscription seek`: moves a subscription.

use std::time::{Duration, SystemTime};

use clap::Args;
use riverrun_client::{
    Admin, Error, Offset, PositionMoved, Seek, SeekSubscription, TopicPartition,
};
use serde_json::{Value, json};

use crate::{
    args::Server,
    confirm,
    connect::connect,
    failure::{Class, Failure, Stop},
    output::{self, Output, OutputArgs, Table},
    position, time, units,
};

/// What `subscription seek` takes.
#[derive(Debug, Args)]
pub(crate) struct SeekArgs {
    /// Name of the subscription
    subscription: String,
    /// Topic to move, or TOPIC:PARTITION; may be repeated; all when left out
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
    /// To the first record kept: everything is delivered again
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last record: everything there is counts as settled
    #[arg(long)]
    to_latest: bool,
    /// To the first record at or after a time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[arg(value_parser = time::parse_moment)]
    to_time: Option<SystemTime>,
    /// To the first record not older than this, for instance 15m
    #[arg(long, value_name = "DURATION", value_parser = units::parse_millis)]
    by_duration: Option<u64>,
    /// To this offset
    #[arg(long, value_name = "OFFSET")]
    to_offset: Option<u64>,
}

impl TargetArgs {
    /// The one target that was given.
    fn seek(&self) -> Seek {
        let time = self.to_time.map(Seek::Time);
        let ago = self.by_duration.map(|ms| Seek::Ago(Duration::from_millis(ms)));
        let offset = self.to_offset.map(|offset| Seek::Offset(Offset(offset)));
        let named = time.or(ago).or(offset);
        // The argument group lets exactly one through.
        named.unwrap_or(if self.to_earliest { Seek::Earliest } else { Seek::Latest })
    }
}

/// Runs the command against `server`.
pub(super) async fn run(server: &Server, args: SeekArgs) -> Result<(), Stop> {
    let admin = connect(server).await?.admin();
    let partitions = partitions(&admin, &args).await?;
    let planned = args.request(&admin, &partitions).dry_run().await?;
    let moves = |moved: &&PositionMoved| moved.error.is_none() && moved.from != moved.to;
    let count = planned.iter().filter(moves).count();
    if args.dry_run || count == 0 {
        show(&planned, args.output.output)?;
        return finish(&planned, "cannot be moved");
    }
    let plural = if count == 1 { "" } else { "s" };
    let name = &args.subscription;
    confirm::ask(args.yes, &format!("move subscription `{name}` on {count} partition{plural}?"))?;
    let done = args.request(&admin, &partitions).await?;
    show(&done, args.output.output)?;
    finish(&done, "did not move")
}

impl SeekArgs {
    fn request(&self, admin: &Admin, partitions: &[TopicPartition]) -> SeekSubscription {
        let request = admin.seek_subscription(&self.subscription, self.target.seek());
        partitions.iter().fold(request, SeekSubscription::partition)
    }
}

/// The partitions named; none when all are meant.
async fn partitions(admin: &Admin, args: &SeekArgs) -> Result<Vec<TopicPartition>, Stop> {
    if args.topic.is_empty() {
        return Ok(Vec::new());
    }
    let described = admin.describe_subscription(&args.subscription).await?;
    let mut partitions = Vec::new();
    for text in &args.topic {
        let (topic, number) = position::parse_topic(text)?;
        let is_meant = |one: &TopicPartition| {
            &*one.topic == topic && number.is_none_or(|number| one.partition.0 == number)
        };
        let found = described.partitions.iter().map(|one| &one.partition);
        let before = partitions.len();
        partitions.extend(found.filter(|one| is_meant(one)).cloned());
        if partitions.len() == before {
            let name = &args.subscription;
            let message = format!("subscription `{name}` does not deliver from `{text}`");
            return Err(Failure::new(Class::Refused, message).into());
        }
    }
    Ok(partitions)
}

fn show(moved: &[PositionMoved], form: Output) -> Result<(), Stop> {
    if form == Output::Json {
        let moved: Vec<Value> = moved.iter().map(moved_json).collect();
        return output::print_json(&json!({ "partitions": moved }));
    }
    let mut table = Table::new(&["TOPIC", "PARTITION", "FROM", "TO", "ERROR"]);
    for one in moved {
        table.row(vec![
            one.partition.topic.to_string(),
            one.partition.partition.to_string(),
            units::count(one.from.0),
            units::count(one.to.0),
            one.error.as_ref().map_or_else(String::new, Error::to_string),
        ]);
    }
    output::print(&table.render())
}

fn moved_json(one: &PositionMoved) -> Value {
    json!({
        "topic": &*one.partition.topic,
        "partition": one.partition.partition.0,
        "from_offset": one.from.0,
        "to_offset": one.to.0,
        "error": one.error.as_ref().map(Error::to_string),
    })
}

/// Fails when some partitions did not move.
fn finish(moved: &[PositionMoved], what: &str) -> Result<(), Stop> {
    match moved.iter().filter(|one| one.error.is_some()).count() {
        0 => Ok(()),
        count => {
            let message = format!("{count} of {} partitions {what}", moved.len());
            Err(Failure::new(Class::Refused, message).into())
        }
    }
}

//! `riverrun consume`: records to standard output, from a position or as a member of a group.
//!
//! Records are formatted from the fetched buffers into one output buffer; what is full or idle is written
//! out. As a member, offsets are stored only for what was written out: idle, once a second under
//! load, and at the end. A partition that cannot be read on is told of and left; the others go on.

mod reader;
mod trouble;

use std::{
    collections::HashMap,
    time::{Duration, UNIX_EPOCH},
};

use riverrun_client::{
    Admin, Client, ConsumerBuilder, Error, Offset, OffsetAt, Start, TopicPartition,
};

use self::reader::Reader;
use crate::{
    args::Server,
    connect::{connect, report_state},
    failure::{Class, Failure, Stop},
    output::OutputArgs,
    position::Position,
    signals::{end_at_second, interrupted},
    template::{LETTERS, Template},
};

/// How often it is looked for partitions that were added.
const TOPICS_INTERVAL: Duration = Duration::from_secs(1);

/// What `consume` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ConsumeArgs {
    /// Topic to read
    topic: String,
    /// Read as a member of this group: go on at its stored offsets, share the partitions, store progress
    #[arg(long, short)]
    group: Option<String>,
    /// Read only this partition
    #[arg(long, short, value_name = "N", conflicts_with = "group")]
    partition: Option<u32>,
    /// Where to begin: earliest, latest, offset:N or time:T; with a group, where it has no stored offset
    #[arg(long, value_name = "POSITION", default_value = "earliest")]
    from: Position,
    /// End after this many records
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// End at the end the topic has now, instead of waiting for more
    #[arg(long)]
    no_follow: bool,
    /// How a record is written
    #[arg(long, short, value_name = "FORMAT", default_value = "%v\\n")]
    #[arg(value_parser = Template::parse, help = format!("How a record is written: {LETTERS}"))]
    format: Template,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command against `server`.
pub(crate) async fn run(server: &Server, args: ConsumeArgs) -> Result<(), Stop> {
    if args.group.is_some() && matches!(args.from, Position::Offset(_)) {
        let advice = "move the group with `riverrun group reset --to-offset`";
        return Err(
            Failure::usage(format!("`--from offset:N` is not for a group; {advice}")).into()
        );
    }
    let client = connect(server).await?;
    let mut reader = Reader::start(&client, args).await?;
    let reporter = report_state(&client);
    end_at_second();
    let read = tokio::select! {
        read = reader.read() => read,
        () = interrupted() => Ok(()),
    };
    // What was read before an error is still written out and stored.
    let ended = match read {
        Err(Stop::PipeClosed) => Err(Stop::PipeClosed),
        read => read.and(reader.settle().await),
    };
    let ended = ended.and(reader.verdict());
    drop(reporter);
    reader.close().await;
    ended
}

/// The partitions to read, or, for a group, to share.
async fn partitions(admin: &Admin, args: &ConsumeArgs) -> Result<Vec<TopicPartition>, Stop> {
    let topic = admin.topic(&args.topic).await?;
    let all = topic.partitions.iter().map(|partition| partition.partition.0);
    let wanted = |number: &u32| args.partition.is_none_or(|only| only == *number);
    let partitions: Vec<TopicPartition> =
        all.filter(wanted).map(|number| TopicPartition::new(args.topic.as_str(), number)).collect();
    if partitions.is_empty() {
        let (name, count) = (&args.topic, topic.partitions.len());
        let number = args.partition.unwrap_or_default();
        let message = format!("topic `{name}` has no partition {number}; it has {count}, from 0");
        return Err(Failure::new(Class::Refused, message).into());
    }
    Ok(partitions)
}

/// Where each partition ends now, as far as it can be found.
async fn ends(
    admin: &Admin,
    partitions: &[TopicPartition],
) -> Result<HashMap<TopicPartition, Result<Offset, Error>>, Error> {
    Ok(admin.lookup_offsets(partitions, OffsetAt::Latest).await?.into_iter().collect())
}

/// Refuses to begin behind the end: waiting for records there is not what `--no-follow` means.
async fn check_end(
    admin: &Admin,
    (partition, offset): (&TopicPartition, u64),
    end: Option<Offset>,
) -> Result<(), Stop> {
    let Some(end) = end.filter(|end| offset > end.0) else { return Ok(()) };
    let found = admin.lookup_offsets(std::slice::from_ref(partition), OffsetAt::Earliest).await?;
    let start = match found.into_iter().next() {
        Some((_, start)) => start?,
        None => Offset::ZERO,
    };
    // In the words of the broker, which says this of an offset before the start.
    let message = format!("{partition}: offset {offset} is outside `[{start}, {end}]`");
    Err(Failure::new(Class::Refused, message).into())
}

fn builder(client: &Client, args: &ConsumeArgs, partitions: &[TopicPartition]) -> ConsumerBuilder {
    let start = match args.from {
        Position::Earliest | Position::Offset(_) => Start::Earliest,
        Position::Latest => Start::Latest,
        Position::TimeMs(ms) => {
            let after = Duration::from_millis(ms.unsigned_abs());
            Start::Time(if ms < 0 { UNIX_EPOCH - after } else { UNIX_EPOCH + after })
        }
    };
    let builder = client.consumer(&args.topic).start_missing(start);
    // Large answers: a terminal or pipe is fed from them for a while.
    let builder = builder.max_bytes(16 << 20, 4 << 20).prefetch_bytes(16 << 20);
    match &args.group {
        Some(group) => builder.group(group),
        None if args.partition.is_some() || args.no_follow => {
            builder.assign(partitions.iter().cloned())
        }
        None => builder.topics_interval(TOPICS_INTERVAL),
    }
}

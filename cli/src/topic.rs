//! `riverrun topic`: create, list, describe, alter, delete, and drop old records.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use riverrun_client::{
    Admin, DamagedOffsets, Error, Offset, PartitionDescription, TopicChange, TopicDescription,
    TopicInfo, TopicPartition, TopicSpec,
};
use serde_json::{Value, json};

use crate::{
    args::Server,
    confirm,
    connect::connect,
    failure::{Failure, Stop},
    output::{self, Output, OutputArgs, Table},
    settings, units,
};

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic
    Create(CreateArgs),
    /// List topics
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show settings, offsets and sizes of a topic
    Describe {
        /// Name of the topic
        topic: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Change settings of a topic, or add partitions, while it runs
    Alter(AlterArgs),
    /// Delete a topic and all its records
    Delete {
        /// Name of the topic
        topic: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Drop the records of one partition below an offset
    Trim {
        /// Name of the topic
        topic: String,
        /// Partition number
        #[arg(long, value_name = "N")]
        partition: u32,
        /// First offset to keep
        #[arg(long, value_name = "OFFSET")]
        before: u64,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// What `topic create` takes.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the topic: 1 to 249 letters, digits, dots, dashes and underscores
    topic: String,
    /// Number of partitions; it can be raised later, not lowered
    #[arg(long, short, default_value_t = 1, value_name = "N")]
    partitions: u32,
    /// A setting, for instance durability=os or retention_ms=7d; may be repeated
    #[arg(long = "set", short = 's', value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Check everything and create nothing
    #[arg(long)]
    dry_run: bool,
}

/// What `topic alter` takes.
#[derive(Debug, Args)]
pub(crate) struct AlterArgs {
    /// Name of the topic
    topic: String,
    /// New number of partitions; not fewer than now
    #[arg(long, short, value_name = "N")]
    partitions: Option<u32>,
    /// A setting to change, for instance retention_ms=7d; may be repeated
    #[arg(long = "set", short = 's', value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// A setting to put back to its default; may be repeated
    #[arg(long = "unset", short = 'u', value_name = "KEY")]
    unset: Vec<String>,
    /// Check everything and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command against `server`.
pub(crate) async fn run(server: &Server, command: TopicCommand) -> Result<(), Stop> {
    match command {
        TopicCommand::Create(args) => create(server, args).await,
        TopicCommand::List { output } => list(&connect(server).await?.admin(), output.output).await,
        TopicCommand::Describe { topic, output } => {
            let described = connect(server).await?.admin().describe_topic(&topic).await?;
            describe(&described, output.output)
        }
        TopicCommand::Alter(args) => alter(server, args).await,
        TopicCommand::Delete { topic, yes } => {
            let admin = connect(server).await?.admin();
            let partitions = admin.topic(&topic).await?.partitions.len();
            confirm::ask(
                yes,
                &format!("delete topic `{topic}` with {partitions} partitions and all records?"),
            )?;
            admin.delete_topic(&topic).await?;
            output::print(&format!("deleted topic `{topic}`\n"))
        }
        TopicCommand::Trim { topic, partition, before, yes } => {
            let admin = connect(server).await?.admin();
            let partition = TopicPartition::new(topic, partition);
            confirm::ask(
                yes,
                &format!("drop all records of `{partition}` below offset {before}?"),
            )?;
            let start = admin.delete_records(&partition, Offset(before)).await?;
            output::print(&format!("`{partition}` now starts at offset {start}\n"))
        }
    }
}

async fn create(server: &Server, args: CreateArgs) -> Result<(), Stop> {
    let config = settings::parse(&args.settings).map_err(Failure::usage)?;
    if args.partitions == 0 {
        return Err(Failure::usage("`--partitions` must be at least 1").into());
    }
    let mut spec = TopicSpec::new(args.topic).partitions(args.partitions).config(config);
    if args.dry_run {
        spec = spec.validate_only();
    }
    let topic = connect(server).await?.admin().create_topic(spec).await?;
    let verb = if args.dry_run { "would create" } else { "created" };
    output::print(&format!("{verb} topic {}\n", in_short(&topic)))
}

async fn alter(server: &Server, args: AlterArgs) -> Result<(), Stop> {
    let config = settings::parse(&args.settings).map_err(Failure::usage)?;
    if args.settings.is_empty() && args.unset.is_empty() && args.partitions.is_none() {
        return Err(Failure::usage("nothing to change; give --partitions, --set or --unset").into());
    }
    let mut change = TopicChange::new().config(config);
    if args.partitions == Some(0) {
        return Err(Failure::usage("`--partitions` must be at least 1").into());
    }
    if let Some(count) = args.partitions {
        change = change.partitions(count);
    }
    for key in &args.unset {
        change = change.reset(settings::check_key(key).map_err(Failure::usage)?);
    }
    if args.dry_run {
        change = change.validate_only();
    }
    let topic = connect(server).await?.admin().alter_topic(&args.topic, change).await?;
    let verb = if args.dry_run { "would change" } else { "changed" };
    output::print(&format!("{verb} topic {}\n", in_short(&topic)))
}

/// `orders: 4 partitions, durability fsync, retention_ms 7 d`: name, size, what is not default.
fn in_short(topic: &TopicInfo) -> String {
    let partitions = topic.partitions.len();
    let plural = if partitions == 1 { "" } else { "s" };
    let mut text = format!("`{}`: {partitions} partition{plural}", topic.topic);
    if topic.overrides.durability.is_none()
        && let Some(level) = topic.config.durability
    {
        let _ = write!(text, ", durability {}", settings::durability(level));
    }
    for (key, value) in settings::rows(&topic.overrides) {
        let _ = write!(text, ", {key} {value}");
    }
    text
}

async fn list(admin: &Admin, form: Output) -> Result<(), Stop> {
    let topics = admin.list_topics().await?;
    if form == Output::Json {
        let topics: Vec<Value> = topics.iter().map(info_json).collect();
        return output::print_json(&json!({ "topics": topics }));
    }
    if topics.is_empty() {
        return output::print("no topics yet; make one with `riverrun topic create NAME`\n");
    }
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "DURABILITY", "SETTINGS"]);
    for topic in &topics {
        let mut overrides = topic.overrides.clone();
        overrides.durability = None;
        let settings: Vec<String> = settings::rows(&overrides)
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let durability = topic.config.durability.map_or("-", settings::durability);
        table.row(vec![
            topic.topic.clone(),
            topic.partitions.len().to_string(),
            durability.to_owned(),
            settings.join(", "),
        ]);
    }
    output::print(&table.render())
}

fn describe(topic: &TopicDescription, form: Output) -> Result<(), Stop> {
    if form == Output::Json {
        let mut value = info_json(&topic.info);
        value["partitions"] = topic.partitions.iter().map(partition_json).collect();
        return output::print_json(&value);
    }
    output::print(&describe_text(topic))
}

fn describe_text(topic: &TopicDescription) -> String {
    let records: u64 = topic.partitions.iter().map(|p| p.log_end.since(p.log_start)).sum();
    let size: u64 = topic.partitions.iter().map(|p| p.size_bytes).sum();
    let mut text = format!(
        "TOPIC       {}\nID          {}\nRECORDS     {} in {}\n\n",
        topic.info.topic,
        topic.info.topic_id,
        units::count(records),
        units::bytes(size),
    );
    let mut settings_table = Table::new(&["SETTING", "VALUE", "FROM"]);
    let overrides = settings::rows(&topic.info.overrides);
    for (key, value) in settings::rows(&topic.info.config) {
        let given = overrides.iter().any(|(name, _)| *name == key);
        settings_table.row(vec![
            key.to_owned(),
            value,
            if given { "topic" } else { "default" }.to_owned(),
        ]);
    }
    text.push_str(&settings_table.render());
    text.push('\n');
    let heading = [
        "PARTITION",
        "LOG-START",
        "HIGH-WATERMARK",
        "LOG-END",
        "FLUSHED",
        "SEGMENTS",
        "SIZE",
        "STATE",
    ];
    let mut table = Table::new(&heading);
    for partition in &topic.partitions {
        table.row(partition_row(partition));
    }
    text.push_str(&table.render());
    text.push_str(&damaged_text(&topic.partitions));
    text
}

/// What cannot be read; nothing when all can.
fn damaged_text(partitions: &[PartitionDescription]) -> String {
    let mut table = Table::new(&["PARTITION", "DAMAGED-FROM", "TO", "WHY"]);
    let (mut named, mut known) = (0, 0);
    for partition in partitions {
        known += partition.damaged_places;
        named += partition.damaged.len() as u64;
        for DamagedOffsets { offsets, reason } in &partition.damaged {
            table.row(vec![
                partition.partition.to_string(),
                units::count(offsets.start.0),
                units::count(offsets.end.0),
                reason.clone(),
            ]);
        }
    }
    if known == 0 {
        return String::new();
    }
    let more = known.saturating_sub(named);
    let more = if more == 0 {
        String::new()
    } else {
        format!("… and {} more places\n", units::count(more))
    };
    format!(
        "\n{}{more}Reads of these offsets are refused. See `riverrun log verify` and `riverrun log repair`.\n",
        table.render()
    )
}

fn partition_row(partition: &PartitionDescription) -> Vec<String> {
    vec![
        partition.partition.to_string(),
        units::count(partition.log_start.0),
        units::count(partition.high_watermark.0),
        units::count(partition.log_end.0),
        units::count(partition.flushed.0),
        partition.segment_count.to_string(),
        units::bytes(partition.size_bytes),
        state(partition),
    ]
}

fn state(partition: &PartitionDescription) -> String {
    match (&partition.failure, partition.damaged_places) {
        (Some(error), _) => format!("FAILED: {error}"),
        (None, 0) => "ok".to_owned(),
        (None, _) => "DAMAGED".to_owned(),
    }
}

fn info_json(topic: &TopicInfo) -> Value {
    let partitions: Vec<Value> = topic
        .partitions
        .iter()
        .map(|p| json!({ "partition": p.partition.0, "leader_node_id": p.leader_node_id, "leader_epoch": p.leader_epoch.0 }))
        .collect();
    json!({
        "topic": topic.topic,
        "topic_id": topic.topic_id.to_string(),
        "config": settings::to_json(&topic.config),
        "overrides": settings::to_json(&topic.overrides),
        "partitions": partitions,
    })
}

fn partition_json(partition: &PartitionDescription) -> Value {
    json!({
        "partition": partition.partition.0,
        "log_start_offset": partition.log_start.0,
        "flushed_offset": partition.flushed.0,
        "high_watermark": partition.high_watermark.0,
        "log_end_offset": partition.log_end.0,
        "size_bytes": partition.size_bytes,
        "segment_count": partition.segment_count,
        "failure": partition.failure.as_ref().map(Error::to_string),
        "damaged_places": partition.damaged_places,
        "damaged": partition.damaged.iter().map(damaged_json).collect::<Vec<_>>(),
    })
}

fn damaged_json(DamagedOffsets { offsets, reason }: &DamagedOffsets) -> Value {
    json!({
        "start_offset": offsets.start.0,
        "end_offset": offsets.end.0,
        "reason": reason,
    })
}

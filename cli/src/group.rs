//! `riverrun group`: list, describe, reset and delete consumer groups.

use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use riverrun_client::{
    Admin, Error, GroupDescription, GroupPartition, GroupState, GroupSummary, MemberDescription,
    Offset, OffsetReset, Reset, TopicPartition,
};
use serde_json::{Value, json};

use crate::{
    clock, confirm,
    connect::connect,
    failure::{Class, Failure, Stop},
    output::{self, Output, OutputArgs, Table},
    time, units,
};

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List groups with their state and lag
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show members, stored offsets and lag of a group
    Describe {
        /// Name of the group
        group: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Move the stored offsets of a group, also while it has members
    Reset(ResetArgs),
    /// Delete a group without members, and its stored offsets
    Delete {
        /// Name of the group
        group: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

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

/// Runs the command against `server`.
pub(crate) async fn run(server: &str, command: GroupCommand) -> Result<(), Stop> {
    match command {
        GroupCommand::List { output } => list(&connect(server).await?.admin(), output.output).await,
        GroupCommand::Describe { group, output } => {
            let described = connect(server).await?.admin().describe_group(&group).await?;
            match output.output {
                Output::Json => output::print_json(&describe_json(&described)),
                Output::Table => output::print(&describe_text(&described)),
            }
        }
        GroupCommand::Reset(args) => reset(server, args).await,
        GroupCommand::Delete { group, yes } => {
            let admin = connect(server).await?.admin();
            admin.describe_group(&group).await?;
            confirm::ask(yes, &format!("delete group `{group}` and its stored offsets?"))?;
            admin.delete_group(&group).await?;
            output::print(&format!("deleted group `{group}`\n"))
        }
    }
}

async fn list(admin: &Admin, form: Output) -> Result<(), Stop> {
    let groups = admin.list_groups().await?;
    if form == Output::Json {
        let groups: Vec<Value> = groups.iter().map(summary_json).collect();
        return output::print_json(&json!({ "groups": groups }));
    }
    if groups.is_empty() {
        return output::print("no groups yet; `riverrun consume TOPIC --group NAME` makes one\n");
    }
    let mut table = Table::new(&["GROUP", "STATE", "MEMBERS", "LAG"]);
    for group in &groups {
        let state = state(group.state).to_owned();
        table.row(vec![
            group.group.clone(),
            state,
            group.member_count.to_string(),
            units::count(group.lag),
        ]);
    }
    output::print(&table.render())
}

fn summary_json(group: &GroupSummary) -> Value {
    json!({ "group": group.group, "state": state(group.state), "member_count": group.member_count, "lag": group.lag })
}

fn state(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "Empty",
        GroupState::Reconciling => "Reconciling",
        GroupState::Stable => "Stable",
        GroupState::Unknown | _ => "Unknown",
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn describe_text(group: &GroupDescription) -> String {
    let lag: u64 = group.partitions.iter().map(|p| p.lag).sum();
    let oldest = group.partitions.iter().map(|p| p.lag_time).max().unwrap_or_default();
    let columns = [
        (
            "GROUP",
            group.group.clone(),
            "COORDINATOR",
            format!("node {}", group.coordinator_node_id),
        ),
        (
            "STATE",
            format!("{} (epoch {})", state(group.state), group.group_epoch),
            "TOTAL LAG",
            units::count(lag),
        ),
        (
            "MEMBERS",
            group.members.len().to_string(),
            "OLDEST UNREAD",
            units::millis(millis(oldest)),
        ),
    ];
    let mut lines = [String::new(), String::new()];
    for (upper_name, upper, lower_name, lower) in columns {
        let name_width = upper_name.len().max(lower_name.len());
        let width = upper.chars().count().max(lower.chars().count());
        lines[0].push_str(&format!("{upper_name:name_width$}  {upper:width$}    "));
        lines[1].push_str(&format!("{lower_name:name_width$}  {lower:width$}    "));
    }
    let head: String = lines.iter().map(|line| format!("{}\n", line.trim_end())).collect();
    if group.partitions.is_empty() {
        return format!("{head}\nno stored offsets and no partitions owned\n");
    }
    let heading = [
        "TOPIC",
        "PARTITION",
        "COMMITTED",
        "LOG-END",
        "LAG",
        "LAG-TIME",
        "MEMBER",
        "CLIENT-ID",
        "HOST",
    ];
    let mut table = Table::new(&heading);
    for partition in &group.partitions {
        table.row(partition_row(group, partition));
    }
    let mut text = format!("{head}\n{}", table.render());
    for partition in &group.partitions {
        if let Some(error) = &partition.error {
            text.push_str(&format!("{}: {error}\n", partition.partition));
        }
    }
    text
}

fn member_of<'a>(
    group: &'a GroupDescription,
    partition: &GroupPartition,
) -> Option<&'a MemberDescription> {
    let id = partition.member_id.as_deref()?;
    group.members.iter().find(|member| member.member_id == id)
}

fn partition_row(group: &GroupDescription, partition: &GroupPartition) -> Vec<String> {
    let member = member_of(group, partition);
    let known = partition.error.is_none();
    let or_dash = |text: String| if known { text } else { "-".to_owned() };
    let of_member = |field: fn(&MemberDescription) -> &str| member.map_or("-", field).to_owned();
    vec![
        partition.partition.topic.to_string(),
        partition.partition.partition.to_string(),
        partition.committed.map_or_else(|| "-".to_owned(), |offset| units::count(offset.0)),
        or_dash(units::count(partition.high_watermark.0)),
        or_dash(units::count(partition.lag)),
        or_dash(units::millis(millis(partition.lag_time))),
        partition.member_id.clone().unwrap_or_else(|| "-".to_owned()),
        of_member(|member| &member.client_id),
        of_member(|member| &member.host),
    ]
}

fn describe_json(group: &GroupDescription) -> Value {
    let members: Vec<Value> = group.members.iter().map(member_json).collect();
    let partitions: Vec<Value> = group.partitions.iter().map(partition_json).collect();
    json!({
        "group": group.group,
        "state": state(group.state),
        "group_epoch": group.group_epoch,
        "assignor": group.assignor,
        "coordinator_node_id": group.coordinator_node_id,
        "lag": group.partitions.iter().map(|p| p.lag).sum::<u64>(),
        "members": members,
        "partitions": partitions,
    })
}

fn names(partitions: &[TopicPartition]) -> Vec<Value> {
    let name = |p: &TopicPartition| json!({ "topic": &*p.topic, "partition": p.partition.0 });
    partitions.iter().map(name).collect()
}

fn member_json(member: &MemberDescription) -> Value {
    json!({
        "member_id": member.member_id,
        "instance_id": member.instance_id,
        "client_id": member.client_id,
        "host": member.host,
        "member_epoch": member.member_epoch,
        "subscription": member.subscription,
        "assignment": names(&member.assignment),
        "target": names(&member.target),
    })
}

fn partition_json(partition: &GroupPartition) -> Value {
    json!({
        "topic": &*partition.partition.topic,
        "partition": partition.partition.partition.0,
        "committed_offset": partition.committed.map(|offset| offset.0),
        "log_start_offset": partition.log_start.0,
        "high_watermark": partition.high_watermark.0,
        "lag": partition.lag,
        "lag_ms": millis(partition.lag_time),
        "member_id": partition.member_id,
        "metadata": partition.metadata,
        "error": partition.error.as_ref().map(Error::to_string),
    })
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

async fn reset(server: &str, args: ResetArgs) -> Result<(), Stop> {
    let target = args.target.reset().map_err(Failure::usage)?;
    let admin = connect(server).await?.admin();
    let request = || -> Result<_, Failure> {
        let mut request = admin.reset_offsets(&args.group, target.clone());
        for topic in &args.topic {
            request = match parse_topic(topic)? {
                (topic, None) => request.topic(topic),
                (topic, Some(partition)) => {
                    request.partition(&TopicPartition::new(topic, partition))
                }
            };
        }
        Ok(request)
    };
    let planned = request()?.dry_run().await?;
    if args.dry_run {
        show_resets(&planned, args.output.output)?;
        return finish(&planned, "would not move");
    }
    if !args.yes {
        let moved = planned.iter().filter(|reset| reset.error.is_none()).count();
        confirm::ask(false, &format!("move {moved} stored offsets of group `{}`?", args.group))?;
    }
    let done = request()?.await?;
    show_resets(&done, args.output.output)?;
    finish(&done, "did not move")
}

/// `orders` or `orders:3`.
fn parse_topic(text: &str) -> Result<(&str, Option<u32>), Failure> {
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((topic, number)) => {
            let number = number.parse().map_err(|_| {
                Failure::usage(format!(
                    "`{number}` is not a partition number; write TOPIC or TOPIC:PARTITION"
                ))
            })?;
            Ok((topic, Some(number)))
        }
    }
}

fn show_resets(resets: &[OffsetReset], form: Output) -> Result<(), Stop> {
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

//! `riverrun group describe`: members, stored offsets and lag of one group.

use std::time::Duration;

use riverrun_client::{Error, GroupDescription, GroupPartition, MemberDescription, TopicPartition};
use serde_json::{Value, json};

use super::state;
use crate::{
    failure::Stop,
    output::{self, Output, Table},
    units,
};

/// Writes out what is known of a group.
pub(super) fn show(group: &GroupDescription, form: Output) -> Result<(), Stop> {
    match form {
        Output::Json => output::print_json(&describe_json(group)),
        Output::Table => output::print(&describe_text(group)),
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
    let head = output::two_lines(&columns);
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

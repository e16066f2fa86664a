//! `/v1/groups`: consumer groups, what they have read, and where they go on.
//!
//! Offsets of several partitions are stored or moved one by one: the reply has a result for each, in order, with
//! an `error` where it failed.

use axum::{
    Router,
    body::Body,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use riverrun_proto::TopicPartition;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    WebDoor, body,
    call::Call,
    object::Object,
    problem::{Answer, Problem},
    reply,
};
use crate::{
    group::event::Phase,
    offset::StoredOffset,
    service::{
        commit::{EPOCH_OUTSIDER, GroupCaller, OffsetToCommit},
        group_admin::{GroupDescription, GroupSummary, MemberDescription, PartitionDescription},
        offsets::OffsetFound,
        reset::{OffsetMoved, ResetRequest, ResetTarget},
    },
};

pub(super) fn routes() -> Router<WebDoor> {
    Router::new()
        .route("/v1/groups", get(list))
        .route("/v1/groups/{group}", get(describe).delete(remove))
        .route("/v1/groups/{group}/offsets", get(offsets).put(commit))
        .route("/v1/groups/{group}/offsets/reset", post(reset))
}

/// A partition by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct PartitionIn {
    topic: String,
    partition: u32,
}

impl PartitionIn {
    /// As the services take it.
    pub(super) fn named(self) -> (String, u32) {
        (self.topic, self.partition)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct ResetIn {
    to: TargetIn,
    #[serde(default)]
    partitions: Vec<Object<PartitionIn>>,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    dry_run: bool,
}

/// `"earliest"`, `"latest"`, or an object with one field.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum TargetIn {
    Earliest,
    Latest,
    TimestampMs(i64),
    DurationMs(u64),
    ShiftBy(i64),
    Offset(u64),
    FromGroup(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct CommitIn {
    offsets: Vec<Object<OffsetIn>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct OffsetIn {
    topic: String,
    partition: u32,
    offset: u64,
    #[serde(default)]
    leader_epoch: Option<u32>,
    #[serde(default)]
    metadata: String,
    #[serde(default)]
    expected_offset: Option<u64>,
}

async fn list(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    let groups = door.services.groups.list().into_iter().map(|summary| {
        let GroupSummary { group, phase, member_count, lag } = summary;
        json!({
            "group": &*group,
            "state": state(phase),
            "member_count": member_count,
            "lag": lag,
        })
    });
    let groups: Vec<Value> = groups.collect();
    reply::sized(&json!({"groups": groups}), &call.caller.replies).await
}

async fn describe(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    let described = door.services.groups.describe(call.name("group")).await?;
    let GroupDescription { group, phase, epoch, assignor, members, partitions } = described;
    let members: Vec<Value> = members.into_iter().map(member).collect();
    let partitions: Vec<Value> = partitions.into_iter().map(partition).collect();
    let described = json!({
        "group": &*group,
        "state": state(phase),
        "group_epoch": epoch,
        "assignor": assignor,
        "members": members,
        "partitions": partitions,
    });
    reply::sized(&described, &call.caller.replies).await
}

async fn remove(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    door.services.groups.delete(call.name("group")).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Stored offsets: all, or that of one partition.
async fn offsets(State(door): State<WebDoor>, mut call: Call) -> Answer {
    let topic = call.take("topic");
    let number = call.parsed("partition", "a number", |text| text.parse().ok())?;
    call.finish()?;
    let partitions = match (topic, number) {
        (None, None) => Vec::new(),
        (Some(topic), Some(number)) => vec![(topic, number)],
        (Some(_), None) => {
            return Err(Problem::field("partition", "given with `topic`", "nothing"));
        }
        (None, Some(_)) => {
            return Err(Problem::field("topic", "given with `partition`", "nothing"));
        }
    };
    let found = door.services.groups.offsets(call.name("group"), partitions, None).await?;
    let offsets: Vec<Value> = found.into_iter().map(stored).collect();
    reply::sized(&json!({"offsets": offsets}), &call.caller.replies).await
}

/// Stores offsets as somebody outside the group, which is made when it does not exist.
async fn commit(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let CommitIn { offsets } = body::json(&call, body, &door).await?;
    let named = offsets.iter().map(|Object(one)| (one.topic.clone(), one.partition));
    let named: Vec<(String, u32)> = named.collect();
    let offsets = offsets.into_iter().map(|Object(one)| OffsetToCommit {
        topic: one.topic,
        partition: one.partition,
        offset: one.offset,
        leader_epoch: one.leader_epoch,
        metadata: one.metadata,
        expected_offset: one.expected_offset,
    });
    let caller = GroupCaller {
        group: call.name("group").to_owned(),
        member_id: String::new(),
        member_epoch: EPOCH_OUTSIDER,
    };
    let share = reply::room_for(named.len(), &call.caller.replies).await?;
    let results = door.services.groups.commit(&caller, offsets.collect()).await?;
    let results = named.into_iter().zip(results).map(|((topic, partition), result)| {
        let error = result.err().map(|error| Problem::from(error).to_json());
        json!({"topic": topic, "partition": partition, "error": error})
    });
    let results: Vec<Value> = results.collect();
    Ok(reply::paid(&json!({"results": results}), share))
}

async fn reset(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let ResetIn { to, partitions, topics, dry_run } = body::json(&call, body, &door).await?;
    let target = match to {
        TargetIn::Earliest => ResetTarget::Earliest,
        TargetIn::Latest => ResetTarget::Latest,
        TargetIn::TimestampMs(time_ms) => ResetTarget::TimestampMs(time_ms),
        TargetIn::DurationMs(age_ms) => ResetTarget::DurationMs(age_ms),
        TargetIn::ShiftBy(count) => ResetTarget::ShiftBy(count),
        TargetIn::Offset(offset) => ResetTarget::Offset(offset),
        TargetIn::FromGroup(group) => ResetTarget::FromGroup(group),
    };
    let request = ResetRequest {
        group: call.name("group").to_owned(),
        partitions: partitions.into_iter().map(|Object(one)| one.named()).collect(),
        topics,
        target,
        dry_run,
    };
    let moved = door.services.groups.reset(request).await?;
    let resets: Vec<Value> = moved.into_iter().map(offset_moved).collect();
    reply::sized(&json!({"resets": resets, "dry_run": dry_run}), &call.caller.replies).await
}

fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Empty => "empty",
        Phase::Reconciling => "reconciling",
        Phase::Stable => "stable",
    }
}

fn named(partitions: &[TopicPartition]) -> Vec<Value> {
    let one = |tp: &TopicPartition| json!({"topic": &*tp.topic, "partition": tp.partition.0});
    partitions.iter().map(one).collect()
}

fn member(described: MemberDescription) -> Value {
    let MemberDescription { member, owned, target } = described;
    let profile = &member.profile;
    let subscription: Vec<String> = profile.subscription.iter().map(ToString::to_string).collect();
    json!({
        "member_id": &*member.id,
        "instance_id": profile.instance_id.as_deref(),
        "client_id": &*profile.client_id,
        "host": &*profile.host,
        "member_epoch": member.epoch,
        "subscription": subscription,
        "assignment": named(&owned),
        "target": named(&target),
    })
}

fn partition(described: PartitionDescription) -> Value {
    let PartitionDescription { topic, partition, stored, owner, lag } = described;
    let mut told = json!({
        "topic": &*topic,
        "partition": partition,
        "committed_offset": stored.as_ref().map(|stored| stored.offset.0),
        "metadata": stored.as_ref().map(|stored| &*stored.metadata),
        "member_id": owner.as_deref(),
    });
    match lag {
        Ok(lag) => {
            told["log_start_offset"] = lag.log_start.0.into();
            told["high_watermark"] = lag.high_watermark.0.into();
            told["lag"] = lag.records.into();
            told["lag_ms"] = lag.age_ms.into();
        }
        Err(error) => told["error"] = Problem::from(error).to_json(),
    }
    told
}

fn stored(found: OffsetFound) -> Value {
    let OffsetFound { topic, partition, stored } = found;
    let mut told = json!({"topic": &*topic, "partition": partition, "offset": null});
    match stored {
        Ok(Some(StoredOffset { offset, leader_epoch, metadata, commit_time_ms, member_id: _ })) => {
            told["offset"] = offset.0.into();
            told["leader_epoch"] = leader_epoch.map(|epoch| epoch.0).into();
            told["metadata"] = String::from(metadata).into();
            told["commit_time_ms"] = commit_time_ms.into();
        }
        Ok(None) => {}
        Err(error) => told["error"] = Problem::from(error).to_json(),
    }
    told
}

fn offset_moved(moved: OffsetMoved) -> Value {
    let OffsetMoved { topic, partition, from, to } = moved;
    let mut told = json!({
        "topic": &*topic,
        "partition": partition,
        "from_offset": from.map(|offset| offset.0),
    });
    match to {
        Ok((to, lag)) => {
            told["to_offset"] = to.0.into();
            told["lag"] = lag.into();
        }
        Err(error) => told["error"] = Problem::from(error).to_json(),
    }
    told
}

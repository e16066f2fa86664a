//! `/v1/groups`: consumer groups, their stored offsets with lag, and resets.

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
    problem::{Answer, Problem},
    reply,
};
use crate::{
    group::event::Phase,
    service::{
        group_admin::{Lag, MemberDescription, PartitionDescription},
        reset::{OffsetMoved, ResetRequest, ResetTarget},
    },
};

pub(super) fn routes() -> Router<WebDoor> {
    Router::new()
        .route("/v1/groups", get(list))
        .route("/v1/groups/{group}", get(describe).delete(remove))
        .route("/v1/groups/{group}/reset", post(reset))
}

/// Where offsets go, and which; all that the group has stored when neither is named.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct ResetIn {
    to: Target,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    partitions: Vec<Place>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", expecting = "a place to move offsets to")]
enum Target {
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
struct Place {
    topic: String,
    partition: u32,
}

async fn list(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    let groups = door.services.groups.list().into_iter().map(|summary| {
        json!({
            "group": &*summary.group,
            "state": state(summary.phase),
            "member_count": summary.member_count,
            "lag": summary.lag,
        })
    });
    told(json!({"groups": groups.collect::<Vec<_>>()}), &call).await
}

async fn describe(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    let described = door.services.groups.describe(call.name("group")).await?;
    let members: Vec<_> = described.members.into_iter().map(member).collect();
    let partitions: Vec<_> = described.partitions.into_iter().map(partition).collect();
    let described = json!({
        "group": &*described.group,
        "state": state(described.phase),
        "group_epoch": described.epoch,
        "assignor": described.assignor,
        "members": members,
        "partitions": partitions,
    });
    told(described, &call).await
}

async fn remove(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    door.services.groups.delete(call.name("group")).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn reset(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let ResetIn { to, topics, partitions, dry_run } = body::json(&call, body, &door).await?;
    let target = match to {
        Target::Earliest => ResetTarget::Earliest,
        Target::Latest => ResetTarget::Latest,
        Target::TimestampMs(time_ms) => ResetTarget::TimestampMs(time_ms),
        Target::DurationMs(age_ms) => ResetTarget::DurationMs(age_ms),
        Target::ShiftBy(count) => ResetTarget::ShiftBy(count),
        Target::Offset(offset) => ResetTarget::Offset(offset),
        Target::FromGroup(group) => ResetTarget::FromGroup(group),
    };
    let partitions = partitions.into_iter().map(|one| (one.topic, one.partition)).collect();
    let group = call.name("group").to_owned();
    let request = ResetRequest { group, partitions, topics, target, dry_run };
    let moved = door.services.groups.reset(request).await?;
    let moved: Vec<_> = moved.into_iter().map(moved_offset).collect();
    told(json!({"resets": moved}), &call).await
}

async fn told(value: Value, call: &Call) -> Answer {
    reply::counted(reply::JSON, value.to_string().into_bytes(), &call.caller.replies).await
}

fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Empty => "empty",
        Phase::Reconciling => "reconciling",
        Phase::Stable => "stable",
    }
}

fn member(described: MemberDescription) -> Value {
    let MemberDescription { member, owned, target } = described;
    let places = |places: Vec<TopicPartition>| -> Value {
        let one =
            |place: TopicPartition| json!({"topic": &*place.topic, "partition": place.partition.0});
        places.into_iter().map(one).collect()
    };
    let profile = &member.profile;
    json!({
        "member_id": member.id.to_string(),
        "instance_id": profile.instance_id.as_deref(),
        "client_id": profile.client_id.to_string(),
        "host": profile.host.to_string(),
        "member_epoch": member.epoch,
        "subscription": profile.subscription.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "assignment": places(owned),
        "target": places(target),
    })
}

fn partition(described: PartitionDescription) -> Value {
    let PartitionDescription { topic, partition, stored, owner, lag } = described;
    let (lag, error) = match lag {
        Ok(lag) => (lag, None),
        Err(error) => (Lag::default(), Some(Problem::from(error).to_json())),
    };
    json!({
        "topic": &*topic,
        "partition": partition,
        "committed_offset": stored.as_ref().map(|stored| stored.offset.0),
        "log_start_offset": lag.log_start.0,
        "high_watermark": lag.high_watermark.0,
        "lag": lag.records,
        "lag_ms": lag.age_ms,
        "member_id": owner.as_deref(),
        "metadata": stored.as_ref().map(|stored| stored.metadata.to_string()),
        "error": error,
    })
}

fn moved_offset(moved: OffsetMoved) -> Value {
    let OffsetMoved { topic, partition, from, to } = moved;
    let from = from.map(|offset| offset.0);
    let place = (&*topic, partition, from);
    match to {
        Ok((to, lag)) => json!({
            "topic": place.0, "partition": place.1, "from_offset": place.2,
            "to_offset": to.0, "lag": lag,
        }),
        Err(error) => json!({
            "topic": place.0, "partition": place.1, "from_offset": place.2,
            "error": Problem::from(error).to_json(),
        }),
    }
}

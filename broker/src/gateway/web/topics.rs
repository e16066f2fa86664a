//! `/v1/topics`: topics and their settings, and what concerns a partition as a whole.

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::IntoResponse,
    routing::{delete, get, post},
};
use riverrun_proto::Offset;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    WebDoor, body,
    call::Call,
    object::Object,
    problem::{Answer, Problem},
    reply,
    settings::{Settings, settings},
};
use crate::{
    partition::damages::DamagedPlace,
    service::lookup::{OffsetQuery, Position},
    topic::{
        Slot, Topic,
        registry::{NewTopic, TopicChange},
    },
};

pub(super) fn routes() -> Router<WebDoor> {
    let topics = get(list).post(create);
    let topic = get(describe).patch(alter).delete(remove);
    Router::new()
        .route("/v1/topics", topics)
        .route("/v1/topics/{topic}", topic)
        .route("/v1/topics/{topic}/partitions/{partition}/offset", get(offset))
        .route("/v1/topics/{topic}/partitions/{partition}/records", delete(delete_records))
        .route("/v1/topics/{topic}/partitions/{partition}/cancel", post(cancel_scheduled))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct NewTopicIn {
    topic: String,
    #[serde(default)]
    partitions: u32,
    #[serde(default)]
    config: Object<Settings>,
    #[serde(default)]
    validate_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct TopicChangeIn {
    #[serde(default)]
    partitions: u32,
    #[serde(default)]
    config: Object<Settings>,
    #[serde(default)]
    reset: Vec<String>,
    #[serde(default)]
    validate_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct CancelIn {
    offset: u64,
}

async fn list(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    let topics = door.services.admin.topics();
    let topics: Vec<_> = topics.iter().map(|topic| summary(topic)).collect();
    let bytes = json!({"topics": topics}).to_string().into_bytes();
    reply::counted(reply::JSON, bytes, &call.caller.replies).await
}

async fn create(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let NewTopicIn { topic: name, partitions, config, validate_only } =
        body::json(&call, body, &door).await?;
    let new =
        NewTopic { name, partition_count: partitions, given: config.0.given(), validate_only };
    let topic = door.services.admin.create_topic(new).await?;
    let mut response = reply::json(&summary(&topic));
    if !validate_only {
        *response.status_mut() = StatusCode::CREATED;
        // A name of a topic holds nothing that a path would have to escape.
        let location = HeaderValue::from_str(&format!("/v1/topics/{}", topic.name));
        response.headers_mut().extend(location.ok().map(|path| (header::LOCATION, path)));
    }
    Ok(response)
}

async fn describe(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    let topic = door.services.admin.topic(call.name("topic"))?;
    let mut described = summary(&topic);
    described["overrides"] = settings(&topic.given);
    let partitions = (0..).zip(&topic.partitions).map(|(number, slot)| partition(number, slot));
    described["partitions"] = partitions.collect();
    let bytes = described.to_string().into_bytes();
    reply::counted(reply::JSON, bytes, &call.caller.replies).await
}

async fn alter(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let TopicChangeIn { partitions, config, reset, validate_only } =
        body::json(&call, body, &door).await?;
    let change = TopicChange {
        name: call.name("topic").to_owned(),
        partition_count: partitions,
        given: config.0.given(),
        reset,
        validate_only,
    };
    let topic = door.services.admin.alter_topic(change).await?;
    Ok(reply::json(&summary(&topic)))
}

async fn remove(State(door): State<WebDoor>, mut call: Call) -> Answer {
    let id = call.parsed("topic_id", "an id as `topic_id` shows it", |text| {
        Uuid::parse_str(text).ok().map(|id| id.as_bytes().to_vec())
    })?;
    call.finish()?;
    let name = call.name("topic").to_owned();
    door.services.admin.delete_topic(name, id.unwrap_or_default()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// An offset by position or by time.
async fn offset(State(door): State<WebDoor>, mut call: Call) -> Answer {
    let expected = "earliest or latest";
    let named = call.parsed("position", expected, |text| match text {
        "earliest" => Some(Position::Earliest),
        "latest" => Some(Position::Latest),
        _ => None,
    })?;
    let timed = call.parsed("timestamp_ms", "a number of milliseconds", |text| {
        text.parse().ok().map(Position::Timestamp)
    })?;
    call.finish()?;
    let position = match (named, timed) {
        (Some(position), None) | (None, Some(position)) => position,
        (None, None) | (Some(_), Some(_)) => {
            let expected = "given, or else `timestamp_ms`";
            return Err(Problem::field("position", expected, "both or neither"));
        }
    };
    let (topic, partition) = (call.name("topic").to_owned(), call.number("partition")?);
    let found = door.services.lookup.find(&OffsetQuery { topic, partition, position }).await?;
    Ok(reply::json(&json!({
        "offset": found.offset.0,
        "timestamp_ms": found.timestamp_ms,
        "leader_epoch": found.leader_epoch.0,
    })))
}

async fn delete_records(State(door): State<WebDoor>, mut call: Call) -> Answer {
    let before = call.parsed("before", "an offset", |text| text.parse().ok())?;
    call.finish()?;
    let Some(before) = before else {
        return Err(Problem::field("before", "an offset", "nothing"));
    };
    let partition = call.number("partition")?;
    let admin = &door.services.admin;
    let start = admin.delete_records(call.name("topic"), partition, Offset(before)).await?;
    Ok(reply::json(&json!({"log_start_offset": start.0})))
}

/// Cancels a record that has a time. Answers when that is durable.
async fn cancel_scheduled(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let CancelIn { offset } = body::json(&call, body, &door).await?;
    let place = (call.name("topic"), call.number("partition")?);
    let cancelled = door.services.delivery.cancel_scheduled(place, offset).await?;
    Ok(reply::json(&json!({"cancelled": cancelled})))
}

fn summary(topic: &Topic) -> Value {
    json!({
        "topic": &*topic.name,
        "topic_id": topic.id.to_string(),
        "partition_count": topic.partition_count(),
        "config": settings(&topic.config.to_message()),
    })
}

fn partition(number: u32, slot: &Slot) -> Value {
    let failed =
        |failure: &crate::partition::PartitionFailed| Problem::from(failure.clone()).to_json();
    let partition = match slot {
        Slot::Open(partition) => partition,
        Slot::Failed(failure) => {
            return json!({"partition": number, "failure": failed(failure)});
        }
    };
    let (facts, damages) = (partition.facts(), partition.damages());
    json!({
        "partition": number,
        "leader_epoch": partition.leader_epoch().0,
        "log_start_offset": facts.visible.log_start.0,
        "flushed_offset": facts.flushed.0,
        "high_watermark": facts.visible.high_watermark.0,
        "log_end_offset": facts.log_end.0,
        "size_bytes": facts.size_bytes,
        "segment_count": facts.segment_count,
        "failure": partition.failure().map(failed),
        "damaged_places": damages.count,
        "damaged": damages.named.iter().map(damaged).collect::<Vec<_>>(),
    })
}

fn damaged(place: &DamagedPlace) -> Value {
    json!({
        "start_offset": place.range.start.0,
        "end_offset": place.range.end.0,
        "reason": &*place.reason,
    })
}

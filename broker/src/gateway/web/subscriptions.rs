//! `/v1/subscriptions`: push subscriptions, how they stand, and what moves them. What takes records from them
//! stands in `receive.rs`.

use axum::{
    Router,
    body::Body,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    WebDoor, body,
    call::Call,
    groups::PartitionIn,
    object::Object,
    problem::{Answer, Problem},
    record, reply,
    subscription_json::{self, SpecIn, StartIn, TextIn, enum_name},
    subscription_settings::SubscriptionSettingsIn,
};
use crate::{
    delivery::RecordState,
    gateway::grpc::{push_convert, reason_convert},
    service::delivery::{
        peek::PeekedRecord,
        redrive::{RedriveRequest, Redriven},
        seek::{Moved, SeekRequest},
    },
};

pub(super) fn routes() -> Router<WebDoor> {
    let one = get(describe).patch(alter).delete(remove);
    Router::new()
        .route("/v1/subscriptions", get(list).post(create))
        .route("/v1/subscriptions/{subscription}", one)
        .route("/v1/subscriptions/{subscription}/pause", post(pause))
        .route("/v1/subscriptions/{subscription}/resume", post(resume))
        .route("/v1/subscriptions/{subscription}/seek", post(seek))
        .route("/v1/subscriptions/{subscription}/redrive", post(redrive))
        .route("/v1/subscriptions/{subscription}/explain", get(explain))
        .route("/v1/subscriptions/{subscription}/peek", get(peek))
}

/// A new subscription.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct NewIn {
    subscription: String,
    topics: Vec<String>,
    #[serde(default)]
    start: StartIn,
    #[serde(default)]
    settings: Object<SubscriptionSettingsIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct ChangeIn {
    #[serde(default)]
    settings: Object<SubscriptionSettingsIn>,
    #[serde(default)]
    add_topics: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct SeekIn {
    to: StartIn,
    #[serde(default)]
    partitions: Vec<Object<PartitionIn>>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    advance: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
struct RedriveIn {
    key: Option<TextIn>,
    from_ms: Option<i64>,
    until_ms: Option<i64>,
    to_topic: String,
    max_records: u64,
    dry_run: bool,
}

async fn list(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    let listed = door.services.delivery.list().into_iter().map(push_convert::listing);
    let subscriptions: Vec<Value> = listed.map(|one| subscription_json::listing(&one)).collect();
    reply::sized(&json!({"subscriptions": subscriptions}), &call.caller.replies).await
}

async fn create(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let NewIn { subscription, topics, start, settings } = body::json(&call, body, &door).await?;
    let spec = SpecIn { topics, start, settings }.into_spec()?;
    let created = door.services.delivery.create(&subscription, spec).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let body = json!({"subscription": subscription, "created": created});
    Ok((status, reply::json(&body)).into_response())
}

async fn describe(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    let described = door.services.delivery.describe(call.name("subscription")).await?;
    let described = subscription_json::description(push_convert::description(described));
    reply::sized(&described, &call.caller.replies).await
}

async fn alter(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let ChangeIn { settings, add_topics } = body::json(&call, body, &door).await?;
    let name = call.name("subscription");
    door.services.delivery.alter(name, settings.0.given()?, add_topics).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn remove(State(door): State<WebDoor>, mut call: Call) -> Answer {
    let force = call.parsed("force", "true or false", |text| text.parse().ok())?;
    call.finish()?;
    let name = call.name("subscription");
    door.services.delivery.delete(name, force.unwrap_or(false)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn pause(State(door): State<WebDoor>, call: Call) -> Answer {
    set_paused(&door, &call, true).await
}

async fn resume(State(door): State<WebDoor>, call: Call) -> Answer {
    set_paused(&door, &call, false).await
}

async fn set_paused(door: &WebDoor, call: &Call, paused: bool) -> Answer {
    call.finish()?;
    door.services.delivery.pause(call.name("subscription"), paused).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn seek(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let SeekIn { to, partitions, dry_run, advance } = body::json(&call, body, &door).await?;
    if let StartIn::Group(group) = &to {
        let expected = "earliest, latest, timestamp_ms or offset";
        return Err(Problem::field("to", expected, format!("group {group}")));
    }
    let request = SeekRequest {
        subscription: call.name("subscription").to_owned(),
        partitions: partitions.into_iter().map(|Object(one)| one.named()).collect(),
        to: to.start(),
        dry_run,
        advance,
    };
    let moved = door.services.delivery.seek(request).await?;
    let moved: Vec<Value> = moved.into_iter().map(seek_result).collect();
    reply::sized(&json!({"partitions": moved, "dry_run": dry_run}), &call.caller.replies).await
}

fn seek_result(moved: Moved) -> Value {
    let Moved { place, from, to, error } = moved;
    json!({
        "topic": &*place.topic,
        "partition": place.partition,
        "from_offset": from,
        "to_offset": to,
        "error": error.map(|error| Problem::from(error).to_json()),
    })
}

async fn redrive(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let given: RedriveIn = body::json(&call, body, &door).await?;
    let request = RedriveRequest {
        subscription: call.name("subscription").to_owned(),
        key: given.key.map(|key| key.bytes("key")).transpose()?,
        from_ms: given.from_ms,
        until_ms: given.until_ms,
        to_topic: given.to_topic,
        records_max: given.max_records,
        dry_run: given.dry_run,
    };
    let Redriven { matched, redriven, failed, error } =
        door.services.delivery.redrive(request).await?;
    let error = error.map(|error| Problem::from(error).to_json());
    Ok(reply::json(
        &json!({"matched": matched, "redriven": redriven, "failed": failed, "error": error}),
    ))
}

async fn explain(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    let told = door.services.delivery.explain(call.name("subscription")).await?;
    let told = told.into_iter().map(reason_convert::explanation).map(|told| {
        let reason = enum_name(told.reason().as_str_name(), "IDLE_REASON_");
        json!({
            "topic": told.topic,
            "partition": told.partition,
            "reason": reason,
            "message": told.message,
            "offset": told.offset,
            "key": told.key.map(|key| subscription_json::text_or_base64(&key)),
            "session_id": told.session_id,
            "until_ms": told.until_ms,
        })
    });
    let partitions: Vec<Value> = told.collect();
    reply::sized(&json!({"partitions": partitions}), &call.caller.replies).await
}

async fn peek(State(door): State<WebDoor>, mut call: Call) -> Answer {
    let count = call.parsed("max_records", "a number", |text| text.parse().ok())?;
    call.finish()?;
    let name = call.name("subscription");
    let records = door.services.delivery.peek(name, count.unwrap_or(0)).await?;
    let mut body = b"{\"records\":[".to_vec();
    for (index, peeked) in records.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write_peeked(peeked, &mut body);
    }
    body.extend_from_slice(b"]}");
    reply::counted(reply::JSON, body, &call.caller.replies).await
}

fn write_peeked(told: &PeekedRecord, to: &mut Vec<u8>) {
    let PeekedRecord { place, record, peeked } = told;
    let state = match peeked.state {
        RecordState::Unread => "unread",
        RecordState::Ready => "ready",
        RecordState::InFlight => "in_flight",
        RecordState::RetryWait => "retry_wait",
        RecordState::Blocked => "blocked",
        RecordState::Scheduled => "scheduled",
        RecordState::DeadPending => "dead_pending",
    };
    let more = json!({
        "topic": &*place.topic,
        "partition": place.partition,
        "state": state,
        "attempts": peeked.attempts,
        "failures": peeked.failures,
        "session_id": peeked.session.as_deref(),
        "until_ms": peeked.until_ms,
    });
    record::write(record, to);
    subscription_json::add_fields(&more, to);
}

//! `/v1/subscriptions/{s}/receive` and `/settle`: records with leases, and what became of them.
//!
//! Every record brings its `lease`, which names partition, offset, epoch and delivery. It is handed back as it
//! came, with the `session_id` of the reply:
//!
//! ```text
//! POST receive {"max_records": 10, "max_wait_ms": 20000}  ->  {"session_id": "w", "records": [{"lease": L, ...}]}
//! POST settle  {"session_id": "w", "items": [{"lease": L, "outcome": "ack"}]}  ->  {"results": [{"status": "ok"}]}
//! ```
//!
//! Records for whose reply there is no room are given back at once, unless the caller named his try.

use axum::{Router, body::Body, extract::State, routing::post};
use riverrun_proto::{batch::OffsetRecord, grpc::v1};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    WebDoor, body,
    call::Call,
    object::Object,
    problem::{Answer, Problem},
    record, reply,
    subscription_json::{SpecIn, add_fields, enum_name},
};
use crate::{
    delivery::{Outcome, Run},
    gateway::grpc::{push_convert, reason_convert},
    service::{
        delivery::{
            receive::{ReceiveRequest, Received},
            session::Delivered,
            settle::{ITEMS_MAX, SettleItem},
        },
        fetch::Format,
    },
};

pub(super) fn routes() -> Router<WebDoor> {
    Router::new()
        .route("/v1/subscriptions/{subscription}/receive", post(receive))
        .route("/v1/subscriptions/{subscription}/settle", post(settle))
}

/// Most bytes of what a delivery says about a record, without the name of the topic; more than stands around the records.
const DELIVERY_BYTES: usize = 256;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
struct ReceiveIn {
    session_id: String,
    max_records: u32,
    max_bytes: u32,
    max_wait_ms: u32,
    attempt_id: String,
    create: Option<Object<SpecIn>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct SettleIn {
    session_id: String,
    items: Vec<Object<ItemIn>>,
    #[serde(default)]
    sync: bool,
}

/// One record to settle.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ItemIn {
    lease: String,
    outcome: OutcomeIn,
    #[serde(default)]
    delay_ms: Option<u64>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    lease_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeIn {
    Ack,
    Nack,
    Release,
    Reject,
    Extend,
    Started,
}

async fn receive(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let given: ReceiveIn = body::json(&call, body, &door).await?;
    let is_named = !given.attempt_id.is_empty();
    let subscription = call.name("subscription").to_owned();
    let request = ReceiveRequest {
        subscription: subscription.clone(),
        session_id: given.session_id,
        records_max: given.max_records,
        bytes_max: given.max_bytes,
        wait_ms: given.max_wait_ms,
        format: Format::Structured,
        create: given.create.map(|Object(spec)| spec.into_spec()).transpose()?,
        attempt: given.attempt_id,
        host: call.caller.address.ip().to_string(),
    };
    let received = door.services.delivery.receive(request).await?;
    let answered = match call.caller.replies.take(told_bytes(&received)).await {
        Ok(mut share) => {
            let told = told(&received);
            share.shrink(told.len());
            Ok(reply::typed(reply::JSON, reply::held(told, share)))
        }
        Err(exceeded) => Err(exceeded.into()),
    };
    if answered.is_err() && !is_named {
        let items: Vec<SettleItem> = received.deliveries.iter().flat_map(released).collect();
        let session = &*received.session_id;
        door.services.delivery.settle(&subscription, session, (items, false)).await?;
    }
    answered
}

/// No fewer bytes than [`told`] makes, found without making them.
fn told_bytes(received: &Received) -> usize {
    let one = |delivered: &Delivered| {
        let around = DELIVERY_BYTES + 2 * delivered.place.topic.len();
        let records = delivered.frame.records.iter();
        records.map(|record| record::text_bytes(record) + around).sum::<usize>()
    };
    DELIVERY_BYTES
        + 6 * received.session_id.len()
        + received.deliveries.iter().map(one).sum::<usize>()
}

/// What was received, as JSON.
fn told(received: &Received) -> Vec<u8> {
    let idle = received.idle.as_ref().map(reason_convert::idle_reason);
    let idle = idle.map(|reason| enum_name(reason.as_str_name(), "IDLE_REASON_"));
    let mut body = b"{\"records\":[".to_vec();
    let mut is_first = true;
    for delivered in &received.deliveries {
        write_records(delivered, &mut is_first, &mut body);
    }
    body.extend_from_slice(b"]}");
    let more = json!({
        "session_id": &*received.session_id,
        "ack_wait_ms": push_convert::ms(received.ack_wait),
        "idle_reason": idle,
    });
    add_fields(&more, &mut body);
    body
}

/// Writes the records of a delivery with their leases, and commas between them.
pub(super) fn write_records(delivered: &Delivered, is_first: &mut bool, body: &mut Vec<u8>) {
    for one in &delivered.frame.records {
        if !std::mem::take(is_first) {
            body.push(b',');
        }
        write_record(delivered, one, body);
    }
}

/// Writes a record of a delivery with its lease.
pub(super) fn write_record(delivered: &Delivered, one: &OffsetRecord, body: &mut Vec<u8>) {
    record::write(one, body);
    add_fields(&delivery(delivered, one.offset.0), body);
}

/// What a delivery says about a record.
fn delivery(delivered: &Delivered, offset: u64) -> Value {
    let Delivered { place, seq, epoch, counts, replayed, topic_id: _, frame: _ } = delivered;
    let count = counts.iter().find(|count| count.offset == offset);
    json!({
        "topic": &*place.topic,
        "partition": place.partition,
        "attempts": count.map_or(1, |count| count.attempts),
        "failures": count.map_or(0, |count| count.failures),
        "replayed": replayed,
        "lease": format!("{}:{}:{offset}:{epoch}:{seq}", place.topic, place.partition),
    })
}

fn released(delivered: &Delivered) -> impl Iterator<Item = SettleItem> {
    delivered.frame.runs.iter().map(|run| SettleItem {
        topic: delivered.place.topic.to_string(),
        partition: delivered.place.partition,
        run: *run,
        epoch: delivered.epoch,
        seq: delivered.seq,
        outcome: Some(Outcome::Release),
    })
}

async fn settle(State(door): State<WebDoor>, call: Call, body: Body) -> Answer {
    call.finish()?;
    let SettleIn { session_id, items, sync } = body::json(&call, body, &door).await?;
    let items = settle_items(items)?;
    let share = reply::room_for(items.len(), &call.caller.replies).await?;
    let subscription = call.name("subscription");
    let results = door.services.delivery.settle(subscription, &session_id, (items, sync)).await?;
    let results = (0..).zip(results).map(push_convert::settle_result).map(
        |result| json!({"status": enum_name(result.status().as_str_name(), "SETTLE_STATUS_")}),
    );
    let results: Vec<Value> = results.collect();
    Ok(reply::paid(&json!({"results": results}), share))
}

/// The items, when there are not too many and each can be read.
pub(super) fn settle_items(items: Vec<Object<ItemIn>>) -> Result<Vec<SettleItem>, Problem> {
    if items.len() > ITEMS_MAX {
        let expected = format!("a list of at most {ITEMS_MAX}");
        return Err(Problem::field("items", &expected, items.len()));
    }
    items.into_iter().map(|Object(one)| item(one)).collect()
}

/// The item, when its lease can be read and every field fits the outcome.
fn item(given: ItemIn) -> Result<SettleItem, Problem> {
    let Some((topic, numbers)) = lease(&given.lease) else {
        return Err(Problem::field("items.lease", "as `receive` told it", given.lease));
    };
    let ItemIn { outcome, delay_ms, reason, lease_ms, .. } = given;
    let (takes_delay, takes_reason, takes_lease) = match outcome {
        OutcomeIn::Nack => (true, true, false),
        OutcomeIn::Reject => (false, true, false),
        OutcomeIn::Extend => (false, false, true),
        OutcomeIn::Ack | OutcomeIn::Release | OutcomeIn::Started => (false, false, false),
    };
    for (field, is_there, is_taken, whose) in [
        ("items.delay_ms", delay_ms.is_some(), takes_delay, "nack"),
        ("items.reason", reason.is_some(), takes_reason, "nack or reject"),
        ("items.lease_ms", lease_ms.is_some(), takes_lease, "extend"),
    ] {
        if is_there && !is_taken {
            let expected = format!("absent unless the outcome is {whose}");
            return Err(Problem::field(field, &expected, "a value"));
        }
    }
    let reason = reason.unwrap_or_default();
    let outcome = match outcome {
        OutcomeIn::Ack => v1::settle_item::Outcome::Ack(v1::Ack {}),
        OutcomeIn::Nack => v1::settle_item::Outcome::Nack(v1::Nack { delay_ms, reason }),
        OutcomeIn::Release => v1::settle_item::Outcome::Release(v1::Release {}),
        OutcomeIn::Reject => v1::settle_item::Outcome::Reject(v1::Reject { reason }),
        OutcomeIn::Extend => {
            let Some(lease_ms) = lease_ms else {
                return Err(Problem::field("items.lease_ms", "given with extend", "nothing"));
            };
            v1::settle_item::Outcome::Extend(v1::Extend { lease_ms })
        }
        OutcomeIn::Started => v1::settle_item::Outcome::Started(v1::Started {}),
    };
    let [offset, epoch, seq] = numbers.1;
    Ok(SettleItem {
        topic: topic.to_owned(),
        partition: numbers.0,
        run: Run::new(offset, offset.saturating_add(1)),
        epoch,
        seq,
        outcome: Some(push_convert::outcome(outcome)),
    })
}

/// Topic, partition, and offset, epoch and delivery of a lease.
fn lease(text: &str) -> Option<(&str, (u32, [u64; 3]))> {
    let mut parts = text.split(':');
    let (topic, partition) = (parts.next()?, parts.next()?.parse().ok()?);
    let mut number = || parts.next()?.parse::<u64>().ok();
    let numbers = [number()?, number()?, number()?];
    (parts.next().is_none() && numbers[0] < u64::MAX).then_some((topic, (partition, numbers)))
}

//! What a client is told, as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::{ask::Id, frame::Told};
use crate::{
    gateway::{
        grpc::{push_convert, reason_convert},
        web::{
            problem::Problem, receive::write_records, session_json, subscription_json::enum_name,
            tail::Cursor,
        },
    },
    service::delivery::{
        Settled,
        session::{Amount, Delivered, Heartbeat, Opened, Out},
    },
};

/// Writes what is told.
pub(in super::super) fn write(id: Option<&Id>, told: Told<'_>) -> String {
    let mut value = match told {
        Told::Produced(records) => json!({"op": "produced", "records": records}),
        Told::Tailing(cursor) => json!({"op": "tailing", "cursor": cursor}),
        Told::TailEnded(cursor) => json!({"op": "ended", "cursor": cursor}),
        Told::SessionEnded => json!({"op": "ended"}),
        Told::Problem(problem) => json!({"op": "problem", "error": problem.to_json()}),
        Told::Session(session_id, told) => match *told {
            Out::Deliver(told) => return jobs(id, &told),
            Out::Opened(told) => opened(session_id, &told),
            Out::Settled(told) => settled(told),
            Out::Revoked(place, runs, reason) => {
                with_op("revoked", session_json::revoked(&place, &runs, reason))
            }
            Out::Lost(place, runs) => with_op("lost", session_json::lost(&place, &runs)),
            Out::Heartbeat(told) => heartbeat(&told),
            Out::Goaway(error, released) => {
                let error = Problem::from(error).to_json();
                json!({"op": "goaway", "error": error, "released": released})
            }
        },
    };
    value["id"] = id.map(Id::json).cloned().into();
    value.to_string()
}

/// Writes what a tail found: records that are written, and gaps.
pub(in super::super) fn write_found(
    id: &Id,
    cursor: &Cursor,
    (records, gaps): (&str, &[Value]),
) -> String {
    let mut text = String::with_capacity(records.len() + 256);
    let id = id.json();
    let _ = write!(text, "{{\"op\":\"records\",\"id\":{id},\"cursor\":\"{cursor}\",\"records\":[");
    text.push_str(records);
    let _ = write!(text, "],\"gaps\":{}}}", Value::from(gaps.to_vec()));
    text
}

fn opened(session_id: &str, told: &Opened) -> Value {
    let mut value = with_op("subscribed", session_json::opened(session_id, told));
    value["credit_used"] = credit_used(told.credit_used);
    value
}

/// What credit was used for, under the names by which it is granted.
fn credit_used(amount: Amount) -> Value {
    json!({"records_total": amount.records, "bytes_total": amount.bytes})
}

/// With the name of the message.
fn with_op(op: &str, mut told: Value) -> Value {
    told["op"] = op.into();
    told
}

fn heartbeat(told: &Heartbeat) -> Value {
    let idle = told.idle.as_ref().map(reason_convert::idle_reason);
    let idle = idle.map(|reason| enum_name(reason.as_str_name(), "IDLE_REASON_"));
    json!({
        "op": "heartbeat",
        "lag": told.lag,
        "oldest_unsettled_ms": told.oldest_unsettled_ms,
        "idle_reason": idle,
        "credit_used": credit_used(told.credit_used),
    })
}

fn jobs(id: Option<&Id>, delivered: &Delivered) -> String {
    let (id, seq) = (Value::from(id.map(Id::json).cloned()), delivered.seq);
    let head = format!("{{\"op\":\"jobs\",\"id\":{id},\"delivery_seq\":{seq},\"records\":[");
    let mut text = head.into_bytes();
    write_records(delivered, &mut true, &mut text);
    text.extend_from_slice(b"]}");
    String::from_utf8(text).expect("it was written as text")
}

fn settled(told: Settled) -> Value {
    let result = |result| {
        let result = push_convert::settle_result(result);
        let status = enum_name(result.status().as_str_name(), "SETTLE_STATUS_");
        json!({"item": result.item, "status": status})
    };
    let results: Vec<Value> = told.results.into_iter().map(result).collect();
    json!({"op": "settled", "settle_id": told.settle_id, "results": results})
}

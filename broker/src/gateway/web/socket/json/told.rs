//! What a client is told, as JSON.

use std::fmt::Write as _;

use riverrun_proto::grpc::v1;
use serde_json::{Value, json};

use super::super::{ask::Id, frame::Told};
use crate::{
    delivery::{RevokeReason, Run},
    gateway::{
        grpc::{push_convert, reason_convert},
        web::{
            problem::Problem, receive::write_records, subscription_json::enum_name, tail::Cursor,
        },
    },
    service::delivery::{
        Settled,
        session::{Amount, Delivered, Heartbeat, Opened, Out, Place},
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
            Out::Revoked(place, runs, reason) => revoked(&place, &runs, reason),
            Out::Lost(place, runs) => lost(&place, &runs),
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
    (records, gaps): (&str, Vec<Value>),
) -> String {
    let mut text = String::with_capacity(records.len() + 256);
    let id = id.json();
    let _ = write!(text, "{{\"op\":\"records\",\"id\":{id},\"cursor\":\"{cursor}\",\"records\":[");
    text.push_str(records);
    let _ = write!(text, "],\"gaps\":{}}}", Value::from(gaps));
    text
}

fn opened(session_id: &str, told: &Opened) -> Value {
    let credit_used = credit_used(told.credit_used);
    let told = push_convert::opened(told);
    json!({
        "op": "subscribed",
        "session_id": session_id,
        "session_epoch": told.session_epoch,
        "resumed": told.resumed,
        "ack_wait_ms": told.ack_wait_ms,
        "max_lease_ms": told.max_lease_ms,
        "max_in_flight": told.max_in_flight,
        "order": enum_name(told.order().as_str_name(), "DELIVERY_ORDER_"),
        "credit_used": credit_used,
    })
}

/// What credit was used for, under the names by which it is granted.
fn credit_used(amount: Amount) -> Value {
    json!({"records_total": amount.records, "bytes_total": amount.bytes})
}

fn revoked(place: &Place, runs: &[Run], reason: RevokeReason) -> Value {
    let told = push_convert::revoked(place, runs, reason);
    json!({
        "op": "revoked",
        "topic": told.topic,
        "partition": told.partition,
        "ranges": ranges(&told.ranges),
        "reason": enum_name(told.reason().as_str_name(), "REVOKE_REASON_"),
    })
}

fn lost(place: &Place, runs: &[Run]) -> Value {
    let v1::Lost { topic, partition, ranges: lost } = push_convert::lost(place, runs);
    json!({"op": "lost", "topic": topic, "partition": partition, "ranges": ranges(&lost)})
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

/// First offsets and those after the last.
fn ranges(ranges: &[v1::OffsetRange]) -> Vec<[u64; 2]> {
    ranges.iter().map(|range| [range.start_offset, range.end_offset]).collect()
}

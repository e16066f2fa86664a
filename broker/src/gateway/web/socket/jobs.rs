//! One push session of a socket: what it is told, as messages, and how it is opened.
//!
//! The socket's own pings tell whether the client lives, so a session needs no signs of life of its own.

use riverrun_proto::grpc::v1;
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use uuid::Uuid;

use super::{
    asked::{Id, Subscribe},
    frame::{self, Frame},
};
use crate::{
    delivery::ResumePoint,
    gateway::{
        grpc::{push_convert, reason_convert},
        web::{
            WebDoor,
            call::Call,
            problem::Problem,
            receive::write_records,
            subscription_json::{SpecIn, enum_name},
        },
    },
    quota::Room,
    service::{
        delivery::{
            Settled,
            open::OpenRequest,
            session::{Delivered, Out, SessionIn, SessionOut},
        },
        fetch::Format,
    },
};

/// Waits for room before a session is given up.
const TRIES: u32 = 10;

/// Opens a session. Gives its name with both halves.
pub(super) async fn open(
    (door, call): (&WebDoor, &Call),
    asked: Subscribe,
) -> Result<(String, SessionIn, SessionOut), Problem> {
    let session_id = match asked.session_id.as_str() {
        "" => Uuid::new_v4().simple().to_string(),
        given => given.to_owned(),
    };
    let resume = asked.resume.map(|resume| ResumePoint {
        epoch: resume.session_epoch,
        last_seq: resume.last_delivery_seq,
    });
    let credit = asked.credit.map(|credit| credit.totals()).transpose()?;
    let request = OpenRequest {
        subscription: asked.subscription,
        session_id: session_id.clone(),
        resume,
        in_flight_max: asked.max_in_flight,
        format: Format::Structured,
        client_id: asked.client_id,
        host: call.caller.address.ip().to_string(),
        create: asked.create.map(SpecIn::into_spec).transpose()?,
        reports_started: asked.reports_started,
    };
    let (input, output) = door.services.delivery.open_session(request).await?;
    if let Some((records, bytes)) = credit {
        input.credit(records, bytes);
    }
    Ok((session_id, input, output))
}

/// Sends what the session is told, until it ends or nobody takes it.
pub(super) async fn run(
    (id, session_id): (Id, String),
    mut output: SessionOut,
    (out, room): (Sender<Frame>, Room),
) {
    while let Some(told) = output.next().await {
        let frame = match told {
            Ok(told) => roomy(message(&id, &session_id, told), &room).await,
            Err(error) => Ok(frame::problem(Some(&id), &error.into())),
        };
        let (frame, given_up) = match frame {
            Ok(frame) => (frame, false),
            // What was handed out goes back and counts as no failure.
            Err(problem) => {
                output.release();
                (frame::problem(Some(&id), &problem), true)
            }
        };
        if out.send(frame).await.is_err() {
            return;
        }
        if given_up {
            break;
        }
    }
    // When it is gone nobody waits for it.
    drop(out.send(frame::small(&json!({"op": "ended", "id": id.json()}))).await);
}

/// Counts a message, with more patience than an answer has: what it brings is leased by now.
async fn roomy(text: String, room: &Room) -> Result<Frame, Problem> {
    for _ in 1..TRIES {
        if let Ok(share) = room.take(text.len()).await {
            return Ok(frame::paid(text, share));
        }
    }
    frame::counted(text, room).await
}

fn message(id: &Id, session_id: &str, told: Out) -> String {
    let mut value = match told {
        Out::Deliver(delivered) => return jobs(id, &delivered),
        Out::Opened(told) => {
            let told = push_convert::opened(&told);
            json!({
                "op": "subscribed",
                "session_id": session_id,
                "session_epoch": told.session_epoch,
                "resumed": told.resumed,
                "ack_wait_ms": told.ack_wait_ms,
                "max_lease_ms": told.max_lease_ms,
                "max_in_flight": told.max_in_flight,
                "order": enum_name(told.order().as_str_name(), "DELIVERY_ORDER_"),
            })
        }
        Out::Settled(told) => settled(told),
        Out::Revoked(place, runs, reason) => {
            let told = push_convert::revoked(&place, &runs, reason);
            let reason = enum_name(told.reason().as_str_name(), "REVOKE_REASON_");
            let (topic, ranges) = (told.topic, ranges(&told.ranges));
            let partition = told.partition;
            json!({"op": "revoked", "topic": topic, "partition": partition, "ranges": ranges, "reason": reason})
        }
        Out::Lost(place, runs) => {
            let v1::Lost { topic, partition, ranges: lost } = push_convert::lost(&place, &runs);
            json!({"op": "lost", "topic": topic, "partition": partition, "ranges": ranges(&lost)})
        }
        Out::Heartbeat(told) => {
            let idle = told.idle.as_ref().map(reason_convert::idle_reason);
            let idle = idle.map(|reason| enum_name(reason.as_str_name(), "IDLE_REASON_"));
            json!({
                "op": "heartbeat",
                "lag": told.lag,
                "oldest_unsettled_ms": told.oldest_unsettled_ms,
                "idle_reason": idle,
            })
        }
        Out::Goaway(error, released) => {
            json!({"op": "goaway", "error": Problem::from(error).to_json(), "released": released})
        }
    };
    value["id"] = id.json().clone();
    value.to_string()
}

fn jobs(id: &Id, delivered: &Delivered) -> String {
    let (id, seq) = (id.json(), delivered.seq);
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

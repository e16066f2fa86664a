//! Messages as protobuf: `SocketRequest` and `SocketResponse` of riverrun.v1, one to a binary message.

use bytes::Bytes;
use prost::Message;
use riverrun_proto::{
    Record,
    batch::OffsetRecord,
    grpc::v1::{
        self, session_request::Frame, socket_request::Ask as AskWire,
        socket_response::Told as ToldWire,
    },
};
use serde_json::Value;

use super::{
    ask::{self, Ask, Asked, Id},
    frame::Told,
};
use crate::{
    gateway::{
        grpc::{
            convert::{record, wire_record},
            push_convert::{credit, settle_frame},
            session,
        },
        web::{
            problem::Problem,
            produce::{To, check_count},
            tail::{Cursor, Filter, Wanted},
        },
    },
    service::produce::Acks,
};

/// The protocol, as clients name it.
pub(super) const PROTOCOL: &str = "riverrun.v1.protobuf";

/// Reads a message.
pub(super) fn read(bytes: &Bytes, host: &str) -> Asked {
    let asked = match v1::SocketRequest::decode(bytes.clone()) {
        Ok(asked) => asked,
        Err(error) => {
            let problem = Problem::field("message", "a riverrun.v1.SocketRequest", error);
            return Asked { id: None, ask: Err(problem) };
        }
    };
    match name(asked.id) {
        Ok(id) => Asked { id, ask: ask(asked.ask, host) },
        Err(problem) => Asked { id: None, ask: Err(problem) },
    }
}

/// The id of a message.
pub(super) fn id(bytes: &Bytes) -> Option<Id> {
    name(v1::SocketRequest::decode(bytes.clone()).ok()?.id).ok().flatten()
}

fn name(id: String) -> Result<Option<Id>, Problem> {
    if id.is_empty() { Ok(None) } else { Id::new(&Value::String(id)) }
}

fn ask(wire: Option<AskWire>, host: &str) -> Result<Ask, Problem> {
    match wire {
        Some(AskWire::Produce(wire)) => produce(wire),
        Some(AskWire::Tail(wire)) => Ok(Ask::Tail(wanted(wire))),
        Some(AskWire::End(v1::SocketEnd {})) => Ok(Ask::End),
        Some(AskWire::Session(v1::SessionRequest { frame })) => session_frame(frame, host),
        None => Err(Problem::field("ask", "set", "nothing")),
    }
}

fn produce(wire: v1::SocketProduce) -> Result<Ask, Problem> {
    let v1::SocketProduce { topic, records, partition, acks } = wire;
    let acks = match v1::Acks::try_from(acks) {
        Ok(v1::Acks::Leader) => Acks::Leader,
        Ok(v1::Acks::All | v1::Acks::Unspecified) => Acks::All,
        Ok(v1::Acks::None) | Err(_) => {
            return Err(Problem::field("acks", "LEADER or ALL", acks));
        }
    };
    check_count(records.len())?;
    let placed = |(index, one): (usize, v1::SocketRecord)| match one.record {
        Some(wire) => Ok((one.partition, record(wire))),
        None => Err(Problem::field("records.record", "set", "nothing").with("index", index)),
    };
    let records = records.into_iter().enumerate().map(placed);
    let records = records.collect::<Result<Vec<(Option<u32>, Record)>, Problem>>()?;
    Ok(Ask::Produce(ask::Produce { topic, to: To { partition, acks }, records }))
}

fn wanted(wire: v1::SocketTail) -> Wanted {
    let v1::SocketTail { topic, from_earliest, cursor, partitions, key, key_prefix, header } = wire;
    let header = header.map(|v1::SocketHeaderFilter { name, value }| (name, value));
    Wanted {
        topic,
        cursor: cursor.map(|text| ("cursor", text)),
        from_start: from_earliest,
        partitions: Some(partitions).filter(|partitions| !partitions.is_empty()),
        filter: Filter { key, key_prefix, header },
    }
}

fn session_frame(frame: Option<Frame>, host: &str) -> Result<Ask, Problem> {
    Ok(match frame {
        Some(Frame::Open(wire)) => {
            let request = session::open_request(wire, host.to_owned())?;
            Ask::Subscribe(Box::new(ask::Subscribe { request, credit: None }))
        }
        Some(Frame::Credit(wire)) => {
            let (records_total, bytes_total) = credit(wire)?;
            Ask::Credit(records_total, bytes_total)
        }
        Some(Frame::Settle(wire)) => {
            let (settle_id, items, sync) = settle_frame(wire)?;
            Ask::Settle(ask::Settle { settle_id, items, sync })
        }
        Some(Frame::Pause(_)) => Ask::Pause,
        Some(Frame::Resume(_)) => Ask::Resume,
        Some(Frame::Drain(_)) => Ask::Drain,
        Some(Frame::Heartbeat(_)) => Ask::Nothing,
        None => return Err(Problem::field("session.frame", "set", "nothing")),
    })
}

/// Writes what is told.
pub(super) fn write(id: Option<&Id>, told: Told<'_>) -> Vec<u8> {
    let ended = |cursor: &str| ToldWire::Ended(v1::SocketEnded { cursor: cursor.to_owned() });
    let told = match told {
        Told::Produced(records) => {
            ToldWire::Produced(v1::SocketProduced { records: places(&records) })
        }
        Told::Tailing(cursor) => ToldWire::Tailing(v1::SocketTailing { cursor: cursor.to_owned() }),
        Told::TailEnded(cursor) => ended(cursor),
        Told::SessionEnded => ended(""),
        Told::Session(_, told) => ToldWire::Session(session::response(*told)),
        Told::Problem(problem) => ToldWire::Problem(v1::SocketProblem {
            error: Some(problem.to_wire()),
            cursor: problem.more("cursor").and_then(Value::as_str).map(str::to_owned),
            records: problem.more("records").map(places).unwrap_or_default(),
        }),
    };
    response(id, told)
}

/// Writes what a tail found.
pub(super) fn write_found(id: &Id, cursor: &Cursor, mut found: v1::SocketRecords) -> Vec<u8> {
    found.cursor = cursor.to_string();
    response(Some(id), ToldWire::Records(found))
}

fn response(id: Option<&Id>, told: ToldWire) -> Vec<u8> {
    let id = id.map(Id::text).unwrap_or_default();
    v1::SocketResponse { id, told: Some(told) }.encode_to_vec()
}

/// A record that was read, as a copy: it may be kept for others, and the original keeps all that was read with it.
pub(super) fn found_record(partition: u32, record: &OffsetRecord) -> v1::SocketRecord {
    let copied = |bytes: &mut Bytes| *bytes = Bytes::copy_from_slice(bytes);
    let mut record = wire_record(record.clone());
    record.key.iter_mut().chain(&mut record.value).for_each(copied);
    record.headers.iter_mut().filter_map(|header| header.value.as_mut()).for_each(copied);
    v1::SocketRecord { record: Some(record), partition: Some(partition) }
}

/// What will not come, from how it is told in JSON.
pub(super) fn found_gap(told: &Value) -> v1::SocketGap {
    v1::SocketGap {
        reason: told["reason"].as_str().unwrap_or_default().to_owned(),
        partition: told["partition"].as_u64().and_then(|number| u32::try_from(number).ok()),
        offset: told["offset"].as_u64().unwrap_or_default(),
        next_offset: told["next_offset"].as_u64().unwrap_or_default(),
    }
}

/// What became of records, from how it is told in JSON.
fn places(told: &Value) -> Vec<v1::SocketPlace> {
    let place = |one: &Value| v1::SocketPlace {
        partition: one["partition"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        offset: one["offset"].as_u64(),
        error: one.get("error").map(|error| v1::Error {
            code: Problem::code_of(error["code"].as_str().unwrap_or_default()) as i32,
            message: error["message"].as_str().unwrap_or_default().to_owned(),
            retry_after_ms: 0,
            range: None,
            epoch_end: None,
        }),
    };
    told.as_array().map(|all| all.iter().map(place).collect()).unwrap_or_default()
}

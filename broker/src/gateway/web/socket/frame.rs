//! Messages to a client, written and counted.

use axum::extract::ws::{Message, Utf8Bytes};
use prost::Message as _;
use riverrun_proto::{batch::OffsetRecord, grpc::v1};
use serde_json::Value;

use super::{
    ask::{Codec, Id},
    json, protobuf,
};
use crate::{
    gateway::web::{
        problem::Problem,
        record, reply,
        tail::{Cursor, Form},
    },
    quota::{Room, Share},
    service::delivery::session::Out,
};

/// What a gap takes, about.
const GAP_BYTES: usize = 1 << 10;

/// What a client is told, but what tails find.
#[derive(Debug)]
pub(super) enum Told<'a> {
    /// Where records came to lie, as JSON.
    Produced(Value),
    /// A tail stands at this cursor.
    Tailing(&'a str),
    /// A tail ended at this cursor.
    TailEnded(&'a str),
    /// What the push session of this id is told.
    Session(&'a str, Box<Out>),
    SessionEnded,
    Problem(&'a Problem),
}

/// A message as it is written.
#[derive(Debug)]
pub(super) enum Written {
    Text(String),
    Binary(Vec<u8>),
}

/// What a step of a tail found.
#[derive(Debug)]
pub(in super::super) enum Found {
    Json(String, Vec<Value>),
    /// With the bytes of its records, made and encoded.
    Protobuf(v1::SocketRecords, usize),
}

/// Something for the writer.
#[derive(Debug)]
pub(super) enum Frame {
    /// A message; its bytes are counted for as long as it is there, unless it is small.
    Message(Message),
    /// A sign of life.
    Ping,
    /// What waits in the sink is to be sent.
    Flush,
}

impl Codec {
    /// Writes what is told.
    pub(super) fn write(self, id: Option<&Id>, told: Told<'_>) -> Written {
        match self {
            Codec::Json => Written::Text(json::write(id, told)),
            Codec::Protobuf => Written::Binary(protobuf::write(id, told)),
        }
    }

    /// A message that is not counted.
    pub(super) fn small(self, id: Option<&Id>, told: Told<'_>) -> Frame {
        self.write(id, told).small()
    }
}

impl Written {
    /// Its bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Written::Text(text) => text.len(),
            Written::Binary(bytes) => bytes.len(),
        }
    }

    /// As a message that is not counted.
    pub(super) fn small(self) -> Frame {
        Frame::Message(match self {
            Written::Text(text) => Message::Text(text.into()),
            Written::Binary(bytes) => Message::Binary(bytes.into()),
        })
    }

    /// As a message whose bytes are counted until they are on the socket.
    pub(super) async fn counted(self, room: &Room) -> Result<Frame, Problem> {
        let share = room.take(self.len()).await?;
        Ok(self.paid(share))
    }

    /// As a message whose room was taken before.
    pub(super) fn paid(self, share: Share) -> Frame {
        Frame::Message(match self {
            Written::Text(text) => {
                let bytes = reply::held(text.into_bytes(), share);
                Message::Text(Utf8Bytes::try_from(bytes).expect("it was written as text"))
            }
            Written::Binary(bytes) => Message::Binary(reply::held(bytes, share)),
        })
    }
}

impl Found {
    /// Nothing yet.
    pub(in super::super) fn new(codec: Codec) -> Found {
        match codec {
            Codec::Json => Found::Json(String::new(), Vec::new()),
            Codec::Protobuf => Found::Protobuf(v1::SocketRecords::default(), 0),
        }
    }

    /// As the message of the tail `id`, which stands at `cursor` after it.
    pub(super) fn message(&self, id: &Id, cursor: &Cursor) -> Written {
        match self {
            Found::Json(records, gaps) => {
                Written::Text(json::write_found(id, cursor, (records, gaps)))
            }
            Found::Protobuf(found, _) => {
                Written::Binary(protobuf::write_found(id, cursor, found.clone()))
            }
        }
    }

    /// Something that will not come.
    pub(super) fn add_gap(&mut self, told: &Value) {
        match self {
            Found::Json(_, gaps) => gaps.push(told.clone()),
            Found::Protobuf(found, _) => found.gaps.push(protobuf::found_gap(told)),
        }
    }
}

impl Form for Found {
    fn bytes(&self) -> usize {
        match self {
            Found::Json(records, gaps) => records.len() + gaps.len() * GAP_BYTES,
            Found::Protobuf(found, bytes) => bytes + found.gaps.len() * GAP_BYTES,
        }
    }

    fn record(&mut self, _: &Cursor, partition: u32, record: &OffsetRecord) {
        match self {
            Found::Json(records, _) => {
                if !records.is_empty() {
                    records.push(',');
                }
                record::write_with(partition, record, records);
            }
            Found::Protobuf(found, bytes) => {
                let one = protobuf::found_record(partition, record);
                *bytes += size_of_val(&one) + one.encoded_len();
                found.records.push(one);
            }
        }
    }

    fn gap(&mut self, _: &Cursor, told: &Value) {
        self.add_gap(told);
    }
}

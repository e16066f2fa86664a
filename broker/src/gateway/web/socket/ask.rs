//! What a client asks, whatever it speaks.

use axum::{body::Bytes, extract::ws::Message};
use riverrun_proto::Record;
use serde_json::Value;

use super::{json, protobuf};
use crate::{
    gateway::web::{problem::Problem, produce::To, tail::Wanted},
    service::delivery::{open::OpenRequest, settle::SettleItem},
};

/// Most bytes of an id.
pub(super) const ID_BYTES_MAX: usize = 64;

/// How messages are written. Everything else is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Codec {
    /// JSON texts.
    Json,
    /// Binary messages: `SocketRequest` and `SocketResponse` of riverrun.v1.
    Protobuf,
}

/// The client's name for what it asked, as JSON has it: a number or a string.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(Value);

/// A message of a client, as far as it could be read.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: Option<Id>,
    pub(super) ask: Result<Ask, Problem>,
}

/// What a client asks.
#[derive(Debug)]
pub(super) enum Ask {
    Produce(Produce),
    Tail(Wanted),
    End,
    Subscribe(Box<Subscribe>),
    /// Totals of records and bytes since the session was opened.
    Credit(u64, u64),
    Settle(Settle),
    Pause,
    Resume,
    Drain,
    /// Only a sign of life.
    Nothing,
}

/// Records to append, with the partitions they name.
#[derive(Debug)]
pub(super) struct Produce {
    pub(super) topic: String,
    pub(super) to: To,
    pub(super) records: Vec<(Option<u32>, Record)>,
}

/// A push session to open, and the totals of its first credit.
#[derive(Debug)]
pub(super) struct Subscribe {
    pub(super) request: OpenRequest,
    pub(super) credit: Option<(u64, u64)>,
}

/// What became of records.
#[derive(Debug)]
pub(super) struct Settle {
    pub(super) settle_id: u64,
    pub(super) items: Vec<SettleItem>,
    pub(super) sync: bool,
}

impl Codec {
    /// The codec of a protocol, by the name that it has in `Sec-WebSocket-Protocol`.
    pub(super) fn named(protocol: &[u8]) -> Option<(Codec, &'static str)> {
        [(Codec::Json, json::PROTOCOL), (Codec::Protobuf, protobuf::PROTOCOL)]
            .into_iter()
            .find(|(_, name)| name.as_bytes() == protocol)
    }

    /// Reads a message. `host` is the address that it came from.
    pub(super) fn read(self, message: &Message, host: &str) -> Asked {
        match (self, message) {
            (Codec::Json, Message::Text(text)) => json::read(text, host),
            (Codec::Protobuf, Message::Binary(bytes)) => protobuf::read(bytes, host),
            (Codec::Json, _) => Asked::refused(Problem::field("message", "text", "binary")),
            (Codec::Protobuf, _) => Asked::refused(Problem::field("message", "binary", "text")),
        }
    }

    /// The id of a message that is not read as a whole.
    pub(super) fn id(self, message: &Message) -> Option<Id> {
        match (self, message) {
            (Codec::Json, Message::Text(text)) => json::id(text),
            (Codec::Protobuf, Message::Binary(bytes)) => protobuf::id(bytes),
            (Codec::Json | Codec::Protobuf, _) => None,
        }
    }
}

impl Asked {
    fn refused(problem: Problem) -> Asked {
        Asked { id: None, ask: Err(problem) }
    }
}

impl Id {
    /// A number or a string; `None` for nothing.
    pub(super) fn new(value: &Value) -> Result<Option<Id>, Problem> {
        match value {
            Value::Null => Ok(None),
            Value::Number(_) => Ok(Some(Id(value.clone()))),
            Value::String(text) if text.len() <= ID_BYTES_MAX => Ok(Some(Id(value.clone()))),
            Value::String(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                let expected = format!("a number or a string of at most {ID_BYTES_MAX} bytes");
                Err(Problem::field("id", &expected, value))
            }
        }
    }

    /// As it goes out in JSON, and how people read it.
    pub(super) fn json(&self) -> &Value {
        &self.0
    }

    /// As it goes out in protobuf.
    pub(super) fn text(&self) -> String {
        self.0.as_str().map_or_else(|| self.0.to_string(), str::to_owned)
    }
}

/// The bytes of a message.
pub(super) fn bytes_of(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        Message::Ping(bytes) | Message::Pong(bytes) => Bytes::len(bytes),
        Message::Close(_) => 0,
    }
}

//! Messages to a client, written and counted.

use std::fmt::Write as _;

use axum::extract::ws::Utf8Bytes;
use riverrun_proto::batch::OffsetRecord;
use serde_json::{Value, json};

use super::asked::Id;
use crate::{
    gateway::web::{
        problem::Problem,
        record, reply,
        tail::{Cursor, Form},
    },
    quota::{Room, Share},
};

/// What a step of a tail found.
#[derive(Debug, Default)]
pub(super) struct Found {
    records: String,
    gaps: Vec<Value>,
}

impl Found {
    /// With what is told before the first step.
    pub(super) fn with_gap(told: Value) -> Found {
        Found { records: String::new(), gaps: vec![told] }
    }

    /// As the message of the tail `id`, which stands at `cursor` after it.
    pub(super) fn message(self, id: &Id, cursor: &Cursor) -> String {
        let Found { records, gaps } = self;
        let mut text = String::with_capacity(records.len() + 256);
        let id = id.json();
        let _ =
            write!(text, "{{\"op\":\"records\",\"id\":{id},\"cursor\":\"{cursor}\",\"records\":[");
        text.push_str(&records);
        let _ = write!(text, "],\"gaps\":{}}}", Value::from(gaps));
        text
    }
}

impl Form for Found {
    fn record(&mut self, _: &Cursor, partition: u32, record: &OffsetRecord) {
        if !self.records.is_empty() {
            self.records.push(',');
        }
        record::write_with(partition, record, &mut self.records);
    }

    fn gap(&mut self, _: &Cursor, told: &Value) {
        self.gaps.push(told.clone());
    }
}

/// Something for the writer.
#[derive(Debug)]
pub(super) enum Frame {
    /// A message; its bytes are counted for as long as it is there, unless it is small.
    Text(Utf8Bytes),
    /// A sign of life.
    Ping,
    /// What waits in the sink is to be sent.
    Flush,
}

/// A refusal or a failure of what was asked as `id`.
pub(super) fn problem(id: Option<&Id>, problem: &Problem) -> Frame {
    small(&json!({"op": "problem", "id": id.map(Id::json), "error": problem.to_json()}))
}

/// A message that is not counted.
pub(super) fn small(message: &Value) -> Frame {
    Frame::Text(message.to_string().into())
}

/// A message whose bytes are counted until they are on the socket.
pub(super) async fn counted(text: String, room: &Room) -> Result<Frame, Problem> {
    let share = room.take(text.len()).await?;
    Ok(paid(text, share))
}

/// A message whose room was taken before.
pub(super) fn paid(text: String, share: Share) -> Frame {
    let bytes = reply::held(text.into_bytes(), share);
    Frame::Text(Utf8Bytes::try_from(bytes).expect("it was written as text"))
}

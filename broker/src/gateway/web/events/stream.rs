//! One stream of events: reads on from its cursor and writes what it finds, for as long as somebody listens.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

use super::{
    super::{WebDoor, problem::Problem, record, reply},
    Cursor, Filter, Position, visible,
};
use crate::{
    partition::ReadError,
    quota::Room,
    service::fetch::{FetchPartition, FetchPartitionError, FetchRequest, Fetched, Format},
    topic::{Topic, catalog::id_bytes},
};

/// A comment goes out when there was nothing for so long.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Most bytes of records read at once.
const STEP_BYTES: u32 = 256 << 10;
/// How long `EventSource` waits before it calls again, in milliseconds.
const RETRY_MS: u32 = 2_000;

/// Nothing follows.
struct End;

/// One stream.
pub(super) struct Events {
    door: WebDoor,
    /// Of the connection, for what is read and written.
    room: Room,
    name: Arc<str>,
    topic_id: Bytes,
    cursor: Cursor,
    filter: Filter,
    /// Reads partitions that are added later too.
    takes_new: bool,
    /// What to say before anything else.
    greeting: Option<String>,
}

impl Events {
    pub(super) fn new(
        (door, room): (WebDoor, Room),
        topic: &Topic,
        (mut cursor, filter): (Cursor, Filter),
        takes_new: bool,
    ) -> Events {
        let mut greeting = format!("retry: {RETRY_MS}\n");
        if cursor.topic_id != topic.id {
            let reason = json!({"reason": "topic_recreated", "topic_id": topic.id.to_string()});
            cursor.topic_id = topic.id;
            for (partition, position) in &mut cursor.positions {
                *position = visible(topic, *partition).0;
            }
            event(&mut greeting, "gap", (&cursor, &reason));
        } else {
            let _ = write!(greeting, "id: {cursor}\n\n");
        }
        let topic_id = id_bytes(topic.id);
        let (name, greeting) = (topic.name.clone(), Some(greeting));
        Events { door, room, name, topic_id, cursor, filter, takes_new, greeting }
    }

    /// As the body of a reply.
    pub(super) fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(Some(self), async |events| {
            let mut events = events?;
            if events.door.shutdown.has_begun() {
                return None;
            }
            match events.step().await {
                Ok((text, None)) => Some((Ok::<_, Infallible>(text), Some(events))),
                Ok((text, Some(End))) => Some((Ok(text), None)),
                Err(problem) => {
                    let mut text = String::new();
                    event(&mut text, "problem", (&events.cursor, &problem.to_json()));
                    Some((Ok(text.into()), None))
                }
            }
        }))
    }

    /// The next events, and whether they are the last. After an error the cursor is where it was.
    async fn step(&mut self) -> Result<(Bytes, Option<End>), Problem> {
        if let Some(greeting) = self.greeting.take() {
            return Ok((greeting.into(), None));
        }
        self.add_new()?;
        let answer = self.door.services.fetch.fetch(self.request(), &self.room).await?;
        let (mut text, mut end) = (String::new(), None);
        let before = self.cursor.clone();
        for fetched in answer.partitions {
            if let Err(problem) = self.write(fetched, &mut text) {
                // What others had is in the text and in the cursor: it is sent all the same.
                event(&mut text, "problem", (&self.cursor, &problem.to_json()));
                end = Some(End);
                break;
            }
        }
        drop(answer.shares);
        if text.is_empty() && self.cursor != before {
            // Nothing was wanted; whoever resumes need not read it again.
            let _ = write!(text, "id: {}\n\n", self.cursor);
        }
        if text.is_empty() {
            text.push_str(":\n\n");
        }
        match reply::count(text.into_bytes(), &self.room).await {
            Ok(text) => Ok((text, end)),
            Err(problem) => {
                self.cursor = before;
                Err(problem)
            }
        }
    }

    /// Takes up partitions that were added to the topic.
    fn add_new(&mut self) -> Result<(), Problem> {
        if self.takes_new {
            let topic = self.door.services.admin.topic(&self.name)?;
            for partition in 0..topic.partition_count() {
                self.cursor.positions.entry(partition).or_default();
            }
        }
        Ok(())
    }

    fn request(&self) -> FetchRequest {
        let partition = |(partition, position): (&u32, &Position)| FetchPartition {
            topic: self.name.to_string(),
            topic_id: self.topic_id.clone(),
            partition: *partition,
            offset: position.offset,
            bytes_max: 0,
            leader_epoch: Some(position.epoch).filter(|epoch| *epoch > 0),
        };
        FetchRequest {
            partitions: self.cursor.positions.iter().map(partition).collect(),
            wait: HEARTBEAT,
            bytes_min: 1,
            bytes_max: STEP_BYTES,
            records_max: 0,
            format: Format::Structured,
            member: None,
        }
    }

    /// Writes what was read from one partition and moves the cursor.
    fn write(&mut self, fetched: Fetched, text: &mut String) -> Result<(), Problem> {
        let partition = fetched.partition;
        let records = match fetched.records {
            Ok(records) => records,
            Err(error) => return self.gap(partition, error, text),
        };
        let epoch = records.leader_epoch.0;
        for one in records.records {
            let offset = one.offset.0 + 1;
            self.cursor.positions.insert(partition, Position { offset, epoch });
            if self.filter.wants(&one.record) {
                let _ = write!(text, "id: {}\ndata: {{\"partition\":{partition},", self.cursor);
                let mut json = Vec::new();
                record::write(&one, &mut json);
                // It begins with a brace of its own.
                text.push_str(&String::from_utf8_lossy(&json[1..]));
                text.push_str("\n\n");
            }
        }
        // Compaction may have taken the last records away. An answer without records has no epoch.
        let position = self.cursor.positions.entry(partition).or_default();
        position.offset = records.next_offset.0;
        if epoch > 0 {
            position.epoch = epoch;
        }
        Ok(())
    }

    /// Goes on behind records that cannot be read any more, and says so.
    fn gap(
        &mut self,
        partition: u32,
        error: FetchPartitionError,
        text: &mut String,
    ) -> Result<(), Problem> {
        let (next, reason) = match &error {
            FetchPartitionError::Read(ReadError::OutOfRange { requested, log_start, .. })
                if requested < log_start =>
            {
                (Position { offset: log_start.0, epoch: 0 }, "retention")
            }
            FetchPartitionError::Read(ReadError::OutOfRange { high_watermark, .. }) => {
                (Position { offset: high_watermark.0, epoch: 0 }, "truncated")
            }
            FetchPartitionError::Read(ReadError::Truncated { leader_epoch, end_offset }) => {
                (Position { offset: end_offset.0, epoch: *leader_epoch }, "truncated")
            }
            FetchPartitionError::Read(_)
            | FetchPartitionError::Find(_)
            | FetchPartitionError::Fence(_)
            | FetchPartitionError::Decode { .. } => return Err(error.into()),
        };
        let from = self.cursor.positions.insert(partition, next).unwrap_or_default();
        let told = json!({
            "partition": partition,
            "reason": reason,
            "offset": from.offset,
            "next_offset": next.offset,
        });
        event(text, "gap", (&self.cursor, &told));
        Ok(())
    }
}

fn event(text: &mut String, name: &str, (cursor, data): (&Cursor, &Value)) {
    let _ = write!(text, "id: {cursor}\nevent: {name}\ndata: {data}\n\n");
}

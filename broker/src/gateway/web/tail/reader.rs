//! Reads on from a cursor, step by step, for as long as somebody listens.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Cursor, Filter, Form, Position, Wanted, partitions, resumed, visible};
use crate::{
    gateway::web::{WebDoor, problem::Problem},
    partition::ReadError,
    quota::Room,
    service::fetch::{FetchPartition, FetchPartitionError, FetchRequest, Fetched, Format},
    topic::{Topic, catalog::id_bytes},
};

/// A step ends when there was nothing for so long, so that both ends see that the other lives.
const STEP: Duration = Duration::from_secs(15);
/// Most bytes of records read at once.
const STEP_BYTES: u32 = 256 << 10;

/// One reader.
#[derive(Debug)]
pub(in super::super) struct Tail {
    door: WebDoor,
    /// Of the connection, for what is read and written.
    room: Room,
    name: Arc<str>,
    topic_id: Bytes,
    cursor: Cursor,
    filter: Filter,
    /// Reads partitions that are added later too.
    takes_new: bool,
    /// The cursor was of another topic of the same name.
    recreated: Option<Value>,
}

impl Tail {
    /// A reader of what is wanted.
    pub(in super::super) fn open(
        (door, room): (WebDoor, Room),
        wanted: Wanted,
    ) -> Result<Tail, Problem> {
        let topic = door.services.admin.topic(&wanted.topic)?;
        let chosen = partitions(&topic, wanted.partitions.as_deref())?;
        let given = match &wanted.cursor {
            Some((field, text)) => Some(resumed(field, text, &topic)?),
            None => None,
        };
        let start = |partition: u32| match (&given, wanted.from_start) {
            // Partitions that the cursor does not name are newer than it.
            (Some(cursor), _) => cursor.positions.get(&partition).copied().unwrap_or_default(),
            (None, true) => visible(&topic, partition).0,
            (None, false) => visible(&topic, partition).1,
        };
        let positions = chosen.into_iter().map(|partition| (partition, start(partition)));
        let positions = positions.collect();
        let mut cursor = Cursor { topic_id: topic.id, positions };
        let is_other = given.is_some_and(|given| given.topic_id != topic.id);
        let recreated = is_other.then(|| restart(&mut cursor, &topic));
        let takes_new = wanted.partitions.is_none();
        let (name, topic_id, filter) = (topic.name.clone(), id_bytes(topic.id), wanted.filter);
        Ok(Tail { door, room, name, topic_id, cursor, filter, takes_new, recreated })
    }

    /// Where it stands.
    pub(in super::super) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Room for what is written.
    pub(in super::super) fn room(&self) -> &Room {
        &self.room
    }

    /// Goes back to where it stood, when what was written since cannot be sent.
    pub(in super::super) fn go_back(&mut self, cursor: Cursor) {
        self.cursor = cursor;
    }

    /// What to tell before anything else: the cursor was of another topic of the same name.
    pub(in super::super) fn take_recreated(&mut self) -> Option<Value> {
        self.recreated.take()
    }

    /// The broker stops.
    pub(in super::super) fn is_over(&self) -> bool {
        self.door.shutdown.has_begun()
    }

    /// Waits for records and writes them. After an error what was written before it stands, and so does the cursor.
    pub(in super::super) async fn step(&mut self, form: &mut impl Form) -> Result<(), Problem> {
        self.add_new()?;
        let answer = self.door.services.fetch.fetch(self.request(), &self.room).await?;
        for fetched in answer.partitions {
            self.write(fetched, form)?;
        }
        Ok(())
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
            wait: STEP,
            bytes_min: 1,
            bytes_max: STEP_BYTES,
            records_max: 0,
            format: Format::Structured,
            member: None,
        }
    }

    /// Writes what was read from one partition and moves the cursor.
    fn write(&mut self, fetched: Fetched, form: &mut impl Form) -> Result<(), Problem> {
        let partition = fetched.partition;
        let records = match fetched.records {
            Ok(records) => records,
            Err(error) => return self.gap(partition, error, form),
        };
        let epoch = records.leader_epoch.0;
        for one in records.records {
            let offset = one.offset.0 + 1;
            self.cursor.positions.insert(partition, Position { offset, epoch });
            if self.filter.wants(&one.record) {
                form.record(&self.cursor, partition, &one);
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
        form: &mut impl Form,
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
        form.gap(&self.cursor, &told);
        Ok(())
    }
}

/// Begins at the start of a topic that took the place of the cursor's. What to tell of it.
fn restart(cursor: &mut Cursor, topic: &Topic) -> Value {
    for (partition, position) in &mut cursor.positions {
        *position = visible(topic, *partition).0;
    }
    json!({"reason": "topic_recreated", "topic_id": topic.id.to_string()})
}

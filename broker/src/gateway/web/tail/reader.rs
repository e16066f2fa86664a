//! Reads on from a cursor, step by step, for as long as somebody listens.
//!
//! A step ends where its text is long enough; the records that are left wait for the next one, counted as they were read. A step near
//! the end of the topic is taken together with the other readers that stand there.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration, vec};

use bytes::Bytes;
use riverrun_proto::batch::OffsetRecord;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    Cursor, Filter, Form, Position, Wanted, behind, fill, is_readable, partitions, partitions_max,
    resumed,
    shared::{Entered, Lead, Place, Shared, Stepped},
    visible,
};
use crate::{
    gateway::web::{WebDoor, problem::Problem, reply::STEP_TEXT_BYTES},
    partition::ReadError,
    quota::{Room, Share},
    service::fetch::{Answer, FetchPartition, FetchPartitionError, FetchRequest, Format},
    topic::{Topic, catalog::id_bytes},
};

/// A step ends when there was nothing for so long, so that both ends see that the other lives.
const STEP: Duration = Duration::from_secs(15);
/// Most bytes of records read at once.
const STEP_BYTES: u32 = 256 << 10;

/// Whoever is at most so many records behind takes his steps together with others: those who are further behind read what nobody
/// shares with them.
const NEAR_RECORDS: u64 = 1_000;
/// What is there to be read already is waited for so long when another reader reads it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Least room to read for others.
const ROOM_LEAST: usize = 64 << 10;

/// One reader.
#[derive(Debug)]
pub(in super::super) struct Tail<F> {
    door: WebDoor,
    shared: Shared<F>,
    /// Of the connection, for what is read and written.
    room: Room,
    name: Arc<str>,
    topic_id: Bytes,
    cursor: Cursor,
    filter: Filter,
    /// Reads partitions that are added later too.
    takes_new: bool,
    /// Partitions of the topic that it has no place for, as it told.
    left_out: usize,
    /// The cursor was of another topic of the same name.
    recreated: Option<Value>,
    held: Held,
}

/// What was read and is not written yet.
#[derive(Debug, Default)]
struct Held {
    found: VecDeque<(u32, Result<Run, FetchPartitionError>)>,
    /// Taken for the records.
    _shares: Vec<Share>,
}

/// Records of one partition.
#[derive(Debug)]
struct Run {
    records: vec::IntoIter<OffsetRecord>,
    /// Where to stand after the last.
    end: Position,
}

impl Held {
    fn new(answer: Answer) -> Held {
        let found = answer.partitions.into_iter().map(|fetched| {
            let run = fetched.records.map(|read| Run {
                records: read.records.into_iter(),
                end: Position { offset: read.next_offset.0, epoch: read.leader_epoch.0 },
            });
            (fetched.partition, run)
        });
        Held { found: found.collect(), _shares: answer.shares }
    }
}

/// How a reader comes to what is behind its cursor.
enum Way<F> {
    /// By a read of its own.
    Alone,
    /// By a read for all who stand here.
    Leads(Lead<F>),
    /// Another reader was there.
    Follows(Arc<Stepped<F>>),
    /// Nothing came.
    Waited,
}

impl<F: Form> Tail<F> {
    /// A reader of what is wanted, which writes as those of `shared` do.
    pub(in super::super) fn open(
        (door, room): (WebDoor, Room),
        shared: Shared<F>,
        wanted: Wanted,
    ) -> Result<Tail<F>, Problem> {
        let topic = door.services.admin.topic(&wanted.topic)?;
        let given = match &wanted.cursor {
            Some((field, text)) => Some(resumed(field, text, &topic)?),
            None => None,
        };
        let which = (wanted.partitions.as_deref(), given.as_ref());
        let chosen = partitions(&topic, which, partitions_max(&door.config))?;
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
        let held = Held::default();
        Ok(Tail {
            door,
            shared,
            room,
            name,
            topic_id,
            cursor,
            filter,
            takes_new,
            left_out: 0,
            recreated,
            held,
        })
    }

    /// Where it stands.
    pub(in super::super) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Room for what is written. Where there is none now, what is still to be written is forgotten first and will be read
    /// again: nobody waits for room while he holds some.
    pub(in super::super) async fn room_for(&mut self, bytes: usize) -> Result<Share, Problem> {
        if let Ok(share) = self.room.try_take(bytes) {
            return Ok(share);
        }
        self.held = Held::default();
        Ok(self.room.take(bytes).await?)
    }

    /// Goes back to where it stood, when what was written since cannot be sent.
    pub(in super::super) fn go_back(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        self.held = Held::default();
    }

    /// What to tell before anything else: the cursor was of another topic of the same name.
    pub(in super::super) fn take_recreated(&mut self) -> Option<Value> {
        self.recreated.take()
    }

    /// The broker stops.
    pub(in super::super) fn is_over(&self) -> bool {
        self.door.shutdown.has_begun()
    }

    /// Waits for records and writes them, at most [`STEP_TEXT_BYTES`] and what one record has; the next step writes those that
    /// are left. What was written stands, and so does the cursor, also beside an error.
    pub(in super::super) async fn step(&mut self) -> (Arc<F>, Result<(), Problem>) {
        let mut form = self.shared.empty();
        let mut lead = None;
        if self.held.found.is_empty() {
            let added = self.add_new(&mut form);
            if added.is_err() || form.bytes() > 0 {
                return (Arc::new(form), added);
            }
            let deadline = Instant::now() + STEP;
            match self.way(deadline).await {
                Way::Alone => {}
                Way::Leads(own) => lead = Some(own),
                Way::Follows(stepped) => {
                    self.cursor.clone_from(&stepped.cursor);
                    return (stepped.form.clone(), Ok(()));
                }
                Way::Waited => return (Arc::new(form), Ok(())),
            }
            if let Err(problem) = self.read(deadline).await {
                return (Arc::new(form), Err(problem));
            }
        }
        let written = self.write_held(&mut form);
        let form = Arc::new(form);
        if let (Some(lead), true, true) = (lead, written.is_ok(), self.held.found.is_empty()) {
            lead.tell(&form, &self.cursor);
        }
        (form, written)
    }

    /// Finds out whether another reader goes on from here, and waits for it.
    async fn way(&self, deadline: Instant) -> Way<F> {
        let place = Place { cursor: self.cursor.clone(), filter: self.filter.clone() };
        let place = Arc::new(place);
        let mut is_given_up = false;
        loop {
            // Whoever is told of the topic's end by another reader has it told by its own read.
            let Ok(topic) = self.door.services.admin.topic(&self.name) else { return Way::Alone };
            let behind = behind(&topic, &self.cursor);
            // What one could not share is not tried by all others, one after the other.
            if is_given_up && behind != Some(0) {
                return Way::Alone;
            }
            let may_lead = behind.is_some_and(|records| records <= NEAR_RECORDS);
            let mut ahead = match self.shared.enter(&place, may_lead && self.has_room()) {
                Entered::Alone => return Way::Alone,
                Entered::Leads(lead) => return Way::Leads(lead),
                Entered::Over(stepped) => return self.follow(stepped),
                Entered::UnderWay(ahead) => ahead,
            };
            let is_at_end = behind == Some(0);
            let patience = if is_at_end { deadline } else { Instant::now() + PATIENCE };
            let told = timeout_at(patience.min(deadline), ahead.wait_for(Option::is_some)).await;
            let stepped = match told {
                Ok(told) => told.ok().and_then(|told| told.clone()),
                Err(_) if is_at_end => return Way::Waited,
                Err(_) => return Way::Alone,
            };
            if let Some(stepped) = stepped {
                return self.follow(stepped);
            }
            is_given_up = true;
        }
    }

    /// Takes the step of another reader, unless some of it cannot be read any more.
    fn follow(&self, stepped: Arc<Stepped<F>>) -> Way<F> {
        let topic = self.door.services.admin.topic(&self.name);
        match topic.is_ok_and(|topic| is_readable(&topic, &self.cursor, &stepped.cursor)) {
            true => Way::Follows(stepped),
            false => Way::Alone,
        }
    }

    /// Others do not wait for one who has to wait for room.
    fn has_room(&self) -> bool {
        self.room.try_take_some(STEP_BYTES as usize, ROOM_LEAST).is_some()
    }

    async fn read(&mut self, deadline: Instant) -> Result<(), Problem> {
        let request = self.request(deadline.saturating_duration_since(Instant::now()));
        let answer = self.door.services.fetch.fetch(request, &self.room).await?;
        self.held = Held::new(answer);
        Ok(())
    }

    /// Writes what was read, as much of it as one step may have.
    fn write_held(&mut self, form: &mut F) -> Result<(), Problem> {
        let mut held = mem::take(&mut self.held);
        while let Some((partition, found)) = held.found.pop_front() {
            if let Some(rest) = self.write(partition, found, form)? {
                held.found.push_front((partition, Ok(rest)));
            }
            if form.bytes() >= STEP_TEXT_BYTES && !held.found.is_empty() {
                self.held = held;
                break;
            }
        }
        Ok(())
    }

    /// Takes up partitions that were added to the topic, and tells when there is no place for all of them: it goes on with those
    /// that it has, whose cursor is taken back later.
    fn add_new(&mut self, form: &mut F) -> Result<(), Problem> {
        if !self.takes_new {
            return Ok(());
        }
        let count = self.door.services.admin.topic(&self.name)?.partition_count();
        fill(&mut self.cursor.positions, count, partitions_max(&self.door.config));
        let read = self.cursor.positions.len();
        let left_out = (count as usize).saturating_sub(read);
        if left_out != self.left_out {
            self.left_out = left_out;
            let told = json!({
                "reason": "too_many_partitions",
                "partition_count": count,
                "partitions_read": read,
            });
            form.gap(&self.cursor, &told);
        }
        Ok(())
    }

    fn request(&self, wait: Duration) -> FetchRequest {
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
            wait,
            bytes_min: 1,
            bytes_max: STEP_BYTES,
            records_max: 0,
            format: Format::Structured,
            member: None,
        }
    }

    /// Writes what was read from one partition and moves the cursor. Gives what is left when the text is long enough.
    fn write(
        &mut self,
        partition: u32,
        found: Result<Run, FetchPartitionError>,
        form: &mut F,
    ) -> Result<Option<Run>, Problem> {
        let mut run = match found {
            Ok(run) => run,
            Err(error) => return self.gap(partition, error, form).map(|()| None),
        };
        let epoch = run.end.epoch;
        while let Some(one) = run.records.next() {
            let offset = one.offset.0 + 1;
            self.cursor.positions.insert(partition, Position { offset, epoch });
            if self.filter.wants(&one.record) {
                form.record(&self.cursor, partition, &one);
            }
            if form.bytes() >= STEP_TEXT_BYTES && run.records.len() > 0 {
                return Ok(Some(run));
            }
        }
        // Compaction may have taken the last records away. An answer without records has no epoch.
        let position = self.cursor.positions.entry(partition).or_default();
        position.offset = run.end.offset;
        if epoch > 0 {
            position.epoch = epoch;
        }
        Ok(None)
    }

    /// Goes on behind records that cannot be read any more, and says so.
    fn gap(
        &mut self,
        partition: u32,
        error: FetchPartitionError,
        form: &mut F,
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

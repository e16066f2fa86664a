//! Streams as the Durable Streams protocol has them: created, appended to, read, closed and deleted.
//!
//! ```text
//! stream            a topic of one partition, created here; its records are appends of bytes, or values of JSON
//! any other topic   each of its partitions can be read as a stream of bytes, and appended to without a turn
//! ```
//!
//! An append and what is remembered of its writer are one batch ([`crate::stream`]). What cannot be meant that way is
//! refused: a topic whose records may go by retention has no end of stream and no turns of writers.

mod append;
mod content;
mod create;
mod error;
mod fold;
mod fork;
mod read;
#[cfg(test)]
mod tests;
mod usage;

use std::{sync::Arc, time::Duration};

use riverrun_proto::{LeaderEpoch, Offset, batch::OffsetRecord};

pub use self::{
    append::{AppendRequest, Appended},
    create::{CreateRequest, Created},
    error::StreamError,
    fork::{FORK_BYTES_MAX, ForkRequest},
    read::{Chunk, From, ReadRequest},
};
use super::{
    FetchService, ProduceService,
    admin::to_its_end,
    fetch::{FetchPartition, FetchRequest, FetchedRecords, Format},
};
use crate::{
    clock::Clock,
    partition::VisibleRange,
    quota::{Room, Share},
    stream::{Mark, Stream, StreamFacts},
    topic::{CleanupPolicy, Registry, Topic, catalog::id_bytes},
};

/// A place in a stream: between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Epoch of the record before it; 0 when there is none. It never goes back along a log.
    pub epoch: u32,
    /// Offset of the record after it.
    pub offset: u64,
}

/// The end of a stream's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Where.
    pub position: Position,
    /// Nothing follows any more.
    pub is_closed: bool,
}

/// A stream that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The topic.
    pub topic: Arc<Topic>,
    /// Its partition.
    pub partition: u32,
}

/// What was read of the log.
struct Read {
    records: FetchedRecords,
    visible: VisibleRange,
    shares: Vec<Share>,
}

/// Serves streams.
#[derive(Clone, Debug)]
pub struct StreamService {
    registry: Arc<Registry>,
    produce: Arc<ProduceService>,
    fetch: Arc<FetchService>,
    clock: Clock,
}

impl StreamService {
    /// A service over `registry`.
    pub fn new(
        registry: Arc<Registry>,
        produce: Arc<ProduceService>,
        fetch: Arc<FetchService>,
        clock: Clock,
    ) -> StreamService {
        StreamService { registry, produce, fetch, clock }
    }

    /// Wall time, for cursors that move with it.
    pub fn wall_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    /// A stream that is there.
    ///
    /// # Errors
    /// When it is not, or only its name is.
    pub fn find(&self, name: &str, partition: u32) -> Result<Found, StreamError> {
        let topic = self.registry.topic(name)?;
        let found = Found { topic, partition };
        if let Some(stream) = &found.topic.stream {
            // The broker's own rounds remove it; nobody finds it here meanwhile.
            let is_over = stream.is_expired(self.clock.steady_ms());
            if stream.facts().is_deleted || (is_over && self.registry.has_forks(found.topic.id)) {
                return Err(StreamError::Gone { name: name.to_owned() });
            }
            if is_over {
                return Err(usage::gone(name));
            }
        }
        found.topic.partition(partition)?;
        Ok(found)
    }

    /// Deletes a stream.
    ///
    /// # Errors
    /// When it is not there, is no stream, or its deletion cannot be stored.
    pub async fn delete(&self, name: &str) -> Result<(), StreamError> {
        let found = self.find(name, 0)?;
        found.stream("be deleted")?;
        let (registry, topic_id) = (self.registry.clone(), found.topic.id);
        Ok(to_its_end(async move { registry.delete_stream(topic_id).await }).await?)
    }

    /// The end of a stream's data.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn tail(&self, found: &Found, room: &Room) -> Result<Tail, StreamError> {
        let partition = found.topic.partition(found.partition)?;
        let VisibleRange { log_start, high_watermark } = partition.visible();
        let open = Tail { position: found.position(high_watermark.0), is_closed: false };
        let Some(stream) = &found.topic.stream else { return Ok(open) };
        if high_watermark <= log_start {
            return Ok(open);
        }
        let closed = |offset| Tail { position: found.position(offset), is_closed: true };
        if let Ok(fold) = stream.writers.try_read()
            && let Some(writers) = fold.writers()
        {
            return Ok(writers.closing().map_or(open, |closing| closed(closing.offset)));
        }
        let last = found.position(high_watermark.0 - 1);
        let read = self.read_log(found, last, (Duration::ZERO, 1), room).await?;
        let closing = read.records.records.iter().find(|record| is_closing(record));
        Ok(closing.map_or(open, |closing| closed(closing.offset.0)))
    }

    /// Reads from a position on, at least one batch when there is one.
    async fn read_log(
        &self,
        found: &Found,
        from: Position,
        (wait, bytes_max): (Duration, u32),
        room: &Room,
    ) -> Result<Read, StreamError> {
        let partition = FetchPartition {
            topic: found.topic.name.to_string(),
            topic_id: id_bytes(found.topic.id),
            partition: found.partition,
            offset: from.offset,
            bytes_max: 0,
            leader_epoch: Some(from.epoch).filter(|epoch| *epoch > 0),
        };
        let request = FetchRequest {
            partitions: vec![partition],
            wait,
            bytes_min: 1,
            bytes_max,
            records_max: 0,
            format: Format::Structured,
            member: None,
        };
        let answer = self.fetch.fetch(request, room).await?;
        let fetched = answer.partitions.into_iter().next();
        let fetched = fetched.expect("an answer without records has all partitions");
        let records = fetched.records?;
        let visible = fetched.visible.expect("a partition that was read is there");
        Ok(Read { records, visible, shares: answer.shares })
    }
}

impl Found {
    /// What it is, when it was created as a stream.
    pub fn facts(&self) -> Option<&StreamFacts> {
        self.topic.stream.as_ref().map(|stream| stream.facts())
    }

    /// Media type of its content.
    pub fn content_type(&self) -> String {
        let facts = self.facts().cloned();
        facts.unwrap_or_else(StreamFacts::bytes).content_type
    }

    /// Its records are values of JSON.
    pub fn is_json(&self) -> bool {
        self.facts().is_some_and(StreamFacts::is_json)
    }

    /// What is between two places of it never changes: nothing is compacted away.
    pub fn keeps_records(&self) -> bool {
        self.topic.config.cleanup_policy == CleanupPolicy::Delete
    }

    /// The stream, for what only a stream can do.
    fn stream(&self, what: &'static str) -> Result<&Arc<Stream>, StreamError> {
        let no_stream = || StreamError::NoStream { topic: self.topic.name.to_string(), what };
        self.topic.stream.as_ref().ok_or_else(no_stream)
    }

    /// The position before this offset.
    fn position(&self, offset: u64) -> Position {
        let before = offset.checked_sub(1);
        let partition = self.topic.partition(self.partition).ok();
        let epoch = before.zip(partition).map(|(before, open)| open.epoch_at(Offset(before)));
        Position { epoch: epoch.unwrap_or(LeaderEpoch(0)).0, offset }
    }
}

fn is_closing(record: &OffsetRecord) -> bool {
    Mark::of(&record.record.headers).is_closing
}

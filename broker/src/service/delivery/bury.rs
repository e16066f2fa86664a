//! Writes dead letters, each exactly once.
//!
//! ```text
//! delivery gives up ──▶ intent (durable): where, and its end before ──▶ append (durable) ──▶ settled
//! ```
//!
//! A letter whose intent was stored before is looked for from that end on: it may have been written before a crash, or by
//! an append of which nobody could say what became. Only when it is not there it is written. That holds also when the
//! dead-letter topic is another one by now: while the earlier one is there and cannot say, the letter waits.
//!
//! The task of a subscription runs while it has letters to write. What cannot be written is tried again later; until
//! then its record stays as it is and holds up nobody.

use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use futures_util::future::join_all;
use riverrun_proto::{
    Record,
    batch::{BatchBuilder, BuilderOptions, Compression, OffsetRecord, RecordBatch},
    grpc::v1,
    limits::BATCH_BYTES_MAX,
    partitioner::partition_for_key,
};
use tokio::runtime::Handle;

use super::{
    Shared,
    error::PushError,
    letter::{Origin, id_of},
    live::Live,
    peek::record_at,
    scan_cache::ScanCache,
};
use crate::{
    delivery::DeadLetter,
    partition::{Durability, Partition, WaitFor},
    subscription::DeadIntent,
    topic::{Topic, error::TopicError, registry::NewTopic},
};

/// Letters written at once.
const LETTERS_AT_ONCE: usize = 64;
/// What could not be written is tried again after this.
const RETRY: Duration = Duration::from_secs(2);
/// Room for the headers of a letter, beside the record.
const HEADER_ROOM: u32 = 64 << 10;
/// Bytes looked at at once when a letter is looked for.
const LOOK_BYTES: u64 = 1 << 20;

impl Live {
    /// Makes sure that the task runs.
    pub(super) fn start_burying(&self) {
        if self.burying.swap(true, SeqCst) {
            return;
        }
        match (Handle::try_current(), self.me.upgrade()) {
            (Ok(runtime), Some(live)) => drop(runtime.spawn(run(live))),
            // The broker is ending; the next start asks for them again.
            (Err(_), _) | (_, None) => self.burying.store(false, SeqCst),
        }
    }

    /// The next letters; ends the task when there are none.
    fn next_letters(&self) -> Vec<DeadLetter> {
        let mut state = self.state.lock();
        let count = state.dead.len().min(LETTERS_AT_ONCE);
        let letters: Vec<DeadLetter> = state.dead.drain(..count).collect();
        if letters.is_empty() || state.gone {
            self.burying.store(false, SeqCst);
            return Vec::new();
        }
        letters
    }
}

async fn run(live: Arc<Live>) {
    loop {
        let letters = live.next_letters();
        if letters.is_empty() {
            return;
        }
        let buried = match bury(&live, &letters).await {
            Ok(buried) => buried,
            Err(error) => letters.iter().map(|_| Err(error.to_string().into())).collect(),
        };
        live.event(|state, now| {
            for (letter, result) in letters.iter().zip(buried) {
                match result {
                    Ok(Buried::Written) => {
                        state.delivery.dead_stored(&letter.lane, letter.offset, now);
                    }
                    Ok(Buried::Lost) => state.delivery.dead_lost(&letter.lane, letter.offset, now),
                    Err(error) => {
                        let failed: (Arc<str>, Duration) = (error, now.elapsed + RETRY);
                        state.delivery.dead_failed(&letter.lane, letter.offset, failed, now);
                    }
                }
            }
        });
    }
}

/// Writes these letters; says for each what became of it.
async fn bury(
    live: &Live,
    letters: &[DeadLetter],
) -> Result<Vec<Result<Buried, Arc<str>>>, PushError> {
    let topic = graves(live, letters).await?;
    let mut graves = Vec::with_capacity(letters.len());
    // Nothing is appended before it is stored where delivery goes on after a power loss.
    let mut sequence = live.shared.begun.get().copied().unwrap_or_default();
    for letter in letters {
        let grave = Grave::of(live, &topic, letter).await;
        if let Ok(Grave { is_new: true, intent, .. }) = &grave {
            let store = &live.shared.store;
            sequence = store.intend(live.number, letter.lane, letter.offset, *intent);
        }
        graves.push(grave);
    }
    live.shared.store.settled(sequence).await?;
    let written = graves.into_iter().zip(letters).map(|(grave, letter)| async move {
        let written = async { grave?.write(live, letter).await };
        written.await.map_err(|error: PushError| error.to_string().into())
    });
    Ok(join_all(written).await)
}

/// The dead-letter topic, made when it is not there.
async fn graves(live: &Live, letters: &[DeadLetter]) -> Result<Arc<Topic>, PushError> {
    let registry = &live.shared.registry;
    let name = live.look(|state| state.settings.dead_letter_topic_of(&live.name));
    let checked = |topic: Arc<Topic>| {
        topic.refuse_stream().map_err(|error| PushError::NewTopic(Arc::new(error.into())))?;
        Ok(topic)
    };
    if let Ok(topic) = registry.topic(&name) {
        return checked(topic);
    }
    let largest = letters.iter().filter_map(|letter| live.source(&letter.lane)?.1);
    let largest = largest.map(|partition| partition.settings().log.batch_bytes_max).max();
    let needed = largest.unwrap_or(0).saturating_add(HEADER_ROOM).min(BATCH_BYTES_MAX);
    let default = riverrun_proto::limits::BATCH_BYTES_DEFAULT;
    let new = NewTopic {
        name: name.to_string(),
        partition_count: 1,
        given: v1::TopicConfig {
            retention_ms: Some(-1),
            message_bytes_max: (needed > default).then_some(needed),
            ..v1::TopicConfig::default()
        },
        validate_only: false,
    };
    match registry.create(new).await {
        Ok(topic) => Ok(topic),
        // Somebody else made it meanwhile, as whatever.
        Err(TopicError::Exists { .. }) => checked(registry.topic(&name)?),
        Err(error) => Err(PushError::NewTopic(Arc::new(error))),
    }
}

/// What became of a letter.
enum Buried {
    /// It is durable.
    Written,
    /// Its record left the log before.
    Lost,
}

/// Where a letter goes.
struct Grave {
    /// It is in an earlier dead-letter topic.
    is_elsewhere: bool,
    /// `None` when the record is not in the log any more.
    record: Option<Record>,
    source_topic: Arc<str>,
    partition: Arc<Partition>,
    intent: DeadIntent,
    /// The intent was not stored before, so the letter was never written.
    is_new: bool,
}

impl Grave {
    async fn of(live: &Live, topic: &Topic, letter: &DeadLetter) -> Result<Grave, PushError> {
        let remembered = live.shared.store.lane(live.number, &letter.lane);
        let known = remembered.and_then(|lane| lane.intents.get(&letter.offset).copied());
        let Some((place, Some(source))) = live.source(&letter.lane) else {
            return Err(PushError::Interrupted);
        };
        let record = record_at(&live.shared.cache, &source, letter.offset).await?;
        let record = record.map(|OffsetRecord { record, .. }| record);
        let source_topic = place.topic;
        let origin = Origin { subscription: &live.name, number: live.number, topic: &source_topic };
        let elsewhere = known.filter(|intent| intent.topic_id != topic.id);
        let is_elsewhere = match elsewhere {
            Some(intent) => is_written(&live.shared, &intent, has_id(origin.id(letter))).await?,
            None => false,
        };
        let known = known.filter(|intent| intent.topic_id == topic.id);
        let number = match (known, &record) {
            (Some(intent), _) => intent.partition,
            (None, Some(Record { key: Some(key), .. })) => {
                let count = NonZeroU32::new(topic.partition_count()).unwrap_or(NonZeroU32::MIN);
                partition_for_key(key, count).0
            }
            (None, _) => letter.lane.partition % topic.partition_count().max(1),
        };
        let partition = topic.partition(number)?;
        let end_before = partition.log_end().0;
        let intent =
            known.unwrap_or(DeadIntent { topic_id: topic.id, partition: number, end_before });
        let is_new = known.is_none() && !is_elsewhere;
        Ok(Grave { is_elsewhere, record, source_topic, partition, intent, is_new })
    }

    /// Writes the letter unless it is there; it is durable then.
    async fn write(self, live: &Live, letter: &DeadLetter) -> Result<Buried, PushError> {
        if self.is_elsewhere {
            return Ok(Buried::Written);
        }
        let origin =
            Origin { subscription: &live.name, number: live.number, topic: &self.source_topic };
        let (cache, partition) = (&live.shared.cache, &self.partition);
        let has_id = has_id(origin.id(letter));
        if !self.is_new && is_there(cache, (partition, &self.intent), has_id).await? {
            return Ok(Buried::Written);
        }
        let Some(record) = &self.record else {
            let (subscription, offset) = (&live.name, letter.offset);
            tracing::warn!(%subscription, offset, "a record left the log before its dead letter");
            return Ok(Buried::Lost);
        };
        let letter = origin.letter(letter, record, live.shared.clock.wall_ms());
        append(partition, batch_of(partition, &letter)?).await?;
        Ok(Buried::Written)
    }
}

/// Whether a record is the letter of this id.
fn has_id(id: String) -> impl Fn(&Record) -> bool {
    move |record| id_of(record).is_some_and(|known| known == id.as_bytes())
}

/// A record that may have been written where `intent` says is there. Where that topic is gone, so is the record.
pub(super) async fn is_written(
    shared: &Shared,
    intent: &DeadIntent,
    is_it: impl Fn(&Record) -> bool,
) -> Result<bool, PushError> {
    let Some(topic) = shared.topics_by_id().remove(&intent.topic_id) else {
        return Ok(false);
    };
    is_there(&shared.cache, (&topic.partition(intent.partition)?, intent), is_it).await
}

/// A record was written before.
async fn is_there(
    cache: &ScanCache,
    (partition, intent): (&Arc<Partition>, &DeadIntent),
    is_it: impl Fn(&Record) -> bool,
) -> Result<bool, PushError> {
    let mut at = intent.end_before.max(partition.visible().log_start.0);
    // It lies before what comes from now on.
    let goal = partition.log_end();
    while at < goal.0 {
        let end = partition.visible().high_watermark.0;
        if at >= end {
            // It may be on its way still.
            partition.wait_durable(goal, Durability::Fsync).await?;
            if partition.visible().high_watermark < goal {
                return Err(PushError::Interrupted);
            }
            continue;
        }
        for batch in cache.read(partition, (at, end), LOOK_BYTES).await? {
            at = batch.covers().end.max(at + 1);
            if batch.any(&is_it)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A batch of one record, as large as the partition takes at most.
pub(super) fn batch_of(partition: &Partition, record: &Record) -> Result<RecordBatch, PushError> {
    let bytes_max = partition.settings().log.batch_bytes_max as usize;
    let options = BuilderOptions { bytes_max, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(Compression::None, options);
    builder.push(record)?;
    Ok(builder.build()?)
}

/// Appends, and answers when it is on disk.
pub(super) async fn append(
    partition: &Arc<Partition>,
    batch: RecordBatch,
) -> Result<(), PushError> {
    partition.append_and_wait(batch, WaitFor::AtLeast(Durability::Fsync)).await?;
    Ok(())
}

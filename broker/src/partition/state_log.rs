//! A log of state changes with snapshots: how the broker remembers what is not a topic's records.
//!
//! State is a fold over *deltas*. A *snapshot* holds the whole state, in parts, and lets everything before
//! it be dropped. Bytes of both are the owner's business.
//!
//! ```text
//! one record per batch; its key says what it is
//! 'd' delta | 'w' whole snapshot | 'b' first, 's' further, 'e' last part of a snapshot
//! ```
//!
//! Invariants:
//! - A delta is on disk before it is applied to memory.
//! - A snapshot stands in the log as one run that no delta interrupts; one that a crash cut short is
//!   skipped at the next start, and what it would have replaced is still there.
//! - The log is trimmed only after its snapshot is on disk.
//!
//! Several deltas may be on their way at once and share a flush. They may then be applied in another order
//! than the log has them: where two change the same thing, keep the one with the higher offset.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use bytes::Bytes;
use riverrun_proto::{
    Offset, Record, RecordBatch, TopicId,
    batch::{BatchBuilder, BuilderOptions, Compression, DecodeError, EncodeError},
};
use thiserror::Error;
use tokio::sync::RwLock;

use super::{
    AppendError, Durability, MaintainError, Partition, PartitionOpener, PartitionSettings,
    ReadError, WaitFor, directory::OpenError,
};
use crate::clock::Clock;

const DELTA: &[u8] = b"d";
const SNAPSHOT_WHOLE: &[u8] = b"w";
const SNAPSHOT_BEGIN: &[u8] = b"b";
const SNAPSHOT_PART: &[u8] = b"s";
const SNAPSHOT_END: &[u8] = b"e";
/// Bytes read at once at the start.
const REPLAY_BYTES: usize = 4 << 20;
/// Largest delta or part of a snapshot, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 7 << 20;

/// A durable log of state changes.
#[derive(Debug)]
pub struct StateLog {
    partition: Arc<Partition>,
    clock: Clock,
    /// Deltas hold it for reading, a snapshot for writing: a snapshot is of a state that contains every
    /// delta before it.
    order: RwLock<()>,
    /// Deltas behind the newest snapshot.
    deltas: AtomicU64,
    /// Their bytes.
    delta_bytes: AtomicU64,
}

/// What a start found.
#[derive(Debug, Default)]
pub struct Replay {
    /// Parts of the newest whole snapshot; none when there is no snapshot.
    pub snapshot: Vec<Bytes>,
    /// Deltas behind it, in order.
    pub deltas: Vec<(Offset, Bytes)>,
}

/// A state log that cannot be opened. Nothing on disk was changed; in particular nothing may be concluded
/// from what it does not say.
#[derive(Debug, Error)]
pub enum StateLogError {
    /// The partition cannot be opened.
    #[error("state log: {0}")]
    Open(#[from] OpenError),
    /// It is damaged.
    #[error("state log: {0}")]
    Read(#[from] ReadError),
    /// It holds something else than records of this kind.
    #[error("state log: record at offset {offset} is not understood: {reason}")]
    Malformed {
        /// Where.
        offset: Offset,
        /// Why.
        reason: Arc<str>,
    },
}

/// A change that was not stored, or nobody can say.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The log did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// It is too large.
    #[error("state of {bytes} bytes in one record, at most {PAYLOAD_BYTES_MAX} are allowed")]
    TooLarge {
        /// Bytes of it.
        bytes: usize,
    },
    /// The log could not be trimmed; the state is stored.
    #[error("state log not trimmed: {0}")]
    Trim(#[from] MaintainError),
    /// The record could not be encoded.
    #[error("state not encoded: {0}")]
    Encode(#[from] EncodeError),
}

impl StateLog {
    /// Opens the log with the fixed id `topic_id`, and makes it when it is not there. Blocks.
    ///
    /// # Errors
    /// When it is damaged, or not what it should be.
    pub fn open(
        opener: &PartitionOpener,
        topic_id: TopicId,
    ) -> Result<(StateLog, Replay), StateLogError> {
        StateLog::over(opener.open(PartitionSettings::internal(topic_id))?, opener)
    }

    /// As [`StateLog::open`], for a log that must be there: what it would say is not taken for nothing.
    ///
    /// # Errors
    /// When it is missing, damaged, or not what it should be.
    pub fn open_existing(
        opener: &PartitionOpener,
        topic_id: TopicId,
    ) -> Result<(StateLog, Replay), StateLogError> {
        StateLog::over(opener.open_existing(PartitionSettings::internal(topic_id))?, opener)
    }

    fn over(
        partition: Arc<Partition>,
        opener: &PartitionOpener,
    ) -> Result<(StateLog, Replay), StateLogError> {
        if let Some(failure) = partition.failure() {
            return Err(ReadError::from(failure.clone()).into());
        }
        let replay = replay(&partition)?;
        let delta_bytes = replay.deltas.iter().map(|(_, delta)| delta.len() as u64).sum();
        let log = StateLog {
            partition,
            clock: opener.clock.clone(),
            order: RwLock::new(()),
            deltas: AtomicU64::new(replay.deltas.len() as u64),
            delta_bytes: AtomicU64::new(delta_bytes),
        };
        Ok((log, replay))
    }

    /// Stores a delta, then applies it to memory. `apply` gets the delta's offset and runs once the delta
    /// is on disk; it should be short and must not block.
    ///
    /// # Errors
    /// When it was not stored, or nobody can say; `apply` does not run then.
    pub async fn append<T>(
        &self,
        delta: Bytes,
        apply: impl FnOnce(Offset) -> T,
    ) -> Result<T, StoreError> {
        let bytes = delta.len() as u64;
        let _order = self.order.read().await;
        let offset = self.store(DELTA, delta).await?;
        self.deltas.fetch_add(1, SeqCst);
        self.delta_bytes.fetch_add(bytes, SeqCst);
        Ok(apply(offset))
    }

    /// Stores a snapshot and drops what lies before it. `make` runs while no delta is on its way, so memory
    /// holds all of them; deltas wait meanwhile. It gives the state in one or more parts.
    ///
    /// # Errors
    /// When it was not stored; the log is as good as before.
    pub async fn snapshot(&self, make: impl FnOnce() -> Vec<Bytes>) -> Result<(), StoreError> {
        let order = self.order.write().await;
        let mut parts = make();
        let last = parts.pop().unwrap_or_default();
        let mut start = None;
        for part in parts {
            let kind = if start.is_none() { SNAPSHOT_BEGIN } else { SNAPSHOT_PART };
            let offset = self.store(kind, part).await?;
            start.get_or_insert(offset);
        }
        let kind = if start.is_none() { SNAPSHOT_WHOLE } else { SNAPSHOT_END };
        let end = self.store(kind, last).await?;
        self.deltas.store(0, SeqCst);
        self.delta_bytes.store(0, SeqCst);
        drop(order);
        self.partition.drop_before(start.unwrap_or(end)).await?;
        Ok(())
    }

    /// Deltas behind the newest snapshot, and their bytes: what a start would have to apply.
    pub fn deltas_since_snapshot(&self) -> (u64, u64) {
        (self.deltas.load(SeqCst), self.delta_bytes.load(SeqCst))
    }

    /// The partition below, for housekeeping and shutdown.
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    async fn store(&self, kind: &'static [u8], value: Bytes) -> Result<Offset, StoreError> {
        if value.len() > PAYLOAD_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes: value.len() });
        }
        let batch = encode(kind, value, self.clock.wall_ms())?;
        let wait = WaitFor::AtLeast(Durability::Fsync);
        Ok(self.partition.append_and_wait(batch, wait).await?.base_offset)
    }
}

fn encode(kind: &'static [u8], value: Bytes, now_ms: i64) -> Result<RecordBatch, EncodeError> {
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    let key = Some(Bytes::from_static(kind));
    builder.push(&Record { timestamp_ms: now_ms, key, value: Some(value), headers: Vec::new() })?;
    builder.build()
}

/// Reads the whole log: the newest whole snapshot and the deltas behind it.
fn replay(partition: &Partition) -> Result<Replay, StateLogError> {
    let mut replay = Replay::default();
    let mut parts = Vec::new();
    let range = partition.visible();
    let mut next = range.log_start;
    while next < range.high_watermark {
        let read = partition.read_here(next, range.high_watermark, REPLAY_BYTES)?;
        for batch in RecordBatch::split(&read.batches) {
            let batch = batch.map_err(|error| malformed(next, error))?;
            if batch.base_offset() >= range.log_start {
                replay_batch(&batch, &mut replay, &mut parts)?;
            }
        }
        if read.next_offset <= next {
            // Half a history is never taken for the whole.
            let reason = format!("nothing readable below {}", range.high_watermark).into();
            return Err(StateLogError::Malformed { offset: next, reason });
        }
        next = read.next_offset;
    }
    Ok(replay)
}

fn replay_batch(
    batch: &RecordBatch,
    replay: &mut Replay,
    parts: &mut Vec<Bytes>,
) -> Result<(), StateLogError> {
    let at = batch.base_offset();
    let records = batch.records(PAYLOAD_BYTES_MAX).map_err(|error| malformed(at, error))?;
    for record in records {
        let record = record.map_err(|error| malformed(at, error))?;
        let value = record.record.value.unwrap_or_default();
        match record.record.key.as_deref() {
            Some(DELTA) => replay.deltas.push((record.offset, value)),
            Some(SNAPSHOT_WHOLE) => *replay = Replay { snapshot: vec![value], deltas: Vec::new() },
            // Parts without an end before this one: that snapshot was cut short.
            Some(SNAPSHOT_BEGIN) => *parts = vec![value],
            Some(SNAPSHOT_PART) => parts.push(value),
            Some(SNAPSHOT_END) => {
                parts.push(value);
                *replay = Replay { snapshot: std::mem::take(parts), deltas: Vec::new() };
            }
            Some(_) | None => {
                let reason = "its key names no kind of state record".into();
                return Err(StateLogError::Malformed { offset: record.offset, reason });
            }
        }
    }
    Ok(())
}

fn malformed(offset: Offset, error: DecodeError) -> StateLogError {
    StateLogError::Malformed { offset, reason: error.to_string().into() }
}

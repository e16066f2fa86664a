//! Produce: checks a batch and hands it to its partition.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_proto::{
    Offset, ProducerEpoch, ProducerId, Record, RecordBatch,
    batch::{BatchBuilder, BuilderOptions, Compression, DecodeError, EncodeError, ProducedLimits},
    limits,
};
use thiserror::Error;
use tokio::task;

use crate::{
    clock::Clock,
    partition::{Append, AppendError, AppendReceipt, Completer, Durability, Partition, WaitFor},
    quota::{Quota, QuotaExceeded, Share},
    service::delivery::scan::{DELIVER_AT_HEADER, time_of},
    topic::{
        Registry,
        error::{FindError, InitProducerError, TopicIsStream},
        producers::ProducerIdentity,
    },
};

/// Batches of more bytes are checked on the blocking pool when they are compressed.
const COMPRESSED_BYTES_INLINE: usize = 16 << 10;
/// Batches of more bytes are checked on the blocking pool.
const BYTES_INLINE: usize = 2 << 20;

/// Structured records of more bytes do not wait for room.
const RECORDS_BYTES_WAITING: usize = 256 << 10;

/// When the producer wants its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// As soon as the batch is in the queue.
    None,
    /// When it is in the page cache.
    Leader,
    /// When the topic's durability is reached.
    All,
}

/// The records, in one of two forms.
#[derive(Clone, Debug)]
pub enum Payload {
    /// One encoded batch.
    Batch(Bytes),
    /// Structured records; a timestamp of 0 stands for now.
    Records(Vec<Record>),
}

/// One batch for one partition.
#[derive(Clone, Debug)]
pub struct ProduceRequest {
    /// Name of the topic.
    pub topic: String,
    /// Id the topic must have; empty for any.
    pub topic_id: Bytes,
    /// Partition number.
    pub partition: u32,
    /// When to answer.
    pub acks: Acks,
    /// Answer only when at least this level is reached.
    pub durability_min: Durability,
    /// The records.
    pub payload: Payload,
}

/// A batch that was not appended or not acknowledged.
#[derive(Clone, Debug, Error)]
pub enum ProduceError {
    /// The partition cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The topic is a stream.
    #[error(transparent)]
    Stream(#[from] TopicIsStream),
    /// The batch is malformed.
    #[error("record batch is refused: {0}")]
    Decode(#[from] DecodeError),
    /// The structured records are not allowed.
    #[error("records are refused: {0}")]
    Encode(#[from] EncodeError),
    /// The batch is too large for the topic.
    #[error("record batch has {bytes} bytes, `message_bytes_max` of the topic is {limit}")]
    TooLarge {
        /// Bytes of it.
        bytes: usize,
        /// Most that are allowed.
        limit: usize,
    },
    /// The topic keeps records by key, and a record has none.
    #[error(
        "record {index} of the batch has no key: `cleanup_policy` of the topic is compact, which keeps the newest record of each key"
    )]
    NoKey {
        /// Its place in the batch, from 0.
        index: usize,
    },
    /// A record says when it is to be delivered, and what it says is no time.
    #[error(
        "record {index} of the batch: header `riverrun-deliver-at` must come once and be milliseconds since 1970-01-01 UTC as digits, found {found}"
    )]
    DeliverAt {
        /// Its place in the batch, from 0.
        index: usize,
        /// What came.
        found: String,
    },
    /// The producer id was never given out.
    #[error("`producer_id` {} was never given out by this broker; `InitProducer` gives ids", .0.0)]
    UnknownProducer(ProducerId),
    /// The producer's epoch was raised.
    #[error("producer {} has epoch {}, the batch has {}", .id.0, .current.0, .found.0)]
    Fenced {
        /// The producer.
        id: ProducerId,
        /// Its epoch.
        current: ProducerEpoch,
        /// What came.
        found: ProducerEpoch,
    },
    /// Too many bytes are on their way.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// The partition did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The thread that checked it died.
    #[error("the check was interrupted")]
    Interrupted,
}

/// A checked batch and where it goes.
#[derive(Debug)]
struct Checked {
    partition: Arc<Partition>,
    batch: RecordBatch,
    wait: WaitFor,
}

/// Appends batches for producers.
#[derive(Debug)]
pub struct ProduceService {
    registry: Arc<Registry>,
    clock: Clock,
    /// Bytes on their way over all callers.
    in_flight: Quota,
}

impl ProduceService {
    /// A service over `registry`.
    pub fn new(registry: Arc<Registry>, clock: Clock, in_flight: Quota) -> ProduceService {
        ProduceService { registry, clock, in_flight }
    }

    /// Bytes on their way now, over all callers.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight.used()
    }

    /// Checks a batch and sends it on its way. Requests sent one after another are appended in that order.
    /// Once this returned `Ok` the answer comes by `completer`; before that it tells nobody. `connection` is the
    /// caller's own share of the bytes in flight.
    ///
    /// # Errors
    /// Why the batch is refused; the completer was not used then.
    pub async fn send(
        &self,
        request: ProduceRequest,
        connection: Option<&Quota>,
        completer: impl FnOnce() -> Completer,
    ) -> Result<(), ProduceError> {
        let share = self.room_for(&request.payload, connection).await?;
        let Checked { partition, batch, wait } = self.check(request, false).await?;
        partition.append(Append { batch, wait, completer: completer(), share }).await;
        Ok(())
    }

    /// Appends records to a stream, as its own service decided, and waits until they are durable.
    ///
    /// # Errors
    /// Why they were refused or not acknowledged.
    pub(super) async fn append_to_stream(
        &self,
        request: ProduceRequest,
        connection: &Quota,
    ) -> Result<AppendReceipt, ProduceError> {
        let share = self.room_for(&request.payload, Some(connection)).await?;
        let Checked { partition, batch, wait } = self.check(request, true).await?;
        let (completer, ticket) = Completer::ticket();
        partition.append(Append { batch, wait, completer, share }).await;
        Ok(ticket.wait().await?)
    }

    /// Takes room for the records, waiting a moment for it. Many structured records are refused instead:
    /// decoded they are much larger than what was counted when they were received, and what waits here is
    /// counted nowhere else.
    async fn room_for(
        &self,
        payload: &Payload,
        connection: Option<&Quota>,
    ) -> Result<Share, QuotaExceeded> {
        let bytes = payload.bytes();
        let waits = matches!(payload, Payload::Batch(_)) || bytes <= RECORDS_BYTES_WAITING;
        let take = async |quota: &Quota| match waits {
            true => quota.take(bytes).await,
            false => quota.try_take(bytes),
        };
        let share = match connection {
            Some(connection) => take(connection).await?,
            None => Share::default(),
        };
        Ok(share.with(take(&self.in_flight).await?))
    }

    /// Appends a batch and waits as long as its `acks` says. `None` with [`Acks::None`].
    ///
    /// # Errors
    /// Why it was refused or not acknowledged.
    pub async fn append(
        &self,
        request: ProduceRequest,
        connection: Option<&Quota>,
    ) -> Result<Option<AppendReceipt>, ProduceError> {
        if request.acks == Acks::None {
            self.send(request, connection, Completer::nobody).await?;
            return Ok(None);
        }
        let (completer, ticket) = Completer::ticket();
        self.send(request, connection, || completer).await?;
        Ok(Some(ticket.wait().await?))
    }

    /// Waits until the partition of `request` came as far as its `durability_min` or the topic asks, up to
    /// `end_offset`.
    ///
    /// # Errors
    /// When the partition failed meanwhile.
    pub async fn settle(
        &self,
        request: &ProduceRequest,
        end_offset: Offset,
    ) -> Result<(), ProduceError> {
        let partition = self.partition(request)?;
        partition.wait_durable(end_offset, request.durability_min).await?;
        Ok(())
    }

    /// The partition a request goes to.
    ///
    /// # Errors
    /// When it cannot be found.
    fn partition(&self, request: &ProduceRequest) -> Result<Arc<Partition>, FindError> {
        self.registry.partition(&request.topic, &request.topic_id, request.partition)
    }

    /// Gives out a producer id, or raises the epoch of `known` (id and last epoch held). Runs in a task of
    /// its own: what was logged is applied even when the caller goes away.
    ///
    /// # Errors
    /// When `known` is fenced or unknown, or the change could not be stored.
    pub async fn init_producer(
        &self,
        known: Option<(i64, i32)>,
    ) -> Result<ProducerIdentity, InitProducerError> {
        let registry = self.registry.clone();
        let given = task::spawn(async move {
            match known {
                None => registry.new_producer().await,
                Some((id, epoch)) => registry.raise_producer(id, epoch).await,
            }
        });
        given.await.unwrap_or(Err(InitProducerError::Interrupted))
    }

    async fn check(
        &self,
        request: ProduceRequest,
        writes_streams: bool,
    ) -> Result<Checked, ProduceError> {
        let topic = self.registry.topic(&request.topic).map_err(FindError::from)?;
        topic.check_id(&request.topic_id).map_err(FindError::from)?;
        if !writes_streams {
            topic.refuse_stream()?;
        }
        let partition = topic.partition(request.partition)?;
        partition.check_writable()?;
        let settings = partition.settings();
        let bytes_max = settings.log.batch_bytes_max as usize;
        let mut batch = match request.payload {
            Payload::Batch(bytes) => check_batch(bytes, bytes_max).await?,
            Payload::Records(records) => {
                check_times(&records)?;
                encode(&records, bytes_max, self.clock.wall_ms())?
            }
        };
        if settings.compaction.is_some() {
            batch = check_keys(batch).await?;
        }
        let header = batch.header();
        let (id, found) = (header.producer_id, header.producer_epoch);
        if !self.registry.is_given(id) {
            return Err(ProduceError::UnknownProducer(id));
        }
        if let Some(current) = self.registry.fencing_epoch(id, found) {
            return Err(ProduceError::Fenced { id, current, found });
        }
        let wait = match request.acks {
            Acks::None | Acks::Leader => WaitFor::Written,
            Acks::All => WaitFor::AtLeast(request.durability_min),
        };
        Ok(Checked { partition, batch, wait })
    }
}

impl ProduceRequest {
    /// The same request without its records.
    pub fn without_payload(&self) -> ProduceRequest {
        ProduceRequest {
            topic: self.topic.clone(),
            topic_id: self.topic_id.clone(),
            payload: Payload::Records(Vec::new()),
            ..*self
        }
    }
}

impl Payload {
    /// Bytes it takes in memory, about.
    fn bytes(&self) -> usize {
        match self {
            Payload::Batch(bytes) => bytes.len(),
            Payload::Records(records) => records.iter().map(record_bytes).sum(),
        }
    }
}

fn record_bytes(record: &Record) -> usize {
    let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|header| header.key.len() + field(&header.value));
    size_of::<Record>() + field(&record.key) + field(&record.value) + headers.sum::<usize>()
}

/// Decodes a batch and checks everything a producer may have got wrong.
async fn check_batch(bytes: Bytes, batch_bytes_max: usize) -> Result<RecordBatch, ProduceError> {
    if bytes.len() > batch_bytes_max {
        return Err(ProduceError::TooLarge { bytes: bytes.len(), limit: batch_bytes_max });
    }
    let header = riverrun_proto::batch::BatchHeader::peek(&bytes)?;
    let compressed = header.compression()? != Compression::None;
    let inline = bytes.len() <= if compressed { COMPRESSED_BYTES_INLINE } else { BYTES_INLINE };
    if inline {
        return check_here(bytes, batch_bytes_max);
    }
    let checked = crate::blocking::run(move || check_here(bytes, batch_bytes_max)).await;
    checked.unwrap_or(Err(ProduceError::Interrupted))
}

fn check_here(bytes: Bytes, batch_bytes_max: usize) -> Result<RecordBatch, ProduceError> {
    let batch = RecordBatch::decode(bytes)?;
    batch.check_produced(ProducedLimits {
        batch_bytes_max,
        inflated_bytes_max: limits::INFLATED_BYTES_MAX,
    })?;
    Ok(batch)
}

/// Refuses a record without key, which compaction would keep for ever. Looks at every record, so it is asked
/// for compacted topics only.
async fn check_keys(batch: RecordBatch) -> Result<RecordBatch, ProduceError> {
    let checked = crate::blocking::run(move || {
        let records = batch.records(limits::INFLATED_BYTES_MAX)?;
        for (index, record) in records.views().enumerate() {
            if record?.key.is_none() {
                return Err(ProduceError::NoKey { index });
            }
        }
        Ok(batch)
    });
    checked.await.unwrap_or(Err(ProduceError::Interrupted))
}

/// Refuses a time of delivery that is none: the record would be delivered at once. Of encoded batches only the client that made them
/// looks at headers.
fn check_times(records: &[Record]) -> Result<(), ProduceError> {
    for (index, record) in records.iter().enumerate() {
        let mut headers = record.headers.iter().filter(|header| header.key == DELIVER_AT_HEADER);
        let Some(first) = headers.next() else { continue };
        let value = first.value.as_deref().unwrap_or_default();
        let found = match headers.next() {
            None if time_of(value).is_some() => continue,
            None => format!("`{}`", value[..value.len().min(40)].escape_ascii()),
            Some(_) => "two of it".to_owned(),
        };
        return Err(ProduceError::DeliverAt { index, found });
    }
    Ok(())
}

/// Records as one batch; a timestamp of 0 stands for `now_ms`.
pub(super) fn encode(
    records: &[Record],
    bytes_max: usize,
    now_ms: i64,
) -> Result<RecordBatch, ProduceError> {
    let options = BuilderOptions { bytes_max, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(Compression::None, options);
    for record in records {
        let timestamp_ms = if record.timestamp_ms == 0 { now_ms } else { record.timestamp_ms };
        let Record { key, value, headers, .. } = record;
        let pushed = builder.push_parts(timestamp_ms, key.as_deref(), value.as_deref(), headers);
        pushed.map_err(too_large)?;
    }
    builder.build().map_err(too_large)
}

/// A batch that is too large is told apart from one that is malformed.
fn too_large(error: EncodeError) -> ProduceError {
    match error {
        EncodeError::BatchFull { bytes, limit } | EncodeError::RecordTooLarge { bytes, limit } => {
            ProduceError::TooLarge { bytes, limit }
        }
        EncodeError::Record(_) | EncodeError::Empty | EncodeError::Compress { .. } => error.into(),
    }
}

#[cfg(test)]
mod tests;

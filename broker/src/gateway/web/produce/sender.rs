//! Records on their way to the partitions of one topic.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use futures_util::future::join_all;
use riverrun_proto::{Record, partitioner::partition_for_key};

use super::super::{WebDoor, call::Call, problem::Problem};
use crate::{
    partition::Durability,
    quota::Quota,
    service::{
        ProduceService,
        produce::{Acks, Payload, ProduceRequest},
    },
    topic::{Topic, catalog::id_bytes},
    traces::Notes,
};

/// Bytes of records that are appended as one batch; so many may wait for room.
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// Bytes of a batch that are no records.
const BATCH_OVERHEAD_BYTES: usize = 64;

/// What the request says of all of its records.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct To {
    /// Where to, for records that do not say.
    pub(in super::super) partition: Option<u32>,
    /// When to answer.
    pub(in super::super) acks: Acks,
}

/// Appends the records of one request.
#[derive(Debug)]
pub(super) struct Sender {
    service: Arc<ProduceService>,
    topic: Arc<Topic>,
    to: To,
    /// The partition of records without a key.
    turn: u32,
    connection: Quota,
    batch_bytes: usize,
    /// Of the span of the request, where it is told of.
    notes: Option<Notes>,
}

/// What became of one record.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) partition: u32,
    pub(super) offset: Result<u64, Arc<Problem>>,
}

impl Sender {
    pub(super) fn new(door: &WebDoor, call: &Call, topic: Arc<Topic>, to: To) -> Sender {
        let count = topic.partition_count().max(1);
        let turn = door.turn.fetch_add(1, Relaxed) % count;
        let largest = topic.config.message_bytes_max as usize;
        Sender {
            service: door.services.produce.clone(),
            topic,
            to,
            turn,
            connection: call.caller.in_flight.clone(),
            batch_bytes: BATCH_BYTES.min(largest.saturating_sub(BATCH_OVERHEAD_BYTES)),
            notes: call.notes().cloned(),
        }
    }

    /// When the request wants its answer.
    pub(super) fn acks(&self) -> Acks {
        self.to.acks
    }

    /// Appends records, each to the partition it names or belongs to. What became of them comes in their order.
    pub(super) async fn send(&self, records: Vec<(Option<u32>, Record)>) -> Vec<Placed> {
        self.send_with(self.to.acks, records).await
    }

    /// As [`Sender::send`], answered when `acks` says.
    pub(super) async fn send_with(
        &self,
        acks: Acks,
        records: Vec<(Option<u32>, Record)>,
    ) -> Vec<Placed> {
        let mut lanes: BTreeMap<u32, Vec<(usize, Record)>> = BTreeMap::new();
        let count = records.len();
        for (index, (partition, record)) in records.into_iter().enumerate() {
            let partition = partition.or(self.to.partition);
            let partition = partition.unwrap_or_else(|| self.partition_of(&record));
            lanes.entry(partition).or_default().push((index, record));
        }
        if let Some(notes) = &self.notes {
            notes.partitions(lanes.len());
            let records = lanes.values().flatten();
            notes.add_bytes(records.map(|(_, record)| bytes_of(record)).sum());
        }
        let lanes = lanes.into_iter().map(|(partition, lane)| self.lane(acks, partition, lane));
        let mut placed: Vec<Option<Placed>> = (0..count).map(|_| None).collect();
        for (index, one) in join_all(lanes).await.into_iter().flatten() {
            placed[index] = Some(one);
        }
        placed.into_iter().map(|one| one.expect("every record is in one lane")).collect()
    }

    /// Waits until everything before `end_offset` is as durable as the topic asks.
    pub(super) async fn settle(&self, partition: u32, end_offset: u64) -> Result<(), Problem> {
        let request = self.request(Acks::All, partition, Vec::new());
        let end_offset = riverrun_proto::Offset(end_offset);
        Ok(self.service.settle(&request, end_offset).await?)
    }

    fn partition_of(&self, record: &Record) -> u32 {
        let count = NonZeroU32::new(self.topic.partition_count());
        match (&record.key, count) {
            (Some(key), Some(count)) => partition_for_key(key, count).0,
            (None, _) | (_, None) => self.turn,
        }
    }

    fn request(&self, acks: Acks, partition: u32, records: Vec<Record>) -> ProduceRequest {
        ProduceRequest {
            topic: self.topic.name.to_string(),
            topic_id: id_bytes(self.topic.id),
            partition,
            acks,
            durability_min: Durability::Os,
            payload: Payload::Records(records),
        }
    }

    /// Appends the records of one partition in their order, batch by batch, up to the first failure.
    async fn lane(
        &self,
        acks: Acks,
        partition: u32,
        records: Vec<(usize, Record)>,
    ) -> Vec<(usize, Placed)> {
        let mut placed = Vec::with_capacity(records.len());
        let mut failure: Option<Arc<Problem>> = None;
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let (mut indexes, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some((index, record)) = records.next_if(|(_, record)| {
                batch.is_empty() || bytes + bytes_of(record) <= self.batch_bytes
            }) {
                bytes += bytes_of(&record);
                indexes.push(index);
                batch.push(record);
            }
            let base = match &failure {
                Some(problem) => Err(problem.clone()),
                None => self.append(acks, partition, batch).await.map_err(Arc::new),
            };
            failure = base.as_ref().err().cloned();
            placed.extend((0..).zip(indexes).map(|(delta, index)| {
                let offset = base.clone().map(|base: u64| base + delta);
                (index, Placed { partition, offset })
            }));
        }
        placed
    }

    /// Appends one batch. Returns its base offset.
    async fn append(
        &self,
        acks: Acks,
        partition: u32,
        records: Vec<Record>,
    ) -> Result<u64, Problem> {
        let request = self.request(acks, partition, records);
        let receipt = self.service.append(request, Some(&self.connection)).await?;
        Ok(receipt.expect("only an append that nobody waits for has none").base_offset.0)
    }
}

/// Bytes that a record takes at most in a batch, about.
pub(super) fn bytes_of(record: &Record) -> usize {
    let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|header| 10 + header.key.len() + field(&header.value));
    size_of::<Record>() + field(&record.key) + field(&record.value) + headers.sum::<usize>()
}

//! What a consumer receives: batches of one partition's records, all owned.

use bytes::Bytes;
use riverrun_proto::{
    Header, Offset, RecordBatch, TopicPartition,
    batch::{DecodeError, OffsetRecord, RecordView, Records},
    limits::INFLATED_BYTES_MAX,
};

use crate::error::{Error, ErrorCode, Result};

/// One record received. Its bytes keep their buffer alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Where it lies.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// Its key; absent and empty differ.
    pub key: Option<Bytes>,
    /// Its value; absent is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers in the producer's order.
    pub headers: Vec<Header>,
    /// The assignment it was received under; [`NO_LIFE`] when it was not read by a consumer.
    pub(super) life: u64,
}

/// Stands for "under no assignment".
const NO_LIFE: u64 = u64::MAX;

impl Received {
    /// A record that a subscriber got.
    pub(crate) fn delivered(partition: TopicPartition, record: OffsetRecord) -> Received {
        let OffsetRecord { offset, record } = record;
        Received {
            partition,
            offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key,
            value: record.value,
            headers: record.headers,
            life: NO_LIFE,
        }
    }

    /// The value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        let named = self.headers.iter().find(|header| header.key == name.as_bytes());
        named.and_then(|header| header.value.as_ref())
    }
}

/// Records of one partition, in order.
///
/// `for record in &batch` gives owned records that share the batch's buffer; [`Batch::views`] borrows
/// them and costs less.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(super) partition: TopicPartition,
    pub(super) life: u64,
    /// Records before it were not asked for.
    pub(super) start: Offset,
    /// Where to read next.
    pub(super) next: Offset,
    pub(super) leader_epoch: u32,
    pub(super) parts: Vec<Records>,
    /// Records in it.
    len: usize,
    /// Bytes it holds in memory.
    bytes: usize,
}

/// A fetched range that is to be decoded.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) partition: TopicPartition,
    pub(super) life: u64,
    pub(super) start: Offset,
    pub(super) next: Offset,
    pub(super) leader_epoch: u32,
}

impl Batch {
    /// Decodes stored batches laid one after another. Every record is looked at once, so that walking
    /// them later cannot fail.
    pub(super) fn decode(range: Range, encoded: &Bytes) -> Result<Batch> {
        let Range { partition, life, start, next, leader_epoch } = range;
        let mut batch = Batch {
            partition,
            life,
            start,
            next,
            leader_epoch,
            parts: Vec::new(),
            len: 0,
            bytes: 0,
        };
        batch.take_all(encoded).map_err(|error| {
            Error::new(ErrorCode::CorruptBatch, error.to_string()).of_partition(&batch.partition)
        })?;
        Ok(batch)
    }

    fn take_all(&mut self, encoded: &Bytes) -> std::result::Result<(), DecodeError> {
        for batch in RecordBatch::split(encoded) {
            let batch = batch?;
            if batch.header().is_control() || batch.end_offset() <= self.start {
                continue;
            }
            let records = batch.records(INFLATED_BYTES_MAX)?;
            for view in records.views() {
                self.len += usize::from(self.contains(view?.offset));
            }
            self.bytes += records.inflated_bytes();
            self.parts.push(records);
        }
        Ok(())
    }

    /// The partition all of its records come from.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Records in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when it has no records.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The offset to read next, which is what committing this batch stores.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// Bytes of its records in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its records, owned.
    pub fn iter(&self) -> BatchRecords {
        BatchRecords {
            partition: self.partition.clone(),
            life: self.life,
            range: self.start..self.next,
            parts: self.parts.clone().into_iter(),
            current: None,
        }
    }

    /// Its records, borrowed.
    pub fn views(&self) -> impl Iterator<Item = RecordView<'_>> {
        let views = self.parts.iter().flat_map(Records::views).filter_map(|view| view.ok());
        views.filter(|view| self.contains(view.offset))
    }

    fn contains(&self, offset: Offset) -> bool {
        (self.start..self.next).contains(&offset)
    }
}

impl IntoIterator for &Batch {
    type Item = Received;
    type IntoIter = BatchRecords;

    fn into_iter(self) -> BatchRecords {
        self.iter()
    }
}

impl IntoIterator for Batch {
    type Item = Received;
    type IntoIter = BatchRecords;

    fn into_iter(self) -> BatchRecords {
        BatchRecords {
            partition: self.partition,
            life: self.life,
            range: self.start..self.next,
            parts: self.parts.into_iter(),
            current: None,
        }
    }
}

/// The records of a batch, owned.
#[derive(Debug)]
pub struct BatchRecords {
    pub(super) partition: TopicPartition,
    pub(super) life: u64,
    range: std::ops::Range<Offset>,
    parts: std::vec::IntoIter<Records>,
    current: Option<Records>,
}

impl BatchRecords {
    fn next_record(&mut self) -> Option<OffsetRecord> {
        loop {
            // Every record was decoded once before, so none fails here.
            if let Some(Ok(record)) = self.current.as_mut().and_then(Records::next) {
                return Some(record);
            }
            self.current = Some(self.parts.next()?);
        }
    }
}

impl Iterator for BatchRecords {
    type Item = Received;

    fn next(&mut self) -> Option<Received> {
        loop {
            let OffsetRecord { offset, record } = self.next_record()?;
            if self.range.contains(&offset) {
                return Some(Received {
                    partition: self.partition.clone(),
                    offset,
                    timestamp_ms: record.timestamp_ms,
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                    life: self.life,
                });
            }
        }
    }
}

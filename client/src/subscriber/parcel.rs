//! A delivery decoded: the session learns sizes from it, the program takes its records one by one.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_proto::{
    RecordBatch, TopicPartition,
    batch::{DecodeError, OffsetRecord, RecordView, Records},
    grpc::v1,
    limits::INFLATED_BYTES_MAX,
};

use super::{
    credit::Amount,
    desk::Desk,
    job::{Job, Ticket},
    lease::{Lease, Spans},
};
use crate::{
    clock::Instant,
    consumer::Received,
    error::{Error, ErrorCode, Result},
};

/// In a list of sizes: there is no record at this offset.
pub(super) const ABSENT: u32 = u32::MAX;

/// Records of a delivery that the program did not take yet.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) lease: Arc<Lease>,
    parts: std::vec::IntoIter<Records>,
    current: Option<Records>,
    /// Sorted by offset; a record that is not in it came for the first time.
    counts: Vec<v1::DeliveryCount>,
}

/// A delivery as it came.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) parcel: Parcel,
    /// By index: bytes of key, value and headers, or [`ABSENT`].
    pub(super) sizes: Vec<u32>,
}

/// What a delivery becomes part of.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) desk: &'a Arc<Desk>,
    /// Number of the delivery within this process.
    pub(super) serial: u64,
    /// Epoch of the session, for brokers that do not name that of the lease.
    pub(super) epoch: u64,
    pub(super) now: Instant,
}

impl Arrival {
    /// Decodes a frame. Every record is looked at once, so that walking them later cannot fail.
    ///
    /// # Errors
    /// `Protocol` for a frame that contradicts itself, `CorruptBatch` for records that cannot be decoded.
    pub(super) fn decode(frame: v1::Deliver, place: &Place<'_>) -> Result<Arrival> {
        let partition = TopicPartition::new(frame.topic, frame.partition);
        let failed = |error: &DecodeError| {
            Error::new(ErrorCode::CorruptBatch, format!("{partition}: {error}"))
        };
        let spans = Spans::new(&frame.ranges)?;
        let (parts, sizes) = split(&frame.batches, &spans).map_err(|error| failed(&error))?;
        let epoch = if frame.session_epoch == 0 { place.epoch } else { frame.session_epoch };
        let token = (epoch, frame.delivery_seq);
        let owner = (place.serial, place.desk.clone());
        let lease = Arc::new(Lease::new(partition, token, spans, place.now, owner));
        let mut counts = frame.counts;
        counts.sort_unstable_by_key(|count| count.offset);
        let parcel = Parcel { lease, parts: parts.into_iter(), current: None, counts };
        Ok(Arrival { parcel, sizes })
    }
}

/// What the records of `ranges` among these batches cost of the credit.
///
/// # Errors
/// As those of [`Arrival::decode`].
pub(super) fn cost(encoded: &Bytes, ranges: &[v1::OffsetRange]) -> Result<Amount> {
    let spans = Spans::new(ranges)?;
    let failed = |error: DecodeError| Error::new(ErrorCode::CorruptBatch, error.to_string());
    let (_, sizes) = split(encoded, &spans).map_err(failed)?;
    let present = sizes.iter().filter(|size| **size != ABSENT);
    let bytes = present.map(|size| u64::from(*size)).sum();
    Ok(Amount { records: u64::from(spans.len()), bytes })
}

/// The batches' records, and the sizes of those given out.
fn split(encoded: &Bytes, spans: &Spans) -> Result<(Vec<Records>, Vec<u32>), DecodeError> {
    let mut sizes = vec![ABSENT; spans.len() as usize];
    let mut parts = Vec::new();
    for batch in RecordBatch::split(encoded) {
        let batch = batch?;
        if batch.header().is_control() {
            continue;
        }
        let records = batch.records(INFLATED_BYTES_MAX)?;
        for view in records.views() {
            let view = view?;
            if let Some(index) = spans.index(view.offset.0) {
                sizes[index as usize] = size(&view);
            }
        }
        parts.push(records);
    }
    Ok((parts, sizes))
}

/// What a record costs of the credit in bytes.
fn size(view: &RecordView<'_>) -> u32 {
    let of = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len);
    let headers: usize = view.headers.map(|header| header.key.len() + of(header.value)).sum();
    u32::try_from(of(view.key) + of(view.value) + headers).unwrap_or(ABSENT - 1)
}

impl Parcel {
    /// The next record that is still the program's to work on; `None` when there is none.
    pub(super) fn next_job(&mut self) -> Option<Job> {
        loop {
            let record = self.next_record()?;
            let offset = record.offset.0;
            let Some(index) = self.lease.spans.index(offset) else { continue };
            if self.lease.is_taken_back(index) {
                continue;
            }
            if !self.lease.hand_out(index) {
                return None;
            }
            let record = Received::delivered(self.lease.partition.clone(), record);
            let ticket = Ticket { lease: self.lease.clone(), index };
            return Some(Job::new(record, self.counts_of(offset), ticket));
        }
    }

    fn next_record(&mut self) -> Option<OffsetRecord> {
        loop {
            // Every record was decoded once before, so none fails here.
            if let Some(Ok(record)) = self.current.as_mut().and_then(Records::next) {
                return Some(record);
            }
            self.current = Some(self.parts.next()?);
        }
    }

    /// Attempts, this one included, and failures before.
    fn counts_of(&self, offset: u64) -> (u32, u32) {
        match self.counts.binary_search_by_key(&offset, |count| count.offset) {
            Ok(at) => (self.counts[at].attempts, self.counts[at].failures),
            Err(_) => (1, 0),
        }
    }
}

//! What delivery must know of the records of a partition: where they are, their keys, sizes and times.
//!
//! A [`ScannedBatch`] is one stored batch, read, checked and inflated once, with a row for each record. It answers
//! for a range of offsets without a gap: where compaction took records away, or a control batch stands, it
//! has no rows. What it holds is shared by every subscription that looks there.
//!
//! Decoding stops once so many bytes were inflated, whatever the stored batches claim.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_proto::{
    Offset, Record, RecordBatch,
    batch::{DecodeError, OffsetRecord, RecordMark, RecordView, Records},
    limits::INFLATED_BYTES_MAX,
};
use thiserror::Error;

use crate::{
    delivery::{Found, Run},
    partition::ReadError,
    subscription::filter::Filter,
};

/// Header by which a producer asks for a later delivery: decimal milliseconds since 1970-01-01 UTC.
pub const DELIVER_AT_HEADER: &[u8] = b"riverrun-deliver-at";
/// Decoding of a run of batches stops after so many inflated bytes; one batch is always decoded.
const DECODED_BYTES_MAX: usize = 16 << 20;
/// Records between two marks of a batch.
const MARK_EVERY: usize = 64;

/// Records that cannot be looked at.
#[derive(Clone, Debug, Error)]
pub enum ScanError {
    /// They cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// They cannot be decoded.
    #[error("record batch at offset {offset} cannot be decoded: {reason}")]
    Decode {
        /// Where.
        offset: Offset,
        /// Why.
        reason: Arc<str>,
    },
    /// Too much is being read at once.
    #[error(transparent)]
    Quota(#[from] crate::quota::QuotaExceeded),
}

/// One stored batch that was looked at, or a gap. Constant.
#[derive(Debug)]
pub struct ScannedBatch {
    /// Offsets it answers for.
    covers: Run,
    /// `None` where no records are.
    stored: Option<Stored>,
    /// One per record, in order.
    rows: Box<[Row]>,
    /// Before every [`MARK_EVERY`]th record: a few records of a large batch are cut out without walking all of it.
    marks: Box<[RecordMark]>,
    /// Records with a time, in order.
    times: Box<[(u64, i64)]>,
    /// Bytes of all records.
    record_bytes: u64,
}

#[derive(Debug)]
struct Stored {
    batch: RecordBatch,
    /// Inflated; not walked.
    records: Records,
    /// The read that the batch came in, and where it lies there.
    read: Bytes,
    pos: usize,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    /// Offset after the first of `covers`' batch.
    delta: u32,
    bytes: u32,
    /// Hash of the key; 0 is none.
    key: u64,
}

/// A part of a read: batches that lie one after another.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    read: Bytes,
    start: usize,
    end: usize,
}

impl Slice {
    /// Joins `next` to this one when it lies just behind; false when it does not.
    pub(super) fn join(&mut self, next: &Slice) -> bool {
        let joins = self.read.as_ptr() == next.read.as_ptr() && self.end == next.start;
        if joins {
            self.end = next.end;
        }
        joins
    }

    /// The bytes.
    pub(super) fn into_bytes(self) -> Bytes {
        self.read.slice(self.start..self.end)
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Hash by which records of one key are kept in order; never 0. The same in every run of the broker.
pub fn key_hash(key: &[u8]) -> u64 {
    rapidhash::v3::rapidhash_v3(key).max(1)
}

/// Looks at the batches of one read that began at `from` and ended before `next`. Without an error they answer for
/// offsets from `from` on without a gap, maybe not as far as `next`.
///
/// # Errors
/// When the first of them cannot be decoded; a later one only ends the answer.
pub fn decode(read: &Bytes, from: u64, next: u64) -> Result<Vec<Arc<ScannedBatch>>, ScanError> {
    let mut scanned = Vec::new();
    let (mut at, mut pos, mut inflated) = (from, 0, 0);
    for batch in RecordBatch::split(read) {
        let batch = match batch.map_err(|error| malformed(at, &error)) {
            Err(_) if !scanned.is_empty() => return Ok(scanned),
            batch => batch?,
        };
        if inflated > DECODED_BYTES_MAX {
            return Ok(scanned);
        }
        let (size, end) = (batch.as_bytes().len(), batch.end_offset().0);
        let start = if pos == 0 { at.min(batch.base_offset().0) } else { at };
        match ScannedBatch::of(batch, Run::new(start, end), (read.clone(), pos)) {
            Ok(one) => {
                inflated += one.stored.as_ref().map_or(0, |one| one.records.inflated_bytes());
                scanned.push(Arc::new(one));
            }
            Err(_) if !scanned.is_empty() => return Ok(scanned),
            Err(error) => return Err(malformed(at, &error)),
        }
        pos += size;
        at = end;
    }
    if at < next {
        scanned.push(Arc::new(ScannedBatch::gap(Run::new(at, next))));
    }
    Ok(scanned)
}

/// The wanted records in `range` of batches that answer for it from its start on, at most `records_max`. Also
/// the offset up to which all were looked at.
///
/// # Errors
/// When a batch whose records must be looked at for the filter cannot be walked.
pub fn gather(
    batches: &[Arc<ScannedBatch>],
    range: Run,
    filter: &Filter,
    records_max: usize,
) -> Result<(Vec<Found>, u64), ScanError> {
    let mut found = Vec::new();
    let mut next = range.start;
    for batch in batches {
        let part = batch.covers.intersect(range);
        if part.is_empty() {
            continue;
        }
        batch.gather(part, filter, (&mut found, records_max))?;
        next = part.end;
        if found.len() > records_max {
            next = found[records_max].offset;
            found.truncate(records_max);
            break;
        }
    }
    Ok((found, next))
}

impl ScannedBatch {
    fn gap(covers: Run) -> ScannedBatch {
        ScannedBatch {
            covers,
            stored: None,
            rows: Box::default(),
            marks: Box::default(),
            times: Box::default(),
            record_bytes: 0,
        }
    }

    fn of(
        batch: RecordBatch,
        covers: Run,
        (read, pos): (Bytes, usize),
    ) -> Result<ScannedBatch, DecodeError> {
        if batch.header().is_control() {
            return Ok(ScannedBatch::gap(covers));
        }
        let records = batch.records(INFLATED_BYTES_MAX)?;
        let base = batch.base_offset().0;
        let mut rows = Vec::with_capacity(batch.header().record_count.min(1 << 16) as usize);
        let (mut marks, mut times) = (Vec::new(), Vec::new());
        let mut record_bytes = 0;
        let mut views = records.views();
        loop {
            let mark = (rows.len() % MARK_EVERY == 0).then(|| views.mark());
            let Some(view) = views.next() else { break };
            let view = view?;
            marks.extend(mark);
            let row = Row {
                delta: u32::try_from(view.offset.0 - base).unwrap_or(u32::MAX),
                bytes: bytes_of(&view),
                key: view.key.map_or(0, key_hash),
            };
            record_bytes += u64::from(row.bytes);
            if let Some(time) = deliver_at(&view) {
                times.push((view.offset.0, time));
            }
            rows.push(row);
        }
        let stored = Some(Stored { batch, records, read, pos });
        let (rows, marks) = (rows.into_boxed_slice(), marks.into_boxed_slice());
        let times = times.into_boxed_slice();
        Ok(ScannedBatch { covers, stored, rows, marks, times, record_bytes })
    }

    /// Offsets it answers for.
    pub fn covers(&self) -> Run {
        self.covers
    }

    /// Bytes of memory it takes.
    pub fn memory_bytes(&self) -> usize {
        let stored = self.stored.as_ref().map_or(0, |stored| {
            let (plain, inflated) =
                (stored.batch.as_bytes().len(), stored.records.inflated_bytes());
            // The records of an uncompressed batch are a part of it.
            plain + if self.is_compressed() { inflated } else { 0 }
        });
        let index = size_of_val(&*self.rows) + size_of_val(&*self.marks);
        size_of::<ScannedBatch>() + stored + index + size_of_val(&*self.times)
    }

    /// Bytes of its records: keys, values and headers.
    pub(super) fn record_bytes(&self) -> u64 {
        self.record_bytes
    }

    /// The stored batch and its records, from `offset` or a little before it; `None` where no records are.
    pub(super) fn stored_from(&self, offset: u64) -> Option<(&RecordBatch, Records)> {
        let stored = self.stored.as_ref()?;
        let row = self.row_at(offset);
        let mark = self.marks.get(row / MARK_EVERY).or(self.marks.last())?;
        Some((&stored.batch, stored.records.from_mark(mark)))
    }

    /// Number of the first record at or past `offset`.
    fn row_at(&self, offset: u64) -> usize {
        let base = self.base();
        self.rows.partition_point(|row| base + u64::from(row.delta) < offset)
    }

    /// The stored batch as part of its read.
    pub(super) fn slice(&self) -> Option<Slice> {
        let Stored { batch, read, pos, .. } = self.stored.as_ref()?;
        Some(Slice { read: read.clone(), start: *pos, end: pos + batch.as_bytes().len() })
    }

    /// Offset and bytes of the records in `range`.
    pub(super) fn rows(&self, range: Run) -> impl Iterator<Item = (u64, u32)> + '_ {
        let base = self.base();
        let rows = self.rows[self.row_at(range.start)..].iter();
        rows.map(move |row| (base + u64::from(row.delta), row.bytes))
            .take_while(move |(offset, _)| *offset < range.end)
    }

    /// Some record fulfils `is_so`.
    ///
    /// # Errors
    /// When the records cannot be walked.
    pub(super) fn any(&self, is_so: impl Fn(&Record) -> bool) -> Result<bool, ScanError> {
        Ok(self.records_in(self.covers)?.iter().any(|record| is_so(&record.record)))
    }

    /// The records in `range`.
    ///
    /// # Errors
    /// When the records cannot be walked.
    pub(super) fn records_in(&self, range: Run) -> Result<Vec<OffsetRecord>, ScanError> {
        let Some(stored) = &self.stored else { return Ok(Vec::new()) };
        let records = stored.records.clone().filter(|record| {
            record.as_ref().map_or(true, |record| range.contains(record.offset.0))
        });
        let records: Result<Vec<_>, _> = records.collect();
        records.map_err(|error| malformed(self.covers.start, &error))
    }

    /// Adds the wanted records in `part`, up to one more than `found_max`.
    fn gather(
        &self,
        part: Run,
        filter: &Filter,
        (found, found_max): (&mut Vec<Found>, usize),
    ) -> Result<(), ScanError> {
        let Some((_, records)) = self.stored_from(part.start) else { return Ok(()) };
        let base = self.base();
        let first = self.row_at(part.start);
        let mut views = (!filter.is_empty()).then(|| records.views());
        // The walk begins at a mark, the rows at the part.
        if let Some(views) = &mut views {
            views.by_ref().take(first % MARK_EVERY).for_each(drop);
        }
        for row in &self.rows[first..] {
            let offset = base + u64::from(row.delta);
            if offset >= part.end || found.len() > found_max {
                break;
            }
            let wanted = match views.as_mut().map(Iterator::next) {
                None => true,
                Some(Some(Ok(view))) => filter.wants(&view),
                // Walked before, so they can be walked again.
                Some(Some(Err(error))) => return Err(malformed(offset, &error)),
                Some(None) => false,
            };
            if wanted {
                let not_before_ms = self.time_of(offset);
                let key = (row.key != 0).then_some(row.key);
                found.push(Found { offset, key, bytes: row.bytes, not_before_ms });
            }
        }
        Ok(())
    }

    fn time_of(&self, offset: u64) -> Option<i64> {
        let place = self.times.binary_search_by_key(&offset, |(at, _)| *at).ok()?;
        Some(self.times[place].1)
    }

    fn is_compressed(&self) -> bool {
        let stored = self.stored.as_ref();
        stored.is_some_and(|stored| {
            stored.batch.header().compression() != Ok(riverrun_proto::Compression::None)
        })
    }

    fn base(&self) -> u64 {
        self.stored.as_ref().map_or(self.covers.start, |stored| stored.batch.base_offset().0)
    }
}

/// Bytes of key, value and headers.
fn bytes_of(view: &RecordView<'_>) -> u32 {
    let field = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len);
    let headers: usize = view.headers.map(|one| one.key.len() + field(one.value)).sum();
    u32::try_from(field(view.key) + field(view.value) + headers).unwrap_or(u32::MAX)
}

/// When the record asks to be delivered. What is no number asks for nothing.
fn deliver_at(view: &RecordView<'_>) -> Option<i64> {
    let mut headers = view.headers;
    let header = headers.find(|header| header.key == DELIVER_AT_HEADER)?;
    time_of(header.value?)
}

/// The milliseconds since 1970-01-01 UTC that the value of a header says, if it is a number.
pub fn time_of(value: &[u8]) -> Option<i64> {
    let digits = value.trim_ascii();
    let is_number = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// As [`deliver_at`], of a record that was copied.
pub(super) fn deliver_at_of(record: &Record) -> Option<i64> {
    let header = record.headers.iter().find(|header| header.key == DELIVER_AT_HEADER)?;
    time_of(header.value.as_ref()?)
}

fn malformed(offset: u64, error: &DecodeError) -> ScanError {
    ScanError::Decode { offset: Offset(offset), reason: error.to_string().into() }
}

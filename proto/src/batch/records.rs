//! The records of a batch, decoded one by one without copying.
//!
//! Two ways to walk them: [`Records::views`] borrows and costs a few nanoseconds per record; the
//! iterator [`Records`] itself gives records that keep the buffer alive, for a price of a reference count each.
//!
//! Invariants: offset deltas rise and stay within the batch; the walk ends exactly at the last byte,
//! or with an error; after an error it gives nothing more.

use std::iter::FusedIterator;

use bytes::Bytes;

use super::{BatchHeader, DecodeError, RecordFault, varint};
use crate::{Header, Offset, Record};

/// One record and its offset. Its bytes keep the batch's buffer alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetRecord {
    /// Offset in the partition.
    pub offset: Offset,
    /// The record.
    pub record: Record,
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Offset in the partition.
    pub offset: Offset,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// Key; absent and empty differ.
    pub key: Option<&'a [u8]>,
    /// Value; absent is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in the producer's order.
    pub headers: HeaderViews<'a>,
}

impl RecordView<'_> {
    /// A copy that owns its bytes.
    pub fn to_record(&self) -> Record {
        Record {
            timestamp_ms: self.timestamp_ms,
            key: self.key.map(Bytes::copy_from_slice),
            value: self.value.map(Bytes::copy_from_slice),
            headers: self
                .headers
                .map(|header| header.to_owned_with(Bytes::copy_from_slice))
                .collect(),
        }
    }
}

/// One header, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// Name, by contract UTF-8.
    pub key: &'a [u8],
    /// Value; absent and empty differ.
    pub value: Option<&'a [u8]>,
}

impl<'a> HeaderView<'a> {
    /// The header with bytes made by `own`.
    fn to_owned_with(self, own: impl Fn(&'a [u8]) -> Bytes) -> Header {
        Header { key: own(self.key), value: self.value.map(&own) }
    }
}

/// The headers of one record: an iterator that can be copied to walk them again.
#[derive(Clone, Copy, Debug)]
pub struct HeaderViews<'a> {
    /// Headers not given yet.
    count: u32,
    /// Their bytes. Walked once before, so they are known to be well formed.
    fields: Fields<'a>,
}

impl<'a> Iterator for HeaderViews<'a> {
    type Item = HeaderView<'a>;

    fn next(&mut self) -> Option<HeaderView<'a>> {
        self.count = self.count.checked_sub(1)?;
        self.fields.header().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count as usize, Some(self.count as usize))
    }
}

impl ExactSizeIterator for HeaderViews<'_> {}
impl FusedIterator for HeaderViews<'_> {}

/// The records of one batch, inflated. Made by [`super::RecordBatch::records`].
///
/// As an iterator it gives owned records; the bytes are slices of one buffer.
#[derive(Clone, Debug)]
pub struct Records {
    /// The records' bytes, inflated.
    payload: Bytes,
    /// How far the walk has come.
    cursor: Cursor,
}

impl Records {
    /// The records in `payload`, of the batch with this header.
    pub(super) fn new(payload: Bytes, header: &BatchHeader) -> Records {
        Records { payload, cursor: Cursor::new(header) }
    }

    /// Bytes of the records, inflated.
    pub fn inflated_bytes(&self) -> usize {
        self.payload.len()
    }

    /// The same records from `mark` on, which a walk over them left.
    pub fn from_mark(&self, mark: &RecordMark) -> Records {
        Records { payload: self.payload.clone(), cursor: mark.0.clone() }
    }

    /// Walks the records not given yet, borrowed.
    pub fn views(&self) -> RecordViews<'_> {
        RecordViews { payload: &self.payload, cursor: self.cursor.clone() }
    }
}

impl Iterator for Records {
    type Item = Result<OffsetRecord, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let payload = &self.payload;
        let own = |part: &[u8]| payload.slice_ref(part);
        let view = match self.cursor.next(payload)? {
            Ok(view) => view,
            Err(error) => return Some(Err(error)),
        };
        let record = Record {
            timestamp_ms: view.timestamp_ms,
            key: view.key.map(own),
            value: view.value.map(own),
            headers: view.headers.map(|header| header.to_owned_with(own)).collect(),
        };
        Some(Ok(OffsetRecord { offset: view.offset, record }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.cursor.size_hint()
    }
}

impl FusedIterator for Records {}

/// Walks borrowed records. Made by [`Records::views`].
#[derive(Clone, Debug)]
pub struct RecordViews<'a> {
    /// The records' bytes, inflated.
    payload: &'a [u8],
    /// How far the walk has come.
    cursor: Cursor,
}

/// A place between two records of a batch, to walk on from without what lies before.
#[derive(Clone, Debug)]
pub struct RecordMark(Cursor);

impl RecordViews<'_> {
    /// Where the walk stands.
    pub fn mark(&self) -> RecordMark {
        RecordMark(self.cursor.clone())
    }

    /// Where in the inflated bytes the next record begins.
    pub(super) fn pos(&self) -> usize {
        self.cursor.pos
    }

    /// The inflated bytes of all records.
    pub(super) fn payload(&self) -> &[u8] {
        self.payload
    }
}

impl<'a> Iterator for RecordViews<'a> {
    type Item = Result<RecordView<'a>, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.cursor.next(self.payload)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.cursor.size_hint()
    }
}

impl FusedIterator for RecordViews<'_> {}

/// How far a walk over records has come, and what the header says about them.
#[derive(Clone, Debug)]
struct Cursor {
    /// Where the next record begins.
    pos: usize,
    /// Number of the next record, from 0. Equal to `count` when the walk is over.
    index: u32,
    /// Smallest offset delta the next record may have.
    delta_min: u32,
    /// Records in the batch. Set to `index` by an error, which ends the walk.
    count: u32,
    /// Largest offset delta. Constant.
    last_offset_delta: u32,
    /// Offset of delta 0. Constant.
    base_offset: Offset,
    /// Timestamp of delta 0. Constant.
    base_timestamp_ms: i64,
    /// The timestamp of every record, when the append sets it. Constant.
    append_timestamp_ms: Option<i64>,
}

impl Cursor {
    /// Stands before the first record.
    fn new(header: &BatchHeader) -> Cursor {
        Cursor {
            pos: 0,
            index: 0,
            delta_min: 0,
            count: header.record_count,
            last_offset_delta: header.last_offset_delta,
            base_offset: header.base_offset,
            base_timestamp_ms: header.base_timestamp_ms,
            append_timestamp_ms: header.is_log_append_time().then_some(header.max_timestamp_ms),
        }
    }

    /// Decodes the next record in `payload`.
    #[inline]
    fn next<'a>(&mut self, payload: &'a [u8]) -> Option<Result<RecordView<'a>, DecodeError>> {
        if self.index == self.count {
            return None;
        }
        let view = self.decode(payload);
        match view {
            Ok(_) => self.index += 1,
            Err(_) => self.count = self.index,
        }
        Some(view)
    }

    /// Decodes one record, and looks for bytes left over after the last.
    #[inline]
    fn decode<'a>(&mut self, payload: &'a [u8]) -> Result<RecordView<'a>, DecodeError> {
        let fault = |fault| DecodeError::Record { index: self.index, fault };
        let mut batch = Fields { bytes: payload, pos: self.pos };
        let bytes = batch.sized("record_length").map_err(fault)?;
        let (delta, view) = self.fields(bytes).map_err(fault)?;
        self.pos = batch.pos;
        self.delta_min = delta + 1;
        if self.index + 1 == self.count && self.pos != payload.len() {
            return Err(DecodeError::TrailingRecordBytes { count: payload.len() - self.pos });
        }
        Ok(view)
    }

    /// Decodes the fields of one record; gives its offset delta as well.
    #[inline]
    fn fields<'a>(&self, bytes: &'a [u8]) -> Result<(u32, RecordView<'a>), RecordFault> {
        let mut fields = Fields { bytes, pos: 0 };
        fields.skip_attributes()?;
        let timestamp_delta = fields.varlong("timestamp_delta")?;
        let delta = self.offset_delta(fields.varint("offset_delta")?)?;
        let key = fields.nullable("key")?;
        let value = fields.nullable("value")?;
        let headers = fields.headers()?;
        let timestamp_ms = match self.append_timestamp_ms {
            Some(timestamp) => timestamp,
            None => {
                let base_ms = self.base_timestamp_ms;
                let fault = RecordFault::TimestampDelta { delta: timestamp_delta, base_ms };
                base_ms.checked_add(timestamp_delta).ok_or(fault)?
            }
        };
        let offset = Offset(self.base_offset.0 + u64::from(delta));
        Ok((delta, RecordView { offset, timestamp_ms, key, value, headers }))
    }

    /// An offset delta that rises and stays within the batch.
    #[inline]
    fn offset_delta(&self, delta: i32) -> Result<u32, RecordFault> {
        match u32::try_from(delta) {
            Ok(known) if known >= self.delta_min && known <= self.last_offset_delta => Ok(known),
            _ => Err(RecordFault::OffsetDelta {
                delta,
                expected_min: self.delta_min,
                expected_max: self.last_offset_delta,
            }),
        }
    }

    /// Records left at most, by the bytes that are left; a claim in the header alone never sizes a buffer.
    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some((self.count - self.index) as usize))
    }
}

/// Reads the fields of a record one after another.
#[derive(Clone, Copy, Debug)]
struct Fields<'a> {
    /// The record, or the whole payload.
    bytes: &'a [u8],
    /// Where the next field begins.
    pos: usize,
}

impl<'a> Fields<'a> {
    /// Skips the record's attributes, of which no bit is in use.
    #[inline]
    fn skip_attributes(&mut self) -> Result<(), RecordFault> {
        if self.bytes.is_empty() {
            return Err(RecordFault::Length { field: "record_length", value: 0, left: 0 });
        }
        self.pos += 1;
        Ok(())
    }

    /// A 32-bit number.
    #[inline]
    fn varint(&mut self, field: &'static str) -> Result<i32, RecordFault> {
        varint::read_i32(self.bytes, &mut self.pos).ok_or(RecordFault::Varint { field })
    }

    /// A 64-bit number.
    #[inline]
    fn varlong(&mut self, field: &'static str) -> Result<i64, RecordFault> {
        varint::read_i64(self.bytes, &mut self.pos).ok_or(RecordFault::Varint { field })
    }

    /// Bytes behind their length.
    #[inline]
    fn sized(&mut self, field: &'static str) -> Result<&'a [u8], RecordFault> {
        let value = self.varint(field)?;
        self.take(field, value)
    }

    /// Bytes behind their length, or null when the length is -1.
    #[inline]
    fn nullable(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, RecordFault> {
        match self.varint(field)? {
            -1 => Ok(None),
            value => self.take(field, value).map(Some),
        }
    }

    /// The next `value` bytes.
    #[inline]
    fn take(&mut self, field: &'static str, value: i32) -> Result<&'a [u8], RecordFault> {
        let rest = &self.bytes[self.pos..];
        match usize::try_from(value).ok().and_then(|len| rest.get(..len)) {
            Some(taken) => {
                self.pos += taken.len();
                Ok(taken)
            }
            None => Err(RecordFault::Length { field, value, left: rest.len() }),
        }
    }

    /// Walks the headers to the end of the record, so that giving them later cannot fail.
    #[inline]
    fn headers(mut self) -> Result<HeaderViews<'a>, RecordFault> {
        let value = self.varint("header_count")?;
        let left = self.bytes.len() - self.pos;
        let invalid = RecordFault::Length { field: "header_count", value, left };
        let count = u32::try_from(value).map_err(|_| invalid.clone())?;
        if count as usize > left {
            return Err(invalid);
        }
        let headers = HeaderViews { count, fields: self };
        for _ in 0..count {
            self.header()?;
        }
        match self.bytes.len() - self.pos {
            0 => Ok(headers),
            count => Err(RecordFault::TrailingBytes { count }),
        }
    }

    /// One header.
    #[inline]
    fn header(&mut self) -> Result<HeaderView<'a>, RecordFault> {
        let key = self.sized("header.key")?;
        let value = self.nullable("header.value")?;
        Ok(HeaderView { key, value })
    }
}

//! What the broker demands of a batch before it appends it.
//!
//! [`RecordBatch::decode`] has proven frame, checksum and counts. Here every record is walked once, so that
//! nothing a consumer could stumble over reaches the log.

use super::{
    DecodeError, HEADER_BYTES, HeaderViews, RecordBatch, RecordFault, RecordView,
    header::COMPRESSION_MASK,
};
use crate::{Header, limits};

/// Bounds of a produced batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducedLimits {
    /// Largest batch as sent, in bytes; the topic's `message_bytes_max`.
    pub batch_bytes_max: usize,
    /// Most bytes the records may inflate to.
    pub inflated_bytes_max: usize,
}

impl Default for ProducedLimits {
    fn default() -> ProducedLimits {
        ProducedLimits {
            batch_bytes_max: limits::BATCH_BYTES_DEFAULT as usize,
            inflated_bytes_max: limits::INFLATED_BYTES_MAX,
        }
    }
}

impl RecordBatch {
    /// Checks everything a producer may have got wrong: size, attributes, producer fields, and every
    /// record. Holds when it returns: offset deltas are 0, 1, 2 up to the count, key and headers are within
    /// [`limits`], header names are UTF-8, and the header's largest timestamp is the records' largest.
    ///
    /// # Errors
    /// Names the first thing that is wrong.
    pub fn check_produced(&self, limits: ProducedLimits) -> Result<(), DecodeError> {
        self.check_produced_header(limits.batch_bytes_max)?;
        let records = self.records(limits.inflated_bytes_max)?;
        let mut max_timestamp_ms = i64::MIN;
        for (index, view) in (0..).zip(records.views()) {
            let view = view?;
            max_timestamp_ms = max_timestamp_ms.max(view.timestamp_ms);
            check_view(&view).map_err(|fault| DecodeError::Record { index, fault })?;
        }
        if max_timestamp_ms == self.header.max_timestamp_ms {
            Ok(())
        } else {
            let header = self.header.max_timestamp_ms;
            Err(DecodeError::MaxTimestamp { header, records: max_timestamp_ms })
        }
    }

    /// The part of the check that needs the header only.
    fn check_produced_header(&self, batch_bytes_max: usize) -> Result<(), DecodeError> {
        let header = &self.header;
        let bytes = self.bytes.len();
        if bytes > batch_bytes_max {
            return Err(DecodeError::BatchTooLarge { bytes, limit: batch_bytes_max });
        }
        if header.attributes & !COMPRESSION_MASK != 0 {
            return Err(DecodeError::Attributes { attributes: header.attributes });
        }
        // With as many records as offsets, deltas that rise within the batch can only be 0, 1, 2 and so on.
        let count = header.record_count;
        if header.span() != u64::from(count) {
            return Err(DecodeError::RecordCount { count, span: header.span() });
        }
        if header.is_idempotent() {
            not_negative("producer_epoch", i64::from(header.producer_epoch.0))?;
            not_negative("base_sequence", i64::from(header.base_sequence))?;
        }
        debug_assert!(bytes >= HEADER_BYTES);
        Ok(())
    }
}

/// Refuses a negative number in a field that needs none.
fn not_negative(field: &'static str, value: i64) -> Result<(), DecodeError> {
    if value < 0 { Err(DecodeError::Field { field, value }) } else { Ok(()) }
}

/// Checks the sizes and names of one decoded record.
fn check_view(view: &RecordView<'_>) -> Result<(), RecordFault> {
    check_key(view.key)?;
    check_header_views(view.headers)
}

/// Checks the headers of one decoded record.
fn check_header_views(headers: HeaderViews<'_>) -> Result<(), RecordFault> {
    check_header_count(headers.len())?;
    for header in headers {
        check_header_key(header.key)?;
    }
    Ok(())
}

/// Checks what the builder is about to encode, by the same rules.
pub(super) fn check_parts(key: Option<&[u8]>, headers: &[Header]) -> Result<(), RecordFault> {
    check_key(key)?;
    check_header_count(headers.len())?;
    for header in headers {
        check_header_key(&header.key)?;
    }
    Ok(())
}

/// Bounds the key.
fn check_key(key: Option<&[u8]>) -> Result<(), RecordFault> {
    let bytes = key.map_or(0, <[u8]>::len);
    let limit = limits::KEY_BYTES_MAX;
    if bytes > limit { Err(RecordFault::KeyTooLong { bytes, limit }) } else { Ok(()) }
}

/// Bounds the number of headers.
fn check_header_count(count: usize) -> Result<(), RecordFault> {
    let limit = limits::HEADER_COUNT_MAX;
    if count > limit { Err(RecordFault::TooManyHeaders { count, limit }) } else { Ok(()) }
}

/// Bounds the name of a header and wants it in UTF-8.
fn check_header_key(key: &[u8]) -> Result<(), RecordFault> {
    let limit = limits::HEADER_KEY_BYTES_MAX;
    if key.is_empty() || key.len() > limit {
        return Err(RecordFault::HeaderKeyLength { bytes: key.len(), limit });
    }
    std::str::from_utf8(key).map(|_| ()).map_err(|_| RecordFault::HeaderKeyUtf8)
}

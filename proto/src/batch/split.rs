//! Batches laid one after another, as a segment or a fetch reply holds them.

use bytes::Bytes;

use super::{BatchHeader, DecodeError, RecordBatch};

/// Decodes batches laid one after another. Made by [`RecordBatch::split`].
///
/// Ends after the last byte or after the first error.
#[derive(Clone, Debug)]
pub struct Batches {
    /// What is not decoded yet. Empty after an error.
    rest: Bytes,
}

impl Batches {
    /// Starts at the front of `bytes`.
    pub(super) fn new(bytes: Bytes) -> Batches {
        Batches { rest: bytes }
    }

    /// Cuts the next batch off the front.
    fn cut(&mut self) -> Result<RecordBatch, DecodeError> {
        let total = BatchHeader::peek(&self.rest)?.total_bytes();
        if total > self.rest.len() {
            return Err(DecodeError::Truncated { needed: total, have: self.rest.len() });
        }
        RecordBatch::decode(self.rest.split_to(total))
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = self.cut();
        if batch.is_err() {
            self.rest = Bytes::new();
        }
        Some(batch)
    }
}

impl std::iter::FusedIterator for Batches {}

//! The record batch codec: Kafka's record batch format, version 2 (magic 2).
//!
//! The producer encodes and compresses a batch once; the broker checks it and stamps base offset and
//! leader epoch, which lie outside the checksum; storage keeps the same bytes; the consumer decodes once.
//!
//! ```text
//! 0 base offset i64 | 8 length i32 (of all after it) | 12 leader epoch i32 | 16 magic i8 = 2 | 17 crc u32
//! 21 attributes i16 | 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64
//! 43 producer id i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32
//! 61 records, one after another, compressed together when the attributes name a codec
//! record: length varint | attributes i8 | timestamp delta varlong | offset delta varint
//!         key (length varint, -1 is null) | value (same) | header count varint | headers (key, value)
//! ```
//!
//! All integers are big-endian, varints are zigzag. The CRC-32C covers byte 21 to the end.
//!
//! Invariants:
//! - A [`RecordBatch`] has a whole frame, magic 2, a checksum that holds, and counts that fit each other.
//!   What lies inside its records is only known after [`RecordBatch::check_produced`] or iteration.
//! - No input makes the decoder panic or allocate by a number found in it; inflating stops at a bound.
//!
//! It does not decode magic 0 and 1, assign offsets, or know a clock.

mod builder;
mod check;
mod compression;
mod error;
mod filter;
mod header;
mod records;
mod split;
mod varint;

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::{Bytes, BytesMut};

pub use builder::{BatchBuilder, BuilderOptions};
pub use check::ProducedLimits;
pub use compression::{Compression, InflateError, UnknownCompression};
pub use error::{DecodeError, EncodeError, RecordFault};
pub use header::{BatchHeader, HEADER_BYTES, STAMPED_BYTES, stamp};
pub use records::{HeaderViews, OffsetRecord, RecordMark, RecordView, RecordViews, Records};
pub use split::Batches;

use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// A checked batch: framing, magic, checksum and counts hold. Records are decoded on demand.
///
/// A clone shares the bytes. Its `Debug` form shows the header and no record.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordBatch {
    /// The batch exactly as stored or sent.
    bytes: Bytes,
    /// Its decoded header.
    header: BatchHeader,
}

impl fmt::Debug for RecordBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecordBatch { bytes, header } = self;
        f.debug_struct("RecordBatch").field("bytes", &bytes.len()).field("header", header).finish()
    }
}

impl RecordBatch {
    /// Decodes the one batch that fills `bytes`, without copying it.
    ///
    /// # Errors
    /// Says what is wrong when `bytes` is not exactly one whole batch of magic 2 whose checksum holds
    /// and whose counts fit each other.
    pub fn decode(bytes: Bytes) -> Result<RecordBatch, DecodeError> {
        let header = BatchHeader::check(&bytes)?;
        Ok(RecordBatch { bytes, header })
    }

    /// Decodes batches laid one after another; each is a slice of `bytes`, not a copy.
    ///
    /// After the first error the iterator ends.
    pub fn split(bytes: &Bytes) -> Batches {
        Batches::new(bytes.clone())
    }

    /// Wraps bytes that the builder has just made.
    fn from_parts(bytes: Bytes, header: BatchHeader) -> RecordBatch {
        debug_assert_eq!(bytes.len(), header.total_bytes());
        RecordBatch { bytes, header }
    }

    /// The decoded header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The encoded bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The encoded bytes, without the wrapper.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Offset of the first record; 0 until the broker stamps it.
    pub fn base_offset(&self) -> Offset {
        self.header.base_offset
    }

    /// First offset past the batch.
    pub fn end_offset(&self) -> Offset {
        Offset(self.header.base_offset.0 + self.span())
    }

    /// Offsets covered: records plus the gaps that compaction left.
    pub fn span(&self) -> u64 {
        self.header.span()
    }

    /// The records, inflated first when the batch is compressed.
    ///
    /// # Errors
    /// When the codec is unknown, the compressed bytes are damaged, or they inflate to more than
    /// `inflated_bytes_max`; at most about that much memory is used before it is noticed.
    pub fn records(&self, inflated_bytes_max: usize) -> Result<Records, DecodeError> {
        let body = self.bytes.slice(HEADER_BYTES..);
        let compression = self.header.compression()?;
        let payload = if compression == Compression::None {
            body
        } else {
            Bytes::from(compression.inflate(&body, inflated_bytes_max)?)
        };
        Ok(Records::new(payload, &self.header))
    }

    /// The first [`STAMPED_BYTES`] bytes as they read once stamped, so that a writer can gather
    /// `[prefix, rest]` without copying the batch.
    pub fn stamped_prefix(
        &self,
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
    ) -> [u8; STAMPED_BYTES] {
        self.header.stamped_prefix(base_offset, leader_epoch)
    }

    /// The same batch at another place: copies the bytes only when they are shared.
    pub fn stamped(self, base_offset: Offset, leader_epoch: LeaderEpoch) -> RecordBatch {
        let mut header = self.header;
        let mut bytes = unshared(self.bytes);
        stamp(&mut bytes, base_offset, leader_epoch);
        header.base_offset = base_offset;
        header.leader_epoch = leader_epoch;
        RecordBatch { bytes: bytes.freeze(), header }
    }

    /// The same records under another producer identity, with a fresh checksum: copies the bytes only
    /// when they are shared.
    pub fn with_producer(
        self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        base_sequence: i32,
    ) -> RecordBatch {
        let header = BatchHeader { producer_id, producer_epoch, base_sequence, ..self.header };
        let mut bytes = unshared(self.bytes);
        let header = header::write(&mut bytes, header);
        RecordBatch { bytes: bytes.freeze(), header }
    }
}

/// The bytes for writing: as they are when nobody else holds them, else a copy.
fn unshared(bytes: Bytes) -> BytesMut {
    bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

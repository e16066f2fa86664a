//! The record batch codec: Kafka's record batch format, version 2 (magic 2).
//!
//! The producer encodes and compresses a batch once; the broker checks it and stamps base offset and
//! leader epoch, which lie outside the checksum; storage keeps the same bytes; the consumer decodes once.

use bytes::Bytes;

use crate::{Offset, ProducerEpoch, ProducerId, ids::LeaderEpoch};

/// Bytes of the fixed batch header.
pub const HEADER_BYTES: usize = 61;

/// The fixed header of a batch, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Whole length of the batch in bytes, the header included.
    pub total_bytes: u32,
    /// Epoch of the leader that stamped it.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C from the attributes to the end.
    pub crc: u32,
    /// Compression (bits 0-2), timestamp type (3), transactional (4), control (5).
    pub attributes: u16,
    /// Offset of the last record, relative to the base.
    pub last_offset_delta: u32,
    /// Timestamp of the first record, in milliseconds.
    pub base_timestamp_ms: i64,
    /// Largest timestamp in the batch.
    pub max_timestamp_ms: i64,
    /// Idempotent producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Epoch of the producer.
    pub producer_epoch: ProducerEpoch,
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// Records in the batch; fewer than the offset span only after compaction.
    pub record_count: u32,
}

/// A checked batch: framing, magic, checksum and counts hold. Records are decoded on demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    /// The batch exactly as stored or sent.
    bytes: Bytes,
    /// Its decoded header.
    header: BatchHeader,
}

impl RecordBatch {
    /// The decoded header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The encoded bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
}

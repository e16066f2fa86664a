//! The fixed 61-byte header of a batch: decode, encode, stamp.
//!
//! Invariant: base offset (bytes 0..8), length (8..12) and leader epoch (12..16) lie before the
//! checksummed part, so stamping them never touches the checksum.

use bytes::{Buf, BufMut};

use super::{Compression, DecodeError};
use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Bytes of the fixed batch header.
pub const HEADER_BYTES: usize = 61;
/// Bytes at the front that stamping may change.
pub const STAMPED_BYTES: usize = 16;
/// Bytes before and including the length field, which it does not count.
const LENGTH_END: usize = 12;
/// [`LENGTH_END`] in the type of the length field.
const UNCOUNTED_BYTES: u32 = 12;
/// Where the checksummed part begins.
const CRC_START: usize = 21;
/// The only format version read and written.
const MAGIC: i8 = 2;
/// Fewest bytes a record takes: length, attributes, two deltas, key, value, header count.
const RECORD_BYTES_MIN: usize = 7;

/// Attribute bits that name the codec.
pub(super) const COMPRESSION_MASK: u16 = 0b111;
/// Attribute bit: timestamps are those of the append, not of the producer.
pub(super) const LOG_APPEND_TIME: u16 = 1 << 3;
/// Attribute bit: part of a transaction.
pub(super) const TRANSACTIONAL: u16 = 1 << 4;
/// Attribute bit: control records, not for consumers.
pub(super) const CONTROL: u16 = 1 << 5;

/// The fixed header of a batch, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Whole length of the batch in bytes, the header included.
    pub total_bytes: u32,
    /// Epoch of the leader that stamped it; all ones (-1 on the wire) before.
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

impl BatchHeader {
    /// Decodes the header at the front of `bytes`, which may end before the batch does.
    ///
    /// Checks only that the fields make sense by themselves: magic 2, a length of at least the header's,
    /// no negative offset or count. The checksum is not looked at.
    ///
    /// # Errors
    /// Names the field that makes no sense, or says that fewer than [`HEADER_BYTES`] bytes came.
    pub fn peek(bytes: &[u8]) -> Result<BatchHeader, DecodeError> {
        if bytes.len() < HEADER_BYTES {
            return Err(DecodeError::Truncated { needed: HEADER_BYTES, have: bytes.len() });
        }
        let mut fields = bytes;
        let base_offset = fields.get_i64();
        let length = fields.get_i32();
        let leader_epoch = fields.get_u32();
        let magic = fields.get_i8();
        if magic != MAGIC {
            return Err(DecodeError::Magic { magic });
        }
        let base_offset = u64::try_from(base_offset)
            .map_err(|_| DecodeError::Field { field: "base_offset", value: base_offset })?;
        let header = BatchHeader {
            base_offset: Offset(base_offset),
            total_bytes: total_bytes(length)?,
            leader_epoch: LeaderEpoch(leader_epoch),
            crc: fields.get_u32(),
            attributes: fields.get_u16(),
            last_offset_delta: count(fields.get_i32(), "last_offset_delta")?,
            base_timestamp_ms: fields.get_i64(),
            max_timestamp_ms: fields.get_i64(),
            producer_id: ProducerId(fields.get_i64()),
            producer_epoch: ProducerEpoch(fields.get_i16()),
            base_sequence: fields.get_i32(),
            record_count: count(fields.get_i32(), "record_count")?,
        };
        if header.base_offset.checked_add(header.span()).is_none() {
            return Err(DecodeError::OffsetOverflow { base_offset: header.base_offset });
        }
        Ok(header)
    }

    /// Decodes the header of the one batch that fills `bytes` and checks all that [`RecordBatch::decode`]
    /// does, for a reader that only borrows the bytes.
    ///
    /// [`RecordBatch::decode`]: super::RecordBatch::decode
    ///
    /// # Errors
    /// Says what is wrong when `bytes` is not exactly one whole batch of magic 2 whose checksum holds
    /// and whose counts fit each other.
    pub fn check(bytes: &[u8]) -> Result<BatchHeader, DecodeError> {
        let header = BatchHeader::peek(bytes)?;
        let total = header.total_bytes();
        if bytes.len() < total {
            return Err(DecodeError::Truncated { needed: total, have: bytes.len() });
        }
        if bytes.len() > total {
            return Err(DecodeError::TrailingBytes { count: bytes.len() - total });
        }
        check_crc(bytes, header.crc)?;
        header.check_counts()?;
        Ok(header)
    }

    /// Whole length of the batch in bytes, as an index.
    pub fn total_bytes(&self) -> usize {
        self.total_bytes as usize
    }

    /// Offsets covered: records plus the gaps that compaction left.
    pub fn span(&self) -> u64 {
        u64::from(self.last_offset_delta) + 1
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// When the attributes name none that exists.
    pub fn compression(&self) -> Result<Compression, DecodeError> {
        Compression::from_attributes(self.attributes)
            .ok_or(DecodeError::UnknownCompression { id: self.attributes & COMPRESSION_MASK })
    }

    /// True when every record has the append's timestamp, [`BatchHeader::max_timestamp_ms`].
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// True when the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// True when the records are marks for the log, not for consumers.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// True when an idempotent producer wrote it.
    pub fn is_idempotent(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// The first bytes of the batch as they read once stamped.
    pub fn stamped_prefix(
        &self,
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
    ) -> [u8; STAMPED_BYTES] {
        let mut prefix = [0; STAMPED_BYTES];
        let mut fields = &mut prefix[..];
        fields.put_u64(base_offset.0);
        fields.put_u32(self.total_bytes - UNCOUNTED_BYTES);
        fields.put_u32(leader_epoch.0);
        prefix
    }

    /// Checks that the counts fit each other and the bytes.
    pub(super) fn check_counts(&self) -> Result<(), DecodeError> {
        let count = self.record_count;
        if count == 0 || u64::from(count) > self.span() {
            return Err(DecodeError::RecordCount { count, span: self.span() });
        }
        let plain = self.attributes & COMPRESSION_MASK == Compression::None.id();
        let body = self.total_bytes() - HEADER_BYTES;
        if plain && body / RECORD_BYTES_MIN < count as usize {
            return Err(DecodeError::RecordCount { count, span: self.span() });
        }
        Ok(())
    }
}

/// Writes base offset and leader epoch into an encoded batch, in place. Neither is checksummed.
///
/// # Panics
/// When `batch` is shorter than a batch header.
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    assert!(batch.len() >= HEADER_BYTES, "a batch has a whole header");
    (&mut batch[..8]).put_u64(base_offset.0);
    (&mut batch[LENGTH_END..STAMPED_BYTES]).put_u32(leader_epoch.0);
}

/// Writes `header` over the front of the encoded batch `batch`, with the length and checksum that fit its bytes.
///
/// Returns the header as written.
pub(super) fn write(batch: &mut [u8], header: BatchHeader) -> BatchHeader {
    let mut header = header;
    header.total_bytes = u32::try_from(batch.len()).expect("the builder bounds a batch");
    let mut fields = &mut batch[CRC_START..HEADER_BYTES];
    fields.put_u16(header.attributes);
    fields.put_u32(header.last_offset_delta);
    fields.put_i64(header.base_timestamp_ms);
    fields.put_i64(header.max_timestamp_ms);
    fields.put_i64(header.producer_id.0);
    fields.put_i16(header.producer_epoch.0);
    fields.put_i32(header.base_sequence);
    fields.put_u32(header.record_count);
    header.crc = crc_fast::crc32_iscsi(&batch[CRC_START..]);
    let prefix = header.stamped_prefix(header.base_offset, header.leader_epoch);
    batch[..STAMPED_BYTES].copy_from_slice(&prefix);
    let mut fields = &mut batch[STAMPED_BYTES..CRC_START];
    fields.put_i8(MAGIC);
    fields.put_u32(header.crc);
    header
}

/// Checks the stored checksum of one whole batch.
pub(super) fn check_crc(batch: &[u8], stored: u32) -> Result<(), DecodeError> {
    let computed = crc_fast::crc32_iscsi(&batch[CRC_START..]);
    if computed == stored { Ok(()) } else { Err(DecodeError::Crc { stored, computed }) }
}

/// Whole length of a batch whose length field says `length`.
fn total_bytes(length: i32) -> Result<u32, DecodeError> {
    let invalid = DecodeError::Field { field: "batch_length", value: i64::from(length) };
    let length = u32::try_from(length).map_err(|_| invalid.clone())?;
    let total = length + UNCOUNTED_BYTES;
    if (total as usize) < HEADER_BYTES { Err(invalid) } else { Ok(total) }
}

/// A field that must not be negative.
fn count(value: i32, field: &'static str) -> Result<u32, DecodeError> {
    u32::try_from(value).map_err(|_| DecodeError::Field { field, value: i64::from(value) })
}

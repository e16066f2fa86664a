//! What can be wrong with a batch that is read, and with a record that is written.

use super::compression::InflateError;
use crate::Offset;

/// Why bytes are not a batch, or a batch's records cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the batch does.
    #[error("batch is cut: `{needed}` bytes needed, `{have}` came")]
    Truncated {
        /// Bytes the header or the length field asks for.
        needed: usize,
        /// Bytes there are.
        have: usize,
    },
    /// Bytes follow where one batch should end.
    #[error("`{count}` bytes follow the batch")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// Not the format version this codec reads.
    #[error("`magic` is `{magic}`, only `2` is supported")]
    Magic {
        /// What came.
        magic: i8,
    },
    /// A header field holds a number it cannot have.
    #[error("`{field}` is `{value}`")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What came.
        value: i64,
    },
    /// The last offset would lie past the largest there is.
    #[error("offsets from `base_offset` `{base_offset}` pass the largest offset")]
    OffsetOverflow {
        /// What came.
        base_offset: Offset,
    },
    /// The bytes changed since the producer made them.
    #[error("`crc` is `{stored:#010x}`, the bytes give `{computed:#010x}`")]
    Crc {
        /// Checksum in the header.
        stored: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// The record count is 0, or fits neither the offsets nor the bytes of the batch.
    #[error("`record_count` is `{count}` in a batch over `{span}` offsets")]
    RecordCount {
        /// Records the header claims.
        count: u32,
        /// Offsets the header claims.
        span: u64,
    },
    /// No such codec.
    #[error("`compression` is `{id}`, known are 0 to 4")]
    UnknownCompression {
        /// What came.
        id: u16,
    },
    /// The compressed records cannot be inflated.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// One record is malformed.
    #[error("record `{index}` of the batch: {fault}")]
    Record {
        /// Which, from 0.
        index: u32,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// Bytes are left over after the last record.
    #[error("`{count}` bytes follow the last record")]
    TrailingRecordBytes {
        /// How many.
        count: usize,
    },
    /// A produced batch is larger than allowed.
    #[error("batch has `{bytes}` bytes, at most `{limit}` are allowed")]
    BatchTooLarge {
        /// Bytes of the batch.
        bytes: usize,
        /// Most that are allowed.
        limit: usize,
    },
    /// A produced batch sets an attribute that only the broker may set, or none knows.
    #[error("`attributes` is `{attributes:#06x}`: only a codec may be set by a producer")]
    Attributes {
        /// What came.
        attributes: u16,
    },
    /// The largest timestamp in the header is not the largest of the records.
    #[error("`max_timestamp` is `{header}`, the records give `{records}`")]
    MaxTimestamp {
        /// What the header says.
        header: i64,
        /// What the records say.
        records: i64,
    },
}

/// What is wrong with one record, read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// A varint is cut or longer than its type.
    #[error("`{field}` is not a varint")]
    Varint {
        /// Name of the field.
        field: &'static str,
    },
    /// A length or count is negative, or larger than the bytes left.
    #[error("`{field}` is `{value}` with `{left}` bytes left")]
    Length {
        /// Name of the field.
        field: &'static str,
        /// What came.
        value: i32,
        /// Bytes left in the record, or in the batch for the record's own length.
        left: usize,
    },
    /// The record is longer than its fields.
    #[error("`{count}` bytes follow the last header")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// Offset deltas must rise and stay within the batch; those of a produced batch are 0, 1, 2 and so on.
    #[error("`offset_delta` is `{delta}`, expected `{expected_min}` to `{expected_max}`")]
    OffsetDelta {
        /// What came.
        delta: i32,
        /// Smallest that would do.
        expected_min: u32,
        /// Largest that would do.
        expected_max: u32,
    },
    /// The timestamp is too far from the first one of the batch: their difference is written.
    #[error(
        "`timestamp_ms` is `{timestamp_ms}`, and its difference to the batch's first, `{base_ms}`, does not fit 64 bits"
    )]
    Timestamp {
        /// The timestamp.
        timestamp_ms: i64,
        /// The first timestamp of the batch.
        base_ms: i64,
    },
    /// The difference to the first timestamp of the batch leads past the last one there is.
    #[error(
        "`timestamp_delta` is `{delta}`, and the batch's first timestamp, `{base_ms}`, with it does not fit 64 bits"
    )]
    TimestampDelta {
        /// The difference.
        delta: i64,
        /// The first timestamp of the batch.
        base_ms: i64,
    },
    /// The key is longer than allowed.
    #[error("`key` has `{bytes}` bytes, at most `{limit}` are allowed")]
    KeyTooLong {
        /// Bytes of the key.
        bytes: usize,
        /// Most that are allowed.
        limit: usize,
    },
    /// There are more headers than allowed.
    #[error("`headers` has `{count}` entries, at most `{limit}` are allowed")]
    TooManyHeaders {
        /// Headers of the record.
        count: usize,
        /// Most that are allowed.
        limit: usize,
    },
    /// The name of a header is empty or longer than allowed.
    #[error("`header.key` has `{bytes}` bytes, allowed are 1 to `{limit}`")]
    HeaderKeyLength {
        /// Bytes of the name.
        bytes: usize,
        /// Most that are allowed.
        limit: usize,
    },
    /// The name of a header is not UTF-8.
    #[error("`header.key` is not UTF-8")]
    HeaderKeyUtf8,
}

/// Why a record cannot be added to a batch, or a batch not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The record itself is not allowed, in whatever batch.
    #[error(transparent)]
    Record(#[from] RecordFault),
    /// The batch would grow past its bound; the record may fit in the next.
    #[error("batch would have `{bytes}` bytes, at most `{limit}` are allowed")]
    BatchFull {
        /// Uncompressed bytes with the record.
        bytes: usize,
        /// Most that are allowed.
        limit: usize,
    },
    /// The record does not fit into any batch.
    #[error("batch of this record alone would have `{bytes}` bytes, at most `{limit}` are allowed")]
    RecordTooLarge {
        /// Uncompressed bytes of a batch with the record alone.
        bytes: usize,
        /// Most that are allowed.
        limit: usize,
    },
    /// A batch has at least one record.
    #[error("batch has no records")]
    Empty,
    /// The codec failed.
    #[error("`{codec}` compression failed")]
    Compress {
        /// Name of the codec.
        codec: super::Compression,
    },
}

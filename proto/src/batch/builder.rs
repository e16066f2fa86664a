//! Builds a batch record by record: encode once, compress once.
//!
//! Records are encoded behind a gap for the header as they are pushed. Without compression the buffer
//! itself becomes the batch; with it, the buffer is compressed into a fresh one and used again.

use std::fmt;

use bytes::Bytes;

use super::{
    BatchHeader, Compression, EncodeError, HEADER_BYTES, RecordBatch, RecordFault, check,
    compression::Compressor, header, varint,
};
use crate::{Header, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Record, limits};

/// Settings of a [`BatchBuilder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuilderOptions {
    /// Idempotent producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Epoch of the producer; -1 without one.
    pub producer_epoch: ProducerEpoch,
    /// Sequence number of the first record; -1 without a producer id.
    pub base_sequence: i32,
    /// Most bytes of the batch before compression, header included.
    pub bytes_max: usize,
    /// Level of the codec, brought into its range; `None` is the codec's default.
    pub compression_level: Option<i32>,
}

impl Default for BuilderOptions {
    fn default() -> BuilderOptions {
        BuilderOptions {
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(-1),
            base_sequence: -1,
            bytes_max: limits::INFLATED_BYTES_MAX,
            compression_level: None,
        }
    }
}

/// Builds batches, one after another. Its `Debug` form shows no record.
pub struct BatchBuilder {
    /// The codec. Constant.
    compression: Compression,
    /// Settings; the producer's fields may change before each build.
    options: BuilderOptions,
    /// Set up at the first build that needs it, kept for the next.
    compressor: Option<Compressor>,
    /// Gap for the header, then the encoded records. Empty before the first record.
    buffer: Vec<u8>,
    /// Room to reserve for the next batch: what the last one needed.
    capacity: usize,
    /// Records in the buffer.
    record_count: u32,
    /// Timestamp of the first record. Meaningless without records.
    base_timestamp_ms: i64,
    /// Largest timestamp so far. Meaningless without records.
    max_timestamp_ms: i64,
}

impl fmt::Debug for BatchBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchBuilder")
            .field("options", &self.options)
            .field("records", &self.record_count)
            .field("bytes", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl BatchBuilder {
    /// An empty builder.
    pub fn new(compression: Compression, options: BuilderOptions) -> BatchBuilder {
        BatchBuilder {
            compression,
            options,
            compressor: None,
            buffer: Vec::new(),
            capacity: 0,
            record_count: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
        }
    }

    /// Records pushed since the last build.
    pub fn len(&self) -> usize {
        self.record_count as usize
    }

    /// True when no record was pushed since the last build.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch as it stands, header included, before compression.
    pub fn encoded_bytes(&self) -> usize {
        self.buffer.len().max(HEADER_BYTES)
    }

    /// Sets the producer's fields for the batch being built.
    pub fn set_producer(
        &mut self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        base_sequence: i32,
    ) {
        let options = self.options;
        self.options = BuilderOptions { producer_id, producer_epoch, base_sequence, ..options };
    }

    /// Appends a record.
    ///
    /// # Errors
    /// As [`BatchBuilder::push_parts`].
    pub fn push(&mut self, record: &Record) -> Result<(), EncodeError> {
        let Record { timestamp_ms, key, value, headers } = record;
        self.push_parts(*timestamp_ms, key.as_deref(), value.as_deref(), headers)
    }

    /// Appends a record given in parts.
    ///
    /// # Errors
    /// When the record is not allowed at all, or does not fit into this batch or any. The builder is
    /// then as it was.
    pub fn push_parts(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<(), EncodeError> {
        check::check_parts(key, headers)?;
        let base = if self.is_empty() { timestamp_ms } else { self.base_timestamp_ms };
        let timestamp_delta = timestamp_ms
            .checked_sub(base)
            .ok_or(RecordFault::Timestamp { timestamp_ms, base_ms: base })?;
        let offset_delta = i64::from(self.record_count);
        let fields_bytes = fields_bytes(key, value, headers);
        let record_bytes =
            1 + varint::len_i64(timestamp_delta) + varint::len_i64(offset_delta) + fields_bytes;
        self.make_room(len_length(record_bytes) + record_bytes)?;
        self.max_timestamp_ms =
            if self.is_empty() { timestamp_ms } else { self.max_timestamp_ms.max(timestamp_ms) };
        self.base_timestamp_ms = base;
        self.record_count += 1;

        let out = &mut self.buffer;
        write_length(out, record_bytes);
        out.push(0);
        varint::write_i64(out, timestamp_delta);
        varint::write_i64(out, offset_delta);
        write_nullable(out, key);
        write_nullable(out, value);
        write_length(out, headers.len());
        for header in headers {
            write_nullable(out, Some(&header.key));
            write_nullable(out, header.value.as_deref());
        }
        Ok(())
    }

    /// Makes the batch of the records pushed, and is empty afterwards.
    ///
    /// Base offset is 0 and the leader epoch unset: the broker stamps them.
    ///
    /// # Errors
    /// When there are no records, or the codec fails; the records are then still there.
    pub fn build(&mut self) -> Result<RecordBatch, EncodeError> {
        if self.is_empty() {
            return Err(EncodeError::Empty);
        }
        self.capacity = self.buffer.len();
        let codec = self.compression;
        let mut bytes = if codec == Compression::None {
            std::mem::take(&mut self.buffer)
        } else {
            self.compressed().map_err(|_| EncodeError::Compress { codec })?
        };
        let header = header::write(&mut bytes, self.header());
        self.clear();
        Ok(RecordBatch::from_parts(Bytes::from(bytes), header))
    }

    /// Forgets the records pushed.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.record_count = 0;
    }

    /// The header of the batch, without length and checksum.
    fn header(&self) -> BatchHeader {
        BatchHeader {
            base_offset: Offset::ZERO,
            total_bytes: 0,
            leader_epoch: LeaderEpoch(u32::MAX),
            crc: 0,
            attributes: self.compression.id(),
            last_offset_delta: self.record_count - 1,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            producer_id: self.options.producer_id,
            producer_epoch: self.options.producer_epoch,
            base_sequence: self.options.base_sequence,
            record_count: self.record_count,
        }
    }

    /// Compresses the records behind a gap for the header.
    fn compressed(&mut self) -> std::io::Result<Vec<u8>> {
        let mut compressor = match self.compressor.take() {
            Some(compressor) => compressor,
            None => Compressor::new(self.compression, self.options.compression_level)?,
        };
        let mut out = vec![0; HEADER_BYTES];
        compressor.compress(&self.buffer[HEADER_BYTES..], &mut out)?;
        self.compressor = Some(compressor);
        Ok(out)
    }

    /// Makes sure that `bytes` more fit, with a gap for the header before the first.
    fn make_room(&mut self, bytes: usize) -> Result<(), EncodeError> {
        let limit = self.options.bytes_max.min(limits::BATCH_BYTES_MAX as usize);
        let bytes = self.encoded_bytes().saturating_add(bytes);
        if bytes > limit && self.is_empty() {
            return Err(EncodeError::RecordTooLarge { bytes, limit });
        }
        if bytes > limit {
            return Err(EncodeError::BatchFull { bytes, limit });
        }
        if self.buffer.is_empty() {
            self.buffer.reserve(self.capacity.max(bytes));
            self.buffer.resize(HEADER_BYTES, 0);
        }
        Ok(())
    }
}

impl Record {
    /// Most bytes the record takes in a batch before compression, wherever in it it stands.
    pub fn encoded_bytes(&self) -> usize {
        let fields = fields_bytes(self.key.as_deref(), self.value.as_deref(), &self.headers);
        let record = 1 + varint::VARLONG_BYTES_MAX + varint::VARINT_BYTES_MAX + fields;
        len_length(record) + record
    }
}

/// Bytes of key, value and headers with their lengths.
fn fields_bytes(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) -> usize {
    let header_bytes = |header: &Header| {
        nullable_bytes(Some(&header.key)) + nullable_bytes(header.value.as_deref())
    };
    let headers_bytes: usize = headers.iter().map(header_bytes).sum();
    nullable_bytes(key) + nullable_bytes(value) + len_length(headers.len()) + headers_bytes
}

/// Bytes of a field behind its length.
fn nullable_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| len_length(bytes.len()) + bytes.len())
}

/// Appends a field behind its length; -1 stands for null.
fn write_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => varint::write_i64(out, -1),
        Some(bytes) => {
            write_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}

/// Bytes that a length takes.
fn len_length(length: usize) -> usize {
    varint::len_i64(length_i64(length))
}

/// Appends a length.
fn write_length(out: &mut Vec<u8>, length: usize) {
    varint::write_i64(out, length_i64(length));
}

/// A length as the codec writes it.
fn length_i64(length: usize) -> i64 {
    i64::try_from(length).expect("no slice is longer than isize::MAX")
}

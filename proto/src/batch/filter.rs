//! A batch with some of its records left out, as compaction keeps it.
//!
//! Kept records keep their bytes, offsets and timestamps; base offset, span and the producer's fields stay,
//! so offsets are never reused and idempotence still sees the whole sequence.

use bytes::Bytes;

use super::{
    Compression, DecodeError, HEADER_BYTES, RecordBatch, RecordView, Records,
    compression::Compressor, header,
};

impl RecordBatch {
    /// Keeps the records for which `keep` says true; `None` when it keeps none.
    ///
    /// The codec stays, unless it fails on the kept records: they are then stored uncompressed.
    ///
    /// # Errors
    /// When the records cannot be inflated within `inflated_bytes_max` or are malformed.
    pub fn retain(
        &self,
        inflated_bytes_max: usize,
        keep: impl FnMut(&RecordView<'_>) -> bool,
    ) -> Result<Option<RecordBatch>, DecodeError> {
        let records = self.records(inflated_bytes_max)?;
        self.kept(&records, self.header.compression()?, keep)
    }

    /// As [`RecordBatch::retain`], over the records of this batch, inflated before and not walked, and without the codec:
    /// what is kept of a compressed batch comes uncompressed, unless all of it is.
    ///
    /// # Errors
    /// When the records are malformed.
    pub fn pick(
        &self,
        records: &Records,
        keep: impl FnMut(&RecordView<'_>) -> bool,
    ) -> Result<Option<RecordBatch>, DecodeError> {
        self.kept(records, Compression::None, keep)
    }

    fn kept(
        &self,
        records: &Records,
        codec: Compression,
        mut keep: impl FnMut(&RecordView<'_>) -> bool,
    ) -> Result<Option<RecordBatch>, DecodeError> {
        let mut views = records.views();
        let mut kept = vec![0; HEADER_BYTES];
        let mut header = self.header;
        header.record_count = 0;
        let mut max_timestamp_ms = i64::MIN;
        let mut start = views.pos();
        while let Some(view) = views.next() {
            let view = view?;
            if keep(&view) {
                kept.extend_from_slice(&views.payload()[start..views.pos()]);
                header.record_count += 1;
                max_timestamp_ms = max_timestamp_ms.max(view.timestamp_ms);
            }
            start = views.pos();
        }
        if header.record_count == 0 {
            return Ok(None);
        }
        if header.record_count == self.header.record_count {
            return Ok(Some(self.clone()));
        }
        header.max_timestamp_ms = max_timestamp_ms;
        let (mut bytes, codec) = compress(codec, kept);
        header.attributes = header.attributes & !header::COMPRESSION_MASK | codec.id();
        let header = header::write(&mut bytes, header);
        Ok(Some(RecordBatch::from_parts(Bytes::from(bytes), header)))
    }
}

/// Compresses what stands behind the header's gap, if the codec can.
fn compress(codec: Compression, plain: Vec<u8>) -> (Vec<u8>, Compression) {
    if codec == Compression::None {
        return (plain, codec);
    }
    let mut out = vec![0; HEADER_BYTES];
    let compressed = Compressor::new(codec, None)
        .and_then(|mut compressor| compressor.compress(&plain[HEADER_BYTES..], &mut out));
    match compressed {
        Ok(()) => (out, codec),
        Err(_) => (plain, Compression::None),
    }
}

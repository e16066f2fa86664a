//! A batch with some of its records left out, as compaction keeps it.
//!
//! Kept records keep their bytes, offsets and timestamps; base offset, span and the producer's fields stay,
//! so offsets are never reused and idempotence still sees the whole sequence.

use bytes::Bytes;

use super::{
    Compression, DecodeError, HEADER_BYTES, RecordBatch, RecordView, Records,
    compression::Compressor, header,
};
use crate::Offset;

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
        mut keep: impl FnMut(&RecordView<'_>) -> bool,
    ) -> Result<Option<RecordBatch>, DecodeError> {
        let records = self.records(inflated_bytes_max)?;
        let mut kept = Kept::new();
        let mut views = records.views();
        let mut start = views.pos();
        while let Some(view) = views.next() {
            let view = view?;
            if keep(&view) {
                kept.add(&view, &views.payload()[start..views.pos()]);
            }
            start = views.pos();
        }
        Ok(self.of_kept(kept, self.header.compression()?))
    }

    /// The records at these offsets, which rise, out of `records`: those of this batch, inflated before, or the rest of them
    /// from a mark on. The walk ends behind the last one, and there is no codec: what is picked out of a compressed batch
    /// comes uncompressed, unless it is all of it. `None` when none is there.
    ///
    /// # Errors
    /// When the records are malformed.
    pub fn pick(
        &self,
        records: &Records,
        wanted: impl IntoIterator<Item = Offset>,
    ) -> Result<Option<RecordBatch>, DecodeError> {
        let mut wanted = wanted.into_iter().peekable();
        let mut kept = Kept::new();
        let mut views = records.views();
        let mut start = views.pos();
        while wanted.peek().is_some()
            && let Some(view) = views.next()
        {
            let view = view?;
            while wanted.next_if(|offset| *offset < view.offset).is_some() {}
            if wanted.next_if_eq(&view.offset).is_some() {
                kept.add(&view, &views.payload()[start..views.pos()]);
            }
            start = views.pos();
        }
        Ok(self.of_kept(kept, Compression::None))
    }

    /// The batch with these records of it.
    fn of_kept(&self, kept: Kept, codec: Compression) -> Option<RecordBatch> {
        if kept.record_count == 0 {
            return None;
        }
        let mut header = self.header;
        if kept.record_count == header.record_count {
            return Some(self.clone());
        }
        header.record_count = kept.record_count;
        header.max_timestamp_ms = kept.max_timestamp_ms;
        let (mut bytes, codec) = compress(codec, kept.bytes);
        header.attributes = header.attributes & !header::COMPRESSION_MASK | codec.id();
        let header = header::write(&mut bytes, header);
        Some(RecordBatch::from_parts(Bytes::from(bytes), header))
    }
}

/// Records that are kept, as they stand in their batch, behind room for a header.
struct Kept {
    bytes: Vec<u8>,
    record_count: u32,
    max_timestamp_ms: i64,
}

impl Kept {
    fn new() -> Kept {
        Kept { bytes: vec![0; HEADER_BYTES], record_count: 0, max_timestamp_ms: i64::MIN }
    }

    fn add(&mut self, view: &RecordView<'_>, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.record_count += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(view.timestamp_ms);
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

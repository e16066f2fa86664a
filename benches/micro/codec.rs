//! The record batch: made by a producer, checked by the broker, read by a consumer.

use std::hint::black_box;

use bytes::Bytes;
use riverrun_proto::{
    BatchBuilder, BuilderOptions, Compression, RecordBatch, batch::ProducedLimits,
    limits::INFLATED_BYTES_MAX,
};

use crate::Round;

/// Records of a batch.
pub(crate) const RECORDS: usize = 1_000;
/// Bytes of each value.
const VALUE_BYTES: usize = 100;
/// Timestamp of the first record.
const TIMESTAMP_MS: i64 = 1_700_000_000_000;

/// A batch of so many records without compression.
pub(crate) fn batch(records: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    fill(&mut builder, &Bytes::from(vec![0x5a; VALUE_BYTES]), records);
    builder.build().expect("it has records")
}

fn fill(builder: &mut BatchBuilder, value: &Bytes, records: usize) {
    for timestamp_ms in (TIMESTAMP_MS..).take(records) {
        builder.push_parts(timestamp_ms, None, Some(value), &[]).expect("it fits");
    }
}

/// Makes a batch.
pub(crate) fn build() -> Round {
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    let value = Bytes::from(vec![0x5a; VALUE_BYTES]);
    Box::new(move || {
        fill(&mut builder, &value, RECORDS);
        black_box(builder.build().expect("it has records"));
    })
}

/// Checks a batch as the broker does before it is stored.
pub(crate) fn check() -> Round {
    let bytes = batch(RECORDS).as_bytes().clone();
    Box::new(move || {
        let batch = RecordBatch::decode(bytes.clone()).expect("it is sound");
        batch.check_produced(ProducedLimits::default()).expect("it is sound");
    })
}

/// Reads every record of a batch, owned.
pub(crate) fn read() -> Round {
    let batch = batch(RECORDS);
    Box::new(move || {
        for record in batch.records(INFLATED_BYTES_MAX).expect("it is sound") {
            black_box(record.expect("it is sound"));
        }
    })
}

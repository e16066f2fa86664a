//! Shared by the tests of the log: small options, batches whose records say who they are, whole reads.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use riverrun_proto::{
    Offset, PartitionId, ProducerEpoch, ProducerId, RecordBatch, TopicId,
    batch::{BatchBuilder, BuilderOptions, Compression},
};
use uuid::Uuid;

use crate::{Log, LogOptions, LogReader, OpenedLog, ReadError, Timestamp, disk::sim::SimDisk};

/// Directory of the log under test.
pub(crate) const DIR: &str = "logs/t/0";

/// Options under which a handful of batches rolls.
pub(crate) fn options() -> LogOptions {
    LogOptions {
        topic_id: TopicId(Uuid::from_u128(0x7e57)),
        partition: PartitionId(0),
        segment_bytes_max: 16 << 10,
        segment_age_max: Duration::from_secs(3600),
        batch_bytes_max: 64 << 10,
        index_interval_bytes: 256,
        producer_count_max: 100,
        producer_age_max: Duration::from_secs(3600),
        sealed_files_max: 2,
    }
}

/// Opens the log under test.
#[track_caller]
pub(crate) fn open(disk: &SimDisk) -> OpenedLog {
    try_open(disk).unwrap()
}

/// Tries to open the log under test.
pub(crate) fn try_open(disk: &SimDisk) -> Result<OpenedLog, crate::StorageError> {
    Log::open(Arc::new(disk.clone()), DIR, options(), Timestamp(1_000))
}

/// A batch of records with these values, all stamped `timestamp`.
pub(crate) fn batch(values: &[&str], timestamp: i64) -> RecordBatch {
    let values: Vec<_> =
        values.iter().map(|value| (timestamp, value.as_bytes().to_vec())).collect();
    build(&values, BuilderOptions::default(), Compression::None)
}

/// A batch of an idempotent producer.
pub(crate) fn produced(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> RecordBatch {
    let options = BuilderOptions {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: sequence,
        ..BuilderOptions::default()
    };
    let values: Vec<_> = values.iter().map(|value| (1_000, value.as_bytes().to_vec())).collect();
    build(&values, options, Compression::None)
}

/// A batch of records given as timestamp and value.
pub(crate) fn build(
    records: &[(i64, Vec<u8>)],
    options: BuilderOptions,
    compression: Compression,
) -> RecordBatch {
    let mut builder = BatchBuilder::new(compression, options);
    for (timestamp, value) in records {
        builder.push_parts(*timestamp, None, Some(value), &[]).unwrap();
    }
    builder.build().unwrap()
}

/// Every record from the log start to the log end: offset and value.
#[track_caller]
pub(crate) fn read_all(reader: &LogReader) -> Vec<(u64, Bytes)> {
    let offsets = reader.offsets();
    read_range(reader, offsets.log_start, offsets.log_end, 700).unwrap()
}

/// Every record from `from` to `to`, read in runs of `bytes_max`.
pub(crate) fn read_range(
    reader: &LogReader,
    from: Offset,
    to: Offset,
    bytes_max: usize,
) -> Result<Vec<(u64, Bytes)>, ReadError> {
    let mut records = Vec::new();
    let mut next = from;
    while next < to {
        let run = reader.read(next, to, bytes_max)?;
        assert!(run.next_offset > next, "reading at {next} of {to} made no progress");
        for batch in RecordBatch::split(&run.bytes) {
            for record in batch.unwrap().records(1 << 20).unwrap() {
                let record = record.unwrap();
                if record.offset >= next {
                    records.push((record.offset.0, record.record.value.unwrap()));
                }
            }
        }
        next = run.next_offset;
    }
    Ok(records)
}

/// Numbers from a seed (xorshift), the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The generator of `seed`.
    pub(crate) fn new(seed: u64) -> Rng {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        rng.next();
        rng.next();
        rng
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The first seed of a randomised test: `SEED` when it is set.
pub(crate) fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

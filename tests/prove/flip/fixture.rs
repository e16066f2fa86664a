//! What is damaged: one log with every kind of file, stopped in order or killed with a tail that was never flushed.

use std::{path::Path, sync::Arc, time::Duration};

use riverrun_proto::{
    PartitionId, ProducerEpoch, ProducerId, RecordBatch, TopicId,
    batch::{BatchBuilder, BuilderOptions, Compression},
};
use riverrun_storage::{
    Log, LogOptions, OpenedLog, StorageError, Timestamp,
    disk::{Disk, OpenMode, sim::SimDisk},
};
use uuid::Uuid;

/// Directory of the log.
pub(super) const DIR: &str = "logs/t/0";
/// Records, one per batch but for every fourth batch, which has three.
const BATCHES: u64 = 90;
/// Batches that are appended and never flushed, where the log is killed.
const TAIL: u64 = 3;

/// A log to damage, and what it held.
pub(super) struct Fixture {
    pub(super) disk: SimDisk,
    /// Everything below was flushed.
    pub(super) durable: u64,
    pub(super) log_end: u64,
    /// Whether it was closed in order.
    pub(super) clean: bool,
    /// Every file with its length up to the last byte that is not zero.
    pub(super) files: Vec<(String, u64)>,
}

/// Options of the log: a handful of segments and an index entry every few batches.
fn options() -> LogOptions {
    LogOptions {
        topic_id: TopicId(Uuid::from_u128(0x7e57)),
        partition: PartitionId(0),
        segment_bytes_max: 20 << 10,
        segment_age_max: Duration::from_secs(3600),
        batch_bytes_max: 16 << 10,
        index_interval_bytes: 512,
        producer_count_max: 100,
        producer_age_max: Duration::from_secs(3600),
        sealed_files_max: 2,
    }
}

/// Opens the log on a disk.
pub(super) fn open(disk: &SimDisk) -> Result<OpenedLog, StorageError> {
    Log::open(Arc::new(disk.clone()), DIR, options(), Timestamp(1_000_000))
}

/// Value of the record at `offset`: text that names it, filled up.
pub(super) fn value(offset: u64) -> Vec<u8> {
    let mut value = format!("record {offset} ").into_bytes();
    value.resize(200 + usize::try_from(offset % 7).unwrap_or(0) * 40, b'.');
    value
}

/// Timestamp of the record at `offset`.
pub(super) fn timestamp(offset: u64) -> i64 {
    1_000 + i64::try_from(offset).unwrap_or(0) * 10
}

/// A batch of an idempotent producer with these offsets' records.
pub(super) fn batch(base: u64, count: u64) -> RecordBatch {
    let options = BuilderOptions {
        producer_id: ProducerId(7),
        producer_epoch: ProducerEpoch(0),
        base_sequence: i32::try_from(base).unwrap_or(0),
        ..BuilderOptions::default()
    };
    let mut builder = BatchBuilder::new(Compression::None, options);
    for offset in base..base + count {
        builder
            .push_parts(timestamp(offset), None, Some(&value(offset)), &[])
            .expect("a record within the limits");
    }
    builder.build().expect("a batch within the limits")
}

/// Builds the log.
pub(super) fn build(clean: bool) -> Fixture {
    let disk = SimDisk::new(1);
    for dir in ["logs", "logs/t", DIR] {
        disk.create_dir(Path::new(dir)).expect("an empty disk");
    }
    let mut log = open(&disk).expect("an empty log");
    let mut durable = 0;
    for number in 0..BATCHES {
        let base = log.writer.log_end().0;
        let batch = batch(base, if number % 4 == 3 { 3 } else { 1 });
        log.writer.append(&batch, Timestamp(timestamp(base))).expect("appended");
        let flushed = clean || number < BATCHES - TAIL;
        if flushed && number % 5 != 4 {
            durable = log.flusher.flush().expect("flushed").0;
        }
    }
    if !clean {
        log.flusher.sync_mark().expect("a mark");
    }
    let log_end = log.writer.log_end().0;
    if clean {
        log.writer.close().expect("closed");
        durable = log_end;
    }
    let disk = disk.kill();
    let files = files_of(&disk, Path::new(DIR));
    Fixture { disk, durable, log_end, clean, files }
}

/// Files of a directory, each with its length up to the last byte that is not zero.
pub(super) fn files_of(disk: &SimDisk, dir: &Path) -> Vec<(String, u64)> {
    let entries = disk.list(dir).expect("a directory");
    let used = |name: &str| {
        let file = disk.open(&dir.join(name), OpenMode::Read).expect("a file");
        let mut bytes = vec![0; usize::try_from(file.len()).expect("a small file")];
        file.read_at(0, &mut bytes).expect("read");
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
    };
    entries.into_iter().map(|entry| (entry.name.clone(), used(&entry.name))).collect()
}

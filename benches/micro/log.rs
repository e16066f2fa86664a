//! A partition's log on a real file system, in a folder that goes away.

use std::{hint::black_box, sync::Arc, time::Duration};

use riverrun_proto::{Offset, PartitionId, TopicId};
use riverrun_storage::{
    INDEX_INTERVAL_BYTES, Log, LogOptions, OpenedLog, PRODUCER_COUNT_MAX, SEALED_FILES_MAX,
    Timestamp,
    disk::{RealDisk, RealDiskOptions},
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{Round, codec};

/// Records of a batch that is appended.
pub(crate) const RECORDS: usize = 100;
/// Batches of one record that a round appends.
pub(crate) const SINGLES: usize = 100;
/// Records of the log that is read.
pub(crate) const STORED: usize = 10_000;
/// Most bytes of one read.
const READ_BYTES: usize = 256 << 10;
const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// An empty log; its folder is removed with the result.
fn open() -> (OpenedLog, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    // The same code on every file system: mapped, also where that would not keep anything.
    let options = RealDiskOptions { map_on_tmpfs: true };
    let disk = Arc::new(RealDisk::open(folder.path(), options).expect("it is there"));
    let options = LogOptions {
        topic_id: TopicId(Uuid::nil()),
        partition: PartitionId(0),
        segment_bytes_max: 1 << 30,
        segment_age_max: Duration::MAX,
        batch_bytes_max: 4 << 20,
        index_interval_bytes: INDEX_INTERVAL_BYTES,
        producer_count_max: PRODUCER_COUNT_MAX,
        producer_age_max: Duration::MAX,
        sealed_files_max: SEALED_FILES_MAX,
    };
    (Log::open(disk, "log", options, NOW).expect("an empty log"), folder)
}

/// Appends a batch.
pub(crate) fn append() -> Round {
    let (mut log, folder) = open();
    let batch = codec::batch(RECORDS);
    Box::new(move || {
        let _kept = &folder;
        black_box(log.writer.append(&batch, NOW).expect("there is room"));
    })
}

/// Appends batches of one record.
pub(crate) fn append_single() -> Round {
    let (mut log, folder) = open();
    let batch = codec::batch(1);
    Box::new(move || {
        let _kept = &folder;
        for _ in 0..SINGLES {
            black_box(log.writer.append(&batch, NOW).expect("there is room"));
        }
    })
}

/// Appends a batch and makes it durable.
pub(crate) fn flush() -> Round {
    let (mut log, folder) = open();
    let batch = codec::batch(RECORDS);
    Box::new(move || {
        let _kept = &folder;
        log.writer.append(&batch, NOW).expect("there is room");
        black_box(log.flusher.flush().expect("the disk takes it"));
    })
}

/// Reads the log from its beginning to its end, as a consumer would that is behind.
pub(crate) fn fetch() -> Round {
    let (mut log, folder) = open();
    let batch = codec::batch(RECORDS);
    for _ in 0..STORED / RECORDS {
        log.writer.append(&batch, NOW).expect("there is room");
    }
    let end = Offset(STORED as u64);
    Box::new(move || {
        let _kept = &folder;
        let mut from = Offset(0);
        while from < end {
            from = log.reader.read(from, end, READ_BYTES).expect("it is sound").next_offset;
        }
    })
}

//! A small log on a simulated disk: made, taken apart into files, put together again, opened and read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use riverrun_proto::{
    Offset, PartitionId, ProducerEpoch, ProducerId, RecordBatch, TopicId,
    batch::{BatchBuilder, BuilderOptions, Compression},
};
use riverrun_storage::{
    Log, LogOptions, LogReader, OpenedLog, ReadError, StorageError, Timestamp,
    disk::{
        Disk, OpenMode,
        sim::{CrashPolicy, SimDisk},
    },
};
use uuid::Uuid;

/// Directory of the log.
const DIR: &str = "log";
/// Longest walk over a log that its files say is longer.
const STEPS_MAX: usize = 400;
/// Age at which a segment is sealed.
const SEGMENT_AGE: Duration = Duration::from_secs(60);
/// When a log that was made before is opened.
pub(crate) const NOW: Timestamp = Timestamp(10_000_000);

/// Files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// What was read of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// Values by offset.
    pub(crate) records: BTreeMap<u64, Option<Bytes>>,
    /// Batches as they came.
    pub(crate) batches: BTreeSet<Bytes>,
    /// Offsets at which damage was named.
    pub(crate) damaged: Vec<u64>,
    /// First offset, and the end.
    pub(crate) range: (u64, u64),
    /// It said nothing at some offset: neither records nor damage.
    pub(crate) stuck: bool,
}

fn options() -> LogOptions {
    LogOptions {
        topic_id: TopicId(Uuid::from_u128(0x7e57)),
        partition: PartitionId(0),
        segment_bytes_max: 8 << 10,
        segment_age_max: SEGMENT_AGE,
        batch_bytes_max: 64 << 10,
        index_interval_bytes: 64,
        producer_count_max: 10,
        producer_age_max: Duration::from_secs(3_600),
        sealed_files_max: 2,
    }
}

/// Opens the log of `disk`.
pub(crate) fn open(disk: &SimDisk) -> Result<OpenedLog, StorageError> {
    Log::open(Arc::new(disk.clone()), DIR, options(), NOW)
}

/// Opens the log of `disk` for reading only.
pub(crate) fn open_read_only(disk: &SimDisk) -> Result<OpenedLog, StorageError> {
    Log::open_read_only(Arc::new(disk.clone()), DIR, options(), NOW)
}

/// Names of the files of a segment that begins at `base`.
pub(crate) fn name(base: u64, ending: &str) -> String {
    format!("{base:020}.{ending}")
}

/// A disk on which these files are durable.
pub(crate) fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new(1);
    let dir = Path::new(DIR);
    disk.create_dir(dir).expect("an empty disk");
    disk.sync_dir(Path::new("")).expect("no fault is planned");
    for (name, bytes) in files {
        let file = disk.open(&dir.join(name), OpenMode::CreateNew).expect("names differ");
        file.allocate(bytes.len() as u64).expect("no fault is planned");
        file.write_at(0, &[bytes]).expect("allocated before");
        file.sync().expect("no fault is planned");
    }
    disk.sync_dir(dir).expect("no fault is planned");
    disk
}

/// The files of the log of `disk`.
pub(crate) fn files_of(disk: &SimDisk) -> Files {
    let dir = PathBuf::from(DIR);
    let entries = disk.list(&dir).expect("the log was made").into_iter();
    entries
        .map(|entry| {
            let file = disk.open(&dir.join(&entry.name), OpenMode::Read).expect("listed");
            let mut bytes = vec![0; usize::try_from(file.len()).expect("a small file")];
            file.read_at(0, &mut bytes).expect("no fault is planned");
            (entry.name, bytes)
        })
        .collect()
}

/// The disk after a power cut that takes everything that was not durable.
pub(crate) fn crashed(disk: &SimDisk) -> SimDisk {
    disk.crash(CrashPolicy::lose_all())
}

/// A batch of these values by an idempotent producer.
fn batch(sequence: i32, values: &[&str], compression: Compression) -> RecordBatch {
    let options = BuilderOptions {
        producer_id: ProducerId(9),
        producer_epoch: ProducerEpoch(0),
        base_sequence: sequence,
        ..BuilderOptions::default()
    };
    let mut builder = BatchBuilder::new(compression, options);
    for value in values {
        builder.push_parts(1_000, Some(b"k"), Some(value.as_bytes()), &[]).expect("small");
    }
    builder.build().expect("it has records")
}

/// A batch of nobody's.
pub(crate) fn plain_batch() -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    builder.push_parts(2_000, None, Some(b"behind it"), &[]).expect("small");
    builder.build().expect("it has a record")
}

/// The files of a log of three segments: closed, or as a killed process leaves them, with one batch that was never flushed.
pub(crate) fn made(closed: bool) -> Files {
    let disk = SimDisk::new(1);
    let mut log =
        Log::open(Arc::new(disk.clone()), DIR, options(), Timestamp(1_000)).expect("empty");
    let mut sequence = 0;
    let batches = [
        (1_000, &["a", "b"][..], Compression::None),
        (1_000, &["c"], Compression::Lz4),
        (100_000, &["d", "e", "f"], Compression::None),
        (200_000, &["g"], Compression::None),
        (200_000, &["h", "i"], Compression::None),
    ];
    for (time, values, compression) in batches {
        log.flusher.flush().expect("no fault is planned");
        let batch = batch(sequence, values, compression);
        log.writer.append(&batch, Timestamp(time)).expect("it fits");
        sequence += i32::try_from(values.len()).expect("few");
    }
    if closed {
        log.flusher.flush().expect("no fault is planned");
        log.writer.close().expect("no fault is planned");
        return files_of(&disk);
    }
    files_of(&disk.copy())
}

/// Reads the whole log. Whatever its files hold: a run is whole batches with checksums that hold, its offsets rise, and damage that is
/// named leads past the offset that was asked for.
pub(crate) fn read(reader: &LogReader) -> Read {
    let offsets = reader.offsets();
    let (start, end) = (offsets.log_start, offsets.log_end);
    assert!(start <= offsets.flushed && offsets.flushed <= end, "{offsets:?}");
    let mut read = Read { range: (start.0, end.0), ..Read::default() };
    let mut next = start;
    for _ in 0..STEPS_MAX {
        if next >= end {
            break;
        }
        match reader.read(next, end, 100) {
            Ok(run) if run.next_offset <= next => {
                assert!(run.bytes.is_empty() && run.next_offset == next, "{run:?} at {next}");
                read.stuck = true;
                break;
            }
            Ok(run) => {
                take(&mut read, &run.bytes, (next, run.next_offset));
                next = run.next_offset;
            }
            Err(ReadError::Corrupt(damage)) => {
                // It may begin later: what compaction took away before it is passed in silence.
                assert!(damage.offsets.end > next, "asked for {next}: {damage}");
                read.damaged.push(next.0);
                next = damage.offsets.end;
            }
            Err(other) => panic!("at {next}: {other}"),
        }
    }
    read
}

fn take(read: &mut Read, bytes: &Bytes, (from, until): (Offset, Offset)) {
    for batch in RecordBatch::split(bytes) {
        let batch = batch.expect("only whole batches are read");
        assert!(batch.end_offset() > from && batch.end_offset() <= until, "a batch of the run");
        read.batches.insert(batch.as_bytes().clone());
        let Ok(records) = batch.records(1 << 16) else { continue };
        for record in records.map_while(Result::ok).filter(|record| record.offset >= from) {
            let before = read.records.insert(record.offset.0, record.record.value);
            assert!(before.is_none(), "offset {} came twice", record.offset);
        }
    }
}

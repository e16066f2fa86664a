use std::path::Path;

use riverrun_proto::{LeaderEpoch, Offset};

use super::{fill, filled};
use crate::{
    LogOffsets, ReadError, RecoveryVerdict,
    disk::{Disk, sim::SimDisk},
    testing::*,
};

#[test]
fn a_new_log_is_empty_and_takes_a_few_kilobytes() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    assert!(log.report.created);
    assert_eq!(log.report.verdict, RecoveryVerdict::Trusted);
    assert_eq!(log.reader.offsets(), LogOffsets::default());
    assert_eq!(log.reader.segment_count(), 1);
    assert_eq!(log.reader.index_memory_bytes(), 0);
    let bytes: u64 = disk.list(Path::new(DIR)).unwrap().iter().map(|entry| entry.len).sum();
    assert!(bytes <= 8192, "{bytes} bytes on disk");
    let run = log.reader.read(Offset(0), Offset(10), 100).unwrap();
    assert!(run.bytes.is_empty() && run.next_offset == Offset(0));
}

#[test]
fn what_is_appended_is_read_back_over_rolls_and_a_clean_reopen() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 200);
    assert_eq!(log.flusher.flush().unwrap(), Offset(400));
    assert!(log.reader.segment_count() > 4, "{}", log.reader.segment_count());
    assert_eq!(read_all(&log.reader), filled(0, 400));
    for bytes_max in [1, 500, 5_000, 1 << 20] {
        let (from, to) = (Offset(133), Offset(300));
        let read = read_range(&log.reader, from, to, bytes_max).unwrap();
        assert_eq!(read, filled(133, 300), "{bytes_max}");
    }
    log.writer.close().unwrap();
    let mut log = open(&disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Trusted);
    assert_eq!(log.report.scanned_bytes, 0);
    assert_eq!(read_all(&log.reader), filled(0, 400));
    fill(&mut log, 100);
    assert_eq!(read_all(&log.reader), filled(0, 600));
}

#[test]
fn indexes_and_snapshots_may_be_deleted_at_any_time() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 100);
    log.writer.close().unwrap();
    for entry in disk.list(Path::new(DIR)).unwrap() {
        if entry.name.ends_with(".index") || entry.name.ends_with(".producers") {
            disk.remove_file(&Path::new(DIR).join(entry.name)).unwrap();
        }
    }
    let log = open(&disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Trusted);
    assert_eq!(read_range(&log.reader, Offset(44), Offset(200), 900).unwrap(), filled(44, 200));
}

#[test]
fn a_run_holds_whole_batches_below_the_limit() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 10);
    let read = |from, limit, bytes_max| {
        let run = log.reader.read(Offset(from), Offset(limit), bytes_max).unwrap();
        (run.base_offset.0, run.next_offset.0, run.record_count, run.leader_epoch)
    };
    let epoch = LeaderEpoch(1);
    assert_eq!(read(0, 20, 1), (0, 2, 2, epoch), "the first batch comes even when it is larger");
    assert_eq!(read(3, 20, 1), (2, 4, 2, epoch), "the batch that holds the offset");
    assert_eq!(read(3, 20, 1 << 20), (2, 20, 18, epoch));
    assert_eq!(read(3, 9, 1 << 20), (2, 8, 6, epoch), "no record past the limit");
    assert_eq!(read(4, 5, 1 << 20), (4, 4, 0, LeaderEpoch(0)), "not a part of a batch");
    assert_eq!(read(20, 20, 1 << 20), (20, 20, 0, LeaderEpoch(0)));
}

#[test]
fn offsets_outside_the_log_are_refused_with_its_range() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 10);
    log.writer.drop_before(Offset(6)).unwrap();
    for requested in [0, 5, 21] {
        let refused = log.reader.read(Offset(requested), Offset(99), 100);
        let Err(ReadError::OutOfRange { log_start, log_end, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((log_start, log_end), (Offset(6), Offset(20)));
    }
}

#[test]
fn sealed_files_held_open_are_bounded_and_close_when_idle() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 200);
    log.flusher.flush().unwrap();
    assert_eq!(read_all(&log.reader), filled(0, 400));
    let held = log.reader.index_memory_bytes();
    log.reader.close_idle_files();
    assert!(log.reader.index_memory_bytes() < held);
    assert_eq!(read_all(&log.reader), filled(0, 400));
}

#[test]
fn a_reader_follows_a_writer_on_another_thread() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let (reader, flusher) = (log.reader.clone(), log.flusher.clone());
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut records = Vec::new();
            while records.len() < 2_000 {
                let next = Offset(records.len() as u64);
                let end = reader.offsets().log_end;
                records.extend(read_range(&reader, next, end, 3_000).unwrap());
            }
            records
        });
        let flushing = scope.spawn(move || {
            while flusher.flush().unwrap() < Offset(2_000) {
                flusher.sync_mark().unwrap();
            }
        });
        fill(&mut log, 1_000);
        assert!(reading.join().unwrap() == filled(0, 2_000));
        flushing.join().unwrap();
    });
}

use std::{path::Path, time::Duration};

use riverrun_proto::Offset;

use super::{fill, filled};
use crate::{
    RetentionPolicy, StorageError, Timestamp,
    disk::{
        Disk,
        sim::{CrashPolicy, SimDisk},
    },
    testing::*,
};

/// Segment files in the directory.
fn files(disk: &SimDisk) -> usize {
    let entries = disk.list(Path::new(DIR)).unwrap();
    entries.iter().filter(|entry| entry.name.ends_with(".log")).count()
}

#[test]
fn retention_by_size_keeps_at_least_the_limit() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 300);
    let before = log.reader.size_bytes();
    let policy = RetentionPolicy { age_max: None, bytes_max: Some(before / 2) };
    let dropped = log.writer.apply_retention(Timestamp(20_000), &policy).unwrap();
    assert!(dropped.segment_count > 0);
    let after = log.reader.size_bytes();
    assert_eq!(after + dropped.bytes, before);
    assert!(after >= before / 2 && after < before / 2 + (16 << 10) + 4096, "{after} of {before}");
    assert_eq!(log.reader.offsets().log_start, dropped.log_start);
    assert_eq!(read_all(&log.reader), filled(dropped.log_start.0, 600));
    assert_eq!(files(&disk), log.reader.segment_count());
}

#[test]
fn retention_by_age_drops_even_the_active_segment_and_offsets_go_on() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 100);
    let policy = RetentionPolicy { age_max: Some(Duration::from_secs(5)), bytes_max: None };
    let kept = log.writer.apply_retention(Timestamp(15_000), &policy).unwrap();
    assert_eq!(kept.segment_count, 0, "exactly as old as allowed");
    log.writer.apply_retention(Timestamp(15_001), &policy).unwrap();
    assert_eq!(log.reader.offsets().log_start, Offset(200));
    assert_eq!(files(&disk), 1);
    fill(&mut log, 1);
    assert_eq!(read_all(&log.reader), filled(200, 202));
    log.flusher.flush().unwrap();
    let log = open(&disk.crash(CrashPolicy::lose_all()));
    assert_eq!(read_all(&log.reader), filled(200, 202));
}

#[test]
fn a_segment_that_grew_old_is_sealed_although_nothing_is_appended() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    assert!(!log.writer.roll_if_old(Timestamp(i64::MAX)).unwrap(), "an empty one stays");
    fill(&mut log, 1);
    let first = 10_000;
    let age = i64::try_from(options().segment_age_max.as_millis()).unwrap();
    let segments = log.reader.segment_count();
    assert!(!log.writer.roll_if_old(Timestamp(first + age - 1)).unwrap());
    assert!(log.writer.roll_if_old(Timestamp(first + age)).unwrap());
    assert_eq!(log.reader.segment_count(), segments + 1);
    assert!(!log.writer.roll_if_old(Timestamp(i64::MAX)).unwrap(), "once");
    let log = open(&disk.crash(CrashPolicy::lose_all()));
    assert_eq!(read_all(&log.reader), filled(0, 2));
}

#[test]
fn a_log_start_survives_and_readers_of_dropped_segments_finish() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 100);
    let early = log.reader.read(Offset(0), Offset(200), 100).unwrap();
    let dropped = log.writer.drop_before(Offset(77)).unwrap();
    assert!(dropped.segment_count >= 1);
    assert_eq!(early.next_offset, Offset(2));
    assert_eq!(read_all(&log.reader), filled(77, 200));
    let again = log.writer.drop_before(Offset(70)).unwrap();
    assert_eq!((again.segment_count, again.log_start), (0, Offset(77)));
    let past = log.writer.drop_before(Offset(201));
    assert!(matches!(past, Err(StorageError::OutOfRange { .. })));
    log.writer.drop_before(Offset(200)).unwrap();
    let log = open(&disk.crash(CrashPolicy::lose_all()));
    assert_eq!(log.reader.offsets().log_start, Offset(200));
    assert_eq!(log.writer.log_end(), Offset(200));
}

#[test]
fn a_removed_log_is_gone_and_can_be_made_anew() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 100);
    drop(log);
    crate::Log::remove(&disk, Path::new(DIR)).unwrap();
    crate::Log::remove(&disk, Path::new(DIR)).unwrap();
    let log = open(&disk);
    assert!(log.report.created);
    assert_eq!(log.writer.log_end(), Offset(0));
}

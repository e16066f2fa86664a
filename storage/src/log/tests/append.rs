use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use riverrun_proto::Offset;

use super::{fill, filled};
use crate::{
    AppendError, LogFailure, LogOptions, OpenedLog, ReadError, StorageError, Timestamp,
    disk::{
        Disk,
        sim::{Call, CrashPolicy, Fault, FaultError, SimDisk, Survival},
    },
    testing::*,
};

fn fault(call: Call, error: FaultError) -> Fault {
    Fault { call, nth: 1, error, lasting: false }
}

#[test]
fn a_failed_flush_stops_the_log_at_its_flushed_offset() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    assert_eq!(log.flusher.flush().unwrap(), Offset(10));
    fill(&mut log, 5);
    disk.inject(fault(Call::Sync, FaultError::Io));
    assert!(matches!(log.flusher.flush(), Err(StorageError::Failed(LogFailure::Io(_)))));
    // No retry: the disk would say yes now, and lie.
    assert!(matches!(log.flusher.flush(), Err(StorageError::Failed(_))));
    assert!(matches!(log.flusher.sync_mark(), Err(StorageError::Failed(_))));
    let refused = log.writer.append(&batch(&["x"], 1), Timestamp(1));
    assert!(matches!(refused, Err(AppendError::Failed(_))));
    assert_eq!(log.reader.offsets().log_end, Offset(10), "nothing above the mark is shown");
    assert_eq!(read_all(&log.reader), filled(0, 10));
    let above = log.reader.read(Offset(12), Offset(20), 100);
    assert!(matches!(above, Err(ReadError::Failed(_))), "{above:?}");
    assert!(log.reader.failure().is_some());
    assert!(log.writer.close().is_err());

    // The next process reads the failed group from the cache; it must not vanish once served.
    let disk = disk.kill();
    let log = open(&disk);
    let served = read_all(&log.reader);
    assert!(served.len() >= 10);
    let log = open(&disk.crash(CrashPolicy::lose_all()));
    assert_eq!(read_all(&log.reader), served);
}

#[test]
fn a_log_whose_file_was_removed_acknowledges_nothing_more() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    assert_eq!(log.flusher.flush().unwrap(), Offset(10));
    let dir = Path::new(DIR);
    for entry in disk.list(dir).unwrap() {
        disk.remove_file(&dir.join(entry.name)).unwrap();
    }
    fill(&mut log, 5);
    let refused = log.flusher.flush();
    assert!(matches!(refused, Err(StorageError::Failed(LogFailure::Io(_)))), "{refused:?}");
    assert_eq!(log.reader.offsets().log_end, Offset(10), "nothing above the mark is shown");
}

#[test]
fn a_full_disk_refuses_and_the_log_goes_on_when_space_returns() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 60);
    log.flusher.flush().unwrap();
    let offsets = log.reader.offsets();
    disk.set_capacity(Some(0));
    let mut refused = 0;
    for _ in 0..200 {
        let large = "x".repeat(3_000);
        match log.writer.append(&batch(&[&large], 1), Timestamp(1)) {
            Ok(_) => {}
            Err(AppendError::DiskFull(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 100, "{refused}");
    assert!(log.reader.failure().is_none());
    let end = log.flusher.flush().unwrap();
    assert!(end >= offsets.log_end, "flushing goes on");
    assert_eq!(read_range(&log.reader, Offset(0), Offset(120), 900).unwrap(), filled(0, 120));
    disk.set_capacity(None);
    let appended = log.writer.append(&batch(&["back"], 1), Timestamp(1)).unwrap();
    assert_eq!(appended.base_offset, end, "no offset was used up");
    log.flusher.flush().unwrap();
    let log = open(&disk.crash(CrashPolicy::lose_all()));
    assert_eq!(log.reader.offsets().log_end, Offset(end.0 + 1));
}

#[test]
fn a_refused_roll_leaves_the_segment_open() {
    for call in [Call::Create, Call::Allocate, Call::Write, Call::Rename] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        fill(&mut log, 3);
        disk.inject(fault(call, FaultError::NoSpace));
        let refused = log.writer.roll(Timestamp(1));
        assert!(matches!(refused, Err(AppendError::DiskFull(_))), "{call:?}: {refused:?}");
        assert_eq!(log.reader.segment_count(), 1);
        fill(&mut log, 3);
        log.writer.roll(Timestamp(1)).unwrap();
        assert_eq!(log.reader.segment_count(), 2);
        fill(&mut log, 3);
        log.flusher.flush().unwrap();
        let log = open(&disk.crash(CrashPolicy::lose_all()));
        assert_eq!(read_all(&log.reader), filled(0, 18), "{call:?}");
    }
}

#[test]
fn batches_over_the_limit_are_refused_and_larger_than_a_segment_taken() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let value = |bytes| "y".repeat(bytes);
    let over = log.writer.append(&batch(&[&value(70_000)], 1), Timestamp(1));
    assert!(matches!(over, Err(AppendError::BatchTooLarge { max: 65_536, .. })), "{over:?}");
    for _ in 0..3 {
        log.writer.append(&batch(&[&value(60_000)], 1), Timestamp(1)).unwrap();
    }
    assert_eq!(log.reader.segment_count(), 3);
    assert_eq!(read_all(&log.reader).len(), 3);
    let larger = LogOptions { batch_bytes_max: 200_000, ..options() };
    log.writer.set_options(larger).unwrap();
    log.writer.append(&batch(&[&value(150_000)], 1), Timestamp(1)).unwrap();
    assert_eq!(read_all(&log.reader).len(), 4);
    log.writer.close().unwrap();
    assert_eq!(read_all(&open(&disk).reader).len(), 4);
}

#[test]
fn an_empty_segment_made_for_small_batches_takes_a_larger_one() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    log.writer.set_options(LogOptions { batch_bytes_max: 200_000, ..options() }).unwrap();
    log.writer.append(&batch(&["z".repeat(150_000).as_str()], 1), Timestamp(1)).unwrap();
    log.flusher.flush().unwrap();
    assert_eq!(log.reader.segment_count(), 1);
    let log = open(&disk.crash(CrashPolicy::lose_all()));
    assert_eq!(read_all(&log.reader).len(), 1);
}

/// An open log whose active segment is empty and too small for large batches, and its records.
fn with_small_empty_segment(disk: &SimDisk, rolled: bool) -> (OpenedLog, u64) {
    let mut log = open(disk);
    let end = if rolled { 6 } else { 0 };
    if rolled {
        fill(&mut log, 3);
        log.writer.roll(Timestamp(1)).unwrap();
    }
    log.flusher.flush().unwrap();
    log.writer.set_options(LogOptions { batch_bytes_max: 200_000, ..options() }).unwrap();
    (log, end)
}

#[test]
fn a_power_loss_while_an_empty_segment_is_replaced_loses_nothing() {
    let names_only = CrashPolicy { names: Survival::Everything, ..CrashPolicy::lose_all() };
    let fixed = [CrashPolicy::lose_all(), CrashPolicy::keep_all(), names_only];
    let policies = fixed.into_iter().chain((0..8).map(CrashPolicy::random));
    let large = batch(&["z".repeat(150_000).as_str()], 1);
    for (policy, rolled) in policies.flat_map(|policy| [(policy, false), (policy, true)]) {
        for step in 1.. {
            let disk = SimDisk::new(1);
            let (mut log, end) = with_small_empty_segment(&disk, rolled);
            disk.cut_power_at(step);
            let appended = log.writer.append(&large, Timestamp(1)).is_ok();
            let flushed = appended && log.flusher.flush().is_ok();
            let context = format!("step {step}, rolled {rolled}, {policy:?}");
            let mut log = open(&disk.crash(policy));
            assert!(log.reader.failure().is_none(), "{context}: {:?}", log.report);
            let found = read_all(&log.reader);
            assert!(found.starts_with(&filled(0, end)), "{context}");
            assert!(found.len() as u64 >= end + u64::from(flushed), "{context}");
            fill(&mut log, 1);
            log.flusher.flush().expect(&context);
            if flushed {
                break;
            }
        }
    }
}

#[test]
fn a_log_has_an_active_segment_also_while_an_empty_one_is_replaced() {
    let large = batch(&["z".repeat(150_000).as_str()], 1);
    let disk = SimDisk::new(1);
    let (mut log, _) = with_small_empty_segment(&disk, false);
    let (reader, done) = (log.reader.clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 1;
            while !done.load(Ordering::Acquire) {
                let count = reader.segment_count();
                assert!(count >= seen, "{count} segments after {seen}");
                seen = count;
            }
        });
        for _ in 0..100 {
            log.writer.append(&large, Timestamp(1)).unwrap();
            log.writer.set_options(options()).unwrap();
            log.writer.roll(Timestamp(1)).unwrap();
            let larger = LogOptions { batch_bytes_max: 200_000, ..options() };
            log.writer.set_options(larger).unwrap();
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let bad = LogOptions { segment_bytes_max: 100, ..options() };
    let refused = log.writer.set_options(bad);
    assert!(matches!(refused, Err(StorageError::Option { field: "segment_bytes_max", .. })));
}

#[test]
fn segments_roll_by_age() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    log.writer
        .set_options(LogOptions { segment_age_max: Duration::from_millis(50), ..options() })
        .unwrap();
    for (now, segments) in [(2_000, 1), (2_049, 1), (2_050, 2), (2_060, 2), (2_100, 3)] {
        log.writer.append(&batch(&["a"], 1), Timestamp(now)).unwrap();
        assert_eq!(log.reader.segment_count(), segments, "at {now}");
    }
}

#[test]
fn retries_get_their_first_offsets_also_after_any_start() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let append = |log: &mut crate::OpenedLog, sequence| {
        let batch = produced(9, 0, sequence, &["a", "b"]);
        let appended = log.writer.append(&batch, Timestamp(1)).unwrap();
        (appended.base_offset.0, appended.end_offset.0, appended.duplicate)
    };
    assert_eq!(append(&mut log, 0), (0, 2, false));
    fill(&mut log, 40);
    assert_eq!(append(&mut log, 2), (82, 84, false));
    assert_eq!(append(&mut log, 0), (0, 2, true));
    assert_eq!(log.writer.log_end(), Offset(84), "a duplicate appends nothing");
    log.flusher.flush().unwrap();
    let disk = disk.crash(CrashPolicy::lose_all());
    let mut log = open(&disk);
    assert_eq!(append(&mut log, 2), (82, 84, true));
    assert_eq!(append(&mut log, 4), (84, 86, false));
    log.writer.close().unwrap();
    let mut log = open(&disk);
    assert_eq!(append(&mut log, 0), (0, 2, true));
    let gap = log.writer.append(&produced(9, 0, 7, &["x"]), Timestamp(1));
    assert!(matches!(gap, Err(AppendError::OutOfOrderSequence { expected: 6, got: 7, .. })));
    log.writer.append(&produced(9, 1, 0, &["x"]), Timestamp(1)).unwrap();
    let stale = log.writer.append(&produced(9, 0, 6, &["x"]), Timestamp(1));
    assert!(matches!(stale, Err(AppendError::Fenced { .. })));
    let unknown = log.writer.append(&produced(10, 0, 3, &["x"]), Timestamp(1));
    assert!(matches!(unknown, Err(AppendError::UnknownProducer { .. })));
}

#[test]
fn producers_are_remembered_when_their_records_are_gone() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    log.writer.append(&produced(9, 0, 0, &["a"]), Timestamp(1)).unwrap();
    fill(&mut log, 60);
    log.writer.drop_before(Offset(100)).unwrap();
    let mut log = open(&disk.crash(CrashPolicy::keep_all()));
    let again = log.writer.append(&produced(9, 0, 0, &["a"]), Timestamp(1)).unwrap();
    assert!(again.duplicate && again.base_offset == Offset(0));
}

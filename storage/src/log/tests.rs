//! Tests of an open log through its doorway.

use std::path::Path;

use bytes::Bytes;
use riverrun_proto::{Offset, batch::BuilderOptions, batch::Compression};

use crate::{
    AppendError, Log, ReadError, RecoveryVerdict, RetentionPolicy, Timestamp,
    disk::{
        Disk,
        sim::{Call, CrashPolicy, Fault, FaultError, SimDisk},
    },
    testing::*,
};

/// Appends `count` batches of two records each; their values are their offsets.
fn fill(log: &mut crate::OpenedLog, count: u64) {
    for _ in 0..count {
        let end = log.writer.log_end().0;
        let values = [format!("v{end}"), format!("v{}", end + 1)];
        let padded: Vec<_> = values.iter().map(|value| format!("{value:>200}")).collect();
        let padded: Vec<_> = padded.iter().map(String::as_str).collect();
        log.writer.append(&batch(&padded, 5_000), Timestamp(10_000)).unwrap();
    }
}

/// What [`fill`] wrote between two offsets.
fn filled(from: u64, to: u64) -> Vec<(u64, Bytes)> {
    (from..to).map(|at| (at, Bytes::from(format!("{:>200}", format!("v{at}"))))).collect()
}

#[test]
fn a_new_log_is_empty_and_takes_a_few_kilobytes() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    assert!(log.report.created);
    assert_eq!(log.reader.offsets(), crate::LogOffsets::default());
    assert_eq!(log.reader.segment_count(), 1);
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

//! Files that compaction or a repair wrote anew: they end otherwise than their successor says.

use super::*;

/// A compacted log of several segments that is closed, the bases of those that were written anew, and its records.
fn compacted() -> (SimDisk, Vec<u64>, Vec<(u64, bytes::Bytes)>) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for value in 0..5_i64 {
        for key in ["a", "b", "c"] {
            let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
            let own = format!("{key}{value}");
            let text = format!("{:>200}", format!("{key} {value}"));
            builder.push_parts(1, Some(key.as_bytes()), Some(text.as_bytes()), &[]).unwrap();
            builder.push_parts(1, Some(own.as_bytes()), Some(text.as_bytes()), &[]).unwrap();
            let now = Timestamp(10_000 + value);
            log.writer.append(&builder.build().unwrap(), now).unwrap();
        }
        log.writer.roll(Timestamp(10_000 + value)).unwrap();
    }
    log.flusher.flush().unwrap();
    let done = log.writer.compactor().compact(Timestamp(30_000), &compaction()).unwrap();
    assert_eq!(done.segment_count, 4, "{done:?}");
    log.writer.close().unwrap();
    let log = open(&disk);
    let records = read_all(&log.reader);
    assert_eq!(records.len(), 18);
    drop(log);
    (disk.kill(), vec![0, 6, 12, 18], records)
}

/// Repairs the log on `disk`: nothing may be given up.
#[track_caller]
fn check_costs_nothing(disk: &SimDisk, records: &[(u64, bytes::Bytes)]) {
    let end = open(&disk.copy()).reader.offsets().log_end;
    assert!(open(&disk.copy()).reader.failure().is_some());
    let done = repair(disk).accept_loss().unwrap();
    assert!(done.is_needed());
    assert_eq!(lost(&done), Vec::<u64>::new(), "{done:?}");
    let mut log = open(&disk.crash(CrashPolicy::lose_all()));
    assert_eq!(log.report.verdict, RecoveryVerdict::Trusted);
    assert_eq!(log.reader.offsets().log_end, end);
    assert_eq!(read_all(&log.reader), records);
    log.writer.append(&batch(&["next"], 1), Timestamp(40_000)).unwrap();
}

#[test]
fn an_invalid_header_block_of_a_compacted_segment_costs_nothing() {
    let (whole, bases, records) = compacted();
    for base in bases {
        let path = segment_path(base);
        let disk = whole.copy();
        disk.flip_bit(&path, 41, 0);
        check_costs_nothing(&disk, &records);
        // Nothing of the block is left to make the salt of.
        let disk = whole.copy();
        file(&disk, &path).write_at(0, &[&[0; 4096]]).unwrap();
        check_costs_nothing(&disk, &records);
    }
}

#[test]
fn invalid_header_blocks_of_all_compacted_segments_cost_nothing() {
    let (disk, bases, records) = compacted();
    for base in bases {
        disk.flip_bit(&segment_path(base), 41, 0);
    }
    check_costs_nothing(&disk, &records);
}

#[test]
fn an_invalid_header_block_of_a_repaired_segment_costs_nothing_more() {
    for sector in [false, true] {
        let (disk, bases, end) = rolled(true);
        for number in 0..bases.len() {
            // The last entry of one, and the first one of the next.
            let base = bases[number];
            let until = bases.get(number + 1).copied().unwrap_or(end);
            flip(&disk, base, if number % 2 == 0 { until - 2 } else { base }, 30);
        }
        let given_up = lost(&repair(&disk).accept_loss().unwrap());
        assert_eq!(given_up.len(), 2 * bases.len());
        drop(open(&disk));
        for base in &bases {
            let disk = disk.copy();
            let path = segment_path(*base);
            if sector {
                file(&disk, &path).write_at(0, &[&[0; 4096]]).unwrap();
            } else {
                disk.flip_bit(&path, 41, 0);
            }
            assert_eq!(lost(&repair(&disk).look().unwrap()), Vec::<u64>::new(), "{base}");
            check_later(&disk, &given_up);
        }
    }
}

#[test]
fn a_segment_of_another_log_with_an_invalid_header_block_is_not_taken_for_one_written_anew() {
    let (disk, bases, end) = rolled(true);
    // The same base and end, other records at another time.
    let strange = SimDisk::new(2);
    let mut log = open(&strange);
    while log.writer.log_end().0 < bases[1] {
        log.writer.append(&batch(&["not", "ours"], 1), Timestamp(9_999)).unwrap();
    }
    log.writer.roll(Timestamp(9_999)).unwrap();
    log.flusher.flush().unwrap();
    let bytes = bytes_of(&strange, &segment_path(0));
    disk.remove_file(&segment_path(0)).unwrap();
    rows::plant(&disk, &segment_path(0), &bytes);
    file(&disk, &segment_path(0)).write_at(0, &[&[0; 4096]]).unwrap();
    check_repaired(&disk, end, &(0..bases[1]).collect::<Vec<_>>());
}

#[test]
fn a_segment_written_anew_that_does_not_end_with_its_seal_is_read_all_the_same() {
    let (disk, bases, end) = rolled(true);
    flip(&disk, bases[1], bases[1] + 2, 30);
    repair(&disk).accept_loss().unwrap();
    drop(open(&disk));
    let longer = file(&disk, &segment_path(bases[1]));
    longer.set_len(longer.len() + 4096).unwrap();
    drop(longer);
    let log = open(&disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Damaged);
    check_records(&log, end, &[bases[1] + 2, bases[1] + 3]);
}

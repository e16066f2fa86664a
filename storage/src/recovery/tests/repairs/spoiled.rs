//! Sectors that the disk refuses to read.

use std::ops::Range;

use super::*;

/// What a repair tries alone.
const BLOCK_BYTES: u64 = 4096;

/// Offsets of the entries in a segment file that lie in these bytes in part.
fn offsets_in(disk: &SimDisk, path: &Path, bytes: &Range<u64>) -> Vec<u64> {
    let touches = |(pos, header): &(u64, EntryHeader)| {
        *pos < bytes.end && pos + ENTRY_BYTES as u64 + u64::from(header.length) > bytes.start
    };
    let touched = entries(disk, path).into_iter().filter(touches);
    touched.flat_map(|(_, header)| header.base_offset.0..header.end_offset().0).collect()
}

/// Repairs a log of which the disk refuses a part: `expected` is given up.
#[track_caller]
fn check_rescued(disk: &SimDisk, end: u64, expected: &[u64]) {
    let steps = disk.step_count();
    let plan = repair(disk).look().unwrap();
    assert!(plan.is_needed() && !plan.unreadable.is_empty(), "{plan:?}");
    assert_eq!(lost(&plan), expected, "{plan:?}");
    assert_eq!(disk.step_count(), steps, "a look changes nothing");
    let done = repair(disk).accept_loss().unwrap();
    assert_eq!(done.losses, plan.losses);
    let disk = disk.crash(CrashPolicy::lose_all());
    assert!(!repair(&disk).look().unwrap().is_needed());
    let mut log = open(&disk);
    assert!(log.reader.failure().is_none(), "{:?}", log.report);
    check_records(&log, end, expected);
    fill(&mut log, 1);
}

#[test]
fn sectors_that_the_disk_refuses_cost_the_records_in_them_and_no_others() {
    for clean in [true, false] {
        let (whole, bases, end) = rolled(clean);
        for base in bases {
            let path = segment_path(base);
            let (last, header) = entries(&whole, &path).pop().unwrap();
            for pos in (0..last + header.stride()).step_by(3_000) {
                let disk = whole.copy();
                disk.spoil_sector(&path, pos);
                let block = pos / BLOCK_BYTES * BLOCK_BYTES;
                let block = block..block + BLOCK_BYTES;
                check_rescued(&disk, end, &offsets_in(&whole, &path, &block));
            }
        }
    }
}

#[test]
fn side_files_that_the_disk_refuses_cost_nothing() {
    for clean in [true, false] {
        let (whole, _, end) = rolled(clean);
        for name in ["state", "mark", "producers", "index"] {
            for name in named(&whole, name) {
                let disk = whole.copy();
                disk.spoil_sector(&Path::new(DIR).join(&name), 0);
                check_rescued(&disk, end, &[]);
            }
        }
    }
}

#[test]
fn a_torn_end_that_the_disk_refuses_does_not_keep_the_log_from_going_on() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 40);
    log.flusher.flush().unwrap();
    fill(&mut log, 10);
    let disk = disk.kill();
    disk.write_back();
    let bases = named(&disk, ".log");
    let last = Path::new(DIR).join(bases.last().unwrap());
    let pos = entry_pos(&disk, &last, 90);
    disk.spoil_sector(&last, pos + 300);
    assert!(try_open(&disk.copy()).is_err());
    let done = repair(&disk).accept_loss().unwrap();
    assert!(done.is_needed() && done.losses.iter().all(|loss| loss.offsets.end <= Offset(80)));
    let log = open(&disk.crash(CrashPolicy::lose_all()));
    assert!(log.reader.failure().is_none(), "{:?}", log.report);
    let end = log.reader.offsets().log_end.0;
    assert!((80..=90).contains(&end), "{end}");
}

#[test]
fn a_disk_that_refuses_for_another_reason_ends_the_repair() {
    use crate::disk::sim::{Call, Fault, FaultError};
    let (disk, bases, _) = rolled(false);
    flip(&disk, bases[0], 2, 30);
    disk.inject(Fault { call: Call::Read, nth: 5, error: FaultError::NoSpace, lasting: true });
    assert!(repair(&disk).look().is_err());
}

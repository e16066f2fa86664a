//! What becomes of retries of batches that were given up.

use super::*;
use crate::AppendError;

/// Batches of one record that an idempotent producer wrote; then the log was closed.
const COUNT: u64 = 7;

/// The closed log of one producer.
fn produced_log() -> SimDisk {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for sequence in 0..COUNT {
        retry(&mut log, sequence).unwrap();
    }
    log.writer.close().unwrap();
    disk.kill()
}

/// Sends the batch at `offset` (again).
fn retry(log: &mut OpenedLog, offset: u64) -> Result<crate::log::Appended, AppendError> {
    let sequence = i32::try_from(offset).unwrap();
    log.writer.append(&produced(9, 0, sequence, &["value"]), Timestamp(10_000))
}

/// Sends every batch again: of `lost` none may count as stored.
#[track_caller]
fn check_retries(disk: &SimDisk, lost: &[u64]) {
    let mut log = open(disk);
    assert!(log.reader.failure().is_none(), "{:?}", log.report);
    for offset in COUNT - 4..COUNT {
        let again = retry(&mut log, offset);
        match again {
            Ok(appended) if appended.duplicate => {
                assert!(!lost.contains(&offset), "{offset} of {lost:?}: {appended:?}");
                assert_eq!(appended.base_offset, Offset(offset));
            }
            Ok(appended) => {
                assert!(lost.contains(&offset) && appended.base_offset >= Offset(COUNT));
            }
            Err(AppendError::OutOfOrderSequence { .. }) => assert!(lost.contains(&offset)),
            Err(other) => panic!("{offset} of {lost:?}: {other}"),
        }
    }
}

#[test]
fn a_retry_of_a_batch_that_was_given_up_is_no_duplicate() {
    let whole = produced_log();
    for lost in 0..COUNT {
        let disk = whole.copy();
        flip(&disk, 0, lost, 30);
        let done = repair(&disk).accept_loss().unwrap();
        assert_eq!(super::lost(&done), [lost]);
        check_retries(&disk, &[lost]);
    }
    let disk = whole.copy();
    let cut = entry_pos(&disk, &segment_path(0), COUNT - 2);
    file(&disk, &segment_path(0)).set_len(cut + 50).unwrap();
    repair(&disk).accept_loss().unwrap();
    check_retries(&disk, &[COUNT - 2, COUNT - 1]);
}

#[test]
fn a_retry_is_no_duplicate_wherever_the_repair_was_cut_short() {
    let whole = produced_log();
    flip(&whole, 0, COUNT - 2, 30);
    whole.write_back();
    for step in 1.. {
        let mut finished = false;
        for seed in 0..8 {
            let disk = whole.copy();
            disk.cut_power_at(step);
            finished = repair(&disk).accept_loss().is_ok();
            let disk = disk.crash(CrashPolicy::weak(seed));
            repair(&disk).accept_loss().unwrap();
            check_retries(&disk, &[COUNT - 2]);
        }
        if finished {
            break;
        }
    }
}

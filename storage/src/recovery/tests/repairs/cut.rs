//! Segments that a recovery cut: what stands behind the cut was never acknowledged, and others have its offsets.

use super::*;
use crate::{Log, recovery::tests::rows::plant, state::LogState};

/// A log whose second segment, at 10, was made by a recovery that cut the first one; a third segment follows at 24, and the log ends at 28.
/// Behind the cut stand valid entries with the offsets up to 20 that were not acknowledged. `copied` of the batches from 10 on were not flushed
/// before the recovery, and stand behind the cut and in the second segment.
fn cut(copied: u64) -> (SimDisk, Vec<u64>, u64) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    log.flusher.flush().unwrap();
    fill(&mut log, copied);
    let torn = log.writer.log_end().0;
    for _ in 0..5 - copied {
        log.writer.append(&batch(&["not", "ours"], 1), Timestamp(10_000)).unwrap();
    }
    let disk = disk.kill();
    flip(&disk, 0, torn, 5);
    let mut log = open(&disk);
    assert_eq!(log.reader.offsets().log_end, Offset(torn), "{:?}", log.report);
    assert_eq!(log.reader.segment_count(), 2);
    fill(&mut log, 7 - copied);
    log.writer.roll(Timestamp(10_000)).unwrap();
    fill(&mut log, 2);
    log.flusher.flush().unwrap();
    let disk = disk.kill();
    assert_eq!(named(&disk, ".log").len(), 3);
    (disk, vec![0, 10, 24], 28)
}

#[test]
fn what_stands_behind_a_cut_does_not_take_the_place_of_the_next_segment() {
    for copied in [0, 2] {
        for sector in [false, true] {
            let (disk, bases, end) = cut(copied);
            if sector {
                disk.zero_sector(&segment_path(bases[1]), 0);
            } else {
                disk.flip_bit(&segment_path(bases[1]), 41, 0);
            }
            check_repaired(&disk, end, &[]);
        }
    }
}

#[test]
fn what_stands_behind_a_cut_is_not_read_when_the_next_segment_is_missing() {
    for copied in [0, 2] {
        let (disk, bases, end) = cut(copied);
        disk.remove_file(&segment_path(bases[1])).unwrap();
        // What was copied is the same on both sides of the cut.
        check_repaired(&disk, end, &(bases[1] + 2 * copied..bases[2]).collect::<Vec<_>>());
        let (disk, bases, end) = cut(copied);
        disk.remove_file(&segment_path(bases[1])).unwrap();
        disk.remove_file(&segment_path(bases[2])).unwrap();
        check_repaired(&disk, end, &(bases[1] + 2 * copied..end).collect::<Vec<_>>());
    }
}

#[test]
fn with_the_header_blocks_of_both_sides_of_a_cut_damaged_each_keeps_its_records() {
    for copied in [0, 2] {
        let (disk, bases, end) = cut(copied);
        disk.flip_bit(&segment_path(bases[0]), 41, 0);
        disk.flip_bit(&segment_path(bases[1]), 41, 0);
        check_repaired(&disk, end, &[]);
    }
}

/// Opens the log in a second after `seconds`.
fn open_at(disk: &SimDisk, seconds: i64) -> OpenedLog {
    let now = Timestamp(1_800_000_000_000 + seconds * 1_000);
    Log::open(Arc::new(disk.clone()), DIR, options(), now).unwrap()
}

/// A log with segments at 0, 4 and 8 that ends at 12, and the bytes of a segment at `base` of a copy of it that went on for itself
/// from offset 4, later.
fn parted_later(base: u64) -> (SimDisk, Vec<u8>) {
    let disk = SimDisk::new(1);
    let mut log = open_at(&disk, 0);
    fill(&mut log, 2);
    log.writer.close().unwrap();
    let copy = disk.copy();
    let mut log = open_at(&disk, 10);
    for _ in 0..2 {
        log.writer.roll(Timestamp(1)).unwrap();
        fill(&mut log, 2);
    }
    log.flusher.flush().unwrap();
    let mut other = open_at(&copy, 20);
    let strange = || batch(&["not", "ours"], 1);
    while other.writer.log_end().0 < base {
        other.writer.append(&strange(), Timestamp(1)).unwrap();
    }
    other.flusher.flush().unwrap();
    other.writer.roll(Timestamp(1)).unwrap();
    other.writer.append(&strange(), Timestamp(1)).unwrap();
    other.writer.close().unwrap();
    (disk.kill(), bytes_of(&copy, &segment_path(base)))
}

#[test]
fn a_segment_of_a_later_history_costs_nothing_and_none_of_its_records_is_read() {
    for base in [6, 10, 14, 20] {
        let (disk, strange) = parted_later(base);
        plant(&disk, &segment_path(base), &strange);
        assert!(open(&disk.copy()).reader.failure().is_some(), "{base}: it stops the log");
        let (done, _) = check_repaired(&disk, 12, &[]);
        assert!(done.set_aside.contains(&segment_path(base)), "{base}: {done:?}");
    }
}

#[test]
fn a_segment_of_a_later_history_does_not_fill_the_place_of_a_missing_one() {
    let (disk, strange) = parted_later(6);
    disk.remove_file(&segment_path(4)).unwrap();
    plant(&disk, &segment_path(6), &strange);
    check_repaired(&disk, 12, &[4, 5, 6, 7]);
}

#[test]
fn a_state_file_from_an_older_copy_costs_no_records() {
    for copied in [0, 2] {
        let (disk, bases, end) = cut(copied);
        let older = LogState::new(Offset(0), LeaderEpoch(1));
        state::store(&disk, Path::new(DIR), &older).unwrap();
        disk.flip_bit(&segment_path(bases[2]), 41, 0);
        check_repaired(&disk, end, &[]);
    }
}

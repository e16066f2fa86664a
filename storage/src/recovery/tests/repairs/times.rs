//! Append times: they never fall within a log, also where records were lost.

use super::*;

/// A log of several segments whose batches were appended one second after the other.
fn timed() -> (SimDisk, Vec<u64>, u64) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for number in 0..100 {
        let end = log.writer.log_end().0;
        let values = [end, end + 1].map(|offset| format!("{:>200}", format!("v{offset}")));
        let values = values.each_ref().map(String::as_str);
        log.writer.append(&batch(&values, 5_000), Timestamp(10_000 + 1_000 * number)).unwrap();
    }
    log.writer.close().unwrap();
    let names = named(&disk, ".log");
    let bases = names.iter().map(|name| name[..20].parse().unwrap()).collect();
    (disk.kill(), bases, 200)
}

/// Repairs long after the records were written, and checks the order of all append times. The time of each offset.
#[track_caller]
fn check_times(disk: &SimDisk, end: u64) -> Vec<i64> {
    let late = LogRepair { now: Timestamp(1_000_000_000), ..repair(disk) };
    assert!(late.accept_loss().unwrap().is_needed());
    let log = open(disk);
    let time = |offset| log.reader.append_time(Offset(offset)).unwrap().unwrap().0;
    let times: Vec<i64> = (0..end).map(time).collect();
    for (offset, pair) in times.windows(2).enumerate() {
        assert!(pair[0] <= pair[1], "{offset}: {pair:?}");
    }
    assert!(*times.last().unwrap() < 1_000_000, "{:?}", times.last());
    times
}

#[test]
fn lost_records_in_front_of_a_file_without_a_header_are_not_younger_than_those_behind() {
    let (whole, bases, end) = timed();
    for base in &bases {
        let disk = whole.copy();
        flip(&disk, *base, *base, 30);
        disk.zero_sector(&segment_path(*base), 0);
        check_times(&disk, end);
    }
    let disk = whole.copy();
    for base in &bases[..2] {
        file(&disk, &segment_path(*base)).set_len(100).unwrap();
    }
    check_times(&disk, end);
    let disk = whole.copy();
    disk.remove_file(&segment_path(bases[0])).unwrap();
    disk.zero_sector(&segment_path(bases[1]), 0);
    check_times(&disk, end);
}

#[test]
fn a_segment_whose_end_was_lost_is_as_old_as_it_was() {
    let (whole, bases, end) = timed();
    let until = bases[1];
    for cut in [until - 2, until - 8] {
        let disk = whole.copy();
        let pos = entry_pos(&disk, &segment_path(0), cut);
        file(&disk, &segment_path(0)).set_len(pos + 50).unwrap();
        let times = check_times(&disk, end);
        let last = usize::try_from(until).unwrap() - 1;
        assert_eq!(times[last], 10_000 + 1_000 * (i64::try_from(until).unwrap() / 2 - 1), "{cut}");
    }
}

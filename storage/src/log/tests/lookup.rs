use std::sync::Arc;

use riverrun_proto::{
    LeaderEpoch, Offset,
    batch::{BuilderOptions, Compression},
};

use super::fill;
use crate::{Log, Timestamp, disk::sim::SimDisk, testing::*};

/// A log with these batches of timestamps, compressed in turn.
fn log_of(disk: &SimDisk, batches: &[&[i64]]) -> crate::OpenedLog {
    let mut log = open(disk);
    let codecs = [Compression::None, Compression::Lz4, Compression::Zstd];
    for (timestamps, codec) in batches.iter().zip(codecs.iter().cycle()) {
        let records: Vec<_> = timestamps.iter().map(|ms| (*ms, vec![b'x'; 300])).collect();
        let batch = build(&records, BuilderOptions::default(), *codec);
        log.writer.append(&batch, Timestamp(1)).unwrap();
    }
    log
}

/// The first record at or after a time, found the slow way.
fn expected(batches: &[&[i64]], from: u64, time: i64) -> Option<(Offset, Timestamp)> {
    let all = (0..).zip(batches.iter().copied().flatten());
    let found = all.into_iter().find(|(offset, ms)| *offset >= from && **ms >= time);
    found.map(|(offset, ms)| (Offset(offset), Timestamp(*ms)))
}

#[test]
fn the_first_record_at_or_after_a_time_is_found_exactly() {
    let disk = SimDisk::new(1);
    let batches: [&[i64]; 6] =
        [&[10, 20, 30], &[25, 5], &[90, 40, 91], &[35], &[-7, 60, 95, 50], &[100]];
    let mut log = log_of(&disk, &batches);
    let end = log.writer.log_end();
    for time in -10..=105 {
        let found = log.reader.find_by_time(Timestamp(time), end).unwrap();
        assert_eq!(found, expected(&batches, 0, time), "time {time}");
    }
    let limited = log.reader.find_by_time(Timestamp(93), Offset(9)).unwrap();
    assert_eq!(limited, None, "not at or past the limit");
    log.writer.drop_before(Offset(6)).unwrap();
    for time in -10..=105 {
        let found = log.reader.find_by_time(Timestamp(time), end).unwrap();
        assert_eq!(found, expected(&batches, 6, time), "time {time} from 6");
    }
}

#[test]
fn lookups_by_time_agree_with_a_plain_search_on_random_logs() {
    for seed in 0..10 {
        eprintln!("SEED={seed}");
        let mut rng = Rng::new(seed);
        let batches: Vec<Vec<i64>> = (0..120)
            .map(|_| {
                let count = 1 + rng.below(4);
                (0..count).map(|_| i64::try_from(rng.below(500)).unwrap()).collect()
            })
            .collect();
        let slices: Vec<&[i64]> = batches.iter().map(Vec::as_slice).collect();
        let disk = SimDisk::new(seed);
        let log = log_of(&disk, &slices);
        assert!(log.reader.segment_count() > 2);
        let end = log.writer.log_end();
        for time in 0..=501 {
            let found = log.reader.find_by_time(Timestamp(time), end).unwrap();
            assert_eq!(found, expected(&slices, 0, time), "time {time}");
        }
    }
}

#[test]
fn append_times_never_fall() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for now in [2_050, 2_040, 2_060, -9] {
        log.writer.append(&batch(&["a"], 7), Timestamp(now)).unwrap();
    }
    let at = |offset| log.reader.append_time(Offset(offset)).unwrap();
    let times = [0, 1, 2, 3].map(|offset| at(offset).unwrap().0);
    assert_eq!(times, [2_050, 2_050, 2_060, 2_060]);
    assert_eq!(at(4), None);
}

#[test]
fn epochs_end_where_the_next_begins() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    log.writer.begin_epoch(LeaderEpoch(4)).unwrap();
    fill(&mut log, 5);
    let ends = |reader: &crate::LogReader| {
        [0, 1, 3, 4, 9].map(|epoch| reader.epoch_end(LeaderEpoch(epoch)))
    };
    let known = |epoch, end| (LeaderEpoch(epoch), Offset(end));
    let expected = [known(0, 0), known(1, 10), known(1, 10), known(4, 20), known(4, 20)];
    assert_eq!(ends(&log.reader), expected);
    assert_eq!(log.reader.epoch_at(Offset(9)), LeaderEpoch(1));
    assert_eq!(log.reader.epoch_at(Offset(10)), LeaderEpoch(4));
    let run = log.reader.read(Offset(10), Offset(12), 1).unwrap();
    assert_eq!(run.leader_epoch, LeaderEpoch(4));
    log.writer.close().unwrap();
    assert_eq!(ends(&open(&disk).reader), expected);
}

#[test]
fn a_history_that_went_on_from_a_copy_has_epochs_of_its_own() {
    const SECOND_MS: i64 = 1_000;
    let at = |seconds: i64| Timestamp(1_800_000_000_000 + seconds * SECOND_MS);
    let open_at = |disk: &SimDisk, seconds| {
        Log::open(Arc::new(disk.clone()), DIR, options(), at(seconds)).unwrap()
    };
    for closed in [true, false] {
        let disk = SimDisk::new(1);
        let mut log = open_at(&disk, 0);
        fill(&mut log, 5);
        log.flusher.flush().unwrap();
        let copy = if closed {
            log.writer.close().unwrap();
            let copy = disk.copy();
            log = open_at(&disk, 10);
            copy
        } else {
            disk.copy()
        };
        fill(&mut log, 5);
        let read = log.reader.read(Offset(14), Offset(20), 1).unwrap();
        let position = (read.next_offset, read.leader_epoch);
        assert_eq!(position.0, Offset(16));

        let mut other = open_at(&copy, 20);
        assert_eq!(other.reader.offsets().log_end, Offset(10));
        assert_eq!(other.reader.epoch_end(position.1).1, Offset(10), "shorter, closed {closed}");
        fill(&mut other, 20);
        assert_eq!(other.reader.epoch_end(position.1).1, Offset(10), "longer, closed {closed}");
        let old = log.reader.epoch_at(Offset(9));
        assert_eq!(other.reader.epoch_end(old).1, Offset(10), "common to both");
        assert_eq!(other.reader.epoch_at(Offset(9)), old);
        other.writer.close().unwrap();
        let again = open_at(&copy, 20);
        assert_eq!(again.reader.epoch_end(position.1).1, Offset(10), "after another start");
    }
}

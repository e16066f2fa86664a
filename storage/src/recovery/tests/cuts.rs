//! A segment file cut short by somebody else, under an open log and before a start.

use super::*;
use crate::{
    Damage, DamageReason, LogFailure, RecoveryVerdict,
    disk::{RealDisk, RealDiskOptions},
    log::tests::fill,
};

/// A flushed log of several segments on `disk`.
fn rolled(disk: &SimDisk) -> OpenedLog {
    let mut log = open(disk);
    fill(&mut log, 60);
    log.flusher.flush().unwrap();
    assert!(log.reader.segment_count() > 2);
    log
}

/// The bases of all segments.
fn bases(disk: &SimDisk) -> Vec<u64> {
    named(disk, ".log").iter().map(|name| name[..20].parse().unwrap()).collect()
}

/// The offset of the first record of a segment whose bytes are not all below `len`, and where its entry begins.
fn first_cut(entries: &[(u64, EntryHeader)], len: u64) -> Option<(u64, u64)> {
    let cut = |(pos, header): &&(u64, EntryHeader)| {
        header.count > 0 && pos + ENTRY_BYTES as u64 + u64::from(header.length) > len
    };
    entries.iter().find(cut).map(|(pos, header)| (header.base_offset.0, *pos))
}

/// Places to cut a file of these entries at: each boundary and a few around it, and some in between.
fn places(entries: &[(u64, EntryHeader)]) -> Vec<u64> {
    let around = |pos: u64| [pos.saturating_sub(5), pos, pos + 1, pos + 96, pos + 300];
    let mut places: Vec<u64> = entries.iter().flat_map(|(pos, _)| around(*pos)).collect();
    places.extend([0, 1, 4000, HEADER_BLOCK_BYTES as u64]);
    places
}

/// Where the entries end.
fn end_of(entries: &[(u64, EntryHeader)]) -> u64 {
    let (pos, header) = entries.last().unwrap();
    pos + header.stride()
}

/// The damage that a read at `offset` meets.
#[track_caller]
fn damage_at(log: &OpenedLog, offset: u64) -> Damage {
    match log.reader.read(Offset(offset), Offset(u64::MAX), 1 << 20) {
        Err(ReadError::Corrupt(damage)) => damage,
        other => panic!("{offset}: {other:?}"),
    }
}

#[test]
fn a_sealed_segment_cut_under_an_open_log_is_served_up_to_the_cut() {
    let disk = SimDisk::new(1);
    drop(rolled(&disk));
    let [_, base, next, ..] = bases(&disk)[..] else { panic!("it has three segments") };
    let path = segment_path(base);
    let entries = entries(&disk, &path);
    for len in places(&entries) {
        for with_index in [true, false] {
            let disk = SimDisk::new(1);
            let log = rolled(&disk);
            if with_index {
                assert_eq!(read_all(&log.reader), filled(0, 120), "the index is in memory now");
            } else {
                disk.remove_file(&paths::index(Path::new(DIR), Offset(base))).unwrap();
            }
            file(&disk, &path).set_len(len).unwrap();
            let cut = first_cut(&entries, len);
            let damaged = cut.map_or(next, |(offset, _)| offset);
            assert_eq!(read_around_damage(&log, 120), (damaged..next).collect::<Vec<_>>(), "{len}");
            let found = log.reader.find_by_time(Timestamp(i64::MAX), Offset(120));
            let time = log.reader.append_time(Offset(next - 1));
            let Some((offset, pos)) = cut else {
                assert_eq!((found.unwrap(), time.unwrap()), (None, Some(Timestamp(10_000))));
                continue;
            };
            let reason = DamageReason::CutOff { len, expected: end_of(&entries) };
            let offsets = Offset(offset)..Offset(next);
            let damage = Damage { offsets, path: path.clone(), pos, reason };
            for from in offset..next {
                assert_eq!(damage_at(&log, from), damage, "{len}, from {from}");
            }
            assert!(matches!(time, Err(ReadError::Corrupt(found)) if found == damage));
            assert!(log.reader.failure().is_none(), "the log goes on");
        }
    }
}

#[test]
fn a_time_is_not_looked_for_behind_what_was_cut_off() {
    let disk = SimDisk::new(1);
    let mut log = rolled(&disk);
    let [_, base, ..] = bases(&disk)[..] else { panic!("it has three segments") };
    log.writer.append(&batch(&["late"], 9_000), Timestamp(10_000)).unwrap();
    file(&disk, &segment_path(base)).set_len(5_000).unwrap();
    let late = log.reader.find_by_time(Timestamp(6_000), Offset(121)).unwrap();
    assert_eq!(
        late,
        Some((Offset(120), Timestamp(9_000))),
        "a segment without it is not looked into"
    );
    let log_start = Offset(base + 8);
    log.writer.drop_before(log_start).unwrap();
    let found = log.reader.find_by_time(Timestamp(5_000), Offset(121));
    assert!(matches!(found, Err(ReadError::Corrupt(_))), "{found:?}");
}

#[test]
fn row_5_a_sealed_segment_cut_before_a_start_is_told_alike() {
    for clean in [true, false] {
        let disk = SimDisk::new(1);
        let log = rolled(&disk);
        if clean {
            log.writer.close().unwrap();
        }
        let disk = disk.kill();
        let [_, base, next, ..] = bases(&disk)[..] else { panic!("it has three segments") };
        let path = segment_path(base);
        let entries = entries(&disk, &path);
        for len in places(&entries).into_iter().filter(|len| *len >= HEADER_BLOCK_BYTES as u64) {
            let disk = disk.crash(CrashPolicy::keep_all());
            if len >= end_of(&entries) {
                continue;
            }
            file(&disk, &path).set_len(len).unwrap();
            let log = open(&disk);
            assert_eq!(log.report.verdict, RecoveryVerdict::Damaged);
            let reason = DamageReason::CutOff { len, expected: end_of(&entries) };
            // Without the seal alone, every record is there and the segment is damaged as a whole.
            let cut = first_cut(&entries, len);
            let (start, pos) = cut.unwrap_or((base, 0));
            let offsets = Offset(start)..Offset(next);
            let damage = Damage { offsets, path: path.clone(), pos, reason };
            assert_eq!(log.report.damages, [damage], "{len}");
            let damaged = cut.map_or(next, |(offset, _)| offset);
            assert_eq!(read_around_damage(&log, 120), (damaged..next).collect::<Vec<_>>(), "{len}");
        }
    }
}

#[test]
fn row_3_a_cut_active_segment_is_told_with_the_length_it_had() {
    for clean in [true, false] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        fill(&mut log, 5);
        log.flusher.flush().unwrap();
        if clean {
            log.writer.close().unwrap();
        }
        let disk = disk.kill();
        let entries = entries(&disk, &segment_path(0));
        let (pos, len) = (entries[3].0, entries[3].0 + 50);
        file(&disk, &segment_path(0)).set_len(len).unwrap();
        let log = open(&disk);
        let reason = DamageReason::CutOff { len, expected: end_of(&entries) };
        let offsets = Offset(6)..Offset(10);
        assert_eq!(log.report.damages, [Damage { offsets, path: segment_path(0), pos, reason }]);
        assert_eq!(read_around_damage(&log, 10), [6, 7, 8, 9]);
    }
}

/// The active segment is mapped, so pages behind the cut can not be reached and the last one reads as zeros.
#[test]
fn an_active_segment_cut_under_an_open_log_is_served_up_to_the_cut() {
    for (cut_at, reads_first) in [(10, true), (10, false), (30, true), (30, false)] {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), RealDiskOptions { map_on_tmpfs: true }).unwrap();
        let disk = Arc::new(disk);
        let mut log = crate::Log::open(disk.clone(), "log", options(), Timestamp(1_000)).unwrap();
        fill(&mut log, 20);
        assert_eq!(log.flusher.flush().unwrap(), Offset(40));
        assert_eq!(log.reader.segment_count(), 1);
        let path = paths::segment(Path::new("log"), Offset(0));
        let outside = disk.open(&path, OpenMode::Write).unwrap();
        // All batches are equally long.
        let stride = 576;
        let len = HEADER_BLOCK_BYTES as u64 + cut_at / 2 * stride + 10;
        outside.set_len(len).unwrap();
        if reads_first {
            assert_eq!(read_around_damage(&log, 40), (cut_at..40).collect::<Vec<_>>());
        }
        // It fails at once, or the flush does, as the page is there or not.
        let _ = log.writer.append(&batch(&["lost"], 1), Timestamp(10_000));
        assert!(log.flusher.flush().is_err(), "nothing behind the cut is kept");
        assert!(matches!(log.reader.failure(), Some(LogFailure::Io(_))));
        assert_eq!(log.reader.offsets().log_end, Offset(40));
        assert_eq!(read_around_damage(&log, 40), (cut_at..40).collect::<Vec<_>>());
        let damage = damage_at(&log, 39);
        assert_eq!((damage.offsets, damage.pos), (Offset(cut_at)..Offset(40), len - 10));
        // The entry that was appended behind the cut counts, where it was.
        let at_least = HEADER_BLOCK_BYTES as u64 + 20 * stride;
        let DamageReason::CutOff { len: left, expected } = damage.reason else {
            panic!("{:?}", damage.reason);
        };
        assert!(left == len && expected >= at_least, "{left}, {expected}");
    }
}

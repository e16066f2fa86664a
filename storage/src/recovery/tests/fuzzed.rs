//! What the fuzz targets of `tests/fuzz` found: files that contradict each other under right checksums, and several damages at once.

use super::*;
use crate::{
    RecoveryVerdict,
    format::SegmentHeader,
    log::tests::fill,
    state::{self, LogState},
};

/// A log of two segments that is closed, and where the second begins.
fn closed() -> (SimDisk, u64) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 3);
    let second = log.writer.log_end().0;
    log.writer.roll(Timestamp(1)).unwrap();
    fill(&mut log, 3);
    log.flusher.flush().unwrap();
    log.writer.close().unwrap();
    (disk, second)
}

#[test]
fn damage_before_what_is_asked_for_is_not_the_answer() {
    let (disk, second) = closed();
    let (last, header) = (segment_path(0), segment_path(second));
    disk.flip_bit(&last, entry_pos(&disk, &last, second - 2) + 20, 1);
    disk.flip_bit(&header, 40, 1);
    let log = open(&disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Damaged);
    let end = log.reader.offsets().log_end.0;
    let Err(ReadError::Corrupt(told)) = log.reader.read(Offset(second), Offset(end), 1) else {
        panic!("the second segment cannot be read")
    };
    assert_eq!(told.offsets, Offset(second)..Offset(end), "{told}");
    // Whoever reads on behind the damage that was named comes to what is still there.
    assert_eq!(read_around_damage(&log, end), (second - 2..end).collect::<Vec<_>>());
}

#[test]
fn a_clean_mark_below_the_log_start_is_not_trusted() {
    let (disk, second) = closed();
    let beyond = LogState::new(Offset(1_000), riverrun_proto::LeaderEpoch(1));
    state::store(&disk, Path::new(DIR), &beyond).unwrap();
    let log = open(&disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Damaged, "{second}");
    assert_eq!(log.reader.offsets().log_start, Offset(1_000));
}

#[test]
fn a_segment_that_begins_past_the_end_of_the_one_before_does_not_go_on_there() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 3);
    let second = log.writer.log_end().0;
    log.writer.roll(Timestamp(1)).unwrap();
    drop(log);
    let disk = disk.kill();
    let block = &bytes_of(&disk, &segment_path(second))[..HEADER_BLOCK_BYTES];
    let found = SegmentHeader::decode(block.try_into().unwrap(), Path::new("")).unwrap();
    let header = SegmentHeader { base: Offset(1_000), ..found.unwrap().0 };
    let moved = segment_path(1_000);
    disk.rename(&segment_path(second), &moved).unwrap();
    file(&disk, &moved).write_at(0, &[&header.encode().0[..]]).unwrap();
    let log = open(&disk);
    assert_eq!(log.reader.offsets().log_end, Offset(second), "{:?}", log.report);
    assert_eq!(read_all(&log.reader), filled(0, second));
}

#[test]
fn an_index_with_wrong_sums_does_not_get_them_into_the_log() {
    for at in [40, 48, 56] {
        let (disk, second) = closed();
        let index = paths::index(Path::new(DIR), Offset(second));
        let mut bytes = bytes_of(&disk, &index);
        bytes[at] ^= 1;
        let crc = crate::fixed::crc32(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        file(&disk, &index).write_at(0, &[&bytes]).unwrap();
        let mut log = open(&disk);
        let end = log.writer.log_end().0;
        log.writer.roll(Timestamp(1)).unwrap();
        fill(&mut log, 1);
        log.flusher.flush().unwrap();
        let log = open(&disk.kill());
        assert_ne!(log.report.verdict, RecoveryVerdict::Damaged, "{at}: {:?}", log.report);
        assert_eq!(read_all(&log.reader), filled(0, end + 2));
    }
}

#[test]
fn a_stray_segment_below_what_only_entries_prove_durable_is_damage() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for _ in 0..4 {
        fill(&mut log, 1);
        log.flusher.flush().unwrap();
    }
    let disk = disk.kill();
    disk.remove_file(&Path::new(DIR).join(paths::MARK)).unwrap();
    let stray = disk.open(&segment_path(1), OpenMode::CreateNew).unwrap();
    stray.allocate(8_192).unwrap();
    stray.write_at(0, &[&[7; 8_192]]).unwrap();
    let log = open(&disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Damaged, "{:?}", log.report);
}

#[test]
fn an_entry_that_reaches_past_its_segment_is_told_as_damage() {
    let (disk, second) = closed();
    let path = segment_path(second);
    let (pos, header) = entries(&disk, &path)[1];
    let forged = EntryHeader { count: 1_000, ..header };
    file(&disk, &path).write_at(pos, &[&forged.encode().0[..]]).unwrap();
    let log = open(&disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Trusted);
    let end = log.reader.offsets().log_end.0;
    let lost = header.base_offset.0..header.end_offset().0;
    assert_eq!(read_around_damage(&log, end), lost.collect::<Vec<_>>());
}

//! What the fuzz targets of `tests/fuzz` found: files that contradict each other under right checksums, and several damages at once.

use super::*;
use crate::{
    RecoveryVerdict,
    format::{EntryKind, Previous, SegmentFacts, SegmentHeader},
    index::SparseIndex,
    log::tests::fill,
    mark::{Mark, MarkPage},
    state::{self, LogState},
};

/// An open log whose second segment is empty, and where that begins.
fn rolled() -> (SimDisk, OpenedLog, u64) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 3);
    let second = log.writer.log_end().0;
    log.writer.roll(Timestamp(1)).unwrap();
    (disk, log, second)
}

/// A log of two segments that is closed, and where the second begins.
fn closed() -> (SimDisk, u64) {
    let (disk, mut log, second) = rolled();
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
    let (disk, log, second) = rolled();
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

/// Gives the segment file at `path` another header block, and its entries the salt and chain that follow from it. Where they end.
fn forge(disk: &SimDisk, path: &Path, change: impl FnOnce(&mut SegmentHeader)) -> Previous {
    let block = &bytes_of(disk, path)[..HEADER_BLOCK_BYTES];
    let found = SegmentHeader::decode(block.try_into().unwrap(), path).unwrap();
    let (mut header, _) = found.unwrap();
    let old = entries(disk, path);
    change(&mut header);
    let file = file(disk, path);
    let (block, mut chain) = header.encode();
    file.write_at(0, &[&block[..]]).unwrap();
    let mut facts = SegmentFacts::empty(header.base);
    let mut end_pos = HEADER_BLOCK_BYTES as u64;
    for (pos, entry) in old {
        let entry = EntryHeader { salt: header.salt(), previous_crc: chain, ..entry };
        let (block, crc) = entry.encode();
        file.write_at(pos, &[&block]).unwrap();
        facts.add(&entry, crc);
        (chain, end_pos) = (crc, pos + entry.stride());
    }
    Previous { sealed: false, chain, base: header.base, end_pos, facts }
}

/// Says in a clean mark, and in the index, that the log ends as `end` says.
fn mark_clean(disk: &SimDisk, end: &Previous) {
    let (flushed, segment_base) = (end.facts.end_offset, end.base);
    let mark = Mark { clean: true, flushed, segment_base, pos: end.end_pos, chain: end.chain };
    let mut page = MarkPage::load(disk, Path::new(DIR)).unwrap();
    page.write(disk, mark).unwrap();
    let index = SparseIndex::new(end.base, HEADER_BLOCK_BYTES as u64);
    let bytes = index.encode(end.end_pos, end.chain, &end.facts);
    state::replace(disk, &paths::index(Path::new(DIR), end.base), &bytes).unwrap();
}

/// What a first start does with contradicting files: it names damage, or it mends them so that the log goes on, rolls and is trusted
/// after it was closed. It does not take them as they are.
#[track_caller]
fn check_seen(disk: &SimDisk) -> RecoveryVerdict {
    let log = open(disk);
    let verdict = log.report.verdict;
    assert_ne!(verdict, RecoveryVerdict::Trusted, "{:?}", log.report);
    if verdict != RecoveryVerdict::Damaged {
        check_goes_on_as_usual(disk, log);
    }
    verdict
}

/// A log that opened takes records, rolls, is closed and trusted.
#[track_caller]
fn check_goes_on_as_usual(disk: &SimDisk, mut log: OpenedLog) {
    for _ in 0..2 {
        fill(&mut log, 1);
        log.writer.roll(Timestamp(1)).unwrap();
    }
    fill(&mut log, 1);
    let read = read_all(&log.reader);
    log.writer.close().unwrap();
    let log = open(&disk.kill());
    assert_eq!(log.report.verdict, RecoveryVerdict::Trusted, "{:?}", log.report);
    assert_eq!(read_all(&log.reader), read);
}

#[test]
fn files_that_agree_are_trusted_also_when_they_are_forged() {
    let (disk, second) = closed();
    let end = forge(&disk, &segment_path(second), |_| ());
    mark_clean(&disk, &end);
    let log = open(&disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Trusted, "{:?}", log.report);
    check_goes_on_as_usual(&disk, log);
}

#[test]
fn a_segment_of_an_epoch_that_the_state_does_not_know_is_not_trusted() {
    let (disk, second) = closed();
    let epoch = riverrun_proto::LeaderEpoch(9);
    let end = forge(&disk, &segment_path(second), |header| header.leader_epoch = epoch);
    mark_clean(&disk, &end);
    // Trusted, the log would go on in a lower epoch, and what it appended pass for what a recovery left.
    assert_eq!(check_seen(&disk), RecoveryVerdict::CleanEnd);
}

#[test]
fn a_header_that_proves_more_durable_than_the_clean_mark_is_damage() {
    let (disk, second) = closed();
    let beyond = |header: &mut SegmentHeader| header.durable_upto = Offset(1_000);
    let end = forge(&disk, &segment_path(second), beyond);
    mark_clean(&disk, &end);
    assert_eq!(check_seen(&disk), RecoveryVerdict::Damaged);
}

#[test]
fn an_epoch_that_begins_past_the_end_is_damage() {
    let (disk, second) = closed();
    let mut beyond = LogState::new(Offset(0), riverrun_proto::LeaderEpoch(1));
    beyond.begin_epoch(riverrun_proto::LeaderEpoch(2), Offset(1_000));
    state::store(&disk, Path::new(DIR), &beyond).unwrap();
    assert_eq!(check_seen(&disk), RecoveryVerdict::Damaged);
    let read = read_range(&open(&disk).reader, Offset(0), Offset(second), 1).unwrap();
    assert_eq!(read, filled(0, second));
}

#[test]
fn a_mark_below_the_base_of_its_segment_is_not_trusted() {
    let (disk, log, second) = rolled();
    log.writer.close().unwrap();
    let below = |header: &mut SegmentHeader| header.durable_upto = Offset::ZERO;
    let mut end = forge(&disk, &segment_path(second), below);
    end.facts.end_offset = Offset(second - 2);
    mark_clean(&disk, &end);
    check_seen(&disk);
}

#[test]
fn a_cut_segment_whose_sums_contradict_each_other_is_damage() {
    let forgeries: [fn(&mut Previous); 3] = [
        |told| told.facts.record_count += 1,
        |told| told.facts.entry_bytes += 8,
        |told| told.end_pos -= 8,
    ];
    for change in forgeries {
        let (disk, second) = closed();
        let cut = forge(&disk, &segment_path(0), |_| ());
        let mut told = cut_before_the_seal(&disk, &cut);
        change(&mut told);
        let tie = |header: &mut SegmentHeader| header.previous = Some(told);
        let end = forge(&disk, &segment_path(second), tie);
        mark_clean(&disk, &end);
        assert_eq!(check_seen(&disk), RecoveryVerdict::Damaged);
    }
}

/// How the segment at 0 ends when its seal does not count.
fn cut_before_the_seal(disk: &SimDisk, sealed: &Previous) -> Previous {
    let mut facts = SegmentFacts::empty(sealed.base);
    let mut cut = *sealed;
    for (pos, header) in entries(disk, &segment_path(0)) {
        if header.kind != EntryKind::Seal {
            let crc = header.encode().1;
            facts.add(&header, crc);
            (cut.chain, cut.end_pos) = (crc, pos + header.stride());
        }
    }
    Previous { sealed: false, facts, ..cut }
}

#[test]
fn a_seal_that_covers_offsets_is_none() {
    let (disk, log, second) = rolled();
    drop(log);
    let disk = disk.kill();
    let (pos, seal) = entries(&disk, &segment_path(0)).pop().unwrap();
    assert_eq!(seal.kind, EntryKind::Seal);
    let forged = EntryHeader { count: 7, ..seal };
    file(&disk, &segment_path(0)).write_at(pos, &[&forged.encode().0]).unwrap();
    let log = open(&disk);
    assert_eq!(read_all(&log.reader), filled(0, second), "{:?}", log.report);
    check_goes_on_as_usual(&disk, log);
}

#[test]
fn a_segment_with_nothing_but_a_control_entry_is_not_rolled_over_itself() {
    let disk = SimDisk::new(1);
    open(&disk).writer.close().unwrap();
    let path = segment_path(0);
    let block = &bytes_of(&disk, &path)[..HEADER_BLOCK_BYTES];
    let found = SegmentHeader::decode(block.try_into().unwrap(), &path).unwrap();
    let (header, previous_crc) = found.unwrap();
    let control = EntryHeader {
        kind: EntryKind::Control,
        length: 0,
        base_offset: Offset::ZERO,
        count: 0,
        leader_epoch: header.leader_epoch,
        durable_upto: Offset::ZERO,
        append_time: Timestamp(1),
        max_timestamp: Timestamp::MIN,
        payload_crc: 0,
        salt: header.salt(),
        previous_crc,
    };
    let pos = HEADER_BLOCK_BYTES as u64;
    let planted = file(&disk, &path);
    planted.allocate(pos + control.stride()).unwrap();
    planted.write_at(pos, &[&control.encode().0]).unwrap();
    let end = forge(&disk, &path, |_| ());
    mark_clean(&disk, &end);
    let mut log = open(&disk);
    log.writer.roll(Timestamp(1)).unwrap();
    check_goes_on_as_usual(&disk, log);
}

#[test]
fn a_chain_that_does_not_lead_to_the_clean_mark_is_not_gone_on_with() {
    let (disk, second) = closed();
    let mut end = forge(&disk, &segment_path(second), |_| ());
    end.chain ^= 1;
    mark_clean(&disk, &end);
    // Trusted, the log would go on with an entry that no walk comes to. Everything is there, so it goes on behind it.
    assert_eq!(check_seen(&disk), RecoveryVerdict::CleanEnd);
}

#[test]
fn a_snapshot_that_tells_of_batches_past_its_offset_is_not_believed() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    log.writer.append(&produced(9, 0, 0, &["a"]), Timestamp(1)).unwrap();
    log.flusher.flush().unwrap();
    log.writer.close().unwrap();
    let path = paths::producers(Path::new(DIR), Offset(1));
    let mut bytes = bytes_of(&disk, &path);
    // The base offset of its one batch, and the sequence of a batch that was never sent.
    bytes[32 + 24 + 4..][..4].copy_from_slice(&4_i32.to_le_bytes());
    bytes[32 + 24..][..4].copy_from_slice(&4_i32.to_le_bytes());
    bytes[32 + 24 + 8..][..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let crc = crate::fixed::crc32(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    file(&disk, &path).write_at(0, &[&bytes]).unwrap();
    let mut log = open(&disk);
    let told = log.writer.append(&produced(9, 0, 4, &["never sent"]), Timestamp(1));
    assert!(told.is_err(), "{told:?}");
    let told = log.writer.append(&produced(9, 0, 0, &["a"]), Timestamp(1)).unwrap();
    assert!(told.duplicate && told.base_offset == Offset::ZERO, "{told:?}");
}

#[test]
fn after_the_last_epoch_a_log_that_was_not_closed_is_damage() {
    let last = riverrun_proto::LeaderEpoch(i32::MAX as u32 - 1);
    let (disk, _) = closed();
    state::store(&disk, Path::new(DIR), &LogState::new(Offset(0), last)).unwrap();
    disk.remove_file(&Path::new(DIR).join(paths::MARK)).unwrap();
    assert_eq!(check_seen(&disk), RecoveryVerdict::Damaged);
}

#[test]
fn a_closed_log_goes_on_in_the_last_epoch_that_there_is() {
    let last = i32::MAX as u32 - 1;
    for epoch in [last - 1, last] {
        let (disk, _) = closed();
        let state = LogState::new(Offset(0), riverrun_proto::LeaderEpoch(epoch));
        state::store(&disk, Path::new(DIR), &state).unwrap();
        let log = open(&disk);
        assert_eq!(log.report.verdict, RecoveryVerdict::Trusted, "{:?}", log.report);
        check_goes_on_as_usual(&disk, log);
    }
}

#[test]
fn entries_of_an_epoch_that_was_never_begun_are_damage() {
    let (disk, second) = closed();
    let path = segment_path(second);
    let (pos, header) = entries(&disk, &path).pop().unwrap();
    let (leader_epoch, kind) = (riverrun_proto::LeaderEpoch(9), EntryKind::Control);
    let forged = EntryHeader { leader_epoch, kind, count: 0, ..header };
    let payload = &bytes_of(&disk, &path)[usize::try_from(pos).unwrap() + ENTRY_BYTES..];
    let payload = &payload[..header.length as usize];
    let forged = EntryHeader { payload_crc: crate::fixed::crc32(payload), ..forged };
    file(&disk, &path).write_at(pos, &[&forged.encode().0]).unwrap();
    disk.remove_file(&Path::new(DIR).join(paths::MARK)).unwrap();
    assert_eq!(check_seen(&disk), RecoveryVerdict::Damaged);
}

use super::*;
use crate::{
    AppendError, DamageReason, Log, LogFailure, RecoveryVerdict, StorageError, log::tests::fill,
};

/// A log with `flushed` batches that are durable and `unflushed` that are not, whose process died.
fn killed(flushed: u64, unflushed: u64) -> SimDisk {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, flushed);
    log.flusher.flush().unwrap();
    fill(&mut log, unflushed);
    disk.kill()
}

/// Opens a log that must be whole up to `end`, and goes on with it.
#[track_caller]
fn check_goes_on(disk: &SimDisk, verdict: RecoveryVerdict, end: u64) -> (OpenedLog, SimDisk) {
    let mut log = open(disk);
    assert_eq!(log.report.verdict, verdict, "{:?}", log.report);
    assert_eq!(log.reader.offsets().flushed, Offset(end));
    assert_eq!(read_all(&log.reader), filled(0, end));
    assert!(log.report.leader_epoch.0 > 1);
    fill(&mut log, 2);
    log.flusher.flush().unwrap();
    let disk = disk.crash(CrashPolicy::lose_all());
    let again = open(&disk);
    assert_eq!(read_all(&again.reader), filled(0, end + 4));
    (log, disk)
}

/// Opens a log that must refuse writes, name `damaged` and leave everything as it is.
#[track_caller]
fn check_refuses(disk: &SimDisk, end: u64, damaged: &[u64], reason: DamageReason) {
    let before = directory(disk);
    let mut log = open(disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Damaged, "{:?}", log.report);
    let damage = log.report.damages[0].clone();
    assert_eq!(damage.reason, reason, "{damage}");
    assert!(matches!(log.reader.failure(), Some(LogFailure::Damaged(named)) if named == damage));
    let refused = log.writer.append(&batch(&["x"], 1), Timestamp(1));
    assert!(matches!(refused, Err(AppendError::Failed(LogFailure::Damaged(_)))), "{refused:?}");
    assert!(matches!(log.flusher.flush(), Err(StorageError::Failed(_))));
    assert!(log.writer.drop_before(Offset(1)).is_err());
    assert_eq!(log.reader.offsets().log_end, Offset(end));
    assert_eq!(read_around_damage(&log, end), damaged);
    drop(log);
    assert!(directory(disk) == before, "nothing is changed");
}

#[test]
fn row_1_a_clean_end_goes_on_in_a_new_segment() {
    let disk = killed(5, 0);
    let (log, _) = check_goes_on(&disk, RecoveryVerdict::CleanEnd, 10);
    assert_eq!(log.report.copied_from, Offset(10));
    assert_eq!(log.reader.segment_count(), 2);
}

#[test]
fn row_1_what_was_not_flushed_is_copied_and_durable_before_it_is_served() {
    let disk = killed(5, 3);
    let log = open(&disk);
    assert_eq!(log.report.copied_from, Offset(10));
    assert_eq!(read_all(&log.reader), filled(0, 16));
    let log = open(&disk.crash(CrashPolicy::lose_all()));
    assert_eq!(read_all(&log.reader), filled(0, 16));
}

#[test]
fn row_1_nothing_was_ever_flushed() {
    let (log, _) = check_goes_on(&killed(0, 3), RecoveryVerdict::CleanEnd, 6);
    assert_eq!(log.report.copied_from, Offset(0));
    assert_eq!(log.reader.segment_count(), 1, "the copy takes the place of the first segment");
}

#[test]
fn row_2_a_torn_tail_is_set_aside_and_reported() {
    let disk = killed(5, 1);
    let path = segment_path(0);
    let pos = entry_pos(&disk, &path, 10);
    let written = bytes_of(&disk, &path);
    disk.zero_sector(&path, pos + 200);
    let (log, disk) = check_goes_on(&disk, RecoveryVerdict::TornTail, 10);
    let [torn] = &log.report.torn_files[..] else { panic!("{:?}", log.report) };
    let kept = bytes_of(&disk, torn);
    assert_eq!(kept.len() as u64, log.report.torn_bytes);
    let at = usize::try_from(pos).unwrap();
    assert_eq!(kept[..ENTRY_BYTES], written[at..at + ENTRY_BYTES]);
}

#[test]
fn row_3_a_flipped_bit_below_the_mark_refuses_writes_and_is_read_around() {
    let disk = killed(5, 0);
    let path = segment_path(0);
    let pos = entry_pos(&disk, &path, 4);
    disk.flip_bit(&path, pos + 150, 3);
    check_refuses(&disk, 10, &[4, 5], DamageReason::Entry);
    // The same in the entry's header.
    let disk = killed(5, 0);
    disk.flip_bit(&path, pos + 20, 3);
    check_refuses(&disk, 10, &[4, 5], DamageReason::Entry);
}

#[test]
fn row_3_a_lost_write_at_the_end_is_not_taken_for_a_clean_end() {
    let disk = killed(5, 0);
    let path = segment_path(0);
    let pos = entry_pos(&disk, &path, 6);
    let end = bytes_of(&disk, &path).len();
    let zeros = vec![0; end - usize::try_from(pos).unwrap()];
    file(&disk, &path).write_at(pos, &[&zeros]).unwrap();
    check_refuses(&disk, 10, &[6, 7, 8, 9], DamageReason::Entry);
}

#[test]
fn row_3_without_a_mark_later_entries_prove_what_was_durable() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 3);
    log.flusher.flush().unwrap();
    fill(&mut log, 3);
    log.flusher.flush().unwrap();
    let disk = disk.kill();
    let mark = Path::new(DIR).join(paths::MARK);
    disk.remove_file(&mark).unwrap();
    let path = segment_path(0);
    let pos = entry_pos(&disk, &path, 2);
    disk.flip_bit(&path, pos + 130, 1);
    // Offsets 0..6 are proven by the entries 6..12; those themselves by nothing any more.
    check_refuses(&disk, 6, &[2, 3], DamageReason::Entry);
}

#[test]
fn row_4_debris_that_proves_nothing_is_torn() {
    let disk = killed(5, 3);
    let path = segment_path(0);
    let pos = entry_pos(&disk, &path, 10);
    disk.flip_bit(&path, pos + 5, 0);
    let (log, _) = check_goes_on(&disk, RecoveryVerdict::TornTail, 10);
    assert!(log.report.torn_bytes > 1_000, "{:?}", log.report);
}

/// A flushed log of several segments, stopped cleanly or killed. Its segments' bases and its end.
pub(super) fn rolled(clean: bool) -> (SimDisk, Vec<u64>, u64) {
    rolled_to(100, clean)
}

/// The same with `count` batches.
pub(super) fn rolled_to(count: u64, clean: bool) -> (SimDisk, Vec<u64>, u64) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, count);
    log.flusher.flush().unwrap();
    let end = log.writer.log_end().0;
    if clean {
        log.writer.close().unwrap();
    }
    let disk = disk.kill();
    let names = named(&disk, ".log");
    let bases = names.iter().map(|name| name[..20].parse().unwrap()).collect();
    (disk, bases, end)
}

#[test]
fn row_5_a_segment_that_does_not_match_its_seal_refuses_writes() {
    for clean in [true, false] {
        let (disk, bases, end) = rolled(clean);
        let path = segment_path(bases[1]);
        let (seal, _) = *entries(&disk, &path).last().unwrap();
        disk.flip_bit(&path, seal + 100, 0);
        check_refuses(&disk, end, &[], DamageReason::Seal);
    }
}

#[test]
fn row_5_a_missing_segment_refuses_writes_and_never_reads_as_empty() {
    for clean in [true, false] {
        for missing in [0, 1, 2, 3] {
            let (disk, bases, end) = rolled(clean);
            assert!(bases.len() > 3, "{bases:?}");
            let gone = if missing == 3 { bases.len() - 1 } else { missing };
            disk.remove_file(&segment_path(bases[gone])).unwrap();
            let until = bases.get(gone + 1).copied().unwrap_or(end);
            let damaged: Vec<u64> = (bases[gone]..until).collect();
            let reason =
                if gone == bases.len() - 1 { DamageReason::Entry } else { DamageReason::Missing };
            check_refuses(&disk, end, &damaged, reason);
        }
    }
}

#[test]
fn row_5_an_invalid_header_block_refuses_writes() {
    for clean in [true, false] {
        let (disk, bases, end) = rolled(clean);
        disk.flip_bit(&segment_path(bases[1]), 41, 0);
        let damaged: Vec<u64> = (bases[1]..bases[2]).collect();
        check_refuses(&disk, end, &damaged, DamageReason::SegmentHeader);
    }
}

#[test]
fn row_5_exchanged_segments_refuse_writes() {
    let (disk, bases, end) = rolled(true);
    let [a, b] = [segment_path(bases[1]), segment_path(bases[2])];
    disk.rename(&a, Path::new("logs/t/0/a")).unwrap();
    disk.rename(&b, &a).unwrap();
    disk.rename(Path::new("logs/t/0/a"), &b).unwrap();
    let damaged: Vec<u64> = (bases[1]..bases[3]).collect();
    check_refuses(&disk, end, &damaged, DamageReason::SegmentHeader);
}

#[test]
fn row_5_a_segment_of_another_history_is_not_read_whenever_that_began() {
    let open_at = |disk: &SimDisk, seconds: i64| {
        let now = Timestamp(1_800_000_000_000 + seconds * 1_000);
        Log::open(Arc::new(disk.clone()), DIR, options(), now).unwrap()
    };
    for begun in [5, 10, 20] {
        let disk = SimDisk::new(1);
        let mut log = open_at(&disk, 0);
        fill(&mut log, 2);
        log.writer.close().unwrap();
        let copy = disk.copy();
        let mut log = open_at(&disk, 10);
        for batches in [2, 1] {
            log.writer.roll(Timestamp(1)).unwrap();
            fill(&mut log, batches);
        }
        log.writer.close().unwrap();
        let mut other = open_at(&copy, begun);
        for _ in 0..2 {
            other.writer.roll(Timestamp(1)).unwrap();
            other.writer.append(&batch(&["not", "ours"], 1), Timestamp(1)).unwrap();
        }
        other.writer.close().unwrap();
        // Ours begin at 0, 4 and 8.
        let strange = bytes_of(&copy, &segment_path(6));
        plant(&disk, &segment_path(6), &strange);
        check_refuses(&disk, 10, &[], DamageReason::Seal);
    }
}

#[test]
fn row_5_a_missing_or_invalid_state_file_refuses_writes() {
    for damage in [false, true] {
        let (disk, _, end) = rolled(true);
        let path = Path::new(DIR).join(paths::STATE);
        if damage {
            disk.flip_bit(&path, 17, 0);
        } else {
            disk.remove_file(&path).unwrap();
        }
        check_refuses(&disk, end, &[], DamageReason::State);
    }
}

#[test]
fn a_rotten_record_of_a_sealed_segment_is_named_and_read_around() {
    let (disk, bases, end) = rolled(true);
    let path = segment_path(bases[1]);
    let damaged = bases[1] + 4;
    let pos = entry_pos(&disk, &path, damaged);
    disk.flip_bit(&path, pos + 120, 5);
    let log = open(&disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Trusted, "nothing sealed is scanned");
    assert_eq!(read_around_damage(&log, end), [damaged, damaged + 1]);
    let Err(ReadError::Corrupt(named)) = log.reader.read(Offset(damaged), Offset(end), 1) else {
        panic!("damage is an error");
    };
    assert_eq!((named.path, named.pos, named.reason), (path.clone(), pos, DamageReason::Payload));

    disk.flip_bit(&path, pos + 40, 5);
    let log = open(&disk);
    assert_eq!(read_around_damage(&log, end), [damaged, damaged + 1]);
    let Err(ReadError::Corrupt(named)) = log.reader.read(Offset(damaged), Offset(end), 1) else {
        panic!("damage is an error");
    };
    assert_eq!((named.path, named.pos, named.reason), (path, pos, DamageReason::Entry));
    assert_eq!(named.offsets, Offset(damaged)..Offset(damaged + 2));
}

#[test]
fn row_7_temporary_files_are_removed() {
    for clean in [true, false] {
        let (disk, _, end) = rolled(clean);
        for name in ["state.tmp", paths::NEXT_SEGMENT, paths::RECOVERED_SEGMENT] {
            disk.open(&Path::new(DIR).join(name), OpenMode::CreateNew).unwrap();
        }
        let log = open(&disk);
        assert_eq!(read_all(&log.reader), filled(0, end));
        assert_eq!(named(&disk, ".tmp"), Vec::<String>::new());
    }
}

#[test]
fn row_8_an_unfinished_roll_opens_the_segment_before_it_again() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    log.flusher.flush().unwrap();
    log.writer.roll(Timestamp(1)).unwrap();
    fill(&mut log, 1);
    let disk = disk.kill();
    disk.zero_sector(&segment_path(10), 0);
    let (log, _) = check_goes_on(&disk, RecoveryVerdict::TornTail, 10);
    assert_eq!(log.reader.segment_count(), 2);
}

#[test]
fn row_9_a_segment_that_an_interrupted_recovery_replaced_is_removed() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    log.flusher.flush().unwrap();
    fill(&mut log, 1);
    log.writer.roll(Timestamp(1)).unwrap();
    fill(&mut log, 2);
    let disk = disk.kill();
    let old = bytes_of(&disk, &segment_path(12));
    let recovered = open(&disk);
    assert_eq!(read_all(&recovered.reader), filled(0, 16));
    let disk = disk.kill();
    assert_eq!(named(&disk, ".log").len(), 2, "0 and the copy at 10");
    // The removal did not reach the disk.
    plant(&disk, &segment_path(12), &old);
    let (_, disk) = check_goes_on(&disk, RecoveryVerdict::CleanEnd, 16);
    assert_eq!(named(&disk, "012.log"), Vec::<String>::new());
}

/// Puts a file of these bytes at `path`.
pub(super) fn plant(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let planted = disk.open(path, OpenMode::CreateNew).unwrap();
    planted.allocate(bytes.len() as u64).unwrap();
    planted.write_at(0, &[bytes]).unwrap();
}

/// A log whose epoch has risen, with segments at 0, 10 and 14 and its end at 20, and the bytes of a segment at
/// `base` of a copy that went its own way before the epoch rose.
pub(super) fn parted(base: u64) -> (SimDisk, Vec<u8>) {
    let open_at = |disk: &SimDisk, now: i64| {
        Log::open(Arc::new(disk.clone()), DIR, options(), Timestamp(now)).unwrap()
    };
    let disk = killed(5, 0);
    let copy = disk.copy();
    let mut log = open_at(&copy, 1_800_000_000_000);
    let strange = batch(&["not", "ours"], 1);
    while log.writer.log_end().0 < base {
        log.writer.append(&strange, Timestamp(1)).unwrap();
    }
    log.writer.roll(Timestamp(1)).unwrap();
    log.writer.append(&strange, Timestamp(1)).unwrap();
    log.writer.close().unwrap();
    let mut log = open_at(&disk, 1_800_000_010_000);
    fill(&mut log, 2);
    log.writer.roll(Timestamp(1)).unwrap();
    fill(&mut log, 3);
    log.flusher.flush().unwrap();
    (disk, bytes_of(&copy, &segment_path(base)))
}

#[test]
fn row_10_a_segment_of_a_lower_epoch_that_no_recovery_replaced_refuses_writes_and_stays() {
    for base in [12, 16, 20, 30] {
        for clean in [true, false] {
            let (disk, strange) = parted(base);
            if clean {
                open(&disk.kill()).writer.close().unwrap();
            }
            let disk = disk.kill();
            assert_eq!(named(&disk, ".log").len(), 3);
            plant(&disk, &segment_path(base), &strange);
            check_refuses(&disk, 20, &[], DamageReason::Stray);
        }
    }
}

#[test]
fn row_9_a_replaced_segment_that_was_set_aside_is_removed() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    log.flusher.flush().unwrap();
    fill(&mut log, 1);
    log.writer.roll(Timestamp(1)).unwrap();
    fill(&mut log, 2);
    let disk = disk.kill();
    let old = bytes_of(&disk, &segment_path(12));
    disk.flip_bit(&segment_path(0), entry_pos(&disk, &segment_path(0), 10) + 5, 0);
    let report = open(&disk).report;
    assert_eq!((report.verdict, report.torn_files.len()), (RecoveryVerdict::TornTail, 2));
    let disk = disk.kill();
    plant(&disk, &segment_path(12), &old);
    let (_, disk) = check_goes_on(&disk, RecoveryVerdict::CleanEnd, 10);
    assert_eq!(named(&disk, "012.log"), Vec::<String>::new());
    assert_eq!(named(&disk, "012.torn").len(), 1);
}

/// A killed log whose torn end begins in the segment at 0 and goes on in one at 12, with one entry there.
fn torn_over_a_roll() -> SimDisk {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    log.flusher.flush().unwrap();
    fill(&mut log, 1);
    log.writer.roll(Timestamp(1)).unwrap();
    fill(&mut log, 1);
    disk.kill()
}

#[test]
fn row_9_a_replaced_segment_of_which_only_a_part_of_a_header_was_set_aside_is_removed() {
    let disk = torn_over_a_roll();
    disk.flip_bit(&segment_path(0), entry_pos(&disk, &segment_path(0), 10) + 5, 0);
    let (pos, header) = entries(&disk, &segment_path(12))[0];
    // The payload did not reach the disk, and the header ends with zeros.
    let zeros = vec![0; usize::try_from(header.length).unwrap()];
    file(&disk, &segment_path(12)).write_at(pos + ENTRY_BYTES as u64, &[&zeros]).unwrap();
    let old = bytes_of(&disk, &segment_path(12));
    let report = open(&disk).report;
    assert_eq!((report.verdict, report.torn_files.len()), (RecoveryVerdict::TornTail, 2));
    let disk = disk.kill();
    plant(&disk, &segment_path(12), &old);
    check_goes_on(&disk, RecoveryVerdict::CleanEnd, 10);
}

#[test]
fn a_recovery_that_sets_bytes_aside_may_be_cut_short_anywhere() {
    let disk = torn_over_a_roll();
    disk.flip_bit(&segment_path(0), entry_pos(&disk, &segment_path(0), 10) + 5, 0);
    let disk = disk.crash(CrashPolicy::keep_all());
    for step in 1.. {
        let mut finished = false;
        for seed in 0..40 {
            let disk = disk.crash(CrashPolicy::keep_all());
            disk.cut_power_at(step);
            finished = try_open(&disk).is_ok();
            let log = open(&disk.crash(CrashPolicy::weak(seed)));
            assert!(log.reader.failure().is_none(), "step {step} seed {seed}: {:?}", log.report);
            assert_eq!(read_all(&log.reader), filled(0, 10), "step {step} seed {seed}");
        }
        if finished {
            break;
        }
    }
}

#[test]
fn directories_of_others_and_of_newer_versions_are_refused_untouched() {
    let (disk, _, _) = rolled(true);
    let before = directory(&disk);
    let other = crate::LogOptions { partition: riverrun_proto::PartitionId(1), ..options() };
    let refused = crate::Log::open(Arc::new(disk.clone()), DIR, other, Timestamp(1));
    assert!(matches!(refused, Err(StorageError::Foreign { .. })), "{refused:?}");
    assert!(directory(&disk) == before);
}

#[test]
fn an_idle_log_is_trusted_after_the_process_died() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    log.flusher.sync_mark().unwrap();
    for disk in [disk.crash(CrashPolicy::lose_all()), disk.crash(CrashPolicy::keep_all())] {
        let log = open(&disk);
        assert_eq!(log.report.verdict, RecoveryVerdict::Trusted);
        assert_eq!(log.report.leader_epoch.0, 1);
        assert_eq!(read_all(&log.reader), filled(0, 10));
    }
}

#[test]
fn a_clean_mark_does_not_come_back_once_more_was_flushed() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    log.flusher.sync_mark().unwrap();
    for _ in 0..2 {
        fill(&mut log, 5);
        log.flusher.flush().unwrap();
    }
    let disk = disk.crash(CrashPolicy::lose_all());
    let path = segment_path(0);
    disk.flip_bit(&path, entry_pos(&disk, &path, 10) + 5, 0);
    // The entries behind it prove that it was flushed. Trusted, the log would go on at 10.
    check_refuses(&disk, 20, &[10, 11], DamageReason::Entry);
}

#[test]
fn a_trusted_start_does_not_look_at_what_the_file_holds_behind_the_mark() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    log.writer.close().unwrap();
    let disk = disk.kill();
    let path = segment_path(0);
    let file = disk.open(&path, OpenMode::Write).unwrap();
    file.write_at(file.len() - 100, &[&[7; 100]]).unwrap();
    let mut log = open(&disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Trusted);
    fill(&mut log, 5);
    assert_eq!(read_all(&log.reader), filled(0, 20));
    drop(log);
    // When it has to look, it tells the records from what stands behind them.
    check_goes_on(&disk.kill(), RecoveryVerdict::TornTail, 20);
}

#[test]
fn repeated_kills_leave_no_pile_of_segments() {
    let mut disk = killed(5, 2);
    for _ in 0..10 {
        let log = open(&disk);
        assert_eq!(read_all(&log.reader), filled(0, 14));
        assert!(log.reader.segment_count() <= 2);
        disk = disk.kill();
    }
}

#[test]
fn a_recovery_that_replaces_segments_may_be_cut_short_anywhere() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    log.flusher.flush().unwrap();
    fill(&mut log, 1);
    log.writer.roll(Timestamp(1)).unwrap();
    fill(&mut log, 2);
    // All of it reached the disk, and nobody knows.
    let disk = disk.crash(CrashPolicy::keep_all());
    for step in 1.. {
        let mut finished = false;
        for seed in 0..40 {
            let disk = disk.crash(CrashPolicy::keep_all());
            disk.cut_power_at(step);
            finished = try_open(&disk).is_ok();
            let log = open(&disk.crash(CrashPolicy::weak(seed)));
            assert_eq!(read_all(&log.reader), filled(0, 16), "step {step} seed {seed}");
        }
        if finished {
            break;
        }
    }
}

#[test]
fn a_snapshot_of_lost_history_is_not_believed_when_its_offsets_come_again() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    log.writer.append(&produced(9, 0, 0, &["a"]), Timestamp(1)).unwrap();
    log.flusher.flush().unwrap();
    log.writer.append(&produced(9, 0, 1, &["b"]), Timestamp(1)).unwrap();
    log.writer.roll(Timestamp(1)).unwrap();
    let snapshot = paths::producers(Path::new(DIR), Offset(2));
    let bytes = bytes_of(&disk, &snapshot);
    let disk = disk.crash(CrashPolicy::lose_all());
    let stale = disk.open(&snapshot, OpenMode::CreateNew).unwrap();
    stale.allocate(bytes.len() as u64).unwrap();
    stale.write_at(0, &[&bytes]).unwrap();
    let mut log = open(&disk);
    log.writer.append(&batch(&["other", "records"], 1), Timestamp(1)).unwrap();
    let mut log = open(&disk.kill());
    let again = log.writer.append(&produced(9, 0, 1, &["b"]), Timestamp(1)).unwrap();
    assert!(!again.duplicate, "the batch was lost and is not in the log");
}

#[test]
fn a_damaged_batch_tells_nothing_of_its_producer() {
    // Where epoch and sequence end in a batch, and what a flipped bit there makes of 0.
    for (byte, bit) in [(52, 1), (56, 1)] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        for (sequence, value) in [(0, "a"), (1, "b")] {
            log.writer.append(&produced(9, 0, sequence, &[value]), Timestamp(1)).unwrap();
        }
        log.writer.close().unwrap();
        // The snapshot remembers the producer as long as it holds.
        disk.flip_bit(&paths::producers(Path::new(DIR), Offset(2)), 20, 0);
        let batch = (HEADER_BLOCK_BYTES + ENTRY_BYTES) as u64;
        disk.flip_bit(&segment_path(0), batch + byte, bit);
        let mut log = open(&disk);
        assert_eq!(log.report.verdict, RecoveryVerdict::Trusted);
        let next = log.writer.append(&produced(9, 0, 2, &["c"]), Timestamp(1)).unwrap();
        assert!(!next.duplicate && next.base_offset == Offset(2), "byte {byte}: {next:?}");
    }
}

#[test]
fn a_log_start_whose_sync_failed_is_made_durable_before_it_is_served() {
    use crate::disk::sim::{Call, Fault, FaultError};
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 5);
    log.flusher.sync_mark().unwrap();
    disk.inject(Fault { call: Call::SyncDir, nth: 1, error: FaultError::Io, lasting: false });
    assert!(log.writer.drop_before(Offset(4)).is_err());
    assert!(log.reader.failure().is_some());
    let disk = disk.kill();
    let served = open(&disk).reader.offsets().log_start;
    let log = open(&disk.crash(CrashPolicy::lose_all()));
    assert_eq!(log.reader.offsets().log_start, served);
}

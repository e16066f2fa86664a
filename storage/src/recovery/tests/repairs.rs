//! Repairs: what is given up, what stays, and that nothing but that changes, wherever a crash comes.

mod anew;
mod cut;
mod durable;
mod faults;
mod random;
mod retries;
mod spoiled;
mod strays;
mod times;

use std::time::Duration;

use super::{
    rows::{rolled, rolled_to},
    *,
};
use crate::{
    CompactionOptions, LogOffsets, LogRepair, Loss, RecoveryVerdict, Repair,
    inspect::{Finding, Inspector},
    log::tests::fill,
    state::{self, StoredState},
};
use riverrun_proto::{BatchBuilder, BuilderOptions, Compression, LeaderEpoch};

/// Where the tests set aside.
const QUARANTINE: &str = "quarantine/t/0";

/// A repair of the log under test.
fn repair(disk: &SimDisk) -> LogRepair {
    LogRepair {
        disk: Arc::new(disk.clone()),
        dir: DIR.into(),
        quarantine: QUARANTINE.into(),
        options: options(),
        now: Timestamp(2_000),
    }
}

/// Offsets that `repair` gives up.
fn lost(repair: &Repair) -> Vec<u64> {
    repair.losses.iter().flat_map(|loss| loss.offsets.start.0..loss.offsets.end.0).collect()
}

/// Every record of an open log is what [`filled`] says, but for `lost`.
#[track_caller]
fn check_records(log: &OpenedLog, end: u64, lost: &[u64]) {
    let offsets = log.reader.offsets();
    assert_eq!((offsets.log_start, offsets.log_end), (Offset(0), Offset(end)), "{:?}", log.report);
    let read = read_all(&log.reader);
    let offsets: Vec<u64> = read.iter().map(|(offset, _)| *offset).collect();
    let expected: Vec<u64> = (0..end).filter(|offset| !lost.contains(offset)).collect();
    assert_eq!(offsets, expected);
    assert!(read.iter().all(|(offset, value)| filled(*offset, offset + 1)[0].1 == *value));
    for offset in lost {
        // From within the hole a read goes on behind it.
        let next = (*offset..end).find(|offset| !lost.contains(offset)).unwrap_or(end);
        let mut run = log.reader.read(Offset(*offset), Offset(end), 1).unwrap();
        while run.bytes.is_empty() && run.next_offset < Offset(end) {
            run = log.reader.read(run.next_offset, Offset(end), 1).unwrap();
        }
        assert_eq!(run.base_offset, Offset(next), "{offset}");
    }
}

/// Repairs the log on `disk`: what is given up must be `expected`, and everything else stay. The repair, and the disk after it.
#[track_caller]
fn check_repaired(disk: &SimDisk, end: u64, expected: &[u64]) -> (Repair, SimDisk) {
    let (before, steps) = (directory(disk), disk.step_count());
    let plan = repair(disk).look().unwrap();
    assert!(plan.is_needed(), "{plan:?}");
    assert_eq!(lost(&plan), expected, "{plan:?}");
    assert_eq!(plan.lost_count(), expected.len() as u64);
    assert_eq!(plan.kept_count(), end - expected.len() as u64);
    assert_eq!(disk.step_count(), steps, "a look changes nothing");
    let epoch_before = match state::load(disk, Path::new(DIR)).unwrap() {
        StoredState::Valid(state) => state.epoch(),
        StoredState::Missing | StoredState::Invalid => LeaderEpoch(1),
    };

    let done = repair(disk).accept_loss().unwrap();
    assert_eq!((&done.losses, done.log_end), (&plan.losses, Offset(end)));
    assert!(done.epoch.unwrap() > epoch_before, "{done:?}");
    for path in &plan.set_aside {
        let name = path.file_name().unwrap().to_str().unwrap();
        let (_, bytes) = before.iter().find(|(of, _)| of == name).expect("it was there");
        let kept = bytes_of(disk, &Path::new(QUARANTINE).join(name));
        assert!(kept == *bytes, "{name} is not what it was");
    }
    // Whatever the repair did is durable.
    let disk = disk.crash(CrashPolicy::lose_all());
    let found = Inspector::new(Arc::new(disk.clone())).verify(Path::new(DIR)).unwrap();
    assert!(found.is_sound(), "{:?}", found.findings);
    let mut noted = Vec::new();
    for finding in &found.findings {
        let Finding::Lost { offsets, .. } = finding else { panic!("{finding:?}") };
        noted.extend(offsets.start.0..offsets.end.0);
    }
    assert_eq!(noted, expected);

    let steps = disk.step_count();
    let again = repair(&disk).accept_loss().unwrap();
    assert!(!again.is_needed(), "{again:?}");
    assert_eq!(disk.step_count(), steps, "a second repair changes nothing");

    let mut log = open(&disk);
    assert_eq!(log.report.verdict, RecoveryVerdict::Trusted);
    check_records(&log, end, expected);
    fill(&mut log, 20);
    log.flusher.flush().unwrap();
    log.writer.drop_before(Offset(0)).unwrap();
    let later = open(&disk.copy().crash(CrashPolicy::lose_all()));
    check_records(&later, end + 40, expected);
    drop(log);
    (done, disk)
}

/// Flips a bit in the entry that begins at `offset` of the segment at `base`.
fn flip(disk: &SimDisk, base: u64, offset: u64, at: u64) {
    let path = segment_path(base);
    let pos = entry_pos(disk, &path, offset);
    disk.flip_bit(&path, pos + at, 3);
}

#[test]
fn a_flipped_bit_costs_the_records_of_its_batch() {
    for clean in [true, false] {
        for at in [20, 150] {
            let (disk, bases, end) = rolled(clean);
            let (path, damaged) = (segment_path(bases[1]), bases[1] + 4);
            let bytes = entry_pos(&disk, &path, damaged)..entry_pos(&disk, &path, damaged + 2);
            flip(&disk, bases[1], damaged, at);
            let (done, _) = check_repaired(&disk, end, &[damaged, damaged + 1]);
            let offsets = Offset(damaged)..Offset(damaged + 2);
            assert_eq!(done.losses, [Loss { offsets, path, bytes }]);
        }
    }
}

#[test]
fn every_batch_of_every_segment_may_be_the_damaged_one() {
    let (whole, bases, end) = rolled(true);
    for offset in (0..end).step_by(2) {
        let base = *bases.iter().rfind(|base| **base <= offset).unwrap();
        let disk = whole.copy();
        flip(&disk, base, offset, 40 + offset % 100);
        check_repaired(&disk, end, &[offset, offset + 1]);
    }
}

#[test]
fn several_damages_in_several_segments_are_given_up_at_once() {
    let (disk, bases, end) = rolled(false);
    let mut lost = Vec::new();
    for base in [bases[0], bases[1], bases[3]] {
        for offset in [base + 8, base + 6, base] {
            flip(&disk, base, offset, 30);
            lost.extend([offset, offset + 1]);
        }
    }
    lost.sort_unstable();
    let (_, disk) = check_repaired(&disk, end, &lost);
    let first = open(&disk).reader.append_time(Offset(0)).unwrap();
    assert_eq!(first, Some(Timestamp(1_000)), "as old as the file that held it");
}

#[test]
fn an_invalid_header_block_costs_nothing_and_with_it_only_what_is_damaged_too() {
    for clean in [true, false] {
        let (whole, bases, end) = rolled(clean);
        for base in bases {
            let disk = whole.copy();
            disk.flip_bit(&segment_path(base), 41, 0);
            check_repaired(&disk, end, &[]);
            let disk = whole.copy();
            flip(&disk, base, base + 2, 30);
            disk.zero_sector(&segment_path(base), 0);
            check_repaired(&disk, end, &[base + 2, base + 3]);
        }
    }
}

#[test]
fn a_seal_that_does_not_hold_costs_nothing() {
    for at in [30, 100] {
        for clean in [true, false] {
            let (disk, bases, end) = rolled(clean);
            let path = segment_path(bases[1]);
            let (seal, _) = *entries(&disk, &path).last().unwrap();
            disk.flip_bit(&path, seal + at, 0);
            check_repaired(&disk, end, &[]);
        }
    }
}

#[test]
fn missing_segments_cost_their_records_and_no_others() {
    for clean in [true, false] {
        let (whole, bases, end) = rolled(clean);
        let count = bases.len();
        assert!(count > 4, "{bases:?}");
        let last = count - 1;
        for missing in
            [vec![0], vec![1], vec![last], vec![0, 1], vec![1, 2], vec![1, 3], vec![last - 1, last]]
        {
            let disk = whole.copy();
            let mut lost = Vec::new();
            for number in missing {
                disk.remove_file(&segment_path(bases[number])).unwrap();
                lost.extend(bases[number]..bases.get(number + 1).copied().unwrap_or(end));
            }
            check_repaired(&disk, end, &lost);
        }
        let disk = whole.copy();
        for base in &bases {
            disk.remove_file(&segment_path(*base)).unwrap();
        }
        check_repaired(&disk, end, &(0..end).collect::<Vec<_>>());
    }
}

#[test]
fn a_file_that_was_cut_off_costs_what_is_behind_the_cut() {
    for clean in [true, false] {
        let (whole, bases, end) = rolled(clean);
        for number in 0..bases.len() {
            let until = bases.get(number + 1).copied().unwrap_or(end);
            let disk = whole.copy();
            let path = segment_path(bases[number]);
            let cut = entry_pos(&disk, &path, until - 4) + 50;
            file(&disk, &path).set_len(cut).unwrap();
            check_repaired(&disk, end, &(until - 4..until).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_file_that_keeps_no_entry_makes_room_for_the_note_of_its_loss() {
    let (disk, bases, end) = rolled(false);
    let last = bases.len() - 1;
    file(&disk, &segment_path(bases[last - 1])).set_len(4529).unwrap();
    disk.remove_file(&segment_path(bases[last])).unwrap();
    check_repaired(&disk, end, &(bases[last - 1]..end).collect::<Vec<_>>());
}

#[test]
fn lost_writes_at_the_end_are_given_up_and_their_offsets_not_given_again() {
    let (disk, bases, end) = rolled(false);
    let path = segment_path(*bases.last().unwrap());
    let pos = entry_pos(&disk, &path, end - 4);
    let len = bytes_of(&disk, &path).len() as u64;
    let zeros = vec![0; usize::try_from(len - pos).unwrap()];
    file(&disk, &path).write_at(pos, &[&zeros]).unwrap();
    check_repaired(&disk, end, &(end - 4..end).collect::<Vec<_>>());
}

#[test]
fn without_a_state_file_log_start_and_epochs_are_those_of_the_records() {
    for flipped in [true, false] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        fill(&mut log, 5);
        log.flusher.flush().unwrap();
        let disk = disk.kill();
        let mut log = open(&disk);
        fill(&mut log, 5);
        log.writer.close().unwrap();
        let second = log.report.leader_epoch;
        let path = Path::new(DIR).join(paths::STATE);
        if flipped {
            disk.flip_bit(&path, 17, 0);
        } else {
            disk.remove_file(&path).unwrap();
        }
        let (done, disk) = check_repaired(&disk, 20, &[]);
        assert!(done.state_anew);
        let log = open(&disk);
        assert_eq!(log.reader.epoch_at(Offset(9)).0, 1);
        assert_eq!(log.reader.epoch_at(Offset(10)), second);
        assert!(Some(log.reader.epoch_at(Offset(20))) >= done.epoch);
    }
}

#[test]
fn a_file_from_elsewhere_is_moved_and_costs_nothing() {
    let (disk, bases, end) = rolled(true);
    let planted = disk.open(&segment_path(bases[1] + 2), OpenMode::CreateNew).unwrap();
    planted.allocate(5_000).unwrap();
    planted.write_at(0, &[b"not a segment"]).unwrap();
    assert!(open(&disk.copy()).reader.failure().is_some(), "it stops the log");
    let (done, disk) = check_repaired(&disk, end, &[]);
    assert_eq!(done.set_aside, [segment_path(bases[1] + 2)]);
    assert!(!named(&disk, ".log").contains(&format!("{:020}.log", bases[1] + 2)));
}

#[test]
fn what_a_crash_tore_is_no_loss_and_a_sound_log_is_left_alone() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 100);
    log.flusher.flush().unwrap();
    fill(&mut log, 3);
    let disk = disk.kill();
    let bases: Vec<u64> =
        named(&disk, ".log").iter().map(|name| name[..20].parse().unwrap()).collect();
    let last = *bases.last().unwrap();
    flip(&disk, last, 202, 30);
    let steps = disk.step_count();
    assert!(!repair(&disk).accept_loss().unwrap().is_needed());
    assert_eq!(disk.step_count(), steps);
    // Damage elsewhere does not make the torn end one.
    flip(&disk, bases[1], bases[1], 30);
    let before = open(&disk.copy()).reader.offsets();
    assert_eq!(before.log_end, Offset(202), "what follows the torn batch was never durable");
    check_repaired(&disk, 202, &[bases[1], bases[1] + 1]);
}

#[test]
fn damage_after_a_repair_is_damage_again() {
    let (disk, bases, end) = rolled(true);
    disk.remove_file(&segment_path(bases[1])).unwrap();
    let given_up: Vec<u64> = (bases[1]..bases[2]).collect();
    let (_, disk) = check_repaired(&disk, end, &given_up);
    // The note of the loss itself.
    let noted = disk.copy();
    noted.remove_file(&segment_path(bases[1])).unwrap();
    assert_eq!(open(&noted).report.verdict, RecoveryVerdict::Damaged);
    let flipped = disk.copy();
    flip(&flipped, bases[2], bases[2] + 2, 30);
    let plan = repair(&flipped).look().unwrap();
    assert_eq!(lost(&plan), [bases[2] + 2, bases[2] + 3]);
    check_later(&flipped, &[&given_up[..], &[bases[2] + 2, bases[2] + 3]].concat());
}

/// Repairs a log that was repaired before.
#[track_caller]
fn check_later(disk: &SimDisk, expected: &[u64]) {
    repair(disk).accept_loss().unwrap();
    let log = open(disk);
    let LogOffsets { log_end, .. } = log.reader.offsets();
    check_records(&log, log_end.0, expected);
}

#[test]
fn a_repair_may_be_cut_short_anywhere() {
    let (whole, bases, end) = rolled_to(150, false);
    let last = bases.len() - 1;
    assert_eq!(last, 7);
    flip(&whole, bases[0], 2, 30);
    whole.flip_bit(&segment_path(bases[1]), 41, 0);
    for number in [3, 4, last] {
        whole.remove_file(&segment_path(bases[number])).unwrap();
    }
    let mut lost = vec![2, 3];
    lost.extend(bases[3]..bases[5]);
    lost.extend(bases[last]..end);
    whole.write_back();
    for step in 1.. {
        let mut finished = false;
        for seed in 0..4 {
            let disk = whole.copy();
            disk.cut_power_at(step);
            finished = repair(&disk).accept_loss().is_ok();
            let disk = disk.crash(CrashPolicy::weak(seed));
            // A start in between reads no other record and loses none.
            let between = open(&if seed % 2 == 0 { disk.clone() } else { disk.copy() });
            for (offset, _) in read_what_is_there(&between, end) {
                assert!(!lost.contains(&offset), "step {step} seed {seed}");
            }
            drop(between);
            repair(&disk).accept_loss().unwrap();
            let mut log = open(&disk);
            check_records(&log, end, &lost);
            fill(&mut log, 1);
            let kept =
                bytes_of(&disk, &Path::new(QUARANTINE).join(segment_path(0).file_name().unwrap()));
            assert!(kept == bytes_of(&whole, &segment_path(0)), "step {step} seed {seed}");
        }
        if finished {
            assert!(step > 20, "{step}");
            break;
        }
    }
}

/// Every record that can be read, each checked.
fn read_what_is_there(log: &OpenedLog, end: u64) -> Vec<(u64, bytes::Bytes)> {
    let mut records = Vec::new();
    let mut next = log.reader.offsets().log_start;
    let end = end.min(log.reader.offsets().log_end.0);
    while next < Offset(end) {
        match log.reader.read(next, Offset(end), 1) {
            Ok(run) if run.next_offset > next => {
                records.extend(read_range(&log.reader, next, run.next_offset, 1).unwrap());
                next = run.next_offset;
            }
            Ok(_) => break,
            Err(ReadError::Corrupt(damage)) => next = damage.offsets.end,
            Err(other) => panic!("{other}"),
        }
    }
    for (offset, value) in &records {
        assert_eq!(filled(*offset, offset + 1)[0].1, *value);
    }
    records
}

/// Everything that may go at once.
fn compaction() -> CompactionOptions {
    CompactionOptions {
        lag: Duration::ZERO,
        map_bytes_max: 1 << 20,
        tombstone_retention: Duration::ZERO,
        producer_age_max: Duration::ZERO,
        dirty_percent_min: 0,
    }
}

#[test]
fn compaction_keeps_the_note_of_a_loss() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for value in ["0", "1", "2", "3"] {
        for key in ["a", "b", "c"] {
            let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
            builder.push_parts(1, Some(key.as_bytes()), Some(value.as_bytes()), &[]).unwrap();
            log.writer.append(&builder.build().unwrap(), Timestamp(1_000)).unwrap();
        }
        log.writer.roll(Timestamp(1_000)).unwrap();
    }
    log.writer.close().unwrap();
    flip(&disk, 3, 4, 30);
    assert_eq!(lost(&repair(&disk).accept_loss().unwrap()), [4]);
    let log = open(&disk);
    let compacted = log.writer.compactor().compact(Timestamp(3_000), &compaction()).unwrap();
    assert_eq!((compacted.segment_count, compacted.record_count), (3, 8), "{compacted:?}");
    let found = Inspector::new(Arc::new(disk.clone())).verify(Path::new(DIR)).unwrap();
    let offsets = Offset(4)..Offset(5);
    assert!(found.is_sound(), "{:?}", found.findings);
    let is_note =
        |finding: &Finding| matches!(finding, Finding::Lost { offsets: of, .. } if *of == offsets);
    assert!(found.findings.iter().any(is_note), "{:?}", found.findings);
    let read: Vec<u64> = read_all(&log.reader).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(read, [9, 10, 11]);
}

#[test]
fn whatever_is_damaged_a_repair_keeps_what_could_be_read() {
    let (whole, _, end) = rolled(false);
    let (clean, ..) = rolled(true);
    for seed in seed()..seed() + 150 {
        let mut rng = Rng::new(seed);
        let disk = if seed % 2 == 0 { whole.copy() } else { clean.copy() };
        for _ in 0..=rng.below(3) {
            harm(&disk, &mut rng);
        }
        let log = open(&disk.copy());
        let before = read_what_is_there(&log, end);
        let log_end = log.reader.offsets().log_end;
        drop(log);
        let done = repair(&disk).accept_loss();
        let done = done.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let found = Inspector::new(Arc::new(disk.clone())).verify(Path::new(DIR)).unwrap();
        assert!(found.is_sound(), "seed {seed}: {:?}", found.findings);
        assert!(!repair(&disk).look().unwrap().is_needed(), "seed {seed}");
        let mut log = open(&disk);
        let after = read_what_is_there(&log, end);
        for record in &before {
            assert!(after.contains(record), "seed {seed}: {} is gone, {done:?}", record.0);
        }
        assert!(log.writer.log_end() >= log_end, "seed {seed}: {done:?}");
        fill(&mut log, 1);
    }
}

/// Damages one file.
fn harm(disk: &SimDisk, rng: &mut Rng) {
    let mut names = named(disk, ".log");
    names.extend(["state", "mark"].map(str::to_owned));
    let number = usize::try_from(rng.below(names.len() as u64)).unwrap();
    let path = Path::new(DIR).join(&names[number]);
    let Ok(open) = disk.open(&path, OpenMode::Write) else { return };
    let (pos, other) = (rng.below(open.len().max(1)), rng.below(open.len().max(1)));
    match rng.below(6) {
        0 => disk.remove_file(&path).unwrap(),
        1 => open.set_len(pos).unwrap(),
        _ if open.is_empty() => {}
        2 => disk.zero_sector(&path, pos),
        3 if names[number].ends_with(".log") => disk.swap_sectors(&path, pos, other),
        _ => disk.flip_bit(&path, pos, u8::try_from(rng.below(8)).unwrap()),
    }
}

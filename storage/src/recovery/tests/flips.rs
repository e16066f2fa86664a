use super::*;
use crate::{Log, LogOptions, RecoveryVerdict, log::tests::fill};

/// A small log of three segments.
fn fixture(clean: bool) -> (SimDisk, u64) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    log.writer.set_options(LogOptions { segment_bytes_max: 8 << 10, ..options() }).unwrap();
    fill(&mut log, 16);
    log.flusher.flush().unwrap();
    let end = log.writer.log_end().0;
    assert_eq!(log.reader.segment_count(), 3);
    if clean {
        log.writer.close().unwrap();
    }
    (disk.kill(), end)
}

/// One flipped bit of one file never gives wrong records, a silent gap, a hang or a panic.
#[track_caller]
fn check_flip(disk: &SimDisk, end: u64, path: &Path, (pos, bit): (u64, u8)) {
    let disk = disk.crash(CrashPolicy::keep_all());
    disk.flip_bit(path, pos, bit);
    let log = open(&disk);
    let offsets = log.reader.offsets();
    assert_eq!((offsets.log_start.0, offsets.log_end.0), (0, end), "{:?}", log.report);
    let damaged = read_around_damage(&log, end);
    assert!(
        damaged.len() <= 16,
        "one bit takes a batch or the segment behind a header: {damaged:?}"
    );
    if log.report.verdict != RecoveryVerdict::Damaged {
        assert!(damaged.len() <= 2, "{damaged:?}");
    }
}

#[test]
fn one_flipped_bit_anywhere_is_harmless_or_named() {
    // `SEEDS=1` flips a bit in every byte; else in every thirteenth.
    let step = if std::env::var_os("SEEDS").is_some() { 1 } else { 13 };
    for clean in [true, false] {
        let (disk, end) = fixture(clean);
        for (name, bytes) in directory(&disk) {
            let path = Path::new(DIR).join(&name);
            let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
            for pos in (0..last).step_by(step) {
                let bit = u8::try_from(pos % 8).unwrap();
                eprintln!("clean {clean} {name} byte {pos} bit {bit}");
                check_flip(&disk, end, &path, (pos as u64, bit));
            }
        }
    }
}

#[test]
fn zeroed_and_exchanged_sectors_are_harmless_or_named() {
    let (disk, end) = fixture(true);
    for (name, bytes) in directory(&disk).into_iter().filter(|(name, _)| name.contains(".log")) {
        let path = Path::new(DIR).join(&name);
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 / 512;
        for sector in 0..=last {
            for other in [None, Some(sector / 2), Some(last)] {
                eprintln!("{name} sector {sector} with {other:?}");
                let disk = disk.crash(CrashPolicy::keep_all());
                match other {
                    None => disk.zero_sector(&path, sector * 512),
                    Some(other) => disk.swap_sectors(&path, sector * 512, other * 512),
                }
                let log = open(&disk);
                assert_eq!(log.reader.offsets().log_end.0, end, "{:?}", log.report);
                read_around_damage(&log, end);
            }
        }
    }
}

/// Opens the log of [`short_entries`].
fn open_short(disk: &SimDisk) -> OpenedLog {
    let options = LogOptions { index_interval_bytes: 512, ..options() };
    Log::open(Arc::new(disk.clone()), DIR, options, Timestamp(1_000)).unwrap()
}

/// A closed log of so many entries, many of them shorter than a sector, and its end.
fn short_entries(count: usize) -> (SimDisk, u64) {
    let disk = SimDisk::new(1);
    let mut log = open_short(&disk);
    for number in 0..count {
        let end = log.writer.log_end().0;
        let values: Vec<String> = (end..=end + [0, 1, 0, 0, 2, 0][number % 6])
            .map(|at| format!("{:>200}", format!("v{at}")))
            .collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        log.writer.append(&batch(&values, 5_000), Timestamp(10_000)).unwrap();
    }
    let end = log.writer.log_end().0;
    log.writer.close().unwrap();
    (disk.kill(), end)
}

/// The header of a lost entry behind entries that follow it, where nobody speaks for either.
#[test]
fn a_header_that_came_to_another_sector_leaves_damage_that_names_the_offset_asked_for() {
    let (disk, end) = short_entries(24);
    let path = segment_path(0);
    let used = 8..(4096 + 24 * 510) / 512;
    for sector in used.clone() {
        for other in used.start..sector {
            eprintln!("sector {sector} with {other}");
            let disk = disk.crash(CrashPolicy::keep_all());
            disk.swap_sectors(&path, sector * 512, other * 512);
            let log = open_short(&disk);
            assert_eq!(log.reader.offsets().log_end.0, end, "{:?}", log.report);
            read_around_damage(&log, end);
        }
    }
}

/// The header of an entry close to the end of a segment, before entries that it does not belong to; then the end is cut off.
#[test]
fn a_cut_segment_with_an_entry_at_a_wrong_place_is_readable_or_named_up_to_its_end() {
    let (disk, end) = short_entries(48);
    let path = segment_path(0);
    let last = entries(&disk, &path).last().unwrap().0 / 512;
    for (sector, other) in (8..last).flat_map(|one| (last - 4..last).map(move |other| (one, other)))
    {
        for cut in (sector + 1..other).step_by(3) {
            eprintln!("sector {sector} with {other}, cut at {cut}");
            let disk = disk.crash(CrashPolicy::keep_all());
            disk.swap_sectors(&path, sector * 512, other * 512);
            file(&disk, &path).set_len(cut * 512).unwrap();
            let log = open_short(&disk);
            assert_eq!(log.reader.offsets().log_end.0, end, "{:?}", log.report);
            read_around_damage(&log, end);
        }
    }
}

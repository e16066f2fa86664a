use std::collections::{BTreeMap, BTreeSet};

use riverrun_proto::{
    ProducerEpoch, ProducerId,
    batch::{BatchBuilder, BuilderOptions, Compression},
};

use super::*;
use crate::{
    Appended, OpenedLog, RecoveryVerdict,
    disk::{
        Disk,
        sim::{Call, CrashPolicy, Fault, FaultError, SimDisk},
    },
    testing::{DIR, Rng, open, seed},
};

const OPTIONS: CompactionOptions = CompactionOptions {
    map_bytes_max: 1 << 20,
    lag: Duration::ZERO,
    tombstone_retention: Duration::from_millis(500),
    producer_age_max: Duration::from_secs(3600),
    dirty_percent_min: 50,
};
/// Later than every append by more than the tombstones' retention.
const LATE: Timestamp = Timestamp(100_000);

/// A key and its value; no value is a tombstone.
type Entry = (Option<String>, Option<String>);

fn entry(text: &str) -> Entry {
    match text.split_once('=') {
        Some((key, "")) => (Some(key.to_owned()), None),
        Some((key, value)) => (Some(key.to_owned()), Some(value.to_owned())),
        None => (None, Some(text.to_owned())),
    }
}

/// What was appended: the records by offset, with their append times.
#[derive(Clone, Debug, Default)]
struct Model {
    records: BTreeMap<u64, (Entry, i64)>,
}

fn append(log: &mut OpenedLog, model: &mut Model, entries: &[Entry], now: i64) -> Appended {
    append_as(log, model, entries, (now, BuilderOptions::default()))
}

fn append_as(
    log: &mut OpenedLog,
    model: &mut Model,
    entries: &[Entry],
    (now, options): (i64, BuilderOptions),
) -> Appended {
    let compression = if entries.len() > 2 { Compression::Lz4 } else { Compression::None };
    let mut builder = BatchBuilder::new(compression, options);
    for (key, value) in entries {
        let (key, value) = (key.as_deref(), value.as_deref());
        builder.push_parts(now, key.map(str::as_bytes), value.map(str::as_bytes), &[]).unwrap();
    }
    let appended = log.writer.append(&builder.build().unwrap(), Timestamp(now)).unwrap();
    for (number, entry) in entries.iter().enumerate() {
        model.records.insert(appended.base_offset.0 + number as u64, (entry.clone(), now));
    }
    appended
}

/// Appends lines of records, each line one batch and then a roll, and flushes.
fn fill(log: &mut OpenedLog, model: &mut Model, lines: &[&str]) {
    for line in lines {
        let entries: Vec<_> = line.split_whitespace().map(entry).collect();
        append(log, model, &entries, 1_000);
        log.writer.roll(Timestamp(1_000)).unwrap();
    }
    log.flusher.flush().unwrap();
}

fn read(log: &OpenedLog) -> BTreeMap<u64, Entry> {
    let offsets = log.reader.offsets();
    let mut records = BTreeMap::new();
    let mut next = offsets.log_start;
    while next < offsets.log_end {
        let run = log.reader.read(next, offsets.log_end, 300).unwrap();
        assert!(run.next_offset > next, "no progress at {next}");
        for batch in RecordBatch::split(&run.bytes) {
            for record in batch.unwrap().records(1 << 20).unwrap() {
                let record = record.unwrap();
                let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
                let entry = (record.record.key.map(text), record.record.value.map(text));
                if record.offset >= next {
                    assert!(records.insert(record.offset.0, entry).is_none());
                }
            }
        }
        next = run.next_offset;
    }
    records
}

/// The records as text, `offset:key=value`.
fn shown(log: &OpenedLog) -> String {
    let show = |(offset, (key, value)): (u64, Entry)| {
        let key = key.map(|key| format!("{key}=")).unwrap_or_default();
        format!("{offset}:{key}{}", value.unwrap_or_default())
    };
    read(log).into_iter().map(show).collect::<Vec<_>>().join(" ")
}

/// What must hold of a log compacted or not: nothing invented or changed, nothing of worth missing.
#[track_caller]
fn check(log: &OpenedLog, model: &Model, tombstones_before: i64) {
    let read = read(log);
    for (offset, entry) in &read {
        assert_eq!(Some(entry), model.records.get(offset).map(|(entry, _)| entry), "at {offset}");
    }
    let mut newest = BTreeMap::new();
    for (offset, ((key, value), append_time)) in &model.records {
        match key {
            Some(key) => {
                newest.insert(key.clone(), (*offset, value.is_none(), *append_time));
            }
            None => assert!(read.contains_key(offset), "a record without key stays: {offset}"),
        }
    }
    for (key, (offset, is_tombstone, append_time)) in newest {
        if is_tombstone && append_time < tombstones_before && !read.contains_key(&offset) {
            let back = read.iter().find(|(_, (other, _))| other.as_ref() == Some(&key));
            assert_eq!(back, None, "`{key}` was deleted and is back");
        } else {
            assert!(read.contains_key(&offset), "newest `{key}` at {offset} is missing");
        }
    }
}

/// Below `cleaned` each key is there once at most.
#[track_caller]
fn check_clean(log: &OpenedLog, cleaned: Offset) {
    let mut seen = BTreeSet::new();
    for (offset, (key, _)) in read(log) {
        if let Some(key) = key.filter(|_| offset < cleaned.0) {
            assert!(seen.insert(key.clone()), "`{key}` is there twice below {cleaned}");
        }
    }
}

fn compact_all(log: &OpenedLog, options: &CompactionOptions, now: Timestamp) -> Compacted {
    let mut compactor = log.writer.compactor();
    for _ in 0..200 {
        let done = compactor.compact(now, options).unwrap();
        if !done.has_more {
            return done;
        }
    }
    panic!("compaction makes no progress");
}

const LINES: [&str; 4] = ["a=1 b=1 c=1", "a=2 plain", "b=2 d=1 a=3", "c= e=1"];

#[test]
fn the_newest_record_of_each_key_stays_and_offsets_too() {
    let disk = SimDisk::new(1);
    let (mut log, mut model) = (open(&disk), Model::default());
    fill(&mut log, &mut model, &LINES);
    append(&mut log, &mut model, &[entry("e=2")], 1_000);
    let done = compact_all(&log, &OPTIONS, Timestamp(1_000));
    assert_eq!(shown(&log), "4:plain 5:b=2 6:d=1 7:a=3 8:c= 9:e=1 10:e=2");
    assert_eq!((done.segment_count, done.record_count, done.cleaned), (2, 4, Offset(10)));
    assert!(done.bytes_after < done.bytes_before);
    let shown_before = shown(&log);
    log.flusher.flush().unwrap();
    let again = open(&disk.crash(CrashPolicy::lose_all()));
    assert_eq!(shown(&again), shown_before);
    check(&again, &model, 0);
}

#[test]
fn a_tombstone_goes_after_its_time_with_everything_it_deleted() {
    let disk = SimDisk::new(1);
    let (mut log, mut model) = (open(&disk), Model::default());
    fill(&mut log, &mut model, &LINES);
    compact_all(&log, &OPTIONS, Timestamp(1_500));
    assert!(shown(&log).contains("8:c= "), "the tombstone stays readable for its time");
    fill(&mut log, &mut model, &["x=1"]);
    compact_all(&log, &OPTIONS, Timestamp(1_501));
    assert_eq!(shown(&log), "4:plain 5:b=2 6:d=1 7:a=3 9:e=1 10:x=1");
}

#[test]
fn the_active_and_unflushed_segments_are_left_alone() {
    let disk = SimDisk::new(1);
    let (mut log, mut model) = (open(&disk), Model::default());
    fill(&mut log, &mut model, &["a=1"]);
    append(&mut log, &mut model, &[entry("a=2")], 1_000);
    log.writer.roll(Timestamp(1_000)).unwrap();
    append(&mut log, &mut model, &[entry("a=3")], 1_000);
    let done = compact_all(&log, &OPTIONS, LATE);
    assert_eq!((done.cleaned, shown(&log).as_str()), (Offset(1), "0:a=1 1:a=2 2:a=3"));
    log.flusher.flush().unwrap();
    compact_all(&log, &OPTIONS, LATE);
    assert_eq!(shown(&log), "1:a=2 2:a=3");
}

#[test]
fn young_segments_are_left_alone() {
    let disk = SimDisk::new(1);
    let (mut log, mut model) = (open(&disk), Model::default());
    fill(&mut log, &mut model, &LINES);
    let before = shown(&log);
    let options = CompactionOptions { lag: Duration::from_secs(10_000), ..OPTIONS };
    let mut compactor = log.writer.compactor();
    assert!(!compactor.is_due(LATE, &options).unwrap());
    compactor.compact(LATE, &options).unwrap();
    assert_eq!(shown(&log), before);
    assert!(compactor.is_due(LATE, &OPTIONS).unwrap());
}

#[test]
fn a_segment_that_loses_nothing_is_not_written_anew() {
    let disk = SimDisk::new(1);
    let (mut log, mut model) = (open(&disk), Model::default());
    // Of four segments only the second has a superseded key.
    fill(&mut log, &mut model, &["a=1 plain", "b=1 c=1", "d=1 plain", "b=2 e="]);
    let temporary = || {
        let calls = [Call::Create, Call::Rename, Call::Allocate, Call::Sync];
        calls.map(|call| disk.call_count(call))
    };
    let before = temporary();
    let done = compact_all(&log, &OPTIONS, Timestamp(1_000));
    assert_eq!((done.segment_count, done.record_count), (1, 1));
    let first = std::iter::zip(temporary(), before).map(|(after, before)| after - before);
    let first: Vec<_> = first.collect();
    // A new segment changes what was never compacted; nothing of any segment goes.
    fill(&mut log, &mut model, &["f=1"]);
    let before = temporary();
    let done = compact_all(&log, &OPTIONS, Timestamp(1_000));
    assert_eq!((done.segment_count, done.record_count, done.cleaned), (0, 0, Offset(9)));
    let second = std::iter::zip(temporary(), before).map(|(after, before)| after - before);
    let second: Vec<_> = second.collect();
    // The one segment: its file made, allocated, synced and renamed. The rest are marks and the side file.
    let one_segment: Vec<_> =
        std::iter::zip(&first, &second).map(|(first, second)| first - second).collect();
    assert_eq!(one_segment, [1, 1, 1, 1], "{first:?} {second:?}");
    assert_eq!(shown(&log), "0:a=1 1:plain 3:c=1 4:d=1 5:plain 6:b=2 7:e= 8:f=1");
}

#[test]
fn a_small_map_takes_more_passes_to_the_same_end() {
    let ends = [1 << 20, 56, 120, 200].map(|map_bytes_max| {
        let disk = SimDisk::new(1);
        let (mut log, mut model) = (open(&disk), Model::default());
        fill(&mut log, &mut model, &LINES);
        let options = CompactionOptions { map_bytes_max, ..OPTIONS };
        let done = compact_all(&log, &options, LATE);
        check_clean(&log, done.cleaned);
        shown(&log)
    });
    assert_eq!(ends[0], "4:plain 5:b=2 6:d=1 7:a=3 9:e=1");
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

#[test]
fn a_pass_is_due_by_the_share_that_was_never_compacted() {
    let disk = SimDisk::new(1);
    let (mut log, mut model) = (open(&disk), Model::default());
    let mut compactor = log.writer.compactor();
    assert!(!compactor.is_due(LATE, &OPTIONS).unwrap(), "nothing is sealed");
    fill(&mut log, &mut model, &LINES);
    assert!(compactor.is_due(LATE, &OPTIONS).unwrap());
    compactor.compact(Timestamp(1_000), &OPTIONS).unwrap();
    assert!(!compactor.is_due(LATE, &OPTIONS).unwrap());
    fill(&mut log, &mut model, &["z=1"]);
    assert!(!compactor.is_due(LATE, &OPTIONS).unwrap(), "a fifth is new");
    fill(&mut log, &mut model, &LINES);
    assert!(compactor.is_due(LATE, &OPTIONS).unwrap());
}

#[test]
fn whoever_reads_in_a_replaced_segment_may_finish() {
    let disk = SimDisk::new(1);
    let (mut log, mut model) = (open(&disk), Model::default());
    fill(&mut log, &mut model, &LINES);
    let mut compactor = log.writer.compactor();
    let old = compactor.sealed_segments(LATE, Duration::ZERO);
    log.reader.close_idle_files();
    compactor.compact(LATE, &OPTIONS).unwrap();
    log.reader.close_idle_files();
    let new = compactor.sealed_segments(LATE, Duration::ZERO);
    assert!(!Arc::ptr_eq(&old[0], &new[0]));
    for segment in old.iter().chain(&new) {
        let mut count = 0;
        let mut visit = |_: &EntryHeader, _: &[u8]| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        };
        compactor.for_each_entry(segment, &mut visit).unwrap();
        assert!(count > 0);
    }
}

#[test]
fn an_emptied_batch_still_tells_a_retry_from_a_new_one() {
    let disk = SimDisk::new(1);
    let (mut log, mut model) = (open(&disk), Model::default());
    let by = |id, sequence| BuilderOptions {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(0),
        base_sequence: sequence,
        ..BuilderOptions::default()
    };
    let batches = [(7, 0, "a=1"), (8, 0, "a=2"), (8, 1, "a=3"), (7, 1, "b=1"), (9, 0, "a=4 b=2")];
    for (id, sequence, line) in batches {
        let entries: Vec<_> = line.split_whitespace().map(entry).collect();
        append_as(&mut log, &mut model, &entries, (1_000, by(id, sequence)));
        log.writer.roll(Timestamp(1_000)).unwrap();
    }
    log.flusher.flush().unwrap();
    compact_all(&log, &OPTIONS, Timestamp(1_000));
    assert_eq!(shown(&log), "4:a=4 5:b=2");
    log.writer.close().unwrap();
    // Snapshots are derived and may go at any time.
    for file in disk.list(Path::new(DIR)).unwrap() {
        if file.name.ends_with(".producers") {
            disk.remove_file(&Path::new(DIR).join(file.name)).unwrap();
        }
    }
    let mut log = open(&disk);
    for (id, sequence, line, base) in [(7, 1, "b=1", 3), (8, 1, "a=3", 2), (9, 0, "a=4 b=2", 4)] {
        let entries: Vec<_> = line.split_whitespace().map(entry).collect();
        let again = append_as(&mut log, &mut model, &entries, (2_000, by(id, sequence)));
        assert_eq!((again.duplicate, again.base_offset), (true, Offset(base)), "producer {id}");
    }
}

#[test]
fn damage_stops_the_pass_and_nothing_is_lost_for_it() {
    let disk = SimDisk::new(1);
    let (mut log, mut model) = (open(&disk), Model::default());
    fill(&mut log, &mut model, &LINES);
    log.reader.close_idle_files();
    let path = crate::paths::segment(Path::new(DIR), Offset(3));
    disk.flip_bit(&path, 4096 + 96 + 70, 1);
    let error = log.writer.compactor().compact(LATE, &OPTIONS).unwrap_err();
    let CompactError::Damaged(damage) = error else { panic!("{error}") };
    assert_eq!((damage.path, damage.offsets.start), (path, Offset(3)));
    let whole = log.reader.read(Offset(0), Offset(3), 1000).unwrap();
    assert_eq!(whole.next_offset, Offset(3), "the segment before was not touched");
    assert_eq!(whole.record_count, 3);
}

#[test]
fn a_full_disk_stops_the_pass_and_the_log_serves_on() {
    let disk = SimDisk::new(1);
    let (mut log, mut model) = (open(&disk), Model::default());
    fill(&mut log, &mut model, &LINES);
    let error = FaultError::NoSpace;
    disk.inject(Fault { call: Call::Allocate, nth: 1, error, lasting: false });
    let error = log.writer.compactor().compact(LATE, &OPTIONS).unwrap_err();
    assert!(matches!(error, CompactError::Io(failure) if failure.is_disk_full()));
    check(&log, &model, LATE.0);
    append(&mut log, &mut model, &[entry("f=1")], 1_000);
    compact_all(&log, &OPTIONS, LATE);
    check(&log, &model, LATE.0);
}

/// A log with four sealed segments, flushed, and the model of it.
fn filled(seed: u64) -> (SimDisk, OpenedLog, Model) {
    let disk = SimDisk::new(seed);
    let (mut log, mut model) = (open(&disk), Model::default());
    fill(&mut log, &mut model, &LINES);
    (disk, log, model)
}

#[test]
fn a_crash_at_any_call_leaves_a_log_that_lost_nothing_and_compacts_on() {
    let steps = {
        let (disk, log, _) = filled(1);
        let before = disk.step_count();
        compact_all(&log, &OPTIONS, LATE);
        disk.step_count() - before
    };
    assert!(steps > 15, "{steps}");
    for (step, seed) in (1..=steps + 1).flat_map(|step| (0..4).map(move |seed| (step, seed))) {
        let (disk, log, mut model) = filled(seed);
        disk.cut_power_at(step);
        let done = log.writer.compactor().compact(LATE, &OPTIONS);
        assert_eq!(done.is_ok(), step > steps);
        let policies =
            [CrashPolicy::random(seed), CrashPolicy::weak(seed), CrashPolicy::lose_all()];
        for policy in policies {
            let context = format!("step {step} seed {seed} {policy:?}");
            let after = disk.crash(policy);
            let mut log = open(&after);
            assert_ne!(log.report.verdict, RecoveryVerdict::Damaged, "{context}: {:?}", log.report);
            check(&log, &model, LATE.0);
            append(&mut log, &mut model, &[entry("g=1")], 2_000);
            log.flusher.flush().unwrap();
            let done = compact_all(&log, &OPTIONS, LATE);
            check(&log, &model, LATE.0);
            check_clean(&log, done.cleaned);
            let verdict = open(&after.crash(CrashPolicy::keep_all())).report.verdict;
            assert_ne!(verdict, RecoveryVerdict::Damaged, "{context}");
            model.records.pop_last();
        }
    }
}

/// One random life: appends, rolls, flushes, compactions, restarts, against the model.
fn live(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut disk = SimDisk::new(seed);
    let (mut log, mut model) = (open(&disk), Model::default());
    let mut now = 1_000;
    let options = CompactionOptions { map_bytes_max: 56 * 6, ..OPTIONS };
    let mut tombstones_before = 0;
    for _ in 0..60 {
        now += 40;
        match rng.below(10) {
            0..=4 => {
                let random = |rng: &mut Rng| match rng.below(12) {
                    0 => entry("plain"),
                    1 => entry(&format!("k{}=", rng.below(9))),
                    _ => entry(&format!("k{}={}", rng.below(9), rng.below(1000))),
                };
                let count = 1 + rng.below(5);
                let entries: Vec<_> = (0..count).map(|_| random(&mut rng)).collect();
                append(&mut log, &mut model, &entries, now);
            }
            5 | 6 => log.writer.roll(Timestamp(now)).unwrap(),
            7 => drop(log.flusher.flush().unwrap()),
            8 => {
                log.writer.compactor().compact(Timestamp(now), &options).unwrap();
                tombstones_before = now - 500;
            }
            _ => {
                log.flusher.flush().unwrap();
                disk = match rng.below(3) {
                    0 => disk.kill(),
                    1 => disk.crash(CrashPolicy::weak(seed)),
                    _ => {
                        log.writer.close().unwrap();
                        disk.crash(CrashPolicy::lose_all())
                    }
                };
                log = open(&disk);
                assert_ne!(log.report.verdict, RecoveryVerdict::Damaged, "{:?}", log.report);
            }
        }
        check(&log, &model, tombstones_before);
    }
    log.flusher.flush().unwrap();
    let done = compact_all(&log, &options, Timestamp(now));
    check(&log, &model, now - 500);
    check_clean(&log, done.cleaned);
}

#[test]
fn random_lives_match_the_model() {
    let first = seed();
    for seed in first..first + 60 {
        println!("SEED={seed}");
        live(seed);
    }
}

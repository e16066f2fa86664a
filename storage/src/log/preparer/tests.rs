use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use riverrun_proto::{Offset, TopicId};
use uuid::Uuid;

use super::*;
use crate::{
    Log, LogOptions, OpenedLog, RecoveryVerdict,
    disk::{
        RealDisk, RealDiskOptions,
        sim::{CrashPolicy, SimDisk},
    },
    inspect::Inspector,
    recycle::RecycleLimits,
    testing::{Rng, batch, options, read_all, seed},
};

const LIMITS: RecycleLimits =
    RecycleLimits { count_max: 4, bytes_max: 1 << 20, file_bytes_min: 8192 };

fn pool(disk: &Arc<dyn Disk>) -> Arc<RecyclePool> {
    Arc::new(RecyclePool::open(disk.clone(), LIMITS).unwrap())
}

fn open_log(disk: &Arc<dyn Disk>, topic: u128, pool: &Arc<RecyclePool>) -> OpenedLog {
    let options = LogOptions { topic_id: TopicId(Uuid::from_u128(topic)), ..options() };
    let dir = format!("logs/{topic}/0");
    let log = Log::open(disk.clone(), dir, options, Timestamp(1_000)).unwrap();
    log.writer.recycle_through(pool.clone());
    log
}

fn sim() -> (SimDisk, Arc<dyn Disk>) {
    let disk = SimDisk::new(1);
    (disk.clone(), Arc::new(disk))
}

/// Appends records of 1 KiB whose text says who and when they are.
fn append(log: &mut OpenedLog, texts: &[String]) -> Offset {
    let padded: Vec<_> = texts.iter().map(|text| format!("{text:<1000}")).collect();
    let values: Vec<_> = padded.iter().map(String::as_str).collect();
    log.writer.append(&batch(&values, 1_000), Timestamp(1_000)).unwrap().base_offset
}

/// Fills `count` segments and drops them.
fn fill_and_drop(log: &mut OpenedLog, count: usize) {
    for number in 0..count {
        for record in 0..9 {
            append(log, &[format!("old {number} {record}")]);
        }
        log.writer.roll(Timestamp(1_000)).unwrap();
    }
    log.flusher.flush().unwrap();
    let end = log.writer.log_end();
    log.writer.drop_before(end).unwrap();
}

fn texts(log: &OpenedLog) -> Vec<String> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap().trim_end().to_owned();
    read_all(&log.reader).into_iter().map(|(_, value)| text(value)).collect()
}

#[test]
fn a_dropped_segment_becomes_the_next_one_and_its_old_records_are_not_read() {
    let (sim, disk) = sim();
    let pool = pool(&disk);
    fill_and_drop(&mut open_log(&disk, 1, &pool), 2);
    assert_eq!(pool.held().0, 2);
    let mut log = open_log(&disk, 2, &pool);
    append(&mut log, &["first".to_owned()]);
    log.writer.preparer().prepare(Timestamp(1_000), u64::MAX).unwrap();
    assert_eq!(pool.held().0, 1);
    log.writer.roll(Timestamp(1_000)).unwrap();
    append(&mut log, &["second".to_owned()]);
    log.flusher.flush().unwrap();
    let path = paths::segment(Path::new("logs/2/0"), Offset(1));
    let file = disk.open(&path, OpenMode::Read).unwrap();
    let mut old = vec![0; 1000];
    file.read_at(10_000, &mut old).unwrap();
    assert!(old.windows(3).any(|bytes| bytes == b"old"), "the old bytes are still there");
    assert_eq!(texts(&log), ["first", "second"]);

    let inspected = |disk: &SimDisk| {
        Inspector::new(Arc::new(disk.clone())).verify(Path::new("logs/2/0")).unwrap()
    };
    assert_eq!(inspected(&sim).findings, []);
    let after = sim.crash(CrashPolicy::lose_all());
    assert_eq!(inspected(&after).findings, []);
    let seam: Arc<dyn Disk> = Arc::new(after);
    let log = open_log(&seam, 2, &pool);
    assert_eq!(log.report.verdict, RecoveryVerdict::CleanEnd, "{:?}", log.report);
    assert!(log.report.torn_files.is_empty());
    assert_eq!(texts(&log), ["first", "second"]);
}

#[test]
fn a_clean_stop_in_a_recycled_segment_is_trusted() {
    let (_, disk) = sim();
    let pool = pool(&disk);
    let mut log = open_log(&disk, 1, &pool);
    fill_and_drop(&mut log, 2);
    log.writer.prepare().unwrap();
    append(&mut log, &["first".to_owned()]);
    log.writer.roll(Timestamp(1_000)).unwrap();
    append(&mut log, &["second".to_owned()]);
    log.writer.preparer().prepare(Timestamp(1_000), u64::MAX).unwrap();
    log.writer.close().unwrap();
    let names: Vec<_> =
        disk.list(Path::new("logs/1/0")).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{names:?}");
    let log = open_log(&disk, 1, &pool);
    assert_eq!(log.report.verdict, RecoveryVerdict::Trusted);
    assert_eq!(texts(&log), ["first", "second"]);
}

#[test]
fn a_segment_that_someone_reads_is_not_recycled() {
    let (_, disk) = sim();
    let pool = pool(&disk);
    let mut log = open_log(&disk, 1, &pool);
    let shared = log.writer.preparer().shared;
    append(&mut log, &["x".to_owned()]);
    append(&mut log, &["y".repeat(9000)]);
    log.writer.roll(Timestamp(1_000)).unwrap();
    log.flusher.flush().unwrap();
    let held = shared.segments.read()[0].clone();
    let (file, _) = held.file(disk.as_ref()).unwrap();
    log.writer.drop_before(Offset(2)).unwrap();
    assert_eq!(pool.held().0, 0);
    file.read_at(4096, &mut [0; 96]).unwrap();
    // Nobody reads in the next one.
    append(&mut log, &["z".repeat(9000)]);
    log.writer.roll(Timestamp(1_000)).unwrap();
    log.flusher.flush().unwrap();
    assert_eq!(texts(&log).len(), 1);
    log.writer.drop_before(Offset(3)).unwrap();
    assert_eq!(pool.held().0, 1);
}

#[test]
fn a_hot_log_gets_its_next_file_written_and_a_calm_one_does_not() {
    for (now, len) in [(2_000, 16 << 10), (1_000_000, 4096)] {
        let (sim, disk) = sim();
        let mut log = open_log(&disk, 1, &pool(&disk));
        let preparer = log.writer.preparer();
        assert!(!preparer.needs_preparation());
        append(&mut log, &["x".repeat(8000)]);
        assert!(preparer.needs_preparation());
        preparer.prepare(Timestamp(now), u64::MAX).unwrap();
        assert!(!preparer.needs_preparation());
        let path = Path::new("logs/1/0").join(paths::PREPARED_SEGMENT);
        assert_eq!(disk.open(&path, OpenMode::Read).unwrap().len(), len, "at {now}");
        let steps = sim.step_count();
        preparer.prepare(Timestamp(now), u64::MAX).unwrap();
        assert_eq!(sim.step_count(), steps, "once is enough");
        append(&mut log, &["y".repeat(9000)]);
        assert_eq!(texts(&log).len(), 2);
    }
}

#[test]
fn a_full_disk_leaves_a_hot_log_with_a_plain_file() {
    let (sim, disk) = sim();
    let mut log = open_log(&disk, 1, &pool(&disk));
    append(&mut log, &["x".repeat(8000)]);
    let free = 3 * 4096;
    let used = u64::MAX - sim.free_bytes().unwrap();
    sim.set_capacity(Some(used + free));
    log.writer.preparer().prepare(Timestamp(1_000), u64::MAX).unwrap();
    let path = Path::new("logs/1/0").join(paths::PREPARED_SEGMENT);
    assert_eq!(disk.open(&path, OpenMode::Read).unwrap().len(), 4096);
}

/// What one log should hold.
#[derive(Clone, Debug, Default)]
struct Model {
    records: BTreeMap<u64, String>,
    flushed: u64,
}

impl Model {
    /// Takes over what a start found, which must be right.
    fn check(&mut self, log: &OpenedLog, context: &str) {
        assert_ne!(log.report.verdict, RecoveryVerdict::Damaged, "{context}: {:?}", log.report);
        let offsets = log.reader.offsets();
        assert!(offsets.log_end.0 >= self.flushed, "{context}: flushed records are gone");
        self.records.retain(|offset, _| (offsets.log_start.0..offsets.log_end.0).contains(offset));
        let expected: Vec<_> = self.records.values().cloned().collect();
        assert_eq!(texts(log), expected, "{context}");
        self.flushed = offsets.flushed.0;
    }
}

/// Two logs that share a pool live at random through rolls, drops and crashes.
fn live(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut sim = SimDisk::new(seed);
    let mut disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let mut shared = pool(&disk);
    let mut logs = [1, 2].map(|topic| (open_log(&disk, topic, &shared), Model::default()));
    for step in 0..120 {
        let context = format!("seed {seed} step {step}");
        let number = usize::from(rng.below(2) == 1);
        let (log, model) = &mut logs[number];
        match rng.below(16) {
            0..=6 => {
                let texts: Vec<_> = (0..1 + rng.below(4))
                    .map(|record| format!("topic {number} step {step} record {record}"))
                    .collect();
                let base = append(log, &texts).0;
                model.records.extend((base..).zip(texts));
            }
            7 => log.writer.roll(Timestamp(1_000)).unwrap(),
            8 | 9 => log.writer.preparer().prepare(Timestamp(1_000), u64::MAX).unwrap(),
            10 | 11 => model.flushed = log.flusher.flush().unwrap().0,
            12 | 13 => {
                let (start, end) = (log.reader.offsets().log_start.0, log.writer.log_end().0);
                let to = start + rng.below(end - start + 1);
                log.writer.drop_before(Offset(to)).unwrap();
                model.records.retain(|offset, _| *offset >= to);
                model.flushed = log.reader.offsets().flushed.0;
            }
            _ => {
                sim = match rng.below(3) {
                    0 => sim.kill(),
                    1 => sim.crash(CrashPolicy::random(seed + step)),
                    _ => sim.crash(CrashPolicy::weak(seed + step)),
                };
                disk = Arc::new(sim.clone());
                shared = pool(&disk);
                for (number, (log, model)) in logs.iter_mut().enumerate() {
                    *log = open_log(&disk, number as u128 + 1, &shared);
                    model.check(log, &context);
                }
            }
        }
        let (log, model) = &mut logs[number];
        let flushed = model.flushed;
        model.check(log, &context);
        model.flushed = flushed.max(model.flushed);
    }
}

#[test]
fn random_lives_of_logs_that_share_a_pool_match_the_model() {
    let first = seed();
    for seed in first..first + 60 {
        println!("SEED={seed}");
        live(seed);
    }
}

#[test]
fn a_preparer_beside_the_writer_never_disturbs_it() {
    let home = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> =
        Arc::new(RealDisk::open(home.path(), RealDiskOptions::default()).unwrap());
    let pool = pool(&disk);
    let mut log = open_log(&disk, 1, &pool);
    let preparer = log.writer.preparer();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let stop = stop;
        scope.spawn(move || {
            // Ends also when the test fails and `stop` is dropped on the way.
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                if preparer.needs_preparation() {
                    preparer.prepare(Timestamp(1_000), u64::MAX).unwrap();
                }
                std::thread::yield_now();
            }
        });
        for number in 0..1500 {
            append(&mut log, &[format!("record {number}")]);
            if number % 100 == 99 {
                log.flusher.flush().unwrap();
                log.writer.drop_before(Offset(number - 50)).unwrap();
            }
        }
        drop(stop);
    });
    let expected: Vec<_> = (1449..1500).map(|number| format!("record {number}")).collect();
    assert_eq!(texts(&log), expected);
    log.writer.close().unwrap();
    let log = open_log(&disk, 1, &pool);
    assert_eq!((log.report.verdict, texts(&log)), (RecoveryVerdict::Trusted, expected));
}

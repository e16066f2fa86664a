//! Random workloads with every kind of end. `SEED=n` replays one.

use super::*;

/// Draws the next operation.
fn draw(rng: &mut Rng) -> Operation {
    let compressions = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let small = |rng: &mut Rng, bound| usize::try_from(rng.below(bound)).unwrap();
    match rng.below(100) {
        0..30 => Operation::Append {
            count: 1 + small(rng, 4),
            bytes: [0, 1, 50, 400, 3_000, 9_000][small(rng, 6)],
            compression: compressions[small(rng, 5)],
        },
        30..45 => Operation::Produce { id: small(rng, 3) as i64, count: 1 + small(rng, 3) },
        45..53 => Operation::Retry { id: small(rng, 3) as i64, back: small(rng, 5) },
        53..67 => Operation::Flush,
        67..71 => Operation::SyncMark,
        71..73 => Operation::Prepare,
        73..76 => Operation::Roll,
        76..78 => Operation::Retain { bytes: rng.below(60_000) },
        78..80 => Operation::DropBefore { records: rng.below(30) },
        80..91 => Operation::Read { behind: rng.below(60), bytes_max: small(rng, 20_000) },
        91..94 => Operation::ReopenClean,
        94..97 => Operation::Kill,
        97 => Operation::Crash(CrashPolicy::lose_all()),
        98 => Operation::Crash(CrashPolicy::random(rng.next())),
        _ => Operation::Crash(CrashPolicy::weak(rng.next())),
    }
}

/// Runs one seed and says how often each verdict came.
fn run(seed: u64, operations: u32) -> BTreeMap<String, u32> {
    let mut rng = Rng::new(seed);
    let mut harness = Harness::new(SimDisk::new(seed));
    harness.open(0).unwrap();
    for number in 0..operations {
        let operation = draw(&mut rng);
        if std::env::var_os("SEED").is_some() {
            eprintln!("{number}: {operation:?} at {:?}", harness.log().reader.offsets());
        }
        harness.apply(&operation).unwrap_or_else(|_| panic!("{number}: {operation:?} failed"));
    }
    harness.verdicts
}

#[test]
fn random_workloads_lose_nothing_and_invent_nothing() {
    let mut verdicts = BTreeMap::<String, u32>::new();
    let seeds = seeds(40);
    for seed in seeds.clone() {
        eprintln!("SEED={seed}");
        for (verdict, count) in run(seed, 200) {
            *verdicts.entry(verdict).or_default() += count;
        }
    }
    eprintln!("{verdicts:?}");
    if seeds.end - seeds.start > 1 {
        for verdict in ["Trusted", "CleanEnd", "TornTail"] {
            assert!(verdicts.contains_key(verdict), "{verdict} never came: {verdicts:?}");
        }
    }
}

#[test]
fn random_workloads_survive_a_disk_that_fails_now_and_then() {
    use crate::disk::sim::{Call, Fault, FaultError};
    let calls = [
        Call::Sync,
        Call::Write,
        Call::Allocate,
        Call::Rename,
        Call::SyncDir,
        Call::Create,
        Call::Open,
    ];
    for seed in seeds(40) {
        eprintln!("SEED={seed}");
        let mut rng = Rng::new(seed ^ 0xfau64);
        let mut harness = Harness::new(SimDisk::new(seed));
        harness.faulty = true;
        harness.open(0).unwrap();
        for number in 0..150 {
            if rng.below(10) == 0 {
                let call = calls[usize::try_from(rng.below(7)).unwrap()];
                let error = if rng.below(2) == 0 { FaultError::Io } else { FaultError::NoSpace };
                harness.disk.inject(Fault { call, nth: 1 + rng.below(4), error, lasting: false });
            }
            let operation = draw(&mut rng);
            if std::env::var_os("SEED").is_some() {
                eprintln!("{number}: {operation:?}");
            }
            if harness.apply(&operation).is_err() {
                harness.recover_from_error(&mut rng);
            }
        }
    }
}

impl Harness {
    /// Goes on after an operation that failed: in the same log when it did not stop, else after a start.
    fn recover_from_error(&mut self, rng: &mut Rng) {
        let usable = self.log.as_ref().is_some_and(|log| log.reader.failure().is_none());
        if usable && rng.below(2) == 0 {
            self.model.maybe = None;
            return;
        }
        if let Some(log) = self.log.take() {
            let offsets = log.reader.offsets();
            assert!(offsets.flushed.0 >= self.model.flushed, "{offsets:?}");
            self.model.flushed = offsets.flushed.0;
        }
        // The process dies, and sometimes the machine too; a start that fails is tried again.
        loop {
            self.disk = match rng.below(3) {
                0 => self.disk.crash(CrashPolicy::random(rng.next())),
                1 => self.disk.crash(CrashPolicy::lose_all()),
                _ => self.disk.kill(),
            };
            let flushed = self.model.flushed;
            if self.open(flushed).is_ok() {
                return;
            }
        }
    }
}

//! Logs of every make, broken at random: what is kept is what was written, and what is gone was named.

use std::collections::BTreeMap;

use bytes::Bytes;
use riverrun_proto::{ProducerEpoch, ProducerId};

use super::*;
use crate::{AppendError, StorageError};

/// The one idempotent producer.
const PRODUCER: i64 = 9;

/// What was written to a log, while it is made.
#[derive(Debug, Default)]
struct Making {
    /// Sequence number of the producer's next record.
    sequence: i32,
    /// Its batches: first sequence number, records, first offset.
    batches: Vec<(i32, usize, u64)>,
}

impl Making {
    /// Appends a batch of up to three records, each with a value of its own.
    fn append(&mut self, log: &mut OpenedLog, rng: &mut Rng) {
        let (base, count) = (log.writer.log_end().0, 1 + rng.below(3));
        let is_produced = rng.below(2) == 0;
        let keys: Vec<String> = (0..count).map(|_| format!("k{}", rng.below(60))).collect();
        loop {
            let options = BuilderOptions {
                producer_id: ProducerId(if is_produced { PRODUCER } else { -1 }),
                producer_epoch: ProducerEpoch(if is_produced { 0 } else { -1 }),
                base_sequence: if is_produced { self.sequence } else { -1 },
                ..BuilderOptions::default()
            };
            let mut builder = BatchBuilder::new(Compression::None, options);
            for (key, offset) in keys.iter().zip(base..) {
                let value = format!("{:>150}", format!("v{offset} of {base} {}", rng.next()));
                let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
                builder.push_parts(1, key, value, &[]).unwrap();
            }
            let now = Timestamp(10_000 + i64::try_from(base).unwrap());
            match log.writer.append(&builder.build().unwrap(), now) {
                Ok(_) => break,
                // Its newest batch was lost, or all of them.
                Err(AppendError::OutOfOrderSequence { expected, .. }) => self.go_back_to(expected),
                Err(AppendError::UnknownProducer { .. }) => self.go_back_to(0),
                Err(other) => panic!("{other}"),
            }
        }
        if is_produced {
            let records = usize::try_from(count).unwrap();
            self.batches.push((self.sequence, records, base));
            self.sequence += i32::try_from(count).unwrap();
        }
    }

    /// Gives sequence numbers from this one on again.
    fn go_back_to(&mut self, sequence: i32) {
        self.sequence = sequence;
        self.batches.retain(|(first, ..)| *first < sequence);
    }

    /// Goes on with an open log as one of these begins or ends: a roll, a flush, a compaction, a crash with a torn end, a repair, a stop.
    fn turn(&mut self, disk: SimDisk, mut log: OpenedLog, rng: &mut Rng) -> (SimDisk, OpenedLog) {
        let kind = rng.below(6);
        if kind == 0 {
            log.writer.roll(Timestamp(10_000)).unwrap();
            return (disk, log);
        }
        log.flusher.flush().unwrap();
        let disk = match kind {
            1 => return (disk, log),
            2 => {
                log.writer.roll(Timestamp(10_000)).unwrap();
                log.flusher.flush().unwrap();
                log.writer.compactor().compact(Timestamp(20_000), &compaction()).unwrap();
                return (disk, log);
            }
            3 => {
                let torn = log.writer.log_end().0 + rng.below(4);
                for _ in 0..3 {
                    self.append(&mut log, rng);
                }
                let disk = disk.kill();
                tear(&disk, torn, rng);
                disk
            }
            4 => {
                log.writer.close().unwrap();
                let disk = disk.kill();
                tear(&disk, rng.below(100), rng);
                repair(&disk).accept_loss().unwrap();
                disk
            }
            _ => {
                log.writer.close().unwrap();
                disk.kill()
            }
        };
        let log = open(&disk);
        assert!(log.reader.failure().is_none(), "{:?}", log.report);
        let end = log.reader.offsets().log_end.0;
        self.batches.retain(|(.., base)| *base < end);
        (disk, log)
    }
}

/// Flips a bit in the first entry at or past `offset`, if there is one.
fn tear(disk: &SimDisk, offset: u64, rng: &mut Rng) {
    for name in named(disk, ".log") {
        let path = Path::new(DIR).join(name);
        let found = entries(disk, &path);
        let found =
            found.iter().find(|(_, header)| header.count > 0 && header.base_offset.0 >= offset);
        if let Some((pos, _)) = found {
            disk.flip_bit(&path, pos + rng.below(ENTRY_BYTES as u64), 3);
            return;
        }
    }
}

/// Damages one to three places, header blocks more often than chance would.
fn damage(disk: &SimDisk, rng: &mut Rng) {
    for _ in 0..=rng.below(3) {
        let segments = named(disk, ".log");
        let number = rng.below(3 * segments.len().max(1) as u64);
        let number = usize::try_from(number).unwrap();
        match segments.get(number).map(|name| Path::new(DIR).join(name)) {
            Some(path) if rng.below(2) == 0 => {
                let file = file(disk, &path);
                let len = usize::try_from(file.len().min(4096)).unwrap();
                file.write_at(0, &[&vec![0; len]]).unwrap();
            }
            Some(path) if bytes_of(disk, &path).len() > 41 => disk.flip_bit(&path, 41, 0),
            Some(_) | None => harm(disk, rng),
        }
    }
}

/// Every record that can be read, in a log that must go on.
fn read_repaired(log: &OpenedLog, seed: u64) -> BTreeMap<u64, Bytes> {
    assert!(log.reader.failure().is_none(), "seed {seed}: {:?}", log.report);
    read_all(&log.reader).into_iter().collect()
}

/// Makes a log, breaks it, repairs it, and compares.
fn check(seed: u64) {
    let mut rng = Rng::new(seed);
    let (mut disk, mut making) = (SimDisk::new(seed), Making::default());
    let mut log = open(&disk);
    for _ in 0..3 + rng.below(5) {
        for _ in 0..3 + rng.below(12) {
            making.append(&mut log, &mut rng);
        }
        (disk, log) = making.turn(disk, log, &mut rng);
    }
    log.flusher.flush().unwrap();
    let written: BTreeMap<u64, Bytes> = read_all(&log.reader).into_iter().collect();
    let end = log.reader.offsets().log_end;
    if rng.below(2) == 0 {
        log.writer.close().unwrap();
    }
    let disk = disk.kill();
    let marked = directory(&disk).into_iter().find(|(name, _)| name == paths::MARK);
    damage(&disk, &mut rng);
    disk.write_back();
    // Without a mark nothing may say how far the log reached.
    let is_marked = directory(&disk).into_iter().find(|(name, _)| name == paths::MARK) == marked;
    let opened = try_open(&disk.copy()).map(|log| log.report.verdict);
    let plan = match repair(&disk).look() {
        Err(StorageError::Missing { .. }) => {
            assert!(matches!(opened, Err(StorageError::Missing { .. })), "seed {seed}: {opened:?}");
            return;
        }
        plan => plan.unwrap_or_else(|error| panic!("seed {seed}: {error}")),
    };
    let is_damaged = !matches!(opened, Ok(verdict) if verdict != RecoveryVerdict::Damaged);
    assert!(plan.is_needed() || !is_damaged, "seed {seed}: {opened:?}, {plan:?}");
    let done = repair(&disk).accept_loss();
    let done = done.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert_eq!(done.losses, plan.losses, "seed {seed}");
    let is_named = |offset: u64| {
        let is_below = done.state_anew && offset < done.log_start.0;
        is_below || done.losses.iter().any(|loss| loss.offsets.contains(&Offset(offset)))
    };

    let mut log = open(&disk.crash(CrashPolicy::lose_all()));
    let kept = read_repaired(&log, seed);
    for (offset, value) in &kept {
        assert_eq!(written.get(offset), Some(value), "seed {seed}: {offset} is a stranger's");
    }
    for offset in written.keys().filter(|offset| !kept.contains_key(offset)) {
        let is_unknown = !is_marked && *offset >= done.log_end.0;
        assert!(is_named(*offset) || is_unknown, "seed {seed}: {offset} is gone, {done:?}");
    }
    assert!(log.writer.log_end() >= end || !is_marked, "seed {seed}: {:?} {done:?}", log.report);
    for (sequence, count, base) in making.batches.iter().rev().take(5) {
        let again = produced(PRODUCER, 0, *sequence, &vec!["again"; *count]);
        match log.writer.append(&again, Timestamp(90_000)) {
            Ok(appended) if appended.duplicate => {
                assert_eq!(appended.base_offset, Offset(*base), "seed {seed}");
                let all = *base..*base + *count as u64;
                assert!(!all.clone().any(is_named), "seed {seed}: {all:?} is not stored, {done:?}");
            }
            Ok(appended) => assert!(appended.base_offset >= end || !is_marked, "seed {seed}"),
            Err(AppendError::OutOfOrderSequence { .. } | AppendError::UnknownProducer { .. }) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    making.append(&mut log, &mut rng);
    log.flusher.flush().unwrap();
}

#[test]
fn whatever_breaks_what_is_kept_was_written_and_what_is_gone_was_named() {
    for seed in seed()..seed() + 150 {
        check(seed);
    }
}

//! A log on a crashing disk against a plain list.
//!
//! Random and exhaustive workloads run on both. After every start the log must hold
//! - everything whose flush was confirmed, unchanged, at its offset;
//! - nothing that was not appended there;
//! - after the death of the process alone: everything;
//! - and what it holds then must survive the next crash, whenever that comes.
//!
//! Epochs rise after every start that was not trusted; a retry of an idempotent batch gets its first offset.

mod exhaustive;
mod random;

use std::collections::BTreeMap;

use bytes::Bytes;
use riverrun_proto::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch::{BuilderOptions, Compression},
};

use crate::{
    AppendError, LogOffsets, OpenedLog, RecoveryVerdict, RetentionPolicy, StorageError, Timestamp,
    disk::sim::{CrashPolicy, SimDisk},
    testing::*,
};

/// One step of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Operation {
    /// A batch of `count` records of about `bytes` each.
    Append {
        count: usize,
        bytes: usize,
        compression: Compression,
    },
    /// The next batch of an idempotent producer.
    Produce {
        id: i64,
        count: usize,
    },
    /// One of the producer's last batches again; `back` 0 is the newest.
    Retry {
        id: i64,
        back: usize,
    },
    Flush,
    SyncMark,
    Prepare,
    Roll,
    /// Retention by size.
    Retain {
        bytes: u64,
    },
    /// Log start moves this many records up, at most to the log end.
    DropBefore {
        records: u64,
    },
    /// Reads from this far behind the log end.
    Read {
        behind: u64,
        bytes_max: usize,
    },
    ReopenClean,
    Kill,
    Crash(CrashPolicy),
}

/// One batch in the model.
#[derive(Clone, Debug)]
struct ModelBatch {
    base: u64,
    values: Vec<Bytes>,
    /// Producer id and first sequence number.
    producer: Option<(i64, i32)>,
}

/// What the log must hold.
#[derive(Clone, Debug, Default)]
struct Model {
    batches: Vec<ModelBatch>,
    /// Everything below was confirmed as flushed.
    flushed: u64,
    log_start: u64,
    /// A log start asked for whose answer was an error.
    log_start_maybe: u64,
    /// True after a retention that failed: the log start may be anywhere up to the end.
    retaining: bool,
    /// A batch whose append failed half way: it may be there after a start, and only then.
    maybe: Option<ModelBatch>,
    epoch: u32,
    /// A clock.
    now: i64,
    /// Makes values unique.
    counter: u64,
}

impl Model {
    fn end(&self) -> u64 {
        self.batches.last().map_or(0, |last| last.base + last.values.len() as u64)
    }

    fn records(&self, from: u64, to: u64) -> Vec<(u64, Bytes)> {
        let all = self.batches.iter().flat_map(|batch| (batch.base..).zip(batch.values.clone()));
        all.filter(|(offset, _)| (from..to).contains(offset)).collect()
    }

    fn values(&mut self, count: usize, bytes: usize) -> Vec<Bytes> {
        let value = |counter: u64| {
            let mut value = format!("record {counter} ").into_bytes();
            let mut noise = Rng::new(counter);
            value.extend(
                (value.len()..bytes).map(|_| b'a' + u8::try_from(noise.below(26)).unwrap()),
            );
            Bytes::from(value)
        };
        let first = self.counter;
        self.counter += count as u64;
        (first..self.counter).map(value).collect()
    }

    fn next_sequence(&self, id: i64) -> i32 {
        let own = |batch: &&ModelBatch| batch.producer.is_some_and(|(other, _)| other == id);
        let last = self.batches.iter().rfind(own);
        last.map_or(0, |last| last.producer.unwrap().1 + i32::try_from(last.values.len()).unwrap())
    }
}

/// An error ended an operation.
#[derive(Debug)]
struct Stopped;

/// The log and its model.
struct Harness {
    disk: SimDisk,
    log: Option<OpenedLog>,
    model: Model,
    /// True when calls fail by plan.
    faulty: bool,
    /// Starts by verdict, so that a test can see what it covered.
    verdicts: BTreeMap<String, u32>,
}

impl Harness {
    fn new(disk: SimDisk) -> Harness {
        Harness {
            disk,
            log: None,
            model: Model::default(),
            faulty: false,
            verdicts: BTreeMap::new(),
        }
    }

    /// Opens the log for the first time, or after an end of any kind; `end_min` says what must be there.
    fn open(&mut self, end_min: u64) -> Result<(), Stopped> {
        let log = match try_open(&self.disk) {
            Ok(log) => log,
            Err(StorageError::Io(_) | StorageError::Failed(_)) => return Err(Stopped),
            Err(other) => panic!("{other}"),
        };
        *self.verdicts.entry(format!("{:?}", log.report.verdict)).or_default() += 1;
        self.check_start(&log, end_min);
        self.log = Some(log);
        Ok(())
    }

    /// Checks what a start found, and takes it into the model.
    fn check_start(&mut self, log: &OpenedLog, end_min: u64) {
        let model = &mut self.model;
        let report = &log.report;
        assert_ne!(report.verdict, RecoveryVerdict::Damaged, "{report:?}");
        let LogOffsets { log_start, flushed, log_end } = log.reader.offsets();
        assert_eq!(flushed, log_end, "a start serves what is durable");
        model.batches.extend(model.maybe.take());
        let ends: Vec<_> =
            model.batches.iter().map(|it| it.base + it.values.len() as u64).collect();
        assert!(log_end.0 == 0 || ends.contains(&log_end.0), "{log_end} is not the end of a batch");
        assert!(log_end.0 >= end_min, "records {log_end}..{end_min} are lost: {report:?}");
        assert!(log_end.0 <= model.end(), "{log_end} records of {}", model.end());
        let starts = [model.log_start, model.log_start_maybe.max(model.log_start)];
        let retained = model.retaining && log_start.0 >= model.log_start;
        assert!(
            retained || starts.contains(&log_start.0),
            "log start {log_start}, not one of {starts:?}"
        );
        if report.verdict == RecoveryVerdict::Trusted {
            // A recovery cut short behind its last step raised it already.
            let kept = report.leader_epoch.0 >= model.epoch;
            assert!(kept, "epoch {:?} after {}", report.leader_epoch, model.epoch);
        } else {
            assert!(report.leader_epoch.0 > model.epoch, "epochs rise: {report:?}");
        }
        model.epoch = report.leader_epoch.0;
        model.batches.retain(|batch| batch.base < log_end.0);
        model.flushed = log_end.0;
        model.log_start = log_start.0;
        model.log_start_maybe = log_start.0;
        model.retaining = false;
        // Twice: a planned fault may hit the first read.
        let read = || read_range(&log.reader, log_start, log_end, 700);
        let records = read().or_else(|_| read()).unwrap();
        assert_eq!(records, model.records(log_start.0, log_end.0));
        let (epoch, end) = log.reader.epoch_end(LeaderEpoch(model.epoch));
        assert_eq!((epoch.0, end), (model.epoch, log_end));
    }

    fn apply(&mut self, operation: &Operation) -> Result<(), Stopped> {
        self.model.now += 10;
        match operation {
            Operation::Append { count, bytes, compression } => {
                let values = self.model.values(*count, *bytes);
                self.append(values, None, *compression)
            }
            Operation::Produce { id, count } => {
                let values = self.model.values(*count, 30);
                let sequence = self.model.next_sequence(*id);
                self.append(values, Some((*id, sequence)), Compression::None)
            }
            Operation::Retry { id, back } => self.retry(*id, *back),
            Operation::Read { behind, bytes_max } => {
                self.read(*behind, *bytes_max);
                Ok(())
            }
            Operation::DropBefore { records } => {
                let to = (self.model.log_start + records).min(self.model.end());
                self.drop_before(to)
            }
            Operation::Retain { bytes } => self.retain(*bytes),
            Operation::ReopenClean => self.reopen_clean(),
            Operation::Kill => {
                self.log = None;
                self.disk = self.disk.kill();
                let end = self.model.end();
                self.open(end)
            }
            Operation::Crash(policy) => self.crash(*policy),
            Operation::Flush => {
                let flushed = self.log().flusher.flush().map_err(|_| Stopped)?;
                assert_eq!(flushed.0, self.model.end());
                self.model.flushed = flushed.0;
                Ok(())
            }
            Operation::SyncMark => {
                self.log().flusher.sync_mark().map_err(|_| Stopped)?;
                self.model.flushed = self.model.end();
                Ok(())
            }
            Operation::Prepare => self.log().writer.prepare().map_err(|_| Stopped),
            Operation::Roll => {
                let now = Timestamp(self.model.now);
                self.log().writer.roll(now).map_err(|_| Stopped)
            }
        }
    }

    fn log(&mut self) -> &mut OpenedLog {
        self.log.as_mut().expect("open")
    }

    fn append(
        &mut self,
        values: Vec<Bytes>,
        producer: Option<(i64, i32)>,
        compression: Compression,
    ) -> Result<(), Stopped> {
        let base = self.model.end();
        let now = Timestamp(self.model.now);
        let batch = model_batch(&values, producer, compression);
        let appended = self.log().writer.append(&batch, now);
        let entry = ModelBatch { base, values, producer };
        match appended {
            Ok(appended) => {
                assert!(!appended.duplicate);
                assert_eq!(appended.base_offset.0, base);
                self.model.batches.push(entry);
                Ok(())
            }
            Err(AppendError::Failed(_)) => {
                self.model.maybe = Some(entry);
                Err(Stopped)
            }
            Err(AppendError::DiskFull(_) | AppendError::Io(_)) => Err(Stopped),
            Err(other) => panic!("{other}"),
        }
    }

    fn retry(&mut self, id: i64, back: usize) -> Result<(), Stopped> {
        let own = |batch: &&ModelBatch| batch.producer.is_some_and(|(other, _)| other == id);
        let Some(old) = self.model.batches.iter().rev().filter(own).nth(back).cloned() else {
            return Ok(());
        };
        if old.base < self.model.log_start {
            return Ok(());
        }
        let now = Timestamp(self.model.now);
        let batch = model_batch(&old.values, old.producer, Compression::None);
        match self.log().writer.append(&batch, now) {
            Ok(again) => {
                assert!(again.duplicate, "batch at {} was appended twice", old.base);
                assert_eq!(again.base_offset.0, old.base);
                Ok(())
            }
            Err(AppendError::Failed(_)) => Err(Stopped),
            Err(other) => panic!("{other}"),
        }
    }

    fn read(&mut self, behind: u64, bytes_max: usize) {
        let LogOffsets { log_start, log_end, .. } = self.log().reader.offsets();
        assert_eq!(log_end.0, self.model.end());
        let from = Offset(log_end.0.saturating_sub(behind).max(log_start.0));
        match read_range(&self.log().reader, from, log_end, bytes_max) {
            Ok(records) => assert_eq!(records, self.model.records(from.0, log_end.0)),
            Err(crate::ReadError::Io(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn drop_before(&mut self, to: u64) -> Result<(), Stopped> {
        self.model.log_start_maybe = to;
        self.log().writer.drop_before(Offset(to)).map_err(|_| Stopped)?;
        self.model.log_start = to;
        self.model.flushed = self.model.flushed.max(to);
        assert_eq!(self.log().reader.offsets().log_start.0, to);
        Ok(())
    }

    fn retain(&mut self, bytes: u64) -> Result<(), Stopped> {
        let policy = RetentionPolicy { age_max: None, bytes_max: Some(bytes) };
        let now = Timestamp(self.model.now);
        // What it may have dropped when it fails: anything sealed.
        let segments = self.log().reader.segment_count();
        let before = self.log().reader.offsets().log_start.0;
        let dropped = self.log().writer.apply_retention(now, &policy);
        let after = self.log().reader.offsets().log_start.0;
        self.model.log_start_maybe = after;
        self.model.retaining |= dropped.is_err();
        let dropped = dropped.map_err(|_| Stopped)?;
        assert_eq!(dropped.log_start.0, after);
        assert!(dropped.segment_count < segments && after >= before);
        self.model.log_start = after;
        self.model.flushed = self.model.flushed.max(after);
        Ok(())
    }

    fn reopen_clean(&mut self) -> Result<(), Stopped> {
        let end = self.model.end();
        self.log.take().expect("open").writer.close().map_err(|_| Stopped)?;
        self.model.flushed = end;
        let trusted = |harness: &Harness| harness.verdicts.get("Trusted").copied().unwrap_or(0);
        let before = trusted(self);
        self.open(end)?;
        assert_eq!(trusted(self), before + 1, "a clean stop is trusted");
        // Side files that a fault kept from being written are rebuilt by a scan.
        let scanned = self.log().report.scanned_bytes;
        assert!(self.faulty || scanned == 0, "a clean start scans nothing, not {scanned} bytes");
        Ok(())
    }

    fn crash(&mut self, policy: CrashPolicy) -> Result<(), Stopped> {
        self.log = None;
        self.disk = self.disk.crash(policy);
        let flushed = self.model.flushed;
        self.open(flushed)
    }
}

/// The batch with these values.
fn model_batch(
    values: &[Bytes],
    producer: Option<(i64, i32)>,
    compression: Compression,
) -> riverrun_proto::RecordBatch {
    let options = match producer {
        Some((id, sequence)) => BuilderOptions {
            producer_id: ProducerId(id),
            producer_epoch: ProducerEpoch(0),
            base_sequence: sequence,
            ..BuilderOptions::default()
        },
        None => BuilderOptions::default(),
    };
    let values: Vec<_> = values.iter().map(|value| (1_000, value.to_vec())).collect();
    build(&values, options, compression)
}

/// Seeds to run: `SEED=n` runs that one alone, `SEEDS=n` that many.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(count),
    }
}

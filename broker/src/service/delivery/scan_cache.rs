//! Batches that were looked at lately, shared by all subscriptions.
//!
//! Ten subscriptions that follow the end of a partition read and decode a batch once: whoever comes first
//! reads, those who want the same offset meanwhile wait for him. The oldest reads leave when the bound is
//! reached; what is not here is read again.
//!
//! Invariant: what was read at once is kept and forgotten at once, because its batches lie in one buffer: any one of them holds it all. A
//! later read of the same batches takes their place, and the earlier one still counts until it leaves.
//!
//! Reads of the hot end happen on the caller's thread, others on the blocking pool, where large and compressed
//! reads are decoded as well.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use riverrun_proto::{Compression, Offset, batch::BatchHeader};

use super::scan::{ScanError, ScannedBatch, decode};
use crate::{delivery::LaneKey, partition::Partition, quota::Quota};

/// Bytes read at once, or a quarter of what may be kept if that is less.
const READ_BYTES: usize = 1 << 20;
/// Uncompressed reads of at most so many bytes are decoded on the caller's thread.
const INLINE_BYTES: usize = 128 << 10;
/// Reads that may be on their way at once before they share a place.
const FLIGHTS: usize = 64;

/// Batches that were looked at lately.
#[derive(Debug)]
pub struct ScanCache {
    kept: Mutex<Kept>,
    bytes_max: usize,
    /// Held by whoever reads; by partition and offset.
    flights: Box<[tokio::sync::Mutex<()>]>,
    places: RandomState,
    /// Bytes being read, over all readers of the broker.
    reading: Quota,
    /// Reads of partitions so far.
    reads: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    /// By first offset they answer for, each with the number of its read.
    partitions: HashMap<LaneKey, BTreeMap<u64, (u64, Arc<ScannedBatch>)>>,
    /// What was read at once, the oldest first.
    order: VecDeque<Read>,
    /// Number of the next read.
    next: u64,
    bytes: usize,
}

/// What was read at once.
#[derive(Debug)]
struct Read {
    number: u64,
    lane: LaneKey,
    /// First offsets of its batches.
    starts: Box<[u64]>,
    /// Memory that they take together.
    bytes: usize,
}

impl ScanCache {
    /// Keeps at most `bytes_max` bytes; `reading` bounds what is read at once.
    pub fn new(bytes_max: usize, reading: Quota) -> ScanCache {
        ScanCache {
            kept: Mutex::default(),
            bytes_max,
            flights: (0..FLIGHTS).map(|_| tokio::sync::Mutex::new(())).collect(),
            places: RandomState::new(),
            reading,
            reads: AtomicU64::new(0),
        }
    }

    /// The batches from the one that answers for `from` on, up to `until` or until they hold `bytes_max` bytes of
    /// records; at least one. Empty when nothing at or past `from` is visible.
    ///
    /// # Errors
    /// When they cannot be read or decoded.
    pub async fn read(
        &self,
        partition: &Arc<Partition>,
        (from, until): (u64, u64),
        bytes_max: u64,
    ) -> Result<Vec<Arc<ScannedBatch>>, ScanError> {
        let lane = LaneKey::new(partition.topic_id(), partition.partition_id().0);
        let known = self.known(&lane, (from, until), bytes_max);
        if !known.is_empty() {
            return Ok(known);
        }
        let flight = self.places.hash_one((lane, from));
        let flight = usize::try_from(flight % FLIGHTS as u64).unwrap_or(0);
        let _flight = self.flights[flight].lock().await;
        let known = self.known(&lane, (from, until), bytes_max);
        if !known.is_empty() {
            return Ok(known);
        }
        let mut scanned = self.read_now(partition, from).await?;
        self.keep(lane, &scanned);
        scanned.truncate(fitting(&scanned, until, bytes_max));
        Ok(scanned)
    }

    /// Reads of partitions so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Bytes kept now.
    pub fn bytes(&self) -> usize {
        self.kept.lock().bytes
    }

    async fn read_now(
        &self,
        partition: &Arc<Partition>,
        from: u64,
    ) -> Result<Vec<Arc<ScannedBatch>>, ScanError> {
        // One batch is read, however small the bound.
        let bytes_max = READ_BYTES.min(self.bytes_max / 4);
        let _share = self.reading.take(READ_BYTES).await?;
        self.reads.fetch_add(1, Relaxed);
        let read = partition.read(Offset(from), bytes_max).await?;
        let (batches, next) = (read.batches, read.next_offset.0);
        if is_light(&batches) {
            return decode(&batches, from, next);
        }
        let decoded = crate::blocking::run(move || decode(&batches, from, next)).await;
        decoded.unwrap_or_else(|_| {
            let reason = "the decoding thread ended".into();
            Err(ScanError::Decode { offset: Offset(from), reason })
        })
    }

    fn known(
        &self,
        lane: &LaneKey,
        (from, until): (u64, u64),
        bytes_max: u64,
    ) -> Vec<Arc<ScannedBatch>> {
        let kept = self.kept.lock();
        let Some(batches) = kept.partitions.get(lane) else { return Vec::new() };
        let (mut at, mut bytes, mut known) = (from, 0, Vec::new());
        while at < until && (bytes < bytes_max || known.is_empty()) {
            let candidate = batches.range(..=at).next_back().map(|(_, (_, batch))| batch);
            let Some(batch) = candidate.filter(|batch| batch.covers().contains(at)) else { break };
            at = batch.covers().end;
            bytes += batch.record_bytes();
            known.push(batch.clone());
        }
        known
    }

    fn keep(&self, lane: LaneKey, scanned: &[Arc<ScannedBatch>]) {
        let bytes = scanned.iter().map(|batch| batch.memory_bytes()).sum();
        if scanned.is_empty() || bytes > self.bytes_max / 2 {
            return;
        }
        let mut kept = self.kept.lock();
        kept.add(lane, scanned, bytes);
        while kept.bytes > self.bytes_max {
            kept.forget_oldest();
        }
    }
}

impl Kept {
    fn add(&mut self, lane: LaneKey, scanned: &[Arc<ScannedBatch>], bytes: usize) {
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        let batches = self.partitions.entry(lane).or_default();
        let starts = scanned.iter().map(|batch| {
            let start = batch.covers().start;
            batches.insert(start, (number, batch.clone()));
            start
        });
        let starts = starts.collect();
        self.order.push_back(Read { number, lane, starts, bytes });
    }

    fn forget_oldest(&mut self) {
        let Some(Read { number, lane, starts, bytes }) = self.order.pop_front() else { return };
        self.bytes -= bytes;
        let Some(batches) = self.partitions.get_mut(&lane) else { return };
        for start in starts {
            if batches.get(&start).is_some_and(|(of, _)| *of == number) {
                batches.remove(&start);
            }
        }
        if batches.is_empty() {
            self.partitions.remove(&lane);
        }
    }
}

/// How many of them lie before `until` and within `bytes_max`; at least one.
fn fitting(scanned: &[Arc<ScannedBatch>], until: u64, bytes_max: u64) -> usize {
    let (mut count, mut bytes) = (0, 0);
    for batch in scanned {
        if count > 0 && (batch.covers().start >= until || bytes >= bytes_max) {
            break;
        }
        bytes += batch.record_bytes();
        count += 1;
    }
    count
}

/// Small and uncompressed.
fn is_light(batches: &Bytes) -> bool {
    let mut rest = &batches[..];
    if rest.len() > INLINE_BYTES {
        return false;
    }
    while let Ok(header) = BatchHeader::peek(rest) {
        if header.compression() != Ok(Compression::None) {
            return false;
        }
        let Some(next) = rest.get(header.total_bytes()..) else { break };
        rest = next;
    }
    true
}

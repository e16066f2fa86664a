//! Scanning and framing over a real partition on a simulated disk.

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use riverrun_proto::{
    Header, Offset, Record, RecordBatch, TopicId,
    batch::{BatchBuilder, BuilderOptions, Compression},
};
use riverrun_storage::{
    disk::{Disk, sim::SimDisk},
    recycle::{RecycleLimits, RecyclePool},
};
use uuid::Uuid;

use super::{
    frame::{Frame, next_frame},
    scan::{DELIVER_AT_HEADER, ScannedBatch, decode, gather, key_hash},
    scan_cache::ScanCache,
};
use crate::{
    clock::Clock,
    delivery::{Found, Run},
    partition::{
        DiskGauge, Durability, Partition, PartitionOpener, PartitionSettings, WaitFor, Workers,
    },
    quota::Quota,
    service::fetch::Format,
    subscription::filter::Filter,
    test_random::Random,
};

const TOPIC: TopicId = TopicId(Uuid::from_u128(5_000_000));

/// A partition, and the cache in front of it.
struct House {
    partition: Arc<Partition>,
    cache: Arc<ScanCache>,
    _workers: Arc<Workers>,
}

impl House {
    fn new(cache_bytes: usize) -> House {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new("logs")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let clock = Clock::real();
        let workers = Arc::new(Workers::start(1, 1, &clock).unwrap());
        let gauge = Arc::new(DiskGauge::new(1 << 20));
        let pool = Arc::new(RecyclePool::open(disk.clone(), RecycleLimits::default()).unwrap());
        let opener = PartitionOpener {
            disk,
            clock,
            gauge,
            pool,
            workers: workers.clone(),
            read_only: None,
            starts: Arc::default(),
        };
        let partition = opener.open(PartitionSettings::internal(TOPIC)).unwrap();
        let reading = Quota::new("test", 8 << 20, Duration::from_secs(5));
        let cache = Arc::new(ScanCache::new(cache_bytes, reading));
        House { partition, cache, _workers: workers }
    }

    async fn append(&self, compression: Compression, records: &[Record]) {
        let builder = BatchBuilder::new(compression, BuilderOptions::default());
        self.append_with(builder, records).await;
    }

    async fn append_with(&self, mut builder: BatchBuilder, records: &[Record]) {
        for record in records {
            builder.push(record).unwrap();
        }
        let wait = WaitFor::AtLeast(Durability::Fsync);
        self.partition.append_and_wait(builder.build().unwrap(), wait).await.unwrap();
    }

    fn end(&self) -> u64 {
        self.partition.visible().high_watermark.0
    }

    /// Everything wanted from `from` on, by as many reads as it takes.
    async fn scan(&self, from: u64, filter: &Filter, records_max: usize) -> Vec<Found> {
        let (mut at, mut all) = (from, Vec::new());
        while at < self.end() {
            let range = Run::new(at, self.end());
            let batches = self.cache.read(&self.partition, (at, range.end), 10_000).await.unwrap();
            let (found, next) = gather(&batches, range, filter, records_max).unwrap();
            assert!(next > at, "no progress at {at}");
            assert!(found.len() <= records_max);
            all.extend(found);
            at = next;
        }
        all
    }

    async fn frames(&self, runs: &[Run], format: Format) -> Vec<Frame> {
        let mut left: VecDeque<Run> = runs.iter().copied().collect();
        let mut frames = Vec::new();
        while !left.is_empty() {
            let frame = next_frame(&self.cache, &self.partition, &mut left, format).await;
            frames.push(frame.unwrap());
        }
        frames
    }
}

fn record(key: Option<&str>, bytes: usize) -> Record {
    let value = Some(Bytes::from(vec![b'v'; bytes]));
    let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
    Record { timestamp_ms: 7, key, value, headers: Vec::new() }
}

fn at(time: &'static str) -> Record {
    let header = Header {
        key: Bytes::from_static(DELIVER_AT_HEADER),
        value: Some(Bytes::from_static(time.as_bytes())),
    };
    Record { headers: vec![header], ..record(None, 1) }
}

/// Offsets in a frame that are among its runs, however it carries them.
fn carried(frame: &Frame) -> Vec<u64> {
    let in_runs = |offset: &u64| frame.runs.iter().any(|run| run.contains(*offset));
    let mut carried: Vec<u64> = frame.records.iter().map(|record| record.offset.0).collect();
    for batch in RecordBatch::split(&frame.batches) {
        let records = batch.unwrap().records(usize::MAX).unwrap();
        carried.extend(records.map(|record| record.unwrap().offset.0).filter(in_runs));
    }
    carried
}

fn offsets(runs: &[Run]) -> Vec<u64> {
    runs.iter().flat_map(|run| run.offsets()).collect()
}

#[tokio::test]
async fn rows_tell_offset_key_bytes_and_time() {
    let house = House::new(1 << 20);
    for compression in [Compression::None, Compression::Zstd] {
        house.append(compression, &[record(Some("k"), 10), at(" 1700000000000"), at("soon")]).await;
    }
    let found = house.scan(1, &Filter::default(), 2).await;
    let time = |one: &Found| (one.offset, one.not_before_ms);
    let expected = [
        (1, Some(1_700_000_000_000)),
        (2, None),
        (3, None),
        (4, Some(1_700_000_000_000)),
        (5, None),
    ];
    assert_eq!(found.iter().map(time).collect::<Vec<_>>(), expected);
    assert_eq!(
        found[2],
        Found { offset: 3, key: Some(key_hash(b"k")), bytes: 11, not_before_ms: None }
    );
    assert_eq!((found[0].key, found[0].bytes), (None, 1 + 19 + 14));
}

#[tokio::test]
async fn a_filter_leaves_records_out_and_goes_on_behind_them() {
    let house = House::new(1 << 20);
    let keyed = |key| record(Some(key), 5);
    house.append(Compression::Lz4, &[keyed("a"), keyed("b"), keyed("a")]).await;
    house.append(Compression::None, &[keyed("b"), keyed("b")]).await;
    house.append(Compression::None, &[keyed("a"), keyed("b")]).await;
    let filter = Filter { key_equals: Some(Bytes::from_static(b"a")), ..Filter::default() };
    for records_max in [1, 2, 100] {
        let found = house.scan(0, &filter, records_max).await;
        let offsets: Vec<u64> = found.iter().map(|one| one.offset).collect();
        assert_eq!(offsets, [0, 2, 5]);
    }
    let many: Vec<Record> = (0..300).map(|n| keyed(if n % 3 == 0 { "a" } else { "b" })).collect();
    house.append(Compression::Zstd, &many).await;
    for (from, records_max) in [(0, 7), (7, 1), (70, 64), (71, 1_000), (200, 3), (306, 9)] {
        let found = house.scan(from, &filter, records_max).await;
        let offsets: Vec<u64> = found.iter().map(|one| one.offset).filter(|at| *at >= 7).collect();
        let wanted = (from.max(7)..307).filter(|at| (at - 7) % 3 == 0);
        assert!(wanted.eq(offsets.iter().copied()), "from {from}: {offsets:?}");
    }
    // One beyond the bound is looked at again, not lost and not taken for unwanted.
    let batches = house.cache.read(&house.partition, (0, 7), u64::MAX).await.unwrap();
    let (found, next) = gather(&batches, Run::new(0, 7), &filter, 1).unwrap();
    assert_eq!((found.len(), next), (1, 2));
}

#[tokio::test]
async fn many_who_follow_the_end_read_it_once() {
    let house = House::new(1 << 20);
    for round in 0..5 {
        house.append(Compression::Zstd, &[record(Some("k"), 100), record(None, 100)]).await;
        let readers = (0..10).map(|_| {
            let (cache, partition) = (house.cache.clone(), house.partition.clone());
            tokio::spawn(async move {
                let read = cache.read(&partition, (round * 2, u64::MAX), u64::MAX).await.unwrap();
                read.last().unwrap().covers().end
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            assert_eq!(reader.await.unwrap(), round * 2 + 2);
        }
        assert_eq!(house.cache.reads(), round + 1);
    }
}

#[tokio::test]
async fn the_cache_stays_within_its_bound_and_forgets_nothing_that_is_asked_for() {
    let house = House::new(20_000);
    for _ in 0..100 {
        house.append(Compression::None, &[record(None, 900)]).await;
    }
    for _ in 0..2 {
        assert_eq!(house.scan(0, &Filter::default(), 10).await.len(), 100);
        assert!(house.cache.bytes() <= 20_000, "{}", house.cache.bytes());
    }
    assert!(house.cache.reads() > 1);
    let reads = house.cache.reads();
    house.scan(95, &Filter::default(), 10).await;
    assert_eq!(house.cache.reads(), reads, "the last ones are still there");
}

#[tokio::test]
async fn one_batch_that_is_kept_holds_no_more_than_what_counts() {
    let house = House::new(256 << 10);
    for _ in 0..64 {
        house.append(Compression::None, &[record(None, 15_000)]).await;
    }
    let mut last = Vec::new();
    // Each reads a quarter of the bound, and all but its first batch take the places of those read before.
    for from in (0..60).rev() {
        let read = house.cache.read(&house.partition, (from, 64), u64::MAX).await.unwrap();
        assert!(read.len() > 1);
        last.extend(read.last().map(Arc::downgrade));
    }
    assert_eq!(house.cache.reads(), 60);
    let held = last.iter().filter(|one| one.strong_count() > 0).count();
    assert!((1..=5).contains(&held), "buffers of {held} reads");
}

#[tokio::test]
async fn a_batch_goes_out_whole_when_half_of_it_was_handed_out() {
    let house = House::new(1 << 20);
    let ten: Vec<Record> = (0..10).map(|_| record(Some("k"), 100)).collect();
    house.append(Compression::Lz4, &ten).await;
    house.append(Compression::Lz4, &ten).await;
    let stored = house.partition.read(Offset(0), 1 << 20).await.unwrap().batches;
    let whole = house.frames(&[Run::new(2, 7), Run::new(9, 16)], Format::Encoded).await;
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].batches, stored);
    assert_eq!(whole[0].runs, [Run::new(2, 7), Run::new(9, 16)]);
    let cut = house.frames(&[Run::new(2, 6)], Format::Encoded).await;
    let batch = RecordBatch::decode(cut[0].batches.clone()).unwrap();
    assert_eq!((batch.header().record_count, batch.base_offset()), (4, Offset(0)));
    assert_eq!(carried(&cut[0]), [2, 3, 4, 5]);
    let structured = house.frames(&[Run::new(2, 3), Run::new(19, 20)], Format::Structured).await;
    assert_eq!(carried(&structured[0]), [2, 19]);
    assert_eq!(structured[0].records[0].record, ten[2]);
}

#[tokio::test]
async fn frames_end_in_time_and_a_large_record_fits() {
    let house = House::new(16 << 20);
    let large: Vec<Record> = (0..20).map(|_| record(None, 80 << 10)).collect();
    let options = BuilderOptions { bytes_max: 16 << 20, ..BuilderOptions::default() };
    house.append_with(BatchBuilder::new(Compression::None, options), &large).await;
    house.append(Compression::None, &[record(None, 2 << 20)]).await;
    for format in [Format::Encoded, Format::Structured] {
        let frames = house.frames(&[Run::new(0, 21)], format).await;
        let counts: Vec<usize> = frames.iter().map(|frame| carried(frame).len()).collect();
        assert_eq!(counts, [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1], "{format:?}");
    }
}

#[tokio::test]
async fn what_retention_took_is_told_as_missing() {
    let house = House::new(1 << 20);
    for _ in 0..10 {
        house.append(Compression::None, &[record(None, 10)]).await;
    }
    house.partition.drop_before(Offset(6)).await.unwrap();
    let frames = house.frames(&[Run::new(3, 5), Run::new(5, 8)], Format::Encoded).await;
    assert_eq!(frames[0].missing, [Run::new(3, 6)]);
    assert_eq!(carried(&frames[0]), [6, 7]);
}

#[test]
fn inflating_stops_at_a_bound_and_goes_on_later() {
    let value = Bytes::from(vec![0; 10 << 20]);
    let mut read = bytes::BytesMut::new();
    for base in 0..5 {
        let options = BuilderOptions { bytes_max: 64 << 20, ..BuilderOptions::default() };
        let mut builder = BatchBuilder::new(Compression::Zstd, options);
        builder.push(&Record { value: Some(value.clone()), ..Record::default() }).unwrap();
        let batch = builder.build().unwrap();
        read.extend_from_slice(batch.stamped(Offset(base), Default::default()).as_bytes());
    }
    let scanned: Vec<Arc<ScannedBatch>> = decode(&read.freeze(), 0, 5).unwrap();
    assert_eq!(scanned.len(), 2);
    assert_eq!(scanned.last().unwrap().covers(), Run::new(1, 2));
}

#[test]
fn frames_carry_exactly_what_was_handed_out() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let house = runtime.block_on(async {
        let (house, mut random) = (House::new(100_000), Random::new(1));
        while house.end() < 1_500 {
            let size = |random: &mut Random| usize::try_from(random.below(800)).unwrap();
            let records: Vec<Record> =
                (0..=random.below(200)).map(|_| record(Some("k"), size(&mut random))).collect();
            let compressions = [Compression::None, Compression::Lz4, Compression::Zstd];
            house.append(*random.pick(&compressions), &records).await;
        }
        house
    });
    Random::each(60, |random| {
        let mut runs = Vec::new();
        let mut at = random.below(1_400);
        while at < house.end() && runs.len() < 30 {
            let end = (at + 1 + random.below(20)).min(house.end());
            Run::push(&mut runs, Run::new(at, end));
            at = end + random.below(3);
        }
        let format = *random.pick(&[Format::Encoded, Format::Structured]);
        let frames = runtime.block_on(house.frames(&runs, format));
        let told: Vec<u64> = frames.iter().flat_map(|frame| offsets(&frame.runs)).collect();
        let sent: Vec<u64> = frames.iter().flat_map(carried).collect();
        assert_eq!((&told, &sent), (&offsets(&runs), &offsets(&runs)));
    });
}

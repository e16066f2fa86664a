use std::{path::Path, time::Duration};

use riverrun_proto::{
    RecordBatch, TopicId,
    batch::{BatchBuilder, BuilderOptions, Compression},
    grpc::v1,
};
use riverrun_storage::{
    disk::{
        Disk,
        sim::{CrashPolicy, SimDisk},
    },
    recycle::{RecycleLimits, RecyclePool},
};
use uuid::Uuid;

use super::*;
use crate::{
    clock::ClockHand,
    partition::{DiskGauge, Durability, Workers},
    quota::Share,
    stream::StreamFacts,
};

/// The topics that lie on `disk`.
fn open(disk: &SimDisk) -> Registry {
    open_at(disk, Clock::real())
}

fn open_at(disk: &SimDisk, clock: Clock) -> Registry {
    let workers = Arc::new(Workers::start(1, 1, &clock).unwrap());
    let gauge = Arc::new(DiskGauge::new(1 << 20));
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let pool = Arc::new(RecyclePool::open(disk.clone(), RecycleLimits::default()).unwrap());
    let opener = PartitionOpener {
        disk,
        clock,
        gauge,
        pool,
        workers,
        read_only: None,
        starts: Arc::default(),
    };
    let metadata = StateLog::open(&opener, TopicId(Uuid::from_u128(1))).unwrap();
    let limits = RegistryLimits { topics_max: 10, partitions_max: 10 };
    Registry::open(metadata, opener, limits).unwrap()
}

fn empty_disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("logs")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk
}

async fn create(registry: &Registry, name: &str, partition_count: u32) -> Arc<Topic> {
    let given = v1::TopicConfig::default();
    let new = NewTopic { name: name.into(), partition_count, given, validate_only: false };
    registry.create(new).await.unwrap()
}

/// Settings that `partition` has in force.
fn durability(topic: &Topic, partition: u32) -> Durability {
    topic.partition(partition).unwrap().settings().durability
}

#[tokio::test]
async fn a_partition_that_takes_no_settings_leaves_log_and_memory_agreed() {
    let disk = empty_disk();
    let registry = open(&disk);
    let topic = create(&registry, "t", 3).await;
    topic.partition(1).unwrap().close().await.unwrap();
    let os = v1::TopicConfig {
        durability: Some(v1::Durability::Os as i32),
        ..v1::TopicConfig::default()
    };
    let change = TopicChange {
        name: "t".into(),
        partition_count: 4,
        given: os,
        reset: Vec::new(),
        validate_only: false,
    };
    let altered = registry.alter(change).await.expect("it is logged, so it is done");
    let live = registry.topic("t").unwrap();
    assert!(Arc::ptr_eq(&altered, &live));
    for partition in [0, 2, 3] {
        assert_eq!(durability(&live, partition), Durability::Os, "partition {partition}");
    }
    drop(registry);
    let anew = open(&disk.crash(CrashPolicy::lose_all())).topic("t").unwrap();
    assert_eq!((anew.given, anew.partition_count()), (live.given, live.partition_count()));
    assert_eq!(durability(&anew, 1), Durability::Os);
}

/// An empty stream to create.
fn stream(name: &str, facts: StreamFacts) -> NewStream {
    NewStream { name: name.into(), facts, message_bytes_max: None, content: Vec::new() }
}

/// One batch of one record.
fn batch(value: &'static str, bytes_max: usize) -> RecordBatch {
    let options = BuilderOptions { bytes_max, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(Compression::None, options);
    builder.push_parts(1, None, Some(value.as_bytes()), &[]).unwrap();
    builder.build().unwrap()
}

#[tokio::test]
async fn a_stream_is_there_with_all_it_begins_with_or_not_at_all() {
    let disk = empty_disk();
    let registry = open(&disk);
    let large = "x".repeat(5 << 20).leak();
    let facts = StreamFacts::bytes();
    let new = |batches: [RecordBatch; 2]| NewStream {
        content: batches.map(|batch| (batch, Share::default())).into(),
        ..stream("s", facts.clone())
    };
    let content = [batch("a", 1 << 10), batch(large, 8 << 20)];
    let refused = registry.create_stream(new(content)).await;
    assert!(matches!(refused, Err(TopicError::Content(_))), "{refused:?}");
    registry.topic("s").unwrap_err();
    assert_eq!(registry.opener.topic_dirs().unwrap().len(), 1, "only the metadata's own");
    let content = [batch("a", 1 << 10), batch("b", 1 << 10)];
    registry.create_stream(new(content)).await.unwrap();
    drop(registry);
    let registry = open(&disk.crash(CrashPolicy::lose_all()));
    let topic = registry.topic("s").unwrap();
    assert_eq!(topic.partition(0).unwrap().visible().high_watermark.0, 2);
    assert_eq!(topic.stream.as_ref().unwrap().facts(), &facts);
}

/// The topics of an empty disk, by a clock of the test's.
fn by_hand() -> (Registry, ClockHand) {
    let (clock, hand) = Clock::manual(1_800_000_000_000);
    (open_at(&empty_disk(), clock), hand)
}

fn mortal() -> StreamFacts {
    StreamFacts { ttl_s: Some(10), ..StreamFacts::bytes() }
}

#[tokio::test]
async fn a_stream_in_use_is_not_removed_and_one_that_is_removed_is_not_used() {
    let (registry, hand) = by_hand();
    let topic = registry.create_stream(stream("s", mortal())).await.unwrap();
    let live = topic.stream.clone().unwrap();
    hand.advance(Duration::from_secs(10));
    assert_eq!(registry.streams_over(), [topic.id]);
    // Somebody came between the look and the removal.
    hand.advance(Duration::from_secs(1));
    assert!(live.enter(registry.clock.steady_ms() - 2_000));
    registry.remove_stream(topic.id).await.unwrap();
    registry.topic("s").expect("an append of theirs may be on its way");
    hand.advance(Duration::from_secs(60));
    assert_eq!(registry.streams_over(), []);
    live.leave(registry.clock.steady_ms());
    hand.advance(Duration::from_secs(10));
    registry.remove_stream(topic.id).await.unwrap();
    registry.topic("s").unwrap_err();
    assert!(!live.enter(registry.clock.steady_ms() - 60_000), "whoever found it before is late");
}

#[tokio::test]
async fn the_name_of_a_stream_whose_time_is_over_is_free_at_once() {
    let (registry, hand) = by_hand();
    let first = registry.create_stream(stream("s", mortal())).await.unwrap();
    let refused = registry.create_stream(stream("s", mortal())).await;
    assert!(matches!(refused, Err(TopicError::Exists { .. })), "{refused:?}");
    hand.advance(Duration::from_secs(10));
    let second = registry.create_stream(stream("s", mortal())).await.unwrap();
    assert_ne!(first.id, second.id);
    hand.advance(Duration::from_secs(10));
    create(&registry, "s", 1).await;
}

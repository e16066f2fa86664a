use std::path::Path;

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
    partition::{DiskGauge, Durability, Workers},
    stream::StreamFacts,
};

/// The topics that lie on `disk`.
fn open(disk: &SimDisk) -> Registry {
    let clock = Clock::real();
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
    let name = || "s".to_owned();
    let large = "x".repeat(5 << 20).leak();
    let facts = StreamFacts::bytes();
    let content = vec![batch("a", 1 << 10), batch(large, 8 << 20)];
    let new = NewStream { name: name(), facts: facts.clone(), content };
    let refused = registry.create_stream(new).await;
    assert!(matches!(refused, Err(TopicError::Content(_))), "{refused:?}");
    registry.topic("s").unwrap_err();
    assert_eq!(registry.opener.topic_dirs().unwrap().len(), 1, "only the metadata's own");
    let content = vec![batch("a", 1 << 10), batch("b", 1 << 10)];
    let new = NewStream { name: name(), facts: facts.clone(), content };
    registry.create_stream(new).await.unwrap();
    drop(registry);
    let registry = open(&disk.crash(CrashPolicy::lose_all()));
    let topic = registry.topic("s").unwrap();
    assert_eq!(topic.partition(0).unwrap().visible().high_watermark.0, 2);
    assert_eq!(topic.stream.as_ref().unwrap().facts(), &facts);
}

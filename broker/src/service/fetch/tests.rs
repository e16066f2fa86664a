use std::{path::Path, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use riverrun_proto::{
    Record, RecordBatch, TopicId,
    batch::{BatchBuilder, BuilderOptions, Compression},
};
use riverrun_storage::{
    disk::{Disk, sim::SimDisk},
    recycle::{RecycleLimits, RecyclePool},
};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::{
    clock::Clock,
    partition::{DiskGauge, PartitionOpener, StateLog, WaitFor, Workers},
    shutdown::Shutdown,
    topic::registry::{NewTopic, RegistryLimits},
};

/// Longest time that anything may take.
const SOON: Duration = Duration::from_secs(20);

/// Refuses the partitions it is told to.
#[derive(Debug, Default)]
struct Refusals(Mutex<Vec<u32>>);

impl FetchFence for Refusals {
    fn check(
        &self,
        member: &Member,
        partitions: &[(&str, u32)],
    ) -> Result<Vec<Option<FenceError>>, FenceError> {
        let refused = self.0.lock();
        let refuse = |(topic, partition): &(&str, u32)| {
            refused.contains(partition).then(|| FenceError::NotOwned {
                member_id: member.member_id.clone(),
                topic: (*topic).to_owned(),
                partition: *partition,
            })
        };
        Ok(partitions.iter().map(refuse).collect())
    }
}

/// A service over a topic `t` of two partitions.
struct House {
    service: Arc<FetchService>,
    registry: Arc<Registry>,
    /// Who may not read what.
    refusals: Arc<Refusals>,
    /// Ends the waits when it is dropped.
    shutdown: Shutdown,
}

async fn house() -> House {
    let clock = Clock::real();
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("logs")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let workers = Arc::new(Workers::start(1, 1, &clock).unwrap());
    let gauge = Arc::new(DiskGauge::new(1 << 20));
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
    let registry = Arc::new(Registry::open(metadata, opener, limits).unwrap());
    let given = Default::default();
    let new = NewTopic { name: "t".into(), partition_count: 2, given, validate_only: false };
    registry.create(new).await.unwrap();
    let refusals = Arc::new(Refusals::default());
    let quota = |bytes| Quota::new("test", bytes, Duration::ZERO);
    let limits = FetchLimits { waiters: quota(10), reading: quota(64 << 20), bytes_max: 16 << 20 };
    let shutdown = Shutdown::new();
    let watch = shutdown.watch();
    let fence: Arc<dyn FetchFence> = refusals.clone();
    let service = FetchService::new(registry.clone(), limits, Some(fence), watch);
    House { service: Arc::new(service), registry, refusals, shutdown }
}

impl House {
    /// The answer to a fetch.
    fn fetch(&self, request: FetchRequest) -> JoinHandle<Vec<Fetched>> {
        let service = self.service.clone();
        tokio::spawn(async move {
            let room = Room::common(service.reading().clone());
            service.fetch(request, &room).await.unwrap().partitions
        })
    }

    /// A fetch that has begun to wait.
    async fn waiting(&self, request: FetchRequest) -> JoinHandle<Vec<Fetched>> {
        let waiting = self.fetch(request);
        let tail = self.registry.partition("t", &[], 0).unwrap().tail().clone();
        while tail.waiter_count() == 0 {
            assert!(!waiting.is_finished(), "it waits");
            tokio::task::yield_now().await;
        }
        waiting
    }
}

/// A member's fetch of both partitions from their beginning.
fn both(wait: Duration) -> FetchRequest {
    let part = |partition| FetchPartition {
        topic: "t".into(),
        topic_id: Bytes::new(),
        partition,
        offset: 0,
        bytes_max: 0,
        leader_epoch: None,
    };
    let member = Member { group: "g".into(), member_id: "m".into(), member_epoch: 1 };
    FetchRequest {
        partitions: vec![part(0), part(1)],
        wait,
        bytes_min: 1,
        bytes_max: 0,
        records_max: 0,
        format: Format::Structured,
        member: Some(member),
    }
}

async fn append(registry: &Registry, partition: u32) {
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    builder.push(&Record { value: Some(Bytes::from_static(b"x")), ..Record::default() }).unwrap();
    let batch: RecordBatch = builder.build().unwrap();
    let partition = registry.partition("t", &[], partition).unwrap();
    partition.append_and_wait(batch, WaitFor::AtLeast(Default::default())).await.unwrap();
}

/// By partition: how many records, or that the member may not read it.
#[track_caller]
fn check(answer: &[Fetched], expected: &[(u32, Option<usize>)]) {
    let found = |one: &Fetched| match &one.records {
        Ok(records) => (one.partition, Some(records.records.len())),
        Err(FetchPartitionError::Fence(_)) => (one.partition, None),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(answer.iter().map(found).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_partition_that_the_member_may_not_read_does_not_hide_the_others() {
    let house = house().await;
    append(&house.registry, 0).await;
    append(&house.registry, 1).await;
    *house.refusals.0.lock() = vec![0];
    let answer = house.fetch(both(Duration::ZERO)).await.unwrap();
    check(&answer, &[(0, None), (1, Some(1))]);
    assert!(answer[0].visible.is_some());
}

#[tokio::test]
async fn a_member_that_loses_a_partition_while_it_waits_gets_nothing_more_of_it() {
    let house = house().await;
    let waiting = house.waiting(both(SOON)).await;
    *house.refusals.0.lock() = vec![0];
    append(&house.registry, 0).await;
    let answer = tokio::time::timeout(SOON, waiting).await.expect("woken").unwrap();
    check(&answer, &[(0, None)]);
}

#[tokio::test]
async fn the_end_of_the_wait_looks_once_more_who_may_read() {
    let house = house().await;
    append(&house.registry, 0).await;
    // More is asked for than will be there: only the end of the wait answers.
    let request = FetchRequest { bytes_min: 1 << 20, ..both(SOON) };
    let waiting = house.waiting(request).await;
    *house.refusals.0.lock() = vec![0];
    house.shutdown.begin();
    let answer = tokio::time::timeout(SOON, waiting).await.expect("ended").unwrap();
    check(&answer, &[(0, None), (1, Some(0))]);
}

#[tokio::test]
async fn a_wait_without_records_ends_when_it_is_over_and_at_most_50_ms_later() {
    let house = house().await;
    // Time moves on by itself once nothing else is to be done.
    tokio::time::pause();
    for wait in [Duration::from_millis(1), Duration::from_millis(700), Duration::from_secs(60)] {
        let begun = Instant::now();
        let answer = house.fetch(both(wait)).await.unwrap();
        check(&answer, &[(0, Some(0)), (1, Some(0))]);
        let (taken, late) = (begun.elapsed(), Duration::from_millis(50));
        assert!((wait..=wait + late).contains(&taken), "{taken:?} for {wait:?}");
    }
}

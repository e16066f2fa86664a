use std::{
    future::Future,
    path::Path,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use riverrun_proto::TopicId;
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
    partition::{DiskGauge, PartitionOpener, StateLog, Workers},
    topic::registry::RegistryLimits,
};

/// A service over the metadata that lies on `disk`.
fn service(disk: &SimDisk) -> ProduceService {
    let clock = Clock::real();
    let workers = Arc::new(Workers::start(1, 1, &clock).unwrap());
    let gauge = Arc::new(DiskGauge::new(1 << 20));
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let pool = Arc::new(RecyclePool::open(disk.clone(), RecycleLimits::default()).unwrap());
    let opener = PartitionOpener {
        disk,
        clock: clock.clone(),
        gauge,
        pool,
        workers,
        read_only: None,
        starts: Arc::default(),
    };
    let metadata = StateLog::open(&opener, TopicId(Uuid::from_u128(1))).unwrap();
    let limits = RegistryLimits { topics_max: 10, partitions_max: 10 };
    let registry = Arc::new(Registry::open(metadata, opener, limits).unwrap());
    ProduceService::new(registry, clock, Quota::new("test", 1 << 20, Duration::ZERO))
}

/// Begins `work` and leaves before it is done.
fn begin_and_leave(work: impl Future) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(work).poll(&mut context).is_pending(), "it takes a flush");
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_log_and_memory_agreed() {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("logs")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    let broker = service(&disk);
    begin_and_leave(broker.init_producer(None));
    let first = broker.init_producer(None).await.unwrap();
    begin_and_leave(broker.init_producer(Some((first.id.0, 0))));
    let again = broker.init_producer(Some((first.id.0, 0))).await;
    assert!(matches!(again, Err(InitProducerError::Fenced { current: 1, .. })), "{again:?}");
    drop(broker);
    let started_anew = service(&disk.crash(CrashPolicy::lose_all()));
    let raised = started_anew.init_producer(Some((first.id.0, 1))).await.unwrap();
    assert_eq!(raised.epoch, ProducerEpoch(2));
}

#[tokio::test]
async fn a_batch_waits_for_room_and_many_structured_records_do_not() {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("logs")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    let broker = service(&disk);
    let connection = Quota::new("connection", 1 << 20, Duration::from_secs(60));
    let all = connection.take(1 << 20).await.unwrap();
    let batch = Payload::Batch(Bytes::from(vec![0; 100_000]));
    let records = |count| Payload::Records(vec![Record::default(); count]);
    for waiting in [batch, records(1)] {
        begin_and_leave(broker.room_for(&waiting, Some(&connection)));
    }
    let mut context = Context::from_waker(Waker::noop());
    let many = records(RECORDS_BYTES_WAITING / size_of::<Record>() + 1);
    let refused = pin!(broker.room_for(&many, Some(&connection))).poll(&mut context);
    assert!(matches!(refused, Poll::Ready(Err(_))));
    drop(all);
    broker.room_for(&many, Some(&connection)).await.unwrap();
}

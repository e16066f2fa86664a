//! Streams over a registry on a simulated disk, where a test decides what runs when: its futures are polled by hand, and
//! tasks run when it waits.

mod append;
mod create;
mod expire;

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use riverrun_proto::TopicId;
use riverrun_storage::{
    disk::{Disk, sim::SimDisk},
    recycle::{RecycleLimits, RecyclePool},
};
use uuid::Uuid;

use super::{
    AppendRequest, Appended, CreateRequest, ForkRequest, From as ReadFrom, ReadRequest,
    StreamError, StreamService,
};
use crate::{
    clock::{Clock, ClockHand},
    partition::{DiskGauge, Partition, PartitionOpener, StateLog, Workers},
    quota::{Quota, Room, Share},
    service::{FetchService, ProduceService, fetch::FetchLimits},
    shutdown::Shutdown,
    stream::{Mark, Producer, Stream},
    topic::{Registry, registry::RegistryLimits},
};

/// Longest time that anything may take.
const SOON: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

/// The service and what is under it.
struct House {
    service: StreamService,
    disk: SimDisk,
    gauge: Arc<DiskGauge>,
    /// What a connection may have in flight, and what was taken for bodies.
    connection: Quota,
    /// Bytes being read.
    reading: Quota,
    _shutdown: Shutdown,
}

impl House {
    fn new(clock: Clock) -> House {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new("logs")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        House::on(disk, clock)
    }

    fn on(disk: SimDisk, clock: Clock) -> House {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let gauge = Arc::new(DiskGauge::new(1 << 20));
        let pool = Arc::new(RecyclePool::open(shared.clone(), RecycleLimits::default()).unwrap());
        let opener = PartitionOpener {
            disk: shared,
            clock: clock.clone(),
            gauge: gauge.clone(),
            pool,
            workers: Arc::new(Workers::start(1, 1, &clock).unwrap()),
            read_only: None,
            starts: Arc::default(),
        };
        let metadata = StateLog::open(&opener, TopicId(Uuid::from_u128(1)));
        let limits = RegistryLimits { topics_max: 10, partitions_max: 10 };
        let registry = Arc::new(Registry::open(metadata.unwrap(), opener, limits).unwrap());
        let quota = |bytes| Quota::new("test", bytes, Duration::ZERO);
        let (reading, connection) = (quota(256 * MIB), quota(256 * MIB));
        let limits =
            FetchLimits { waiters: quota(10), reading: reading.clone(), bytes_max: 16 << 20 };
        let shutdown = Shutdown::new();
        let fetch = FetchService::new(registry.clone(), limits, None, shutdown.watch());
        let produce = ProduceService::new(registry.clone(), clock.clone(), quota(256 * MIB));
        let (produce, fetch) = (Arc::new(produce), Arc::new(fetch));
        let service = StreamService::new(registry, produce, fetch, clock);
        House { service, disk, gauge, connection, reading, _shutdown: shutdown }
    }

    /// The house as the next start finds it after the process died.
    fn restarted(self) -> House {
        let (disk, clock) = (self.disk.kill(), self.service.clock.clone());
        drop(self.service);
        House::on(disk, clock)
    }

    fn room(&self) -> Room {
        Room::common(self.reading.clone())
    }

    fn stream(&self, name: &str) -> Arc<Stream> {
        self.service.registry.topic(name).unwrap().stream.clone().unwrap()
    }

    fn partition(&self, name: &str) -> Arc<Partition> {
        self.service.registry.partition(name, &[], 0).unwrap()
    }

    async fn create(&self, name: &str) {
        self.service.create(new(name), &self.room()).await.unwrap();
    }

    async fn append(&self, request: AppendRequest) -> Result<Appended, StreamError> {
        soon(self.service.append(request, &self.connection)).await
    }

    /// The values of a stream, all of them.
    async fn values(&self, name: &str) -> Vec<Bytes> {
        let found = self.service.find(name, 0).unwrap();
        let (mut values, mut from) = (Vec::new(), ReadFrom::Start);
        loop {
            let request = ReadRequest { from, wait: Duration::ZERO, bytes_max: 1 << 20 };
            let chunk = soon(self.service.read(&found, request, &self.room())).await.unwrap();
            values.extend(chunk.values);
            from = ReadFrom::At(chunk.next);
            if chunk.is_up_to_date {
                return values;
            }
        }
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

/// Runs other tasks until something is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    soon(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Lets a future run until it waits for something.
fn begin<F: Future>(future: &mut Pin<Box<F>>) {
    let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending), "it has something to wait for");
}

fn new(name: &str) -> CreateRequest {
    CreateRequest {
        name: name.into(),
        content_type: None,
        ttl_s: None,
        expires_at_ms: None,
        is_closed: false,
        body: Bytes::new(),
        share: Share::default(),
        fork: None,
    }
}

/// An append without a turn.
fn plain(name: &str, body: impl Into<Bytes>) -> AppendRequest {
    AppendRequest {
        name: name.into(),
        partition: 0,
        content_type: Some("application/octet-stream".into()),
        body: body.into(),
        mark: Mark::default(),
        share: Share::default(),
    }
}

/// The turn `seq` of producer `p`.
fn turn(name: &str, seq: u64, body: impl Into<Bytes>) -> AppendRequest {
    let producer = Some(Producer { id: "p".into(), epoch: 0, seq });
    AppendRequest { mark: Mark { producer, ..Mark::default() }, ..plain(name, body) }
}

fn closing(name: &str) -> AppendRequest {
    AppendRequest {
        mark: Mark { is_closing: true, ..Mark::default() },
        ..plain(name, Bytes::new())
    }
}

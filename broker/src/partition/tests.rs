use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use riverrun_proto::{
    PartitionId, Record, RecordBatch, TopicId,
    batch::{BatchBuilder, BuilderOptions, Compression},
};
use riverrun_storage::{
    Log, Timestamp,
    disk::{
        Disk,
        sim::{Call, CrashPolicy, Fault, FaultError, SimDisk},
    },
    recycle::{RecycleLimits, RecyclePool},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    housekeeping::Housekeeper,
    queue::WorkQueue,
    replicator::tests::{Others, Told},
    shard::Shard,
    state_log::PAYLOAD_BYTES_MAX,
    *,
};
use crate::clock::Clock;

pub(super) const TOPIC: TopicId = TopicId(Uuid::from_u128(77));
const SOON: Duration = Duration::from_secs(20);

/// A data directory on a simulated disk and the threads that work on it.
pub(super) struct House {
    pub(super) disk: SimDisk,
    pub(super) opener: PartitionOpener,
}

impl House {
    pub(super) fn new() -> House {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new("logs")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        House::on(disk)
    }

    fn on(disk: SimDisk) -> House {
        let clock = Clock::real();
        let workers = Arc::new(Workers::start(2, 2, &clock).unwrap());
        let gauge = Arc::new(DiskGauge::new(1 << 20));
        let pool =
            Arc::new(RecyclePool::open(Arc::new(disk.clone()), RecycleLimits::default()).unwrap());
        let opener = PartitionOpener {
            disk: Arc::new(disk.clone()),
            clock,
            gauge,
            pool,
            workers,
            read_only: None,
            starts: Arc::default(),
        };
        House { disk, opener }
    }

    fn open(&self, durability: Durability) -> Arc<Partition> {
        self.opener.open(settings(durability)).unwrap()
    }

    /// As [`House::open`], replicated by nodes that do what the test says.
    fn open_told(&self, durability: Durability) -> (Arc<Partition>, Others) {
        let settings = settings(durability);
        let dir = partition_dir(TOPIC, PartitionId(0));
        let disk = self.opener.disk.clone();
        let opened = Log::open(disk, dir, settings.log.clone(), Timestamp(1)).unwrap();
        let (shard, gauge) = (self.opener.workers.shard(), self.opener.gauge.clone());
        let (told, others) = Told::leader();
        (Partition::new(opened, settings, shard, (gauge, None), Replicator::Told(told)), others)
    }

    /// As [`House::open`], on a shard without threads: it appends and flushes only when the test says so.
    fn open_by_hand(&self, durability: Durability) -> (Arc<Partition>, Shard, ShardHandle) {
        let settings = settings(durability);
        let dir = partition_dir(TOPIC, PartitionId(0));
        let disk = self.opener.disk.clone();
        let opened = Log::open(disk, dir, settings.log.clone(), Timestamp(1)).unwrap();
        let clock = self.opener.clock.clone();
        let handle = ShardHandle::new(
            Arc::new(WorkQueue::new()),
            Arc::new(WorkQueue::new()),
            (clock, Arc::default()),
        );
        let shard = Shard::new(handle.clone());
        let places = (self.opener.gauge.clone(), None);
        let local = Replicator::local();
        (Partition::new(opened, settings, handle.clone(), places, local), shard, handle)
    }

    /// The house as the next start finds it after a power loss that kept nothing it was not told to keep.
    fn after_power_loss(self) -> House {
        let disk = self.disk.crash(CrashPolicy::lose_all());
        drop(self);
        House::on(disk)
    }
}

pub(super) fn settings(durability: Durability) -> PartitionSettings {
    let flush_interval = Duration::from_millis(10);
    let internal = PartitionSettings::internal(TOPIC);
    PartitionSettings { durability, flush_interval, is_internal: false, ..internal }
}

fn batch(values: &[&str]) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    for value in values {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        builder.push(&Record { timestamp_ms: 5, value, ..Record::default() }).unwrap();
    }
    builder.build().unwrap()
}

pub(super) async fn append(
    partition: &Arc<Partition>,
    values: &[&str],
    wait: WaitFor,
) -> AppendResult {
    timeout(SOON, partition.append_and_wait(batch(values), wait)).await.expect("answers soon")
}

async fn values(partition: &Arc<Partition>) -> Vec<String> {
    let range = partition.visible();
    let mut values = Vec::new();
    let mut next = range.log_start;
    while next < range.high_watermark {
        let read = partition.read(next, 1 << 20).await.unwrap();
        for batch in RecordBatch::split(&read.batches) {
            for record in batch.unwrap().records(1 << 20).unwrap() {
                let record = record.unwrap();
                if record.offset >= next {
                    let value = record.record.value.unwrap();
                    values.push(String::from_utf8(value.to_vec()).unwrap());
                }
            }
        }
        next = read.next_offset;
    }
    values
}

/// Committed, at the durability of the topic.
pub(super) const COMMITTED: WaitFor = WaitFor::AtLeast(Durability::Os);

#[tokio::test]
async fn an_fsync_receipt_means_on_disk_and_visible() {
    let house = House::new();
    let partition = house.open(Durability::Fsync);
    let receipt = append(&partition, &["a", "b"], COMMITTED).await.unwrap();
    assert_eq!((receipt.base_offset, receipt.end_offset), (Offset(0), Offset(2)));
    assert_eq!(receipt.reached, Durability::Fsync);
    assert_eq!(values(&partition).await, ["a", "b"]);
    drop(partition);
    let house = house.after_power_loss();
    assert_eq!(values(&house.open(Durability::Fsync)).await, ["a", "b"]);
}

#[tokio::test]
async fn levels_are_named_as_reached() {
    let house = House::new();
    let partition = house.open(Durability::Os);
    let receipt = append(&partition, &["a"], COMMITTED).await.unwrap();
    assert_eq!(receipt.reached, Durability::Os);
    let before = house.disk.call_count(Call::Sync);
    let receipt = append(&partition, &["b"], WaitFor::AtLeast(Durability::Fsync)).await.unwrap();
    assert_eq!(receipt.reached, Durability::Fsync);
    assert!(house.disk.call_count(Call::Sync) > before);
    drop(partition);
    let house = house.after_power_loss();
    assert_eq!(values(&house.open(Durability::Os)).await, ["a", "b"]);
}

#[tokio::test]
async fn an_interval_topic_is_flushed_in_the_background() {
    let house = House::new();
    let partition = house.open(Durability::Interval);
    append(&partition, &["a"], COMMITTED).await.unwrap();
    let flushed = timeout(SOON, async {
        while partition.facts().flushed < Offset(1) {
            // Never idle, so that only the interval can be what flushes.
            append(&partition, &["more"], COMMITTED).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    flushed.await.expect("flushed although nobody asked");
}

#[tokio::test]
async fn nobody_sees_what_is_not_flushed_and_readers_wake_when_it_is() {
    let house = House::new();
    let (partition, mut shard, handle) = house.open_by_hand(Durability::Fsync);
    let mut waiter = TailWaiter::for_bytes();
    waiter.register(partition.tail(), 0);
    waiter.rearm(1);
    let (completer, ticket) = Completer::ticket();
    let written = WaitFor::Written;
    let append = Append { batch: batch(&["a"]), wait: written, completer, share: Share::default() };
    partition.append(append).await;
    assert!(shard.turn());
    assert_eq!(ticket.wait().await.unwrap().end_offset, Offset(1), "it is written");
    assert_eq!(partition.visible().high_watermark, Offset(0));
    assert_eq!(partition.read(Offset(0), 100).await.unwrap().batches, Bytes::new());
    assert!(waiter.wait().now_or_never().is_none(), "there is nothing to wake for");

    handle.flushes.pop().expect("a flush was asked for").run();
    timeout(SOON, waiter.wait()).await.expect("woken by the flush");
    assert_eq!(partition.visible().high_watermark, Offset(1));
    assert_eq!(values(&partition).await, ["a"]);
    drop(waiter);
    assert_eq!(partition.tail().waiter_count(), 0);
}

#[tokio::test]
async fn a_failed_flush_acknowledges_nothing_and_is_final() {
    let house = House::new();
    let partition = house.open(Durability::Fsync);
    append(&partition, &["a"], COMMITTED).await.unwrap();
    let fault = Fault { call: Call::Sync, nth: 1, error: FaultError::Io, lasting: false };
    house.disk.inject(fault);
    let values_of_group = [["b"], ["c"], ["d"]];
    let group = values_of_group.iter().map(|value| append(&partition, value, COMMITTED));
    for lost in futures_util::future::join_all(group).await {
        let lost = lost.unwrap_err();
        let is_final = matches!(lost, AppendError::Indeterminate { .. } | AppendError::Failed(_));
        assert!(is_final, "{lost}");
    }
    house.disk.heal();
    let refused = append(&partition, &["e"], COMMITTED).await.unwrap_err();
    assert!(matches!(refused, AppendError::Failed(_)), "{refused}");
    assert_eq!(values(&partition).await, ["a"], "reads stop at the flushed offset");
    drop(partition);
    let house = house.after_power_loss();
    let partition = house.open(Durability::Fsync);
    assert_eq!(values(&partition).await[..1], ["a"]);
    append(&partition, &["f"], COMMITTED).await.expect("a restart heals");
}

#[tokio::test]
async fn an_os_topic_whose_file_was_removed_stops_at_the_next_round_although_nothing_is_flushed() {
    let house = House::new();
    let (partition, mut shard, _handle) = house.open_by_hand(Durability::Os);
    let housekeeper = Housekeeper::open(
        house.opener.disk.clone(),
        house.opener.clock.clone(),
        (house.opener.gauge.clone(), house.opener.pool.clone()),
        1 << 20,
    );
    let mut housekeeper = housekeeper.unwrap();
    let mut write = async |value: &str| {
        let (completer, ticket) = Completer::ticket();
        let (batch, share) = (batch(&[value]), Share::default());
        partition.append(Append { batch, wait: COMMITTED, completer, share }).await;
        if partition.failure().is_none() {
            assert!(shard.turn());
        }
        timeout(SOON, ticket.wait()).await.expect("answered")
    };
    write("a").await.unwrap();
    housekeeper.round(std::slice::from_ref(&partition)).await;
    write("b").await.unwrap();
    let segment = partition_dir(TOPIC, PartitionId(0)).join(format!("{:020}.log", 0));
    house.disk.remove_file(&segment).unwrap();
    housekeeper.round(std::slice::from_ref(&partition)).await;
    let refused = write("c").await.unwrap_err();
    assert!(matches!(refused, AppendError::Failed(_)), "{refused}");
    assert!(refused.to_string().contains("removed"), "{refused}");
    assert!(house.opener.gauge.device().failure().is_none());
}

#[tokio::test]
async fn a_full_disk_refuses_and_resumes() {
    let house = House::new();
    let partition = house.open(Durability::Fsync);
    house.opener.gauge.set(true, 5, 90);
    let refused = append(&partition, &["a"], COMMITTED).await.unwrap_err();
    assert!(matches!(refused, AppendError::DiskFull(DiskFull { free_bytes: 5, .. })), "{refused}");
    assert!(refused.to_string().contains("5 bytes are free, and records are taken from 90 on"));
    house.opener.gauge.set(false, 500 << 20, 90);
    append(&partition, &["b"], COMMITTED).await.unwrap();
    assert_eq!(values(&partition).await, ["b"]);
}

#[tokio::test]
async fn batches_are_appended_in_the_order_sent() {
    let house = House::new();
    let partition = house.open(Durability::Fsync);
    let mut tickets = Vec::new();
    for number in 0..500 {
        let (completer, ticket) = Completer::ticket();
        let batch = batch(&[&number.to_string()]);
        let append = Append { batch, wait: COMMITTED, completer, share: Share::default() };
        partition.append(append).await;
        tickets.push(ticket);
    }
    for (number, ticket) in (0..).zip(tickets) {
        let receipt = timeout(SOON, ticket.wait()).await.unwrap().unwrap();
        assert_eq!(receipt.base_offset, Offset(number));
    }
    assert!(house.disk.call_count(Call::Sync) < 500, "flushes are shared");
}

#[tokio::test]
async fn what_was_acknowledged_before_another_was_sent_stands_before_it_whoever_sends() {
    let house = House::new();
    let partition = house.open(Durability::Fsync);
    let acknowledged = Arc::new(Mutex::new(None));
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let (partition, acknowledged) = (partition.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for _ in 0..50 {
                    let before: Option<Offset> = *acknowledged.lock();
                    let given = append(&partition, &["a"], COMMITTED).await.unwrap().base_offset;
                    assert!(before.is_none_or(|before| before < given), "{before:?}, {given}");
                    let mut latest = acknowledged.lock();
                    *latest = (*latest).max(Some(given));
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(partition.visible().high_watermark, Offset(400), "no offset is left out");
}

#[tokio::test]
async fn readers_and_receipts_wait_for_what_is_committed_not_for_what_is_durable() {
    let house = House::new();
    let (partition, others) = house.open_told(Durability::Fsync);
    let (completer, first) = Completer::ticket();
    let waits =
        Append { batch: batch(&["a"]), wait: COMMITTED, completer, share: Share::default() };
    partition.append(waits).await;
    append(&partition, &["b"], WaitFor::Written).await.unwrap();
    let flushed = async {
        while partition.facts().flushed < Offset(2) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, flushed).await.expect("both are on this node's disk");
    assert_eq!(values(&partition).await, [""; 0]);
    assert_eq!(partition.read(Offset(0), 100).await.unwrap().batches, Bytes::new());
    let error = partition.read(Offset(1), 100).await.unwrap_err();
    assert!(matches!(error, ReadError::OutOfRange { high_watermark: Offset(0), .. }), "{error}");
    let error = partition.drop_before(Offset(1)).await.unwrap_err();
    assert!(matches!(error, MaintainError::PastVisibleEnd { .. }), "{error}");

    let mut waiter = TailWaiter::for_bytes();
    waiter.register(partition.tail(), 0);
    waiter.rearm(1);
    others.commit(1);
    partition.settle(Ledger::settle);
    timeout(SOON, waiter.wait()).await.expect("readers are woken");
    assert_eq!(values(&partition).await, ["a"]);
    let receipt = timeout(SOON, first.wait()).await.unwrap().unwrap();
    assert_eq!((receipt.end_offset, receipt.reached), (Offset(1), Durability::Fsync));
    others.commit(2);
    partition.settle(Ledger::settle);
    assert_eq!(values(&partition).await, ["a", "b"]);
}

#[tokio::test]
async fn a_node_that_ceases_to_lead_refuses_producers_and_answers_those_who_wait() {
    let house = House::new();
    let (partition, others) = house.open_told(Durability::Os);
    let (completer, waits) = Completer::ticket();
    let waiting =
        Append { batch: batch(&["a"]), wait: COMMITTED, completer, share: Share::default() };
    partition.append(waiting).await;
    append(&partition, &["b"], WaitFor::Written).await.unwrap();
    others.elect(Role::Follower);
    partition.settle(Ledger::settle);
    let answer = timeout(SOON, waits.wait()).await.expect("answered").unwrap_err();
    assert!(matches!(answer, AppendError::Indeterminate { .. }), "{answer}");
    let refused = append(&partition, &["c"], WaitFor::Written).await.unwrap_err();
    assert!(matches!(refused, AppendError::NotLeader(NotLeader)), "{refused}");
    let refused = partition.drop_before(Offset(0)).await.unwrap_err();
    assert!(matches!(refused, MaintainError::NotLeader(NotLeader)), "{refused}");
    others.commit(2);
    partition.settle(Ledger::settle);
    assert_eq!(values(&partition).await, ["a", "b"], "a follower serves what is committed");

    others.elect(Role::Leader);
    partition.settle(Ledger::settle);
    let receipt = append(&partition, &["d"], WaitFor::Written).await.unwrap();
    assert_eq!(receipt.base_offset, Offset(2), "nothing was appended meanwhile");
}

#[tokio::test]
async fn closing_finishes_what_waits_and_refuses_the_rest() {
    let house = House::new();
    let partition = house.open(Durability::Os);
    append(&partition, &["a"], COMMITTED).await.unwrap();
    let mut waiter = TailWaiter::for_bytes();
    waiter.register(partition.tail(), 0);
    waiter.rearm(1);
    timeout(SOON, partition.close()).await.unwrap().unwrap();
    timeout(SOON, waiter.wait()).await.expect("readers are woken");
    let refused = append(&partition, &["b"], COMMITTED).await.unwrap_err();
    assert!(matches!(refused, AppendError::Closed), "{refused}");
    partition.close().await.expect("twice is harmless");
    drop((partition, waiter));
    let house = house.after_power_loss();
    assert_eq!(values(&house.open(Durability::Os)).await, ["a"]);
}

#[tokio::test]
async fn the_log_start_moves_up_to_the_visible_end_only() {
    let house = House::new();
    let partition = house.open(Durability::Fsync);
    append(&partition, &["a", "b", "c"], COMMITTED).await.unwrap();
    assert_eq!(partition.drop_before(Offset(2)).await.unwrap(), Offset(2));
    let error = partition.drop_before(Offset(4)).await.unwrap_err();
    assert!(matches!(error, MaintainError::PastVisibleEnd { .. }), "{error}");
    let error = partition.read(Offset(1), 100).await.unwrap_err();
    assert!(matches!(error, ReadError::OutOfRange { log_start: Offset(2), .. }), "{error}");
}

#[tokio::test]
async fn a_lost_partition_is_not_made_anew() {
    let house = House::new();
    let settings = PartitionSettings::internal(TOPIC);
    assert!(house.opener.open_existing(settings.clone()).is_err());
    house.opener.open(settings.clone()).unwrap();
    house.opener.remove_topic(TOPIC).unwrap();
    house.opener.remove_topic(TOPIC).expect("twice is harmless");
    assert!(house.opener.open_existing(settings).is_err());
    assert_eq!(PartitionId(0).to_string(), "0");
}

fn text(parts: &[Bytes]) -> Vec<&str> {
    parts.iter().map(|part| std::str::from_utf8(part).unwrap()).collect()
}

#[tokio::test]
async fn state_is_replayed_from_the_newest_whole_snapshot() {
    let house = House::new();
    let (log, replay) = StateLog::open(&house.opener, TOPIC).unwrap();
    assert!(replay.snapshot.is_empty() && replay.deltas.is_empty());
    for delta in ["one", "two"] {
        log.append(Bytes::from(delta), |_| ()).await.unwrap();
    }
    assert_eq!(log.deltas_since_snapshot(), (2, 6));
    log.snapshot(|| vec!["part ".into(), "and part".into()]).await.unwrap();
    assert_eq!(log.deltas_since_snapshot(), (0, 0));
    let offset = log.append("three".into(), |offset| offset).await.unwrap();
    assert_eq!(log.partition().visible().log_start, Offset(2), "the log is trimmed");
    // A snapshot that a crash cut short.
    house.disk.inject(Fault { call: Call::Sync, nth: 2, error: FaultError::Io, lasting: true });
    log.snapshot(|| vec!["new ".into(), "never".into()]).await.unwrap_err();
    drop(log);
    let house = house.after_power_loss();
    let (log, replay) = StateLog::open(&house.opener, TOPIC).unwrap();
    assert_eq!(text(&replay.snapshot), ["part ", "and part"]);
    assert_eq!(replay.deltas, [(offset, Bytes::from("three"))]);
    log.snapshot(|| vec!["whole".into()]).await.unwrap();
    drop(log);
    let house = house.after_power_loss();
    let (_, replay) = StateLog::open(&house.opener, TOPIC).unwrap();
    assert_eq!((text(&replay.snapshot), replay.deltas.len()), (vec!["whole"], 0));
}

#[tokio::test]
async fn state_that_is_not_stored_is_not_applied() {
    let house = House::new();
    let (log, _) = StateLog::open(&house.opener, TOPIC).unwrap();
    let huge = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    log.append(huge, |_| panic!("applied")).await.unwrap_err();
    house.disk.inject(Fault { call: Call::Sync, nth: 1, error: FaultError::Io, lasting: true });
    log.append("lost".into(), |_| panic!("applied")).await.unwrap_err();
    log.append("refused".into(), |_| panic!("applied")).await.unwrap_err();
}

#[tokio::test]
async fn waiting_for_records_of_another_log_shows_nothing_and_ends() {
    let house = House::new();
    let partition = house.open(Durability::Os);
    append(&partition, &["a"], WaitFor::Written).await.unwrap();
    let foreign = timeout(SOON, partition.wait_durable(Offset(9), Durability::Fsync)).await;
    assert!(matches!(foreign, Ok(Err(AppendError::Indeterminate { .. }))), "{foreign:?}");
    assert_eq!(partition.tail().high_watermark(), Offset(1));
    let own = timeout(SOON, partition.wait_durable(Offset(1), Durability::Fsync)).await;
    assert_eq!(own.unwrap().unwrap(), Durability::Fsync);
}

#[tokio::test]
async fn large_reads_leave_the_thread_that_serves_and_small_ones_do_not() {
    const MIB: usize = 1 << 20;
    let house = House::new();
    let partition = house.open(Durability::Os);
    let value = "v".repeat(MIB / 2);
    for _ in 0..8 {
        append(&partition, &[&value], WaitFor::Written).await.unwrap();
    }
    let end = partition.visible().high_watermark;
    let here = |from, bytes_max| partition.bytes_here(Offset(from), end, bytes_max);
    assert_eq!(here(0, 64 << 10), Some(64 << 10));
    assert_eq!(here(0, 8 * MIB), None, "4 MiB are there");
    assert_eq!(here(7, 8 * MIB), Some(MIB), "half of one is there");
    assert_eq!(here(8, 8 * MIB), Some(MIB), "nothing is there");
    for (from, bytes_max, next) in [(0, MIB, 1), (0, 3 * MIB, 5), (0, 8 * MIB, 8), (7, 8 * MIB, 8)]
    {
        let read = partition.read(Offset(from), bytes_max).await.unwrap();
        assert_eq!(read.next_offset, Offset(next), "{bytes_max} bytes from {from}");
    }
    // Small records, then large ones: more is there than it seems.
    for _ in 0..1_000 {
        append(&partition, &["small"], WaitFor::Written).await.unwrap();
    }
    for _ in 0..8 {
        append(&partition, &[&value], WaitFor::Written).await.unwrap();
    }
    let end = partition.visible().high_watermark;
    let from = Offset(end.0 - 8);
    assert_eq!(partition.bytes_here(from, end, 8 * MIB), Some(MIB));
    assert_eq!(partition.read(from, 8 * MIB).await.unwrap().next_offset, end);
}

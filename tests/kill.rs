//! The real binary, killed while it is at work.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use riverrun_client::{Batch, Client, Record, TopicPartition, TopicSpec};

use crate::support::{
    client::{Seen, in_time, receive},
    process::Broker,
};

/// Records sent in all.
const COUNT: u64 = 80_000;
/// Producers, each with a connection of its own, so that a kill finds answers on their way.
const PRODUCERS: u64 = 4;

/// What the members of a group received and committed.
#[derive(Debug, Default)]
struct Ledger {
    /// First offset not received yet.
    received: HashMap<TopicPartition, u64>,
    /// First offset not committed yet.
    committed: HashMap<TopicPartition, u64>,
    /// Records received again because their commit was not confirmed.
    repeated: u64,
}

impl Ledger {
    /// A batch must begin where the last one ended, or again behind what was committed.
    fn receive(&mut self, batch: &Batch) {
        let committed = self.committed.get(batch.partition()).copied().unwrap_or(0);
        let received = self.received.entry(batch.partition().clone()).or_insert(0);
        for record in batch {
            let offset = record.offset.0;
            assert!(offset <= *received, "{}: a gap before {offset}", record.partition);
            assert!(offset >= committed, "{}: {offset} was committed", record.partition);
            self.repeated += u64::from(offset < *received);
            *received = (*received).max(offset + 1);
        }
    }

    fn commit(&mut self, batch: &Batch) {
        let committed = self.committed.entry(batch.partition().clone()).or_insert(0);
        *committed = (*committed).max(batch.next_offset().0);
    }

    fn count(&self) -> u64 {
        self.received.values().sum()
    }
}

/// A member of group `g` until `stop` is set.
async fn be_member(address: String, ledger: Arc<Mutex<Ledger>>, stop: Arc<AtomicBool>) -> u64 {
    let mq = in_time(Client::connect(&address)).await.expect("connects");
    let builder = mq.consumer("t").group("g").max_bytes(20_000, 5_000);
    let mut consumer = in_time(builder.build()).await.expect("starts");
    let mut batches = 0;
    while !stop.load(Ordering::Relaxed) {
        let polled = consumer.poll(Duration::from_millis(100)).await.expect("no error of a reader");
        let Some(batch) = polled else { continue };
        ledger.lock().receive(&batch);
        match in_time(consumer.commit(&batch)).await {
            Ok(()) => ledger.lock().commit(&batch),
            Err(error) => assert!(error.is_fenced() || error.is_retriable(), "{error:?}"),
        }
        batches += 1;
    }
    in_time(consumer.close()).await.expect("leaves");
    batches
}

/// Sends every fourth number; gives how many records were found to be there already.
async fn send(address: String, first: u64, sent: Arc<AtomicU64>) -> u64 {
    let mq = in_time(Client::connect(&address)).await.expect("connects");
    let builder = mq.producer("t").batch_bytes(1000).buffer_bytes(64 << 10);
    let producer = in_time(builder.linger(Duration::ZERO).build()).await.expect("starts");
    let mut deliveries = Vec::new();
    for n in (first..COUNT).step_by(usize::try_from(PRODUCERS).expect("fits")) {
        let record = Record::new(n.to_string()).key(format!("k{}", n % 101));
        deliveries.push(in_time(producer.send(record)).await.expect("taken"));
        sent.fetch_add(1, Ordering::Relaxed);
    }
    let mut duplicates = 0;
    for delivery in deliveries {
        duplicates += u64::from(in_time(delivery).await.expect("acknowledged").duplicate);
    }
    duplicates
}

/// Waits until `number` gives this much.
async fn at_least(count: u64, number: impl Fn() -> u64) {
    let grown = async {
        while number() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    in_time(grown).await;
}

/// Every number is there once, and those of one producer are in its order.
fn check_stored(seen: &Seen) {
    for numbers in seen.numbers.values() {
        for first in 0..PRODUCERS {
            let own = numbers.iter().filter(|n| **n % PRODUCERS == first);
            assert!(own.is_sorted_by(|a, b| a < b), "in order, nothing twice");
        }
    }
    let mut all: Vec<u64> = seen.numbers.values().flatten().copied().collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..COUNT), "every number once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_kills_under_load_lose_and_repeat_nothing() {
    let mut broker = tokio::task::spawn_blocking(Broker::start).await.expect("starts");
    let address = broker.address.clone();
    let mq = in_time(Client::connect(&address)).await.expect("connects");
    mq.admin().create_topic(TopicSpec::new("t").partitions(4)).await.expect("created");
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let sending: Vec<_> = (0..PRODUCERS)
        .map(|first| tokio::spawn(send(address.clone(), first, sent.clone())))
        .collect();
    let member = || tokio::spawn(be_member(address.clone(), ledger.clone(), stop.clone()));
    let members = [member(), member()];

    for kill in 1..=3 {
        at_least(kill * COUNT / 4, || sent.load(Ordering::Relaxed)).await;
        let restart = tokio::task::spawn_blocking(move || {
            broker.kill();
            broker.restart();
            broker
        });
        broker = in_time(restart).await.expect("starts again");
    }
    let mut duplicates = 0;
    for sending in sending {
        duplicates += in_time(sending).await.expect("everything is acknowledged");
    }
    at_least(COUNT, || ledger.lock().count()).await;
    stop.store(true, Ordering::Relaxed);
    for member in members {
        assert!(in_time(member).await.expect("no gap, no repeat") > 0, "both had a share");
    }
    let repeated = ledger.lock().repeated;
    println!("{duplicates} records were sent twice and stored once, {repeated} received again");

    let mut seen = Seen::default();
    let mut reader = mq.consumer("t").build().await.expect("starts");
    receive(&mut reader, &mut seen, usize::try_from(COUNT).expect("fits")).await;
    check_stored(&seen);
    assert!(duplicates > 0, "no kill found an answer on its way: nothing was proved");
    let lag: u64 = mq.admin().lag("g").await.expect("known").iter().map(|row| row.lag).sum();
    assert_eq!(lag, 0);
}

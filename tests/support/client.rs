//! Clients of a test broker, and what they see.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, time::Duration};

use riverrun_client::{Client, Consumer, Offset, Producer, Received, TopicPartition, TopicSpec};
use tempfile::TempDir;

use super::broker::TestBroker;

/// The deadline of everything that is awaited in a test.
const DEADLINE: Duration = Duration::from_secs(60);

/// Awaits `work`; a test that hangs is a failed one.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("done in time")
}

/// A client of the broker.
pub(crate) async fn client(broker: &TestBroker) -> Client {
    in_time(Client::connect(&address(broker).to_string())).await.expect("connects")
}

/// A client, and a topic `t` with this many partitions.
pub(crate) async fn client_with_topic(broker: &TestBroker, partitions: u32) -> Client {
    let mq = client(broker).await;
    mq.admin().create_topic(TopicSpec::new("t").partitions(partitions)).await.expect("created");
    mq
}

/// Where the broker listens.
pub(crate) fn address(broker: &TestBroker) -> SocketAddr {
    broker.inside().address()
}

/// Stops the broker and starts it again at the same address on the same data.
pub(crate) async fn restart(broker: TestBroker) -> TestBroker {
    let listen = address(&broker);
    let dir = broker.stop().await.expect("has a directory");
    start_at(dir, listen).await
}

/// Starts a broker at an address on data that another one left.
pub(crate) async fn start_at(dir: TempDir, listen: SocketAddr) -> TestBroker {
    TestBroker::start_in(dir, |config| config.grpc.listen = listen).await
}

/// Sends the numbers of a range as values, with keys that repeat, and waits for all of them.
pub(crate) async fn send_numbers(producer: &Producer, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let record = riverrun_client::Record::new(n.to_string()).key(format!("k{}", n % 37));
        in_time(producer.post(record)).await.expect("taken");
    }
    in_time(producer.flush()).await.expect("acknowledged");
}

/// The number in a record's value.
pub(crate) fn number(record: &Received) -> u64 {
    let value = record.value.as_deref().expect("has a value");
    std::str::from_utf8(value).expect("text").parse().expect("a number")
}

/// What consumers received: checks that offsets of a partition come without gap and repeat.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Numbers by partition, in the order received.
    pub(crate) numbers: BTreeMap<TopicPartition, Vec<u64>>,
    next: BTreeMap<TopicPartition, Offset>,
}

impl Seen {
    /// Takes a record; it must be the next of its partition.
    #[track_caller]
    pub(crate) fn take(&mut self, record: &Received) {
        let next = self.next.entry(record.partition.clone()).or_insert(Offset(0));
        assert_eq!(record.offset, *next, "the next record of {}", record.partition);
        *next = Offset(next.0 + 1);
        self.numbers.entry(record.partition.clone()).or_default().push(number(record));
    }

    /// Records taken.
    pub(crate) fn len(&self) -> usize {
        self.numbers.values().map(Vec::len).sum()
    }

    /// Checks that exactly the numbers `0..count` came, those of each partition in rising order.
    #[track_caller]
    pub(crate) fn check_complete(&self, count: u64) {
        for (partition, numbers) in &self.numbers {
            assert!(numbers.is_sorted_by(|a, b| a < b), "{partition} in order, nothing twice");
        }
        let mut all: Vec<u64> = self.numbers.values().flatten().copied().collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..count), "every number once");
    }
}

/// Receives until `count` records came in all.
pub(crate) async fn receive(consumer: &mut Consumer, seen: &mut Seen, count: usize) {
    while seen.len() < count {
        let batch = in_time(consumer.next_batch()).await.expect("a batch");
        batch.iter().for_each(|record| seen.take(&record));
    }
}

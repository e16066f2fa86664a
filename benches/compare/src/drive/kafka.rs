//! Kafka through librdkafka.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode,
};

use super::{Guest, Job, Level, Pace, Receiver, Result, Sender};
use crate::error::Error;

/// Records handed over from one call to the next.
const READ: usize = 1000;
/// Longest wait for the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// How to connect.
#[derive(Debug)]
pub(super) struct Client(ClientConfig);

impl Guest for Client {
    type Sender = Kafka;
    type Receiver = BaseConsumer;

    async fn connect(job: &Job) -> Result<Client> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &job.address);
        Ok(Client(config))
    }

    async fn make_topic(&self, topic: &str, _: Level) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.0.create().map_err(Error::peer)?;
        let spec = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let made = admin.create_topics([&spec], &options).await.map_err(Error::peer)?;
        for result in made {
            result.map_err(|(name, code)| Error::Peer(format!("topic {name}: {code}")))?;
        }
        Ok(())
    }

    async fn sender(&self, topic: &str, pace: Pace) -> Result<Kafka> {
        // With few requests in flight, as Kafka's own client has, records gather while the broker is busy, even with no time to linger.
        let (linger, requests) = match pace {
            Pace::Bulk => ("5", "1000000"),
            Pace::Prompt => ("0", "5"),
        };
        let outcome = Outcome::default();
        let mut config = self.0.clone();
        // Tried against each other: idempotent, this library takes three times the processor and is slower, and so it is with a longer queue.
        config
            .set("enable.idempotence", "false")
            .set("acks", "all")
            .set("linger.ms", linger)
            .set("max.in.flight.requests.per.connection", requests)
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "32768");
        let producer = config.create_with_context(outcome.clone()).map_err(Error::peer)?;
        Ok(Kafka { producer, outcome, topic: topic.to_owned(), sent: 0 })
    }

    async fn receiver(&self, topic: &str) -> Result<BaseConsumer> {
        let mut config = self.0.clone();
        // Without the second, it pauses for a second whenever its queue was full.
        config.set("group.id", "none").set("fetch.queue.backoff.ms", "0");
        config.set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().map_err(Error::peer)?;
        // Known before and by number, so that it does not wait half a second for its next try to find the leader.
        consumer.fetch_metadata(Some(topic), PATIENCE).map_err(Error::peer)?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, 0, Offset::Offset(0)).map_err(Error::peer)?;
        consumer.assign(&from).map_err(Error::peer)?;
        Ok(consumer)
    }

    async fn acknowledge(
        &self,
        _: &str,
        _: u64,
        _: impl FnMut(&[u8]) -> Result<()> + Send,
    ) -> Result<()> {
        Err(Error::Skipped("librdkafka has no share groups".into()))
    }
}

/// What became of the records: counted by the thread that takes reports.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    acknowledged: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Outcome {}

impl ProducerContext for Outcome {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() { &self.acknowledged } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends records.
pub(super) struct Kafka {
    producer: ThreadedProducer<Outcome>,
    outcome: Outcome,
    topic: String,
    sent: u64,
}

impl Sender for Kafka {
    async fn send(&mut self, payload: Bytes) -> Result<()> {
        let mut record = BaseRecord::<(), [u8]>::to(&self.topic).payload(&payload).partition(0);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                }
                Err((error, _)) => return Err(Error::peer(error)),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.sent += 1;
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let flushed = tokio::task::block_in_place(|| self.producer.flush(PATIENCE));
        flushed.map_err(Error::peer)?;
        let acknowledged = self.outcome.acknowledged.load(Ordering::Relaxed);
        let failed = self.outcome.failed.load(Ordering::Relaxed);
        if acknowledged == self.sent {
            Ok(())
        } else {
            let sent = self.sent;
            Err(Error::Wrong(format!("{acknowledged} of {sent} acknowledged, {failed} failed")))
        }
    }
}

impl Receiver for BaseConsumer {
    async fn next(&mut self, mut take: impl FnMut(&[u8]) -> Result<()> + Send) -> Result<()> {
        let mut polled = self.poll(Duration::ZERO);
        if polled.is_none() {
            // Lets other tasks have another thread meanwhile.
            polled = tokio::task::block_in_place(|| self.poll(Duration::from_millis(100)));
        }
        for _ in 0..READ {
            let Some(message) = polled else { break };
            take(message.map_err(Error::peer)?.payload().unwrap_or_default())?;
            polled = self.poll(Duration::ZERO);
        }
        if let Some(message) = polled {
            take(message.map_err(Error::peer)?.payload().unwrap_or_default())?;
        }
        Ok(())
    }
}

//! Riverrun through its own client, with the client's defaults.

use bytes::Bytes;
use riverrun_client::{Consumer, Durability, Mode, Producer, Record, TopicSpec};

use super::{Guest, Job, Level, Pace, Receiver, Result, Sender};
use crate::{case::IN_HAND, error::Error};

/// Bytes in hand at most while records are acknowledged one by one; more than their number allows.
const CREDIT_BYTES: u64 = 64 << 20;

/// A connection.
#[derive(Debug)]
pub(super) struct Client(riverrun_client::Client);

impl Guest for Client {
    type Sender = Producer;
    type Receiver = Consumer;

    async fn connect(job: &Job) -> Result<Client> {
        riverrun_client::Client::connect(&job.address).await.map(Client).map_err(Error::peer)
    }

    async fn make_topic(&self, topic: &str, level: Level) -> Result<()> {
        let durability = match level {
            Level::Fsync => Durability::Fsync,
            Level::Relaxed => Durability::Os,
        };
        let spec = TopicSpec::new(topic).durability(durability);
        self.0.admin().create_topic(spec).await.map_err(Error::peer)?;
        Ok(())
    }

    async fn sender(&self, topic: &str, _: Pace) -> Result<Producer> {
        self.0.producer(topic).build().await.map_err(Error::peer)
    }

    async fn receiver(&self, topic: &str) -> Result<Consumer> {
        self.0.consumer(topic).build().await.map_err(Error::peer)
    }

    async fn acknowledge(
        &self,
        topic: &str,
        records: u64,
        mut take: impl FnMut(&[u8]) -> Result<()> + Send,
    ) -> Result<()> {
        let in_hand = u32::try_from(IN_HAND).unwrap_or(u32::MAX);
        let builder = self.0.subscribe(topic).name(topic).mode(Mode::Unordered);
        let mut jobs = builder.credit(in_hand, CREDIT_BYTES).open().await.map_err(Error::peer)?;
        for _ in 0..records {
            let job = jobs.next().await.ok_or_else(|| Error::Peer("the session ended".into()))?;
            let job = job.map_err(Error::peer)?;
            take(job.record().value.as_deref().unwrap_or_default())?;
            job.ack();
        }
        // Ends once every acknowledgement is durable.
        jobs.close().await.map_err(Error::peer)
    }
}

impl Sender for Producer {
    async fn send(&mut self, payload: Bytes) -> Result<()> {
        self.post(Record::new(payload)).await.map_err(Error::peer)
    }

    async fn flush(&mut self) -> Result<()> {
        Producer::flush(self).await.map_err(Error::peer)
    }
}

impl Receiver for Consumer {
    async fn next(&mut self, mut take: impl FnMut(&[u8]) -> Result<()> + Send) -> Result<()> {
        for record in self.next_batch().await.map_err(Error::peer)? {
            take(record.value.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

//! A quorum queue of RabbitMQ through AMQP 0.9.1.
//!
//! A quorum queue hands out some 2,000 records and then waits for acknowledgements, so what is only read is acknowledged too, many at once.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

use super::{Guest, Job, Level, Pace, Receiver, Result, Sender};
use crate::{case::IN_HAND, error::Error};

/// Records that wait for their confirmation.
const UNCONFIRMED: usize = 1000;

/// Records read with one acknowledgement.
const READ: u64 = 500;

/// A connection.
pub(super) struct Client(Connection);

impl Guest for Client {
    type Sender = Publisher;
    type Receiver = Deliveries;

    async fn connect(job: &Job) -> Result<Client> {
        let address = format!("amqp://guest:guest@{}/%2f", job.address);
        let connection = Connection::connect(&address, ConnectionProperties::default()).await;
        connection.map(Client).map_err(Error::peer)
    }

    async fn make_topic(&self, topic: &str, _: Level) -> Result<()> {
        let channel = self.0.create_channel().await.map_err(Error::peer)?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let declared =
            channel.queue_declare(topic.into(), QueueDeclareOptions::durable(), arguments);
        declared.await.map_err(Error::peer)?;
        Ok(())
    }

    async fn sender(&self, topic: &str, _: Pace) -> Result<Publisher> {
        let channel = self.0.create_channel().await.map_err(Error::peer)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(Error::peer)?;
        Ok(Publisher { channel, topic: topic.to_owned(), unconfirmed: VecDeque::new() })
    }

    async fn receiver(&self, topic: &str) -> Result<Deliveries> {
        Ok(self.deliveries(topic, 0).await?.1)
    }

    async fn acknowledge(
        &self,
        topic: &str,
        records: u64,
        mut take: impl FnMut(&[u8]) -> Result<()> + Send,
    ) -> Result<()> {
        let in_hand = u16::try_from(IN_HAND).unwrap_or(u16::MAX);
        let (channel, mut deliveries) = self.deliveries(topic, in_hand).await?;
        for _ in 0..records {
            let delivery = deliveries.one().await?;
            take(&delivery.data)?;
            delivery.ack(BasicAckOptions::default()).await.map_err(Error::peer)?;
        }
        // One channel is handled in order, so an answer to a call comes after the server took the acknowledgements.
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let answer = channel.queue_declare(topic.into(), passive, FieldTable::default());
        answer.await.map_err(Error::peer)?;
        Ok(())
    }
}

impl Client {
    /// Consumes on a channel of its own, with so many records in hand at most; 0 is no limit.
    async fn deliveries(&self, topic: &str, in_hand: u16) -> Result<(Channel, Deliveries)> {
        let channel = self.0.create_channel().await.map_err(Error::peer)?;
        channel.basic_qos(in_hand, BasicQosOptions::default()).await.map_err(Error::peer)?;
        let consumer = channel.basic_consume(
            topic.into(),
            "one".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = consumer.await.map_err(Error::peer)?;
        Ok((channel, Deliveries { consumer, taken: 0 }))
    }
}

/// Sends records.
pub(super) struct Publisher {
    channel: Channel,
    topic: String,
    unconfirmed: VecDeque<PublisherConfirm>,
}

impl Publisher {
    async fn confirm(sent: PublisherConfirm) -> Result<()> {
        if sent.await.map_err(Error::peer)?.is_ack() {
            Ok(())
        } else {
            Err(Error::Wrong("a record was not confirmed".into()))
        }
    }
}

impl Sender for Publisher {
    async fn send(&mut self, payload: Bytes) -> Result<()> {
        if self.unconfirmed.len() >= UNCONFIRMED
            && let Some(oldest) = self.unconfirmed.pop_front()
        {
            Publisher::confirm(oldest).await?;
        }
        let durable = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let topic = self.topic.as_str().into();
        let sent = self.channel.basic_publish("".into(), topic, options, &payload, durable).await;
        self.unconfirmed.push_back(sent.map_err(Error::peer)?);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        for sent in std::mem::take(&mut self.unconfirmed) {
            Publisher::confirm(sent).await?;
        }
        Ok(())
    }
}

/// Reads records.
pub(super) struct Deliveries {
    consumer: lapin::Consumer,
    taken: u64,
}

impl Deliveries {
    async fn one(&mut self) -> Result<Delivery> {
        let next = self.consumer.next().await;
        next.ok_or_else(|| Error::Peer("the consumer ended".into()))?.map_err(Error::peer)
    }
}

impl Receiver for Deliveries {
    async fn next(&mut self, mut take: impl FnMut(&[u8]) -> Result<()> + Send) -> Result<()> {
        let delivery = self.one().await?;
        take(&delivery.data)?;
        self.taken += 1;
        if self.taken.is_multiple_of(READ) {
            let all = BasicAckOptions { multiple: true };
            delivery.ack(all).await.map_err(Error::peer)?;
        }
        Ok(())
    }
}

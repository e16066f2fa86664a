//! A stream of RabbitMQ through its stream protocol.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures_util::StreamExt;
use rabbitmq_stream_client::{
    Consumer, Environment, NoDedup, Producer,
    types::{Message, OffsetSpecification},
};
use tokio::sync::Semaphore;

use super::{Guest, Job, Level, Pace, Receiver, Result, Sender};
use crate::error::Error;

/// Records of one frame.
const FRAME: usize = 100;
/// Records that wait for their confirmation.
const UNCONFIRMED: usize = 10_000;

/// How to connect.
pub(super) struct Client(Environment);

impl Guest for Client {
    type Sender = Publisher;
    type Receiver = Consumer;

    async fn connect(job: &Job) -> Result<Client> {
        let (host, port) = job.address.rsplit_once(':').unwrap_or_default();
        let port = port.parse().map_err(Error::peer)?;
        let environment = Environment::builder().host(host).port(port).build().await;
        environment.map(Client).map_err(Error::peer)
    }

    async fn make_topic(&self, topic: &str, _: Level) -> Result<()> {
        self.0.stream_creator().create(topic).await.map_err(Error::peer)
    }

    async fn sender(&self, topic: &str, pace: Pace) -> Result<Publisher> {
        let frame = match pace {
            Pace::Bulk => FRAME,
            Pace::Prompt => 1,
        };
        let producer = self.0.producer().build(topic).await.map_err(Error::peer)?;
        let room = Arc::new(Semaphore::new(UNCONFIRMED));
        let refused = Arc::new(AtomicU64::new(0));
        Ok(Publisher { producer, frame, gathered: Vec::with_capacity(frame), room, refused })
    }

    async fn receiver(&self, topic: &str) -> Result<Consumer> {
        let builder = self.0.consumer().offset(OffsetSpecification::First);
        builder.build(topic).await.map_err(Error::peer)
    }

    async fn acknowledge(
        &self,
        _: &str,
        _: u64,
        _: impl FnMut(&[u8]) -> Result<()> + Send,
    ) -> Result<()> {
        Err(Error::Skipped("a stream has no acknowledgement of one record".into()))
    }
}

/// Sends records.
pub(super) struct Publisher {
    producer: Producer<NoDedup>,
    frame: usize,
    gathered: Vec<Message>,
    room: Arc<Semaphore>,
    refused: Arc<AtomicU64>,
}

impl Publisher {
    async fn ship(&mut self) -> Result<()> {
        let messages = std::mem::replace(&mut self.gathered, Vec::with_capacity(self.frame));
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        // Given back by the confirmations.
        self.room.acquire_many(count).await.map_err(Error::peer)?.forget();
        let (room, refused) = (self.room.clone(), self.refused.clone());
        let sent = self.producer.batch_send(messages, move |status| {
            if !status.is_ok_and(|status| status.confirmed()) {
                refused.fetch_add(1, Ordering::Relaxed);
            }
            room.add_permits(1);
            std::future::ready(())
        });
        sent.await.map_err(Error::peer)
    }
}

impl Sender for Publisher {
    async fn send(&mut self, payload: Bytes) -> Result<()> {
        self.gathered.push(Message::builder().body(payload).build());
        if self.gathered.len() >= self.frame { self.ship().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        if !self.gathered.is_empty() {
            self.ship().await?;
        }
        let all = u32::try_from(UNCONFIRMED).unwrap_or(u32::MAX);
        drop(self.room.acquire_many(all).await.map_err(Error::peer)?);
        match self.refused.load(Ordering::Relaxed) {
            0 => Ok(()),
            refused => Err(Error::Wrong(format!("{refused} records were not confirmed"))),
        }
    }
}

impl Receiver for Consumer {
    async fn next(&mut self, mut take: impl FnMut(&[u8]) -> Result<()> + Send) -> Result<()> {
        let next = StreamExt::next(self).await;
        let next = next.ok_or_else(|| Error::Peer("the stream ended".into()))?;
        take(next.map_err(Error::peer)?.message().data().unwrap_or_default())
    }
}

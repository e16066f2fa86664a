//! NATS JetStream through async-nats: a stream and a subject for each topic.

use async_nats::jetstream::{
    self, AckKind, Context,
    consumer::{AckPolicy, pull},
    context::{ContextBuilder, PublishAckFuture},
    stream::{Config, StorageType},
};
use bytes::Bytes;
use futures_util::StreamExt;

use super::{Guest, Job, Level, Pace, Receiver, Result, Sender};
use crate::{case::IN_HAND, error::Error};

/// Publishes that wait for their acknowledgement.
const UNACKED: usize = 5000;
/// Records asked for at once.
const PULL: usize = 2000;

/// A connection.
#[derive(Debug)]
pub(super) struct Client(Context);

impl Guest for Client {
    type Sender = Publisher;
    type Receiver = Messages;

    async fn connect(job: &Job) -> Result<Client> {
        let client = async_nats::connect(&job.address).await.map_err(Error::peer)?;
        // Its own bound is set above ours, so that it never waits.
        Ok(Client(ContextBuilder::new().max_ack_inflight(2 * UNACKED).build(client)))
    }

    async fn make_topic(&self, topic: &str, _: Level) -> Result<()> {
        let config = Config {
            name: topic.to_owned(),
            subjects: vec![topic.to_owned()],
            storage: StorageType::File,
            ..Config::default()
        };
        self.0.create_stream(config).await.map_err(Error::peer)?;
        Ok(())
    }

    async fn sender(&self, topic: &str, _: Pace) -> Result<Publisher> {
        let context = self.0.clone();
        Ok(Publisher { context, topic: topic.to_owned(), unacked: Default::default() })
    }

    async fn receiver(&self, topic: &str) -> Result<Messages> {
        let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
        self.messages(topic, config, PULL).await
    }

    async fn acknowledge(
        &self,
        topic: &str,
        records: u64,
        mut take: impl FnMut(&[u8]) -> Result<()> + Send,
    ) -> Result<()> {
        let config = pull::Config {
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: i64::try_from(IN_HAND).unwrap_or(i64::MAX),
            ..pull::Config::default()
        };
        let mut messages = self.messages(topic, config, IN_HAND).await?;
        for left in (0..records).rev() {
            let message = messages.one().await?;
            take(&message.payload)?;
            // Those of one connection are handled in order, so the last one speaks for all.
            let acked = match left {
                0 => message.double_ack_with(AckKind::Ack).await,
                _ => message.ack().await,
            };
            acked.map_err(Error::peer)?;
        }
        Ok(())
    }
}

impl Client {
    async fn messages(&self, topic: &str, config: pull::Config, batch: usize) -> Result<Messages> {
        let stream = self.0.get_stream(topic).await.map_err(Error::peer)?;
        let consumer = stream.create_consumer(config).await.map_err(Error::peer)?;
        let messages = consumer.stream().max_messages_per_batch(batch).messages().await;
        messages.map(Messages).map_err(Error::peer)
    }
}

/// Sends records.
pub(super) struct Publisher {
    context: Context,
    topic: String,
    unacked: std::collections::VecDeque<PublishAckFuture>,
}

impl Sender for Publisher {
    async fn send(&mut self, payload: Bytes) -> Result<()> {
        if self.unacked.len() >= UNACKED
            && let Some(oldest) = self.unacked.pop_front()
        {
            oldest.await.map_err(Error::peer)?;
        }
        let sent = self.context.publish(self.topic.clone(), payload).await;
        self.unacked.push_back(sent.map_err(Error::peer)?);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        for sent in self.unacked.drain(..) {
            sent.await.map_err(Error::peer)?;
        }
        Ok(())
    }
}

/// Reads records.
pub(super) struct Messages(pull::Stream);

impl Messages {
    async fn one(&mut self) -> Result<jetstream::Message> {
        let next = self.0.next().await;
        next.ok_or_else(|| Error::Peer("the stream ended".into()))?.map_err(Error::peer)
    }
}

impl Receiver for Messages {
    async fn next(&mut self, mut take: impl FnMut(&[u8]) -> Result<()> + Send) -> Result<()> {
        take(&self.one().await?.payload)
    }
}

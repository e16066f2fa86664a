//! Settings of a producer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use riverrun_proto::{Compression, grpc::v1, limits};
use tokio_util::sync::CancellationToken;

use super::{
    Producer,
    budget::Budget,
    driver::{self, Driver},
    identity::Identity,
    lane::Intake,
    shared::{Settings, Shared},
};
use crate::{
    backoff::Randomness,
    client::Client,
    durability::Durability,
    error::{Error, ErrorCode, Result},
};

/// When the broker answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// As soon as a batch is in the broker's queue. It can still be lost.
    None,
    /// When it is in the leader's page cache.
    Leader,
    /// When the topic's durability is reached. The default.
    #[default]
    All,
}

/// Settings of a [`Producer`]. Every one has a default that works.
#[derive(Clone, Debug)]
#[must_use = "call `build` to get the producer"]
pub struct ProducerBuilder {
    client: Client,
    topic: String,
    acks: Acks,
    durability_min: Option<Durability>,
    linger: Duration,
    batch_bytes: usize,
    buffer_bytes: usize,
    compression: Compression,
    idempotent: bool,
    delivery_timeout: Duration,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client, topic: String) -> ProducerBuilder {
        ProducerBuilder {
            client,
            topic,
            acks: Acks::default(),
            durability_min: None,
            linger: Duration::from_millis(1),
            batch_bytes: 1 << 20,
            buffer_bytes: 32 << 20,
            compression: Compression::None,
            idempotent: true,
            delivery_timeout: Duration::from_secs(120),
        }
    }

    /// When the broker answers. Default `All`.
    pub fn acks(mut self, acks: Acks) -> ProducerBuilder {
        self.acks = acks;
        self
    }

    /// Asks for at least this durability before the answer; lower than the topic's has no effect.
    pub fn durability_min(mut self, durability: Durability) -> ProducerBuilder {
        self.durability_min = Some(durability);
        self
    }

    /// Longest time a batch that is not full waits for more records while others of its partition are
    /// in flight. It never waits when the partition is quiet. Default 1 ms.
    pub fn linger(mut self, linger: Duration) -> ProducerBuilder {
        self.linger = linger;
        self
    }

    /// A batch with this many bytes is full. Default 1 MiB; at most the topic's `message_bytes_max`.
    pub fn batch_bytes(mut self, bytes: usize) -> ProducerBuilder {
        self.batch_bytes = bytes;
        self
    }

    /// Most bytes held for records that are not acknowledged; `send` waits when they are used up.
    /// Default 32 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> ProducerBuilder {
        self.buffer_bytes = bytes;
        self
    }

    /// Codec of the batches. Default none.
    pub fn compression(mut self, compression: Compression) -> ProducerBuilder {
        self.compression = compression;
        self
    }

    /// Whether the broker tells a batch sent again from a new one. Default on. Without it a batch whose
    /// answer was lost fails as indeterminate, and nothing that may have been written is sent again.
    pub fn idempotent(mut self, idempotent: bool) -> ProducerBuilder {
        self.idempotent = idempotent;
        self
    }

    /// Longest time from `send` to the acknowledgement, reconnects included. Default 120 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> ProducerBuilder {
        self.delivery_timeout = timeout;
        self
    }

    /// Looks the topic up, gets an identity and starts the producer's task.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; those of the connection, within the client's call timeout.
    pub async fn build(self) -> Result<Producer> {
        let info = self.client.admin().topic(&self.topic).await?;
        if info.partitions.is_empty() {
            let message = format!("topic `{}` has no partitions", self.topic);
            return Err(Error::new(ErrorCode::Protocol, message));
        }
        let identity = match self.idempotent {
            true => driver::init_producer(&self.client, None, self.client.deadline()).await?,
            false => Identity::NONE,
        };
        let limit = info.config.message_bytes_max.unwrap_or(limits::BATCH_BYTES_DEFAULT) as usize;
        let budget = Budget::new(self.buffer_bytes);
        let intake = Intake::new(budget, self.batch_bytes.min(limit), limit, self.compression);
        let topic_id = Bytes::copy_from_slice(info.topic_id.0.as_bytes());
        let client = self.client.clone();
        let shared = Arc::new(Shared::new(self.settings(topic_id), intake, identity));
        driver::grow(&shared, &info);
        let start = Randomness::from_system().next() % u64::from(shared.lanes.count());
        shared.rotate_to(u32::try_from(start).unwrap_or(0));

        let finishing = CancellationToken::new();
        let _finish_on_drop = Arc::new(finishing.clone().drop_guard());
        tokio::spawn(Driver { client, shared: shared.clone(), finishing }.run());
        Ok(Producer { shared, _finish_on_drop })
    }

    fn settings(self, topic_id: Bytes) -> Settings {
        let acks = match self.acks {
            Acks::None => v1::Acks::None,
            Acks::Leader => v1::Acks::Leader,
            Acks::All => v1::Acks::All,
        };
        Settings {
            topic: self.topic,
            topic_id,
            acks,
            durability_min: self
                .durability_min
                .map_or(v1::Durability::Unspecified, Durability::to_wire),
            linger: self.linger,
            delivery_timeout: self.delivery_timeout,
            idempotent: self.idempotent,
        }
    }
}

//! The task behind a producer: it keeps a pipeline open, takes the answers, and renews the identity.
//!
//! ```text
//! link -> begin session -> pipeline open -> answers ... -> broken: next link
//!                              |
//!                              +-- a lane is stuck, nothing is doubtful --> raise the epoch, number anew
//! ```
//!
//! It ends when the last handle is gone and everything is settled, or when the producer is dead.

use std::{sync::Arc, time::Duration};

use riverrun_proto::{Offset, ProducerEpoch, ProducerId, grpc::v1};
use tokio_util::sync::CancellationToken;

use super::{delivery::BatchReceipt, identity::Identity, lane::Lane, pump::Pump, shared::Shared};
use crate::{
    admin::TopicInfo,
    client::Client,
    clock,
    connection::Link,
    durability::Durability,
    error::{Error, ErrorCode, Result},
};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often partitions are looked for that were added to the topic.
const REFRESH: Duration = Duration::from_secs(30);
/// A wait for a link that is as good as endless; deadlines are looked at meanwhile.
const LONG: Duration = Duration::from_secs(3600);

/// The task behind a producer.
pub(super) struct Driver {
    pub(super) client: Client,
    pub(super) shared: Arc<Shared>,
    /// The last handle is gone: end once everything is settled.
    pub(super) finishing: CancellationToken,
}

impl Driver {
    pub(super) async fn run(self) {
        let sessions = self.sessions();
        let housekeeping = self.housekeeping();
        tokio::select! {
            () = sessions => {}
            () = housekeeping => {}
        }
        let gone = Error::new(ErrorCode::Closed, "the producer is closed");
        self.shared.die(&gone);
    }

    /// Opens one session after another until the producer is dead.
    async fn sessions(&self) {
        let mut backoff = self.client.connection().backoff();
        while self.shared.dead.get().is_none() {
            let link = match self.client.connection().link(clock::now() + LONG).await {
                Ok(link) => link,
                Err(error) if error.code() == ErrorCode::Closed => return self.shared.die(&error),
                Err(_) => continue,
            };
            let settled = self.shared.settled_count();
            if let Err(error) = self.session(&link).await {
                tracing::debug!(topic = self.shared.settings.topic, %error, "pipeline ended");
            }
            if self.shared.settled_count() > settled {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn session(&self, link: &Link) -> Result<()> {
        let session = self.shared.begin_session();
        let pump = Pump::new(self.shared.clone(), session);
        let mut replies = self.client.connection().append_pipeline(link, pump).await?;
        loop {
            tokio::select! {
                reply = replies.next() => match reply? {
                    Some(reply) => self.answers(reply),
                    None => return Ok(()),
                },
                () = self.shared.driver.notified() => {}
            }
            if self.shared.dead.get().is_some() {
                return Ok(());
            }
            if self.shared.may_reset() {
                self.renew().await?;
            }
        }
    }

    fn answers(&self, reply: v1::AppendPipelineResponse) {
        let now = clock::now();
        let idempotent = self.shared.settings.idempotent;
        for response in reply.responses {
            if let Some(lane) = self.shared.lane_of(response.request_id) {
                let answer = receipt(&response);
                let answered = lane.answer(response.request_id, answer, idempotent, now);
                self.shared.follow(lane, answered);
            }
        }
    }

    /// Gets a new epoch, or a new id where the old one cannot be raised, and numbers everything anew.
    ///
    /// Nobody else has this id, so an epoch that is higher already was raised by a call of ours whose answer
    /// was lost; and nothing is doubtful, so another id repeats nothing.
    async fn renew(&self) -> Result<()> {
        let old = self.shared.identity();
        let deadline = self.client.deadline();
        let identity = match init_producer(&self.client, Some(old), deadline).await {
            Err(error) if !error.is_retriable() => {
                init_producer(&self.client, None, deadline).await?
            }
            other => other?,
        };
        tracing::debug!(topic = self.shared.settings.topic, ?identity, "numbered anew");
        self.shared.reset(identity);
        Ok(())
    }

    /// Looks at deadlines and for new partitions; ends when the producer may end.
    async fn housekeeping(&self) {
        let mut refreshed = clock::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.finishing.cancelled(), if !self.finishing.is_cancelled() => {}
            }
            if self.shared.dead.get().is_some() {
                return;
            }
            self.expire();
            if self.finishing.is_cancelled() && self.shared.is_empty() {
                return;
            }
            if refreshed.elapsed() >= REFRESH {
                refreshed = clock::now();
                self.refresh().await;
            }
        }
    }

    fn expire(&self) {
        let now = clock::now();
        for lane in self.shared.lanes.iter() {
            let answered = lane.expire(now, self.shared.settings.delivery_timeout);
            self.shared.follow(lane, answered);
        }
    }

    /// Adds lanes for partitions that were added. A topic that was made anew ends the producer.
    async fn refresh(&self) {
        let Ok(info) = self.client.admin().topic(&self.shared.settings.topic).await else {
            return;
        };
        if info.topic_id.0.as_bytes()[..] != self.shared.settings.topic_id[..] {
            let message = format!("topic `{}` was deleted and created anew", info.topic);
            return self.shared.die(&Error::new(ErrorCode::TopicIdMismatch, message));
        }
        grow(&self.shared, &info);
    }
}

/// Makes a lane for every partition of the topic.
pub(super) fn grow(shared: &Shared, info: &TopicInfo) {
    let count = u32::try_from(info.partitions.len()).unwrap_or(u32::MAX);
    shared.lanes.grow(count, |partition| Lane::new(partition, shared.session()));
}

/// Asks for an identity; with `old` for its next epoch.
pub(super) async fn init_producer(
    client: &Client,
    old: Option<Identity>,
    deadline: clock::Instant,
) -> Result<Identity> {
    let request = v1::InitProducerRequest {
        producer_id: old.map(|old| old.id.0),
        producer_epoch: old.map(|old| i32::from(old.epoch.0)),
    };
    let reply = client.connection().init_producer(request, deadline).await?;
    let epoch = i16::try_from(reply.producer_epoch).ok().filter(|epoch| *epoch >= 0);
    match (reply.producer_id, epoch) {
        (id @ 0.., Some(epoch)) => Ok(Identity { id: ProducerId(id), epoch: ProducerEpoch(epoch) }),
        _ => Err(Error::new(ErrorCode::Protocol, "the broker gave no valid producer id")),
    }
}

fn receipt(response: &v1::AppendResponse) -> Result<BatchReceipt> {
    if let Some(error) = &response.error {
        return Err(Error::from_wire(error));
    }
    let reached = v1::Durability::try_from(response.reached).unwrap_or_default();
    Ok(BatchReceipt {
        base_offset: Offset(response.base_offset),
        durability: Durability::from_wire(reached),
        duplicate: response.duplicate,
    })
}

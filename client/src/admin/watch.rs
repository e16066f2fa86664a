//! "There is something to read": the visible ranges of partitions as they move.

use std::fmt;

use riverrun_proto::{Offset, TopicPartition, grpc::v1};

use crate::{
    backoff::Backoff,
    client::Client,
    connection::Replies,
    error::{Error, Result},
};

/// The visible range of one partition.
#[derive(Clone, Debug)]
pub struct PartitionState {
    /// The partition.
    pub partition: TopicPartition,
    /// First offset still kept.
    pub log_start: Offset,
    /// First offset not visible yet.
    pub high_watermark: Offset,
    /// Why the partition cannot be watched any more, when it cannot.
    pub error: Option<Error>,
}

impl PartitionState {
    fn from_wire(wire: v1::PartitionState) -> PartitionState {
        PartitionState {
            partition: TopicPartition::new(wire.topic, wire.partition),
            log_start: Offset(wire.log_start_offset),
            high_watermark: Offset(wire.high_watermark),
            error: wire.error.as_ref().map(Error::from_wire),
        }
    }
}

/// Follows partitions. After a reconnect every partition is described again, so nothing is missed.
pub struct Watch {
    client: Client,
    request: v1::WatchRequest,
    /// Waits between reopenings; begins again with every message.
    backoff: Backoff,
    /// `None` between a broken stream and the next one.
    replies: Option<Replies<v1::WatchResponse>>,
}

impl Watch {
    pub(super) async fn open(client: Client, partitions: Vec<v1::WatchPartition>) -> Result<Watch> {
        let request = v1::WatchRequest { partitions };
        let replies = client.connection().watch(request.clone(), client.deadline()).await?;
        let backoff = client.connection().backoff();
        Ok(Watch { client, request, backoff, replies: Some(replies) })
    }

    /// The partitions that moved since the last call; at first, every partition.
    ///
    /// # Errors
    /// What the broker refuses. A broken connection is none: the watch is opened again.
    pub async fn next(&mut self) -> Result<Vec<PartitionState>> {
        loop {
            let replies = match &mut self.replies {
                Some(replies) => replies,
                None => self.reopen().await?,
            };
            match replies.next().await {
                Ok(Some(moved)) => {
                    self.backoff.reset();
                    return Ok(moved
                        .partitions
                        .into_iter()
                        .map(PartitionState::from_wire)
                        .collect());
                }
                Ok(None) => self.replies = None,
                Err(error) if error.is_retriable() => self.replies = None,
                Err(error) => return Err(error),
            }
        }
    }

    async fn reopen(&mut self) -> Result<&mut Replies<v1::WatchResponse>> {
        loop {
            tokio::time::sleep(self.backoff.next_wait()).await;
            let deadline = self.client.deadline();
            let opened = self.client.connection().watch(self.request.clone(), deadline).await;
            match opened {
                Ok(replies) => return Ok(self.replies.insert(replies)),
                Err(error) if error.is_retriable() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("partitions", &self.request.partitions).finish()
    }
}

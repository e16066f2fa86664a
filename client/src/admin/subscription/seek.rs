//! Moving a subscription.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
};

use riverrun_proto::{Offset, TopicPartition, grpc::v1};

use crate::{
    client::Client,
    clock,
    consumer::Seek,
    error::{Error, Result},
};

/// A move of a subscription, made by awaiting it.
#[derive(Debug)]
#[must_use = "nothing moves until this is awaited"]
pub struct SeekSubscription {
    client: Client,
    request: v1::SeekSubscriptionRequest,
}

/// One position moved, or, in a dry run, to be moved.
#[derive(Clone, Debug)]
pub struct PositionMoved {
    /// The partition.
    pub partition: TopicPartition,
    /// Floor before: everything below was settled.
    pub from: Offset,
    /// Floor after.
    pub to: Offset,
    /// Why this partition could not be moved, when it could not.
    pub error: Option<Error>,
}

impl SeekSubscription {
    pub(super) fn new(client: Client, name: &str, to: Seek) -> SeekSubscription {
        use v1::seek_subscription_request::To;
        let to = match to {
            Seek::Offset(offset) => To::Offset(offset.0),
            Seek::Earliest => To::Earliest(true),
            Seek::Latest => To::Latest(true),
            Seek::Time(time) => To::TimestampMs(clock::timestamp_ms(time)),
            Seek::Ago(age) => To::TimestampMs(clock::timestamp_ms(clock::ago(age))),
        };
        let request = v1::SeekSubscriptionRequest {
            subscription: name.to_owned(),
            to: Some(to),
            ..v1::SeekSubscriptionRequest::default()
        };
        SeekSubscription { client, request }
    }

    /// Moves this partition. Without any, all move.
    pub fn partition(mut self, partition: &TopicPartition) -> SeekSubscription {
        self.request.partitions.push(v1::TopicPartition {
            topic: partition.topic.to_string(),
            partition: partition.partition.0,
        });
        self
    }

    /// Only tells what would change.
    pub fn dry_run(mut self) -> SeekSubscription {
        self.request.dry_run = true;
        self
    }

    pub(super) fn advance(mut self) -> SeekSubscription {
        self.request.advance = true;
        self
    }

    async fn send(self) -> Result<Vec<PositionMoved>> {
        let deadline = self.client.deadline();
        let reply = self.client.connection().seek_subscription(self.request, deadline).await?;
        let moved = |moved: v1::SeekResult| PositionMoved {
            partition: TopicPartition::new(moved.topic, moved.partition),
            from: Offset(moved.from_offset),
            to: Offset(moved.to_offset),
            error: moved.error.as_ref().map(Error::from_wire),
        };
        Ok(reply.partitions.into_iter().map(moved).collect())
    }
}

impl IntoFuture for SeekSubscription {
    type Output = Result<Vec<PositionMoved>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

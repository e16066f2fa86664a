//! Operating subscriptions: what [`Admin`] can do with them. [`describe`]: what it learns. [`seek`]: moving
//! positions. [`redrive`]: bringing dead letters back.

mod describe;
mod redrive;
mod seek;

use riverrun_proto::{Offset, TopicPartition, grpc::v1};

pub use self::{
    describe::{
        Explanation, PeekedRecord, RecordState, SubscriptionDescription, SubscriptionPartition,
        SubscriptionSession, SubscriptionSummary, WebhookStanding, WebhookState,
    },
    redrive::{Redrive, Redriven},
    seek::{PositionMoved, SeekSubscription},
};
use super::Admin;
use crate::{
    consumer::Seek,
    error::Result,
    subscription::{SubscriptionSettings, SubscriptionSpec},
};

impl Admin {
    /// Creates a subscription; false when it existed already just so.
    ///
    /// # Errors
    /// `SubscriptionExists` with other topics or settings; `UnknownTopicOrPartition`; `InvalidArgument`
    /// naming the field and its limit.
    pub async fn create_subscription(&self, name: &str, spec: &SubscriptionSpec) -> Result<bool> {
        let request = v1::CreateSubscriptionRequest {
            subscription: name.to_owned(),
            spec: Some(spec.to_wire()),
        };
        let deadline = self.client.deadline();
        let reply = self.client.connection().create_subscription(request, deadline).await?;
        Ok(reply.created)
    }

    /// Changes settings of a subscription while it runs; those that are `None` stay. Delivery of topics
    /// that are added begins at their first record kept.
    ///
    /// # Errors
    /// `UnknownSubscription`; `SubscriptionInUse` for another order while sessions are open;
    /// `InvalidArgument` naming the field and its limit.
    pub async fn alter_subscription(
        &self,
        name: &str,
        settings: &SubscriptionSettings,
        add_topics: &[String],
    ) -> Result<()> {
        let request = v1::AlterSubscriptionRequest {
            subscription: name.to_owned(),
            settings: Some(settings.to_wire()),
            add_topics: add_topics.to_vec(),
        };
        let deadline = self.client.deadline();
        self.client.connection().alter_subscription(request, deadline).await?;
        Ok(())
    }

    /// Deletes a subscription and what it remembers; its dead letters stay. With `force` also while
    /// sessions are open, which end.
    ///
    /// # Errors
    /// `UnknownSubscription`; `SubscriptionInUse`.
    pub async fn delete_subscription(&self, name: &str, force: bool) -> Result<()> {
        let request = v1::DeleteSubscriptionRequest { subscription: name.to_owned(), force };
        let deadline = self.client.deadline();
        self.client.connection().delete_subscription(request, deadline).await?;
        Ok(())
    }

    /// Every subscription, by name.
    ///
    /// # Errors
    /// Only those of the connection.
    pub async fn list_subscriptions(&self) -> Result<Vec<SubscriptionSummary>> {
        let request = v1::ListSubscriptionsRequest {};
        let deadline = self.client.deadline();
        let reply = self.client.connection().list_subscriptions(request, deadline).await?;
        Ok(reply.subscriptions.into_iter().map(SubscriptionSummary::from_wire).collect())
    }

    /// One subscription: settings, positions, counts and sessions.
    ///
    /// # Errors
    /// `UnknownSubscription`.
    pub async fn describe_subscription(&self, name: &str) -> Result<SubscriptionDescription> {
        let request = v1::DescribeSubscriptionRequest { subscription: name.to_owned() };
        let deadline = self.client.deadline();
        let reply = self.client.connection().describe_subscription(request, deadline).await?;
        Ok(SubscriptionDescription::from_wire(reply))
    }

    /// Moves a subscription, back or forth; what is in consumers' hands is revoked. Await the result to do
    /// it, or call [`SeekSubscription::dry_run`] first to only see it.
    pub fn seek_subscription(&self, name: &str, to: Seek) -> SeekSubscription {
        SeekSubscription::new(self.client.clone(), name, to)
    }

    /// Everything of a partition below `offset` that nobody holds is settled: so a reader that pulls by
    /// offset stores its position in a subscription. Never moves back. Returns the floor now.
    ///
    /// # Errors
    /// `UnknownSubscription`; `UnknownTopicOrPartition`.
    pub async fn advance_subscription(
        &self,
        name: &str,
        partition: &TopicPartition,
        offset: Offset,
    ) -> Result<Offset> {
        let seek = SeekSubscription::new(self.client.clone(), name, Seek::Offset(offset));
        let moved = seek.partition(partition).advance().await?;
        let moved = moved.into_iter().next().ok_or_else(|| super::missing("position"))?;
        moved.error.map_or(Ok(moved.to), Err)
    }

    /// Stops delivery to all sessions until [`Admin::resume_subscription`]; holds over a restart.
    ///
    /// # Errors
    /// `UnknownSubscription`.
    pub async fn pause_subscription(&self, name: &str) -> Result<()> {
        let request = v1::PauseSubscriptionRequest { subscription: name.to_owned() };
        self.client.connection().pause_subscription(request, self.client.deadline()).await?;
        Ok(())
    }

    /// Continues delivery.
    ///
    /// # Errors
    /// `UnknownSubscription`.
    pub async fn resume_subscription(&self, name: &str) -> Result<()> {
        let request = v1::ResumeSubscriptionRequest { subscription: name.to_owned() };
        self.client.connection().resume_subscription(request, self.client.deadline()).await?;
        Ok(())
    }

    /// The exact reason, for each partition, why nothing is delivered now.
    ///
    /// # Errors
    /// `UnknownSubscription`.
    pub async fn explain_subscription(&self, name: &str) -> Result<Vec<Explanation>> {
        let request = v1::ExplainSubscriptionRequest { subscription: name.to_owned() };
        let deadline = self.client.deadline();
        let reply = self.client.connection().explain_subscription(request, deadline).await?;
        Ok(reply.partitions.into_iter().map(Explanation::from_wire).collect())
    }

    /// Up to `max` records that are not settled (1,000 at most), without taking them.
    ///
    /// # Errors
    /// `UnknownSubscription`.
    pub async fn peek_subscription(&self, name: &str, max: u32) -> Result<Vec<PeekedRecord>> {
        let request =
            v1::PeekSubscriptionRequest { subscription: name.to_owned(), max_records: max };
        let deadline = self.client.deadline();
        let reply = self.client.connection().peek_subscription(request, deadline).await?;
        Ok(reply.records.into_iter().filter_map(PeekedRecord::from_wire).collect())
    }

    /// Brings dead letters of a subscription back to the topics they came from. Await the result to do it,
    /// after choosing which with the methods of [`Redrive`]. What was brought back is never brought back
    /// again.
    pub fn redrive(&self, name: &str) -> Redrive {
        Redrive::new(self.client.clone(), name)
    }

    /// Cancels a record that waits for its time of delivery; true when no subscription will deliver it any
    /// more, false when it was too late for at least one. Readers that pull still see it.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `OffsetOutOfRange`; `InvalidArgument` when the record is not scheduled.
    pub async fn cancel_scheduled(
        &self,
        partition: &TopicPartition,
        offset: Offset,
    ) -> Result<bool> {
        let request = v1::CancelScheduledRequest {
            topic: partition.topic.to_string(),
            partition: partition.partition.0,
            offset: offset.0,
        };
        let deadline = self.client.deadline();
        Ok(self.client.connection().cancel_scheduled(request, deadline).await?.cancelled)
    }
}

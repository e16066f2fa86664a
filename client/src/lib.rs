//! The guest: what a program needs to talk to a Riverrun broker.
//!
//! - [`Client`]: one connection, cheap to clone, that reconnects for ever and shows its state.
//! - [`Producer`]: batches, compresses, retries without duplicates.
//! - [`Consumer`]: reads from stored offsets, alone or as a member of a group.
//! - [`Subscriber`]: gets records handed out by the broker, acknowledges each, has failures tried again.
//! - [`Admin`]: topics, groups, offsets and subscriptions.
//!
//! Everything received is owned: its bytes keep their buffer alive. Errors are one type, [`Error`],
//! that says whether to retry, to step back, or to change the call. Tonic stays inside `connection`.

#![recursion_limit = "256"]

mod admin;
mod backoff;
mod client;
mod clock;
mod connection;
mod consumer;
mod durability;
mod error;
mod producer;
mod subscriber;
mod subscription;
#[cfg(test)]
mod testing;

pub use riverrun_proto::batch::RecordView;
pub use riverrun_proto::{
    Compression, Header, LeaderEpoch, Offset, PartitionId, TopicId, TopicPartition,
};

pub use self::{
    admin::{
        Admin, CleanupPolicy, ClusterInfo, DamagedOffsets, Explanation, GroupDescription,
        GroupPartition, GroupState, GroupSummary, Limit, MemberDescription, OffsetAt, OffsetReset,
        PartitionDescription, PartitionInfo, PartitionState, PeekedRecord, PositionMoved,
        RecordState, Redrive, Redriven, Reset, ResetOffsets, SeekSubscription,
        SubscriptionDescription, SubscriptionPartition, SubscriptionSession, SubscriptionSummary,
        TopicChange, TopicConfig, TopicDescription, TopicInfo, TopicSpec, Watch, WebhookStanding,
        WebhookState,
    },
    client::{Client, ClientBuilder},
    connection::ConnectionState,
    consumer::{
        Batch, BatchRecords, Commit, Consumer, ConsumerBuilder, OffsetToCommit, OutOfRange,
        PartitionLag, Rebalance, Rebalances, Received, Seek, Start, Tracker,
    },
    durability::Durability,
    error::{Error, ErrorCode, Result},
    producer::{Acks, Delivery, Producer, ProducerBuilder, Receipt, Record},
    subscriber::{
        Job, Outcome, Receiver, RevokeReason, Standing, Stopper, Subscriber, SubscriberBuilder,
        SubscriberEvent, SubscriberEvents, Work,
    },
    subscription::{
        HeaderTest, IdleReason, Mode, StartAt, SubscriptionFilter, SubscriptionSettings,
        SubscriptionSpec, Webhook,
    },
};

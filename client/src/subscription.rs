//! What a subscription is: its topics, where it begins, its order, filter and limits.
//!
//! The same words serve those who operate subscriptions and those who consume from them. [`filter`]:
//! which records. [`settings`]: everything that can be changed while it runs. [`webhook`]: where the broker posts. [`idle`]: why nothing comes.

mod filter;
mod idle;
mod settings;
mod webhook;

use std::time::SystemTime;

use riverrun_proto::{Offset, grpc::v1};

pub(crate) use self::settings::millis;
pub use self::{
    filter::{HeaderTest, SubscriptionFilter},
    idle::IdleReason,
    settings::SubscriptionSettings,
    webhook::Webhook,
};
use crate::clock;

/// Order in which a subscription delivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In the log's order as far as possible; a record that is tried again holds up no other. The default.
    #[default]
    Unordered,
    /// Records of one key one after another, also when one is tried again; a key is never in two hands.
    KeyFifo,
    /// Records of one partition one after another.
    PartitionFifo,
    /// One subscriber gets everything in order; the others stand by.
    Exclusive,
}

impl Mode {
    pub(crate) fn from_wire(wire: i32) -> Mode {
        match v1::DeliveryOrder::try_from(wire) {
            Ok(v1::DeliveryOrder::KeyFifo) => Mode::KeyFifo,
            Ok(v1::DeliveryOrder::PartitionFifo) => Mode::PartitionFifo,
            Ok(v1::DeliveryOrder::Exclusive) => Mode::Exclusive,
            Ok(v1::DeliveryOrder::Unordered | v1::DeliveryOrder::Unspecified) | Err(_) => {
                Mode::Unordered
            }
        }
    }

    pub(crate) fn to_wire(self) -> v1::DeliveryOrder {
        match self {
            Mode::Unordered => v1::DeliveryOrder::Unordered,
            Mode::KeyFifo => v1::DeliveryOrder::KeyFifo,
            Mode::PartitionFifo => v1::DeliveryOrder::PartitionFifo,
            Mode::Exclusive => v1::DeliveryOrder::Exclusive,
        }
    }

    /// The mode as commands and messages write it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Unordered => "unordered",
            Mode::KeyFifo => "key-fifo",
            Mode::PartitionFifo => "partition-fifo",
            Mode::Exclusive => "exclusive",
        }
    }
}

/// Where a new subscription begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record kept when it is created. The default.
    #[default]
    Earliest,
    /// Behind the last record visible when it is created.
    Latest,
    /// At the first record at or after this time.
    Time(SystemTime),
    /// At this offset in every partition, brought into what is kept.
    Offset(Offset),
    /// Where this consumer group stands; at the first record kept where it has no stored offset. Refused while the group has members.
    Group(String),
}

impl StartAt {
    fn to_wire(&self) -> v1::SubscriptionStart {
        use v1::subscription_start::Position;
        let position = match self {
            StartAt::Earliest => Position::Earliest(true),
            StartAt::Latest => Position::Latest(true),
            StartAt::Time(time) => Position::TimestampMs(clock::timestamp_ms(*time)),
            StartAt::Offset(offset) => Position::Offset(offset.0),
            StartAt::Group(group) => Position::Group(group.clone()),
        };
        v1::SubscriptionStart { position: Some(position) }
    }
}

/// A subscription to create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionSpec {
    /// Its topics.
    pub topics: Vec<String>,
    /// Where it begins.
    pub start: StartAt,
    /// Its settings; `None` has the default.
    pub settings: SubscriptionSettings,
}

impl SubscriptionSpec {
    /// A subscription of `topic` with the defaults.
    pub fn new(topic: impl Into<String>) -> SubscriptionSpec {
        SubscriptionSpec { topics: vec![topic.into()], ..SubscriptionSpec::default() }
    }

    /// One topic more.
    pub fn topic(mut self, topic: impl Into<String>) -> SubscriptionSpec {
        self.topics.push(topic.into());
        self
    }

    /// Where it begins.
    pub fn start(mut self, start: StartAt) -> SubscriptionSpec {
        self.start = start;
        self
    }

    /// Its settings.
    pub fn settings(mut self, settings: SubscriptionSettings) -> SubscriptionSpec {
        self.settings = settings;
        self
    }

    pub(crate) fn to_wire(&self) -> v1::SubscriptionSpec {
        v1::SubscriptionSpec {
            topics: self.topics.clone(),
            start: Some(self.start.to_wire()),
            settings: Some(self.settings.to_wire()),
        }
    }
}

//! What a run is judged by: what its broker was asked to promise.

use std::{collections::HashMap, time::Duration};

use crate::history::Level;

/// What a run may lose, and what it was set to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Durability of topics that is not `fsync`. Such a topic may lose its unflushed end to a power cut, and nothing to a kill.
    pub levels: HashMap<u16, Level>,
    /// Producers number their batches: a value that is there twice is an anomaly, and not only counted.
    pub idempotent: bool,
    /// Readers read on until they had everything: a record that none of them got is `unseen`.
    pub readers_drain: bool,
    /// Settings of subscriptions. One that is not named here has no order and no limit of failures.
    pub subscriptions: HashMap<u32, SubscriptionRules>,
    /// The oldest acknowledgement that a power cut may take from an `interval` topic, before the cut.
    pub interval_max: Option<Duration>,
    /// How long anything may lie between the broker and the recorder: in sockets, and in the hands of a client library.
    pub lag: Duration,
}

/// Settings of a subscription.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscriptionRules {
    /// What is promised of the order of its records.
    pub order: Order,
    /// Failures after which a record is a dead letter.
    pub max_failures: Option<u32>,
}

/// What is promised of the order of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    #[default]
    Unordered,
    /// Records of a key one after another.
    Key,
    /// Records of a partition one after another.
    Partition,
    /// Everything in order to one session at a time.
    Exclusive,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            levels: HashMap::new(),
            idempotent: true,
            readers_drain: false,
            subscriptions: HashMap::new(),
            interval_max: None,
            lag: Duration::from_secs(1),
        }
    }
}

impl Rules {
    /// Durability of a topic.
    pub fn level(&self, topic: u16) -> Level {
        self.levels.get(&topic).copied().unwrap_or(Level::Fsync)
    }

    pub(super) fn subscription(&self, number: u32) -> SubscriptionRules {
        self.subscriptions.get(&number).copied().unwrap_or_default()
    }

    pub(super) fn lag_ns(&self) -> u64 {
        u64::try_from(self.lag.as_nanos()).unwrap_or(u64::MAX)
    }
}

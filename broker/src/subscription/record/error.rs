//! Why an entry of the subscriptions' log is not taken in.

use riverrun_proto::TopicId;
use thiserror::Error;

use crate::subscription::settings::InvalidSetting;

/// An entry that cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Not an entry of the subscriptions' log.
    #[error("an entry of the subscriptions' log is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer broker.
    #[error(
        "an entry of the subscriptions' log has version `{found}`; this broker reads up to `{known}`"
    )]
    Version {
        /// The version that came.
        found: u32,
        /// The highest one known.
        known: u32,
    },
    /// Written by a newer broker.
    #[error("a {what} of kind `{}` in the subscriptions' log is not known to this broker", .kind.escape_debug())]
    UnknownKind {
        /// What has kinds.
        what: &'static str,
        /// The name that came.
        kind: String,
    },
    /// A topic id that is not one.
    #[error("a topic id in the subscriptions' log has `{found}` bytes instead of 16")]
    TopicId {
        /// Bytes that came.
        found: usize,
    },
    /// Settings that no subscription may have.
    #[error("settings in the subscriptions' log: {0}")]
    Setting(#[from] InvalidSetting),
    /// A change of a subscription that was never created.
    #[error(
        "a change of kind `{kind}` is about subscription `{number}`, which does not exist at that point"
    )]
    UnknownSubscription {
        /// Its number.
        number: u64,
        /// Name of the kind.
        kind: &'static str,
    },
    /// A subscription created twice.
    #[error("subscription `{number}` (`{name}`) is created, but its number or name is in use")]
    Exists {
        /// Its number.
        number: u64,
        /// Its name.
        name: String,
    },
    /// A lane of a topic that the subscription is not on.
    #[error("subscription `{number}` has state of topic `{topic_id}`, which is none of its topics")]
    UnknownTopic {
        /// Number of the subscription.
        number: u64,
        /// Id of the topic.
        topic_id: TopicId,
    },
}

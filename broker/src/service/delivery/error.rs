//! What a call about subscriptions, or a session, may fail with.

use std::sync::Arc;

use riverrun_proto::batch::EncodeError;
use thiserror::Error;

use super::scan::ScanError;
use crate::{
    delivery::OpenError,
    partition::{AppendError, ReadError},
    quota::QuotaExceeded,
    subscription::{InvalidSetting, StoreError},
    topic::error::{FindError, InvalidField, TopicError, UnknownTopicOrPartition},
};

/// Why nobody may come to a subscription for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Closing {
    /// What is handed out when depends on it.
    #[error("its order is being changed")]
    Reordered,
    /// Sessions that are open are ended once that is stored.
    #[error("it is being deleted")]
    Deleted,
}

/// Why a call about subscriptions failed, or why a session ends.
#[derive(Clone, Debug, Error)]
pub enum PushError {
    /// A field is out of bounds.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// A setting is out of bounds.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// A topic does not exist.
    #[error(transparent)]
    Topic(#[from] UnknownTopicOrPartition),
    /// A partition cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A topic could not be made.
    #[error("{0}")]
    NewTopic(Arc<TopicError>),
    /// There is no such subscription.
    #[error("subscription `{subscription}` does not exist")]
    UnknownSubscription {
        /// Its name.
        subscription: Arc<str>,
    },
    /// It was deleted while sessions were open.
    #[error("subscription `{subscription}` was deleted")]
    Deleted {
        /// Its name.
        subscription: Arc<str>,
    },
    /// It has nothing to read any more.
    #[error(
        "all topics of subscription `{subscription}` were deleted; add one to it, or delete it"
    )]
    TopicsDeleted {
        /// Its name.
        subscription: Arc<str>,
    },
    /// Nobody may come while it is changed.
    #[error("subscription `{subscription}` is closed for a moment: {why}")]
    Altering {
        /// Its name.
        subscription: Arc<str>,
        /// What is done with it.
        why: Closing,
    },
    /// Another one of that name exists.
    #[error("subscription `{subscription}` exists with other topics or settings")]
    Exists {
        /// Its name.
        subscription: Arc<str>,
    },
    /// Sessions are open.
    #[error("subscription `{subscription}` has {sessions} open sessions")]
    InUse {
        /// Its name.
        subscription: Arc<str>,
        /// How many.
        sessions: usize,
    },
    /// The consumer group to begin at does not exist.
    #[error("group `{group}` does not exist")]
    UnknownGroup {
        /// Its name.
        group: Arc<str>,
    },
    /// The consumer group to begin at is in use.
    #[error(
        "group `{group}` has {members} members, whose further commits would be delivered again: stop them first"
    )]
    GroupNotEmpty {
        /// Its name.
        group: Arc<str>,
        /// How many.
        members: usize,
    },
    /// The session is not known.
    #[error("session `{session_id}` is not known")]
    UnknownSession {
        /// Its id.
        session_id: Arc<str>,
    },
    /// Another stream took the id of the session.
    #[error("another stream opened a session of this `session_id`")]
    Replaced,
    /// Nothing came from the client for too long.
    #[error("no frame came for {silent_ms} ms")]
    Silent {
        /// How long.
        silent_ms: u128,
    },
    /// The stream of the client cannot be read.
    #[error("{reason}")]
    Broken {
        /// Why.
        reason: Arc<str>,
    },
    /// The session cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Too much of something.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Records cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A position cannot be found.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The position is outside the log.
    #[error("offset {offset} of partition {partition} of topic `{topic}` is past {high_watermark}")]
    PastEnd {
        /// Name of the topic.
        topic: Arc<str>,
        /// Its partition.
        partition: u32,
        /// What came.
        offset: u64,
        /// First offset kept.
        log_start: u64,
        /// First offset not visible.
        high_watermark: u64,
    },
    /// Consumers hold records that would be settled.
    #[error("consumers hold records of partition {partition} of topic `{topic}` below {offset}")]
    Held {
        /// Name of the topic.
        topic: Arc<str>,
        /// Its partition.
        partition: u32,
        /// What came.
        offset: u64,
    },
    /// A record could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A record could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
    /// The work was interrupted.
    #[error("the call was interrupted")]
    Interrupted,
}

impl PushError {
    /// A field that is out of bounds.
    pub(super) fn field(
        field: &'static str,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> PushError {
        InvalidField { field, expected: expected.into(), found: found.to_string() }.into()
    }
}

//! Why nothing is delivered now.

use std::sync::Arc;

/// The exact reason why a lane delivers nothing now. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Everything visible is settled or in consumers' hands.
    Nothing,
    /// No session is open and nobody asks.
    NoSession,
    /// Every session has used up its credit.
    NoCredit,
    /// Every session holds as many records as it may, or does not read what it was sent.
    SessionLimit,
    /// The lane holds as many open records as it may.
    OpenLimit,
    /// The set of settled records has too many holes.
    AckStateLimit,
    /// Too many records wait for their time.
    ScheduledLimit,
    /// Records wait for an earlier one of their key.
    KeyBlocked {
        /// The earliest record in the way.
        offset: u64,
        /// The session that holds it; none when it waits for its next try.
        session: Option<Arc<str>>,
        /// End of its lease, or its next try.
        until_ms: i64,
    },
    /// The subscription is paused.
    Paused,
    /// Every session is paused, draining or detached.
    SessionsPaused,
    /// What is left waits for its next try.
    RetryWait {
        /// The first to be tried.
        offset: u64,
        /// When.
        until_ms: i64,
    },
    /// What is left waits for its time.
    Scheduled {
        /// The first to come.
        offset: u64,
        /// When.
        until_ms: i64,
    },
    /// Records are being read; none of the last ones is to be delivered.
    Filter,
    /// Records are written but not visible yet.
    NotVisible,
    /// Records are being read from the log, or are about to be.
    Reading,
    /// The partition cannot be read, or stopped when everything readable was settled or in consumers' hands.
    PartitionError {
        /// Why.
        error: Arc<str>,
        /// When it is tried again; none when it stopped.
        until_ms: Option<i64>,
    },
    /// Too much is being read at once.
    Quota {
        /// Which bound.
        error: Arc<str>,
        /// When it is tried again.
        until_ms: i64,
    },
    /// A dead letter cannot be written, and no more records may be open.
    DeadLetterBlocked {
        /// The first.
        offset: u64,
        /// Why.
        error: Arc<str>,
    },
    /// The state of the subscription cannot be stored.
    StateFailed,
    /// Another session holds the subscription alone; it has no credit or pauses.
    Standby {
        /// The one that holds it.
        session: Arc<str>,
    },
    /// A record that made its consumers crash is handed out alone.
    Isolated {
        /// The record.
        offset: u64,
        /// The session that holds it or is to get it.
        session: Option<Arc<str>>,
    },
    /// The endpoint of the webhook is left alone for a while.
    WebhookWaits {
        /// Why.
        error: Arc<str>,
        /// When it is tried again.
        until_ms: i64,
    },
}

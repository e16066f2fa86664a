//! What a subscriber tells beyond its jobs.

use std::{ops::Range, time::Duration};

use riverrun_proto::{Offset, TopicPartition, grpc::v1};

use crate::{
    error::{Error, ErrorCode},
    subscription::IdleReason,
};

/// What happened to a subscriber's session or to records in its hands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SubscriberEvent {
    /// A session is open.
    Opened {
        /// Its epoch.
        session_epoch: u64,
        /// True when it goes on with the leases of the one before; otherwise those are over.
        resumed: bool,
    },
    /// The session broke. Opening another one goes on for ever.
    Disconnected(Error),
    /// Records in this subscriber's hands were taken back; [`crate::Job::is_revoked`] tells for each.
    Revoked {
        /// Their partition.
        partition: TopicPartition,
        /// Their offsets.
        ranges: Vec<Range<Offset>>,
        /// Why.
        reason: RevokeReason,
    },
    /// Retention removed records before they were settled.
    Lost {
        /// Their partition.
        partition: TopicPartition,
        /// Their offsets.
        ranges: Vec<Range<Offset>>,
    },
    /// The broker did not accept the outcome of these records.
    Refused {
        /// Their partition.
        partition: TopicPartition,
        /// Their offsets.
        range: Range<Offset>,
        /// Why.
        error: Error,
    },
    /// The broker ends the session soon. The subscriber comes back unless the error is final.
    Goaway(Error),
}

/// Why a record was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RevokeReason {
    /// The lease ended.
    LeaseExpired,
    /// An earlier holder acknowledged it late.
    SettledElsewhere,
    /// An operator moved the position of the subscription.
    Seek,
    /// An earlier record of the same key failed, so this one waits again.
    Order,
    /// The session ended and could not be resumed.
    SessionOver,
    /// One this client is too old to know.
    Unknown,
}

impl RevokeReason {
    pub(super) fn from_wire(wire: i32) -> RevokeReason {
        match v1::RevokeReason::try_from(wire) {
            Ok(v1::RevokeReason::LeaseExpired) => RevokeReason::LeaseExpired,
            Ok(v1::RevokeReason::SettledElsewhere) => RevokeReason::SettledElsewhere,
            Ok(v1::RevokeReason::Seek) => RevokeReason::Seek,
            Ok(v1::RevokeReason::Order) => RevokeReason::Order,
            Ok(v1::RevokeReason::Unspecified) | Err(_) => RevokeReason::Unknown,
        }
    }
}

/// How a subscription stood when the broker last told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Records not settled, over all partitions.
    pub lag: u64,
    /// Age of the oldest record not settled; zero when there is none.
    pub oldest_unsettled: Duration,
    /// Why nothing is delivered to this session though there is a backlog.
    pub idle: Option<IdleReason>,
}

impl Standing {
    pub(super) fn from_wire(wire: v1::BrokerHeartbeat) -> Standing {
        Standing {
            lag: wire.lag,
            oldest_unsettled: Duration::from_millis(wire.oldest_unsettled_ms),
            idle: IdleReason::from_wire(wire.idle_reason),
        }
    }
}

/// Why an outcome was not accepted; `None` when it was.
pub(super) fn refusal(status: v1::SettleStatus) -> Option<Error> {
    use v1::SettleStatus as Status;
    let (code, words) = match status {
        Status::Ok => return None,
        Status::StaleLease => (ErrorCode::StaleLease, "the lease is over"),
        Status::AlreadySettled => (ErrorCode::StaleLease, "the record was settled before"),
        Status::NotDelivered => (ErrorCode::StaleLease, "the record was not delivered"),
        Status::UnknownPartition => {
            (ErrorCode::UnknownTopicOrPartition, "the partition is none of the subscription's")
        }
        Status::Invalid => (ErrorCode::InvalidArgument, "the broker calls the outcome malformed"),
        Status::Indeterminate => {
            (ErrorCode::Indeterminate, "the outcome may or may not have become durable")
        }
        Status::LeaseLimit => (ErrorCode::InvalidArgument, "the lease is as long as it may become"),
        Status::Unspecified => (ErrorCode::Protocol, "the broker gave no status"),
    };
    Some(Error::new(code, words))
}

//! The one error of the client.
//!
//! It says what went wrong ([`ErrorCode`]), in words, and what to do: the same call may succeed later
//! ([`Error::is_retriable`]), somebody newer has taken over ([`Error::is_fenced`]), or the call must
//! be changed ([`Error::is_fatal`]). Exactly one of the three holds.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use riverrun_proto::{LeaderEpoch, Offset, TopicPartition, grpc::v1};

/// What the client's calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Cheap to clone.
#[derive(Clone, thiserror::Error)]
#[error("{}", .0.message)]
pub struct Error(Arc<Cause>);

/// What an error knows.
#[derive(Debug)]
struct Cause {
    code: ErrorCode,
    message: String,
    range: Option<Range<Offset>>,
    epoch_end: Option<(LeaderEpoch, Offset)>,
    retry_after: Duration,
    partition: Option<TopicPartition>,
}

/// Reasons of failure: those of the broker and those that arise in the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// A field is malformed or past its limit. Fatal.
    InvalidArgument,
    /// The topic or partition does not exist. Fatal until it is created.
    UnknownTopicOrPartition,
    /// The topic was deleted and created again under the same name. Fatal.
    TopicIdMismatch,
    /// The topic that a consumer without a group reads was deleted, perhaps created again under the same name.
    /// Fatal.
    TopicDeleted,
    /// The offset lies outside what is kept; [`Error::range`] names it. Fatal until a seek.
    OffsetOutOfRange,
    /// The reader is ahead of a log that lost its unflushed end. Fatal until a seek.
    OffsetTruncated,
    /// A record batch failed its checksum or its structure is wrong. Fatal.
    CorruptBatch,
    /// A record or batch is larger than the topic allows. Fatal.
    RecordTooLarge,
    /// Stored bytes fail their checksum; [`Error::range`] names them. Fatal until repaired.
    DataCorrupt,
    /// The partition stopped after a storage fault. Retriable.
    PartitionFailed,
    /// The disk is full. Retriable.
    DiskFull,
    /// The broker can only read its data directory. Fatal.
    ReadOnly,
    /// A quota is used up. Retriable.
    QuotaExceeded,
    /// A newer epoch of this producer exists. Fenced.
    ProducerFenced,
    /// A gap before this batch's sequence number. Fatal for this producer.
    OutOfOrderSequence,
    /// The broker does not know the producer on this partition. Fatal for this producer.
    UnknownProducerId,
    /// The member is not in the group. Fenced; the consumer rejoins by itself.
    UnknownMember,
    /// The member has been replaced. Fenced; the consumer rejoins by itself.
    FencedMemberEpoch,
    /// The member is behind an assignment. Retriable after the next heartbeat.
    StaleMemberEpoch,
    /// The member does not own the partition. Retriable after the next heartbeat.
    PartitionNotOwned,
    /// Another live member holds the instance id. Fenced.
    InstanceIdInUse,
    /// The group does not exist. Fatal.
    UnknownGroup,
    /// The group has members. Fatal while they stay.
    GroupNotEmpty,
    /// A conditional commit found another offset. Fatal.
    OffsetConflict,
    /// The topic exists already. Fatal.
    TopicExists,
    /// The node does not lead the partition. Retriable.
    NotLeader,
    /// The broker is shutting down or not ready. Retriable.
    Unavailable,
    /// The write may or may not have happened. Retriable when idempotent.
    Indeterminate,
    /// The broker's fault. Retriable.
    Internal,
    /// The subscription does not exist. Fatal until it is created.
    UnknownSubscription,
    /// A subscription of that name exists with other topics or settings. Fatal.
    SubscriptionExists,
    /// Sessions of the subscription are open. Fatal while they stay.
    SubscriptionInUse,
    /// A newer stream holds the session. Fenced.
    SessionReplaced,
    /// The session is over. Fenced; the subscriber opens a new one by itself.
    UnknownSession,
    /// The lease of a record is over: it comes again, here or at another consumer. Fenced.
    StaleLease,
    /// The broker could not be reached, or the connection broke. Retriable.
    Unreachable,
    /// The call's own deadline passed. Retriable.
    DeadlineExceeded,
    /// The client, producer or consumer was closed. Fatal.
    Closed,
    /// The buffer is full ([`crate::Producer::try_send`] only). Retriable.
    BufferFull,
    /// The group has no stored offset here and was told not to choose one. Fatal until a seek.
    NoOffset,
    /// The other side sent something the protocol does not allow, or a code this client is too old for. Fatal.
    Protocol,
}

/// What a code asks of the caller.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Retriable,
    Fenced,
    Fatal,
}

impl ErrorCode {
    fn class(self) -> Class {
        match self {
            ErrorCode::PartitionFailed
            | ErrorCode::DiskFull
            | ErrorCode::QuotaExceeded
            | ErrorCode::StaleMemberEpoch
            | ErrorCode::PartitionNotOwned
            | ErrorCode::NotLeader
            | ErrorCode::Unavailable
            | ErrorCode::Indeterminate
            | ErrorCode::Internal
            | ErrorCode::Unreachable
            | ErrorCode::DeadlineExceeded
            | ErrorCode::BufferFull => Class::Retriable,
            ErrorCode::ProducerFenced
            | ErrorCode::UnknownMember
            | ErrorCode::FencedMemberEpoch
            | ErrorCode::InstanceIdInUse
            | ErrorCode::SessionReplaced
            | ErrorCode::UnknownSession
            | ErrorCode::StaleLease => Class::Fenced,
            ErrorCode::InvalidArgument
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::TopicIdMismatch
            | ErrorCode::TopicDeleted
            | ErrorCode::OffsetOutOfRange
            | ErrorCode::OffsetTruncated
            | ErrorCode::CorruptBatch
            | ErrorCode::RecordTooLarge
            | ErrorCode::DataCorrupt
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfOrderSequence
            | ErrorCode::UnknownProducerId
            | ErrorCode::UnknownGroup
            | ErrorCode::GroupNotEmpty
            | ErrorCode::OffsetConflict
            | ErrorCode::TopicExists
            | ErrorCode::UnknownSubscription
            | ErrorCode::SubscriptionExists
            | ErrorCode::SubscriptionInUse
            | ErrorCode::Closed
            | ErrorCode::NoOffset
            | ErrorCode::Protocol => Class::Fatal,
        }
    }

    fn from_wire(code: i32) -> ErrorCode {
        use v1::ErrorCode as Wire;
        match Wire::try_from(code) {
            Ok(Wire::InvalidArgument) => ErrorCode::InvalidArgument,
            Ok(Wire::UnknownTopicOrPartition) => ErrorCode::UnknownTopicOrPartition,
            Ok(Wire::TopicIdMismatch) => ErrorCode::TopicIdMismatch,
            Ok(Wire::OffsetOutOfRange) => ErrorCode::OffsetOutOfRange,
            Ok(Wire::OffsetTruncated) => ErrorCode::OffsetTruncated,
            Ok(Wire::CorruptBatch) => ErrorCode::CorruptBatch,
            Ok(Wire::RecordTooLarge) => ErrorCode::RecordTooLarge,
            Ok(Wire::DataCorrupt) => ErrorCode::DataCorrupt,
            Ok(Wire::PartitionFailed) => ErrorCode::PartitionFailed,
            Ok(Wire::DiskFull) => ErrorCode::DiskFull,
            Ok(Wire::QuotaExceeded) => ErrorCode::QuotaExceeded,
            Ok(Wire::ProducerFenced) => ErrorCode::ProducerFenced,
            Ok(Wire::OutOfOrderSequence) => ErrorCode::OutOfOrderSequence,
            Ok(Wire::UnknownProducerId) => ErrorCode::UnknownProducerId,
            Ok(Wire::UnknownMember) => ErrorCode::UnknownMember,
            Ok(Wire::FencedMemberEpoch) => ErrorCode::FencedMemberEpoch,
            Ok(Wire::StaleMemberEpoch) => ErrorCode::StaleMemberEpoch,
            Ok(Wire::PartitionNotOwned) => ErrorCode::PartitionNotOwned,
            Ok(Wire::InstanceIdInUse) => ErrorCode::InstanceIdInUse,
            Ok(Wire::UnknownGroup) => ErrorCode::UnknownGroup,
            Ok(Wire::GroupNotEmpty) => ErrorCode::GroupNotEmpty,
            Ok(Wire::OffsetConflict) => ErrorCode::OffsetConflict,
            Ok(Wire::TopicExists) => ErrorCode::TopicExists,
            Ok(Wire::NotLeader) => ErrorCode::NotLeader,
            Ok(Wire::Unavailable) => ErrorCode::Unavailable,
            Ok(Wire::Indeterminate) => ErrorCode::Indeterminate,
            Ok(Wire::Internal) => ErrorCode::Internal,
            Ok(Wire::UnknownSubscription) => ErrorCode::UnknownSubscription,
            Ok(Wire::SubscriptionExists) => ErrorCode::SubscriptionExists,
            Ok(Wire::SubscriptionInUse) => ErrorCode::SubscriptionInUse,
            Ok(Wire::SessionReplaced) => ErrorCode::SessionReplaced,
            Ok(Wire::ReadOnly) => ErrorCode::ReadOnly,
            Ok(Wire::UnknownSession) => ErrorCode::UnknownSession,
            Ok(Wire::Unspecified) | Err(_) => ErrorCode::Protocol,
        }
    }
}

impl Error {
    /// An error that arose in the client.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Error {
        Error(Arc::new(Cause {
            code,
            message: message.into(),
            range: None,
            epoch_end: None,
            retry_after: Duration::ZERO,
            partition: None,
        }))
    }

    /// The error the broker put into a reply.
    pub(crate) fn from_wire(wire: &v1::Error) -> Error {
        let code = ErrorCode::from_wire(wire.code);
        let message = match (code, wire.message.is_empty()) {
            (_, true) => format!("the broker answered with code `{}`", wire.code),
            (_, false) => wire.message.clone(),
        };
        Error(Arc::new(Cause {
            code,
            message,
            range: wire.range.map(|range| Offset(range.start_offset)..Offset(range.end_offset)),
            epoch_end: wire
                .epoch_end
                .map(|end| (LeaderEpoch(end.leader_epoch), Offset(end.end_offset))),
            retry_after: Duration::from_millis(u64::from(wire.retry_after_ms)),
            partition: None,
        }))
    }

    /// The same error with `context` put before its message.
    pub(crate) fn within(&self, context: &str) -> Error {
        Error(Arc::new(Cause {
            code: self.0.code,
            message: format!("{context}: {}", self.0.message),
            range: self.0.range.clone(),
            epoch_end: self.0.epoch_end,
            retry_after: self.0.retry_after,
            partition: self.0.partition.clone(),
        }))
    }

    /// The same error as that of one partition, which its message begins with.
    pub(crate) fn of_partition(&self, partition: &TopicPartition) -> Error {
        let Error(cause) = self.within(&partition.to_string());
        let mut cause = Arc::into_inner(cause).expect("it was made just now");
        cause.partition = Some(partition.clone());
        Error(Arc::new(cause))
    }

    /// What went wrong.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// One sentence for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The partition a consumer stopped reading because of this; it goes on with the others, and with this
    /// one after a seek.
    pub fn partition(&self) -> Option<&TopicPartition> {
        self.0.partition.as_ref()
    }

    /// The valid (or unreadable) offsets, where the broker named them.
    pub fn range(&self) -> Option<Range<Offset>> {
        self.0.range.clone()
    }

    /// With [`ErrorCode::OffsetTruncated`]: the last epoch the reader knew and where its log ends.
    pub fn epoch_end(&self) -> Option<(LeaderEpoch, Offset)> {
        self.0.epoch_end
    }

    /// How long the broker asked to wait before another try; zero when it did not say.
    pub fn retry_after(&self) -> Duration {
        self.0.retry_after
    }

    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        self.0.code.class() == Class::Retriable
    }

    /// Whether somebody newer has taken the caller's place.
    pub fn is_fenced(&self) -> bool {
        self.0.code.class() == Class::Fenced
    }

    /// Whether the call must be changed before it can succeed.
    pub fn is_fatal(&self) -> bool {
        self.0.code.class() == Class::Fatal
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("code", &self.0.code).field("message", &self.0.message);
        if let Some(partition) = &self.0.partition {
            out.field("partition", partition);
        }
        if let Some(range) = &self.0.range {
            out.field("range", range);
        }
        if let Some(epoch_end) = &self.0.epoch_end {
            out.field("epoch_end", epoch_end);
        }
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_wire_has_one_here() {
        for code in 1..=33 {
            assert!(v1::ErrorCode::try_from(code).is_ok(), "code {code}");
            assert_ne!(ErrorCode::from_wire(code), ErrorCode::Protocol, "code {code}");
        }
        assert!(v1::ErrorCode::try_from(34).is_err(), "a new code needs a place in this client");
        assert_eq!(ErrorCode::from_wire(0), ErrorCode::Protocol);
        assert_eq!(ErrorCode::from_wire(9_999), ErrorCode::Protocol);
    }

    #[test]
    fn a_wire_error_keeps_its_range_and_words() {
        let error = Error::from_wire(&v1::Error {
            code: v1::ErrorCode::OffsetOutOfRange.into(),
            message: "offset `9` lies outside `[2, 5]`".into(),
            range: Some(v1::OffsetRange { start_offset: 2, end_offset: 5 }),
            ..v1::Error::default()
        });
        assert_eq!(error.range(), Some(Offset(2)..Offset(5)));
        assert!(error.is_fatal() && !error.is_retriable() && !error.is_fenced());
        assert_eq!(
            error.within("orders-0").to_string(),
            "orders-0: offset `9` lies outside `[2, 5]`"
        );
    }
}

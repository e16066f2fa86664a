//! The only map from errors to gRPC: an error code for programs, a status code for protocols, a sentence for
//! people. The encoded `Error` travels in the trailer `riverrun-error-bin`, or inside replies that cover
//! several partitions.

use std::{fmt::Write, time::Duration};

use bytes::Bytes;
use prost::Message;
use riverrun_proto::{
    batch::{DecodeError, EncodeError},
    grpc::v1::{self, ErrorCode},
};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::{
    partition::{
        AppendError, MaintainError, NotLeader, OffsetRange, PartitionFailed, ReadError, ReadOnly,
        state_log::StoreError,
    },
    quota::QuotaExceeded,
    service::{
        admin::DeleteRecordsError,
        fetch::{FenceError, FetchError, FetchPartitionError},
        produce::ProduceError,
        watch::WatchError,
    },
    topic::error::{
        FindError, InitProducerError, InvalidField, TopicError, TopicIdMismatch, TopicIsStream,
        UnknownTopicOrPartition,
    },
};

/// Name of the trailer.
pub(super) const TRAILER: &str = "riverrun-error-bin";
/// Longest sentence of an error.
const MESSAGE_BYTES_MAX: usize = 1 << 10;
/// A partition or broker that is down is tried again after this.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// An error that can be told to a client.
pub(crate) trait Describe: std::fmt::Display {
    /// As the message says it.
    fn describe(&self) -> v1::Error;
}

/// The failed call that tells of `error`.
pub(crate) fn status(error: &impl Describe) -> Status {
    status_of(error.describe())
}

/// The failed call that tells of what was described.
pub(super) fn status_of(error: v1::Error) -> Status {
    let code = status_code(error.code());
    let mut metadata = MetadataMap::new();
    let bytes = Bytes::from(error.encode_to_vec());
    metadata.insert_bin(TRAILER, MetadataValue::from_bytes(&bytes));
    Status::with_metadata(code, error.message, metadata)
}

fn status_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidArgument | ErrorCode::CorruptBatch | ErrorCode::RecordTooLarge => {
            Code::InvalidArgument
        }
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::UnknownGroup
        | ErrorCode::UnknownSubscription => Code::NotFound,
        ErrorCode::TopicExists | ErrorCode::SubscriptionExists => Code::AlreadyExists,
        ErrorCode::OffsetOutOfRange | ErrorCode::OffsetTruncated => Code::OutOfRange,
        ErrorCode::DataCorrupt => Code::DataLoss,
        ErrorCode::DiskFull | ErrorCode::QuotaExceeded => Code::ResourceExhausted,
        ErrorCode::PartitionFailed | ErrorCode::Unavailable | ErrorCode::Indeterminate => {
            Code::Unavailable
        }
        ErrorCode::OffsetConflict | ErrorCode::StaleMemberEpoch => Code::Aborted,
        ErrorCode::TopicIdMismatch
        | ErrorCode::ProducerFenced
        | ErrorCode::OutOfOrderSequence
        | ErrorCode::UnknownProducerId
        | ErrorCode::UnknownMember
        | ErrorCode::FencedMemberEpoch
        | ErrorCode::PartitionNotOwned
        | ErrorCode::InstanceIdInUse
        | ErrorCode::GroupNotEmpty
        | ErrorCode::SubscriptionInUse
        | ErrorCode::SessionReplaced
        | ErrorCode::UnknownSession
        | ErrorCode::ReadOnly
        | ErrorCode::NotLeader => Code::FailedPrecondition,
        ErrorCode::Internal | ErrorCode::Unspecified => Code::Internal,
    }
}

/// An error with nothing but code and sentence.
pub(crate) fn plain(code: ErrorCode, message: &impl std::fmt::Display) -> v1::Error {
    let mut sentence = Sentence(String::new());
    // Fails only when it is full; what fits is enough.
    let _ = write!(sentence, "{message}");
    v1::Error { code: code as i32, message: sentence.0, ..v1::Error::default() }
}

/// A message cut where it gets long: a client that sends a name of many MiB is not told all of it.
struct Sentence(String);

impl std::fmt::Write for Sentence {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let left = MESSAGE_BYTES_MAX - self.0.len();
        if text.len() <= left {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(left)]);
        Err(std::fmt::Error)
    }
}

pub(super) fn retriable(
    code: ErrorCode,
    message: &impl std::fmt::Display,
    after: Duration,
) -> v1::Error {
    let retry_after_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
    v1::Error { retry_after_ms, ..plain(code, message) }
}

pub(super) fn with_range(error: v1::Error, range: OffsetRange) -> v1::Error {
    let OffsetRange { start, end } = range;
    let range = Some(v1::OffsetRange { start_offset: start.0, end_offset: end.0 });
    v1::Error { range, ..error }
}

impl Describe for InvalidField {
    fn describe(&self) -> v1::Error {
        plain(ErrorCode::InvalidArgument, self)
    }
}

impl Describe for QuotaExceeded {
    fn describe(&self) -> v1::Error {
        retriable(ErrorCode::QuotaExceeded, self, self.retry_after)
    }
}

impl Describe for UnknownTopicOrPartition {
    fn describe(&self) -> v1::Error {
        plain(ErrorCode::UnknownTopicOrPartition, self)
    }
}

impl Describe for TopicIsStream {
    fn describe(&self) -> v1::Error {
        plain(ErrorCode::InvalidArgument, self)
    }
}

impl Describe for TopicIdMismatch {
    fn describe(&self) -> v1::Error {
        plain(ErrorCode::TopicIdMismatch, self)
    }
}

impl Describe for PartitionFailed {
    fn describe(&self) -> v1::Error {
        let error = retriable(ErrorCode::PartitionFailed, self, RETRY_AFTER);
        match self.damaged {
            Some(range) => with_range(error, range),
            None => error,
        }
    }
}

impl Describe for NotLeader {
    fn describe(&self) -> v1::Error {
        retriable(ErrorCode::NotLeader, self, RETRY_AFTER)
    }
}

impl Describe for ReadOnly {
    fn describe(&self) -> v1::Error {
        match self {
            ReadOnly::Directory { .. } => plain(ErrorCode::ReadOnly, self),
            ReadOnly::NoRoom { .. } => retriable(ErrorCode::DiskFull, self, RETRY_AFTER),
        }
    }
}

impl Describe for FindError {
    fn describe(&self) -> v1::Error {
        match self {
            FindError::Unknown(error) => error.describe(),
            FindError::IdMismatch(error) => error.describe(),
            FindError::Failed(error) => error.describe(),
        }
    }
}

impl Describe for AppendError {
    fn describe(&self) -> v1::Error {
        match self {
            AppendError::Failed(error) => error.describe(),
            AppendError::ReadOnly(error) => error.describe(),
            AppendError::Indeterminate { .. } => {
                retriable(ErrorCode::Indeterminate, self, RETRY_AFTER)
            }
            AppendError::NotLeader(error) => error.describe(),
            AppendError::Closed => retriable(ErrorCode::Unavailable, self, RETRY_AFTER),
            AppendError::DiskFull(_) => retriable(ErrorCode::DiskFull, self, RETRY_AFTER),
            AppendError::Io { .. } => retriable(ErrorCode::Internal, self, RETRY_AFTER),
            AppendError::TooLarge { .. } => plain(ErrorCode::RecordTooLarge, self),
            AppendError::ProducerFenced { .. } => plain(ErrorCode::ProducerFenced, self),
            AppendError::OutOfOrderSequence { .. } => plain(ErrorCode::OutOfOrderSequence, self),
            AppendError::UnknownProducer { .. } => plain(ErrorCode::UnknownProducerId, self),
            AppendError::InvalidProducer { .. } => plain(ErrorCode::InvalidArgument, self),
            AppendError::OffsetsExhausted { .. } => plain(ErrorCode::InvalidArgument, self),
        }
    }
}

impl Describe for ProduceError {
    fn describe(&self) -> v1::Error {
        match self {
            ProduceError::Find(error) => error.describe(),
            ProduceError::Stream(error) => error.describe(),
            ProduceError::Decode(DecodeError::BatchTooLarge { .. }) => {
                plain(ErrorCode::RecordTooLarge, self)
            }
            ProduceError::Decode(_) => plain(ErrorCode::CorruptBatch, self),
            ProduceError::Encode(EncodeError::Compress { .. }) => plain(ErrorCode::Internal, self),
            ProduceError::Encode(_) => plain(ErrorCode::InvalidArgument, self),
            ProduceError::DeliverAt { .. } => plain(ErrorCode::InvalidArgument, self),
            ProduceError::NoKey { .. } => plain(ErrorCode::InvalidArgument, self),
            ProduceError::TooLarge { .. } => plain(ErrorCode::RecordTooLarge, self),
            ProduceError::UnknownProducer(_) => plain(ErrorCode::UnknownProducerId, self),
            ProduceError::Fenced { .. } => plain(ErrorCode::ProducerFenced, self),
            ProduceError::Quota(error) => error.describe(),
            ProduceError::Append(error) => error.describe(),
            ProduceError::Interrupted => retriable(ErrorCode::Internal, self, RETRY_AFTER),
        }
    }
}

impl Describe for ReadError {
    fn describe(&self) -> v1::Error {
        match self {
            ReadError::OutOfRange { log_start, high_watermark, .. } => {
                let range = OffsetRange { start: *log_start, end: *high_watermark };
                with_range(plain(ErrorCode::OffsetOutOfRange, self), range)
            }
            ReadError::Truncated { leader_epoch, end_offset } => {
                let (leader_epoch, end_offset) = (*leader_epoch, end_offset.0);
                let epoch_end = Some(v1::EpochEnd { leader_epoch, end_offset });
                v1::Error { epoch_end, ..plain(ErrorCode::OffsetTruncated, self) }
            }
            ReadError::Corrupt { range, .. } => {
                with_range(plain(ErrorCode::DataCorrupt, self), *range)
            }
            ReadError::Failed(error) => error.describe(),
            ReadError::Io { .. } => retriable(ErrorCode::Internal, self, RETRY_AFTER),
            ReadError::Closed => retriable(ErrorCode::Unavailable, self, RETRY_AFTER),
        }
    }
}

impl Describe for FetchPartitionError {
    fn describe(&self) -> v1::Error {
        match self {
            FetchPartitionError::Find(error) => error.describe(),
            FetchPartitionError::Fence(error) => error.describe(),
            FetchPartitionError::Read(error) => error.describe(),
            FetchPartitionError::Decode { .. } => plain(ErrorCode::DataCorrupt, self),
        }
    }
}

impl Describe for FenceError {
    fn describe(&self) -> v1::Error {
        let code = match self {
            FenceError::UnknownGroup { .. } => ErrorCode::UnknownGroup,
            FenceError::UnknownMember { .. } => ErrorCode::UnknownMember,
            FenceError::Fenced { .. } => ErrorCode::FencedMemberEpoch,
            FenceError::Stale { .. } => ErrorCode::StaleMemberEpoch,
            FenceError::NotOwned { .. } => ErrorCode::PartitionNotOwned,
        };
        plain(code, self)
    }
}

impl Describe for FetchError {
    fn describe(&self) -> v1::Error {
        match self {
            FetchError::Field(error) => error.describe(),
            FetchError::Fence(error) => error.describe(),
            FetchError::Quota(error) => error.describe(),
        }
    }
}

impl Describe for WatchError {
    fn describe(&self) -> v1::Error {
        match self {
            WatchError::Field(error) => error.describe(),
            WatchError::Quota(error) => error.describe(),
        }
    }
}

impl Describe for StoreError {
    fn describe(&self) -> v1::Error {
        match self {
            StoreError::Append(error) => error.describe(),
            StoreError::TooLarge { .. } => plain(ErrorCode::InvalidArgument, self),
            StoreError::Trim(error) if error.is_disk_full() => error.describe(),
            StoreError::Trim(_) | StoreError::Encode(_) => plain(ErrorCode::Internal, self),
        }
    }
}

impl Describe for MaintainError {
    fn describe(&self) -> v1::Error {
        match self {
            MaintainError::Closed => retriable(ErrorCode::Unavailable, self, RETRY_AFTER),
            MaintainError::ReadOnly(error) => error.describe(),
            MaintainError::NotLeader(error) => error.describe(),
            MaintainError::PastVisibleEnd { .. } => plain(ErrorCode::InvalidArgument, self),
            MaintainError::Storage(_) | MaintainError::Compact(_) if self.is_disk_full() => {
                retriable(ErrorCode::DiskFull, self, RETRY_AFTER)
            }
            MaintainError::Storage(_) | MaintainError::Compact(_) => {
                retriable(ErrorCode::PartitionFailed, self, RETRY_AFTER)
            }
        }
    }
}

impl Describe for TopicError {
    fn describe(&self) -> v1::Error {
        match self {
            TopicError::Name(_) | TopicError::Setting(_) | TopicError::UnknownSetting(_) => {
                plain(ErrorCode::InvalidArgument, self)
            }
            TopicError::Field(error) => error.describe(),
            TopicError::Stream(error) => error.describe(),
            TopicError::Content(error) => error.describe(),
            TopicError::Exists { .. } => plain(ErrorCode::TopicExists, self),
            TopicError::Unknown(error) => error.describe(),
            TopicError::IdMismatch(error) => error.describe(),
            TopicError::Quota(error) => error.describe(),
            TopicError::Store(error) => error.describe(),
            TopicError::Open(error) if error.is_disk_full() => {
                retriable(ErrorCode::DiskFull, self, RETRY_AFTER)
            }
            TopicError::Open(_) | TopicError::Catalog(_) | TopicError::Interrupted => {
                retriable(ErrorCode::Internal, self, RETRY_AFTER)
            }
        }
    }
}

impl Describe for DeleteRecordsError {
    fn describe(&self) -> v1::Error {
        match self {
            DeleteRecordsError::Find(error) => error.describe(),
            DeleteRecordsError::Stream(error) => error.describe(),
            DeleteRecordsError::Maintain(error) => error.describe(),
        }
    }
}

impl Describe for InitProducerError {
    fn describe(&self) -> v1::Error {
        match self {
            InitProducerError::Field(error) => error.describe(),
            InitProducerError::Fenced { .. } => plain(ErrorCode::ProducerFenced, self),
            InitProducerError::Unknown { .. } => plain(ErrorCode::UnknownProducerId, self),
            InitProducerError::Store(error) => error.describe(),
            InitProducerError::Catalog(_) | InitProducerError::Interrupted => {
                plain(ErrorCode::Internal, self)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_lead_says_so_by_code_and_asks_to_be_tried_again() {
        let append = ProduceError::from(AppendError::from(NotLeader));
        let delete = DeleteRecordsError::from(MaintainError::from(NotLeader));
        for status in [status(&append), status(&delete)] {
            assert_eq!(status.code(), Code::FailedPrecondition);
            let trailer = status.metadata().get_bin(TRAILER).unwrap().to_bytes().unwrap();
            let error = v1::Error::decode(trailer).unwrap();
            assert_eq!(error.code(), ErrorCode::NotLeader);
            assert!(error.retry_after_ms > 0, "{error:?}");
        }
    }

    #[test]
    fn long_sentences_are_cut_between_characters() {
        let long = "\u{e9}".repeat(MESSAGE_BYTES_MAX);
        let told = plain(ErrorCode::Internal, &format!("x{long}")).message;
        assert!((MESSAGE_BYTES_MAX - 1..=MESSAGE_BYTES_MAX).contains(&told.len()));
        assert_eq!(plain(ErrorCode::Internal, &"short").message, "short");
    }
}

//! Errors about subscriptions and sessions as clients are told them.

use riverrun_proto::{
    Offset,
    grpc::v1::{self, ErrorCode},
};

use super::status::{Describe, RETRY_AFTER, plain, retriable, with_range};
use crate::{
    delivery::OpenError,
    partition::OffsetRange,
    service::delivery::{PushError, scan::ScanError},
    subscription::StoreError,
};

impl Describe for StoreError {
    fn describe(&self) -> v1::Error {
        match self {
            StoreError::Failed { .. } => retriable(ErrorCode::Indeterminate, self, RETRY_AFTER),
            StoreError::ReadOnly(error) => error.describe(),
            StoreError::Closed => retriable(ErrorCode::Unavailable, self, RETRY_AFTER),
            StoreError::Unknown { .. } => plain(ErrorCode::UnknownSubscription, self),
            StoreError::TooMany { .. } | StoreError::TooManyCancelled { .. } => {
                plain(ErrorCode::QuotaExceeded, self)
            }
            StoreError::Setting(_) | StoreError::TooLarge { .. } => {
                plain(ErrorCode::InvalidArgument, self)
            }
        }
    }
}

impl Describe for ScanError {
    fn describe(&self) -> v1::Error {
        match self {
            ScanError::Read(error) => error.describe(),
            ScanError::Decode { .. } => plain(ErrorCode::DataCorrupt, self),
            ScanError::Quota(error) => error.describe(),
        }
    }
}

impl Describe for PushError {
    fn describe(&self) -> v1::Error {
        let code = match self {
            PushError::Field(error) => return error.describe(),
            PushError::Topic(error) => return error.describe(),
            PushError::Find(error) => return error.describe(),
            PushError::NewTopic(error) => return error.describe(),
            PushError::Quota(error) => return error.describe(),
            PushError::Store(error) => return error.describe(),
            PushError::Scan(error) => return error.describe(),
            PushError::Read(error) => return error.describe(),
            PushError::Append(error) => return error.describe(),
            PushError::Stopping | PushError::Interrupted => {
                return retriable(ErrorCode::Unavailable, self, RETRY_AFTER);
            }
            PushError::Altering { .. } => {
                return retriable(ErrorCode::SubscriptionInUse, self, RETRY_AFTER);
            }
            PushError::PastEnd { log_start, high_watermark, .. } => {
                let range = OffsetRange { start: Offset(*log_start), end: Offset(*high_watermark) };
                return with_range(plain(ErrorCode::OffsetOutOfRange, self), range);
            }
            PushError::Setting(_) | PushError::Broken { .. } | PushError::Encode(_) => {
                ErrorCode::InvalidArgument
            }
            PushError::UnknownSubscription { .. } | PushError::Deleted { .. } => {
                ErrorCode::UnknownSubscription
            }
            PushError::TopicsDeleted { .. } => ErrorCode::UnknownTopicOrPartition,
            PushError::Exists { .. } => ErrorCode::SubscriptionExists,
            PushError::InUse { .. } | PushError::Held { .. } => ErrorCode::SubscriptionInUse,
            PushError::UnknownGroup { .. } => ErrorCode::UnknownGroup,
            PushError::GroupNotEmpty { .. } => ErrorCode::GroupNotEmpty,
            PushError::UnknownSession { .. } | PushError::Silent { .. } => {
                ErrorCode::UnknownSession
            }
            PushError::Replaced => ErrorCode::SessionReplaced,
            PushError::Open(OpenError::TooManySessions) => ErrorCode::QuotaExceeded,
            PushError::Open(OpenError::StreamOpen { .. }) => ErrorCode::SessionReplaced,
        };
        plain(code, self)
    }
}

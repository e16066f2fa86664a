//! Errors about groups as clients are told them.

use riverrun_proto::{
    Offset,
    grpc::v1::{self, ErrorCode},
};

use super::status::{Describe, RETRY_AFTER, plain, retriable, with_range};
use crate::{
    group::{coordinator::CoordinatorError, error::GroupError},
    offset::StoreError,
    partition::OffsetRange,
    service::group::{GroupCallError, GroupPartitionError},
};

impl Describe for GroupError {
    fn describe(&self) -> v1::Error {
        let code = match self {
            GroupError::UnknownMember { .. } => ErrorCode::UnknownMember,
            GroupError::FencedEpoch { .. } => ErrorCode::FencedMemberEpoch,
            GroupError::StaleEpoch { .. } => ErrorCode::StaleMemberEpoch,
            GroupError::NotOwned => ErrorCode::PartitionNotOwned,
            GroupError::InstanceIdInUse { .. } => ErrorCode::InstanceIdInUse,
            GroupError::NotStatic | GroupError::NoSubscription => ErrorCode::InvalidArgument,
            GroupError::Full { .. } => ErrorCode::QuotaExceeded,
            GroupError::EpochsUsedUp => ErrorCode::Internal,
        };
        plain(code, self)
    }
}

impl Describe for StoreError {
    fn describe(&self) -> v1::Error {
        match self {
            StoreError::Failed { .. } => retriable(ErrorCode::Indeterminate, self, RETRY_AFTER),
            StoreError::ReadOnly(error) => error.describe(),
            StoreError::Closed => retriable(ErrorCode::Unavailable, self, RETRY_AFTER),
            StoreError::UnknownGroup { .. } => plain(ErrorCode::UnknownGroup, self),
            StoreError::TooManyGroups { .. } => plain(ErrorCode::QuotaExceeded, self),
        }
    }
}

impl Describe for CoordinatorError {
    fn describe(&self) -> v1::Error {
        match self {
            CoordinatorError::Refused(refusal) => refusal.describe(),
            CoordinatorError::UnknownGroup { .. } => plain(ErrorCode::UnknownGroup, self),
            CoordinatorError::NotEmpty { .. } => plain(ErrorCode::GroupNotEmpty, self),
            CoordinatorError::Store(error) => error.describe(),
        }
    }
}

impl Describe for GroupCallError {
    fn describe(&self) -> v1::Error {
        match self {
            GroupCallError::Field(error) => error.describe(),
            GroupCallError::Coordinator(error) => error.describe(),
        }
    }
}

impl Describe for GroupPartitionError {
    fn describe(&self) -> v1::Error {
        match self {
            GroupPartitionError::Find(error) => error.describe(),
            GroupPartitionError::Read(error) => error.describe(),
            GroupPartitionError::Refused(refusal) => refusal.describe(),
            GroupPartitionError::Field(error) => error.describe(),
            GroupPartitionError::Conflict { .. } => plain(ErrorCode::OffsetConflict, self),
            GroupPartitionError::PastVisibleEnd { log_start, high_watermark, .. } => {
                let range = OffsetRange { start: Offset(*log_start), end: Offset(*high_watermark) };
                with_range(plain(ErrorCode::OffsetOutOfRange, self), range)
            }
            GroupPartitionError::NoOffset { .. } => plain(ErrorCode::InvalidArgument, self),
        }
    }
}

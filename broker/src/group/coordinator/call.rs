//! What is asked of the groups, and what comes back.

use std::{sync::Arc, time::Duration};

use riverrun_proto::{Offset, TopicId, TopicPartition};

use crate::{group::error::GroupError, offset::StoreError};

/// Why a call about a group failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinatorError {
    /// The group refused the member.
    #[error(transparent)]
    Refused(#[from] GroupError),
    /// The group does not exist.
    #[error("group `{group}` does not exist")]
    UnknownGroup {
        /// Its name.
        group: Arc<str>,
    },
    /// Only members may do this while there are some.
    #[error("group `{group}` has `{members}` members")]
    NotEmpty {
        /// Its name.
        group: Arc<str>,
        /// How many.
        members: usize,
    },
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who calls on behalf of a group.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Name of the group.
    pub group: Arc<str>,
    /// The member; `None` is somebody outside the group.
    pub member: Option<(Arc<str>, i32)>,
}

/// Answer to a heartbeat, in names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Epoch to send from now on.
    pub member_epoch: i32,
    /// Send the next one within this time.
    pub heartbeat_interval: Duration,
    /// What the member may read from now on, when there is something to tell.
    pub assignment: Option<Vec<TopicPartition>>,
    /// The topics of the assignment and their ids.
    pub topics: Vec<(Arc<str>, TopicId)>,
    /// Partitions to read the offset of anew.
    pub reset: Vec<TopicPartition>,
    /// The group epoch.
    pub group_epoch: i32,
}

/// What became of one offset to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is durable.
    Stored,
    /// The member may not commit this partition.
    Refused(GroupError),
    /// Another offset is stored than expected.
    Conflict(Option<Offset>),
}

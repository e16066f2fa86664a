//! Who may not read: members of a group that were replaced, or own other partitions.

use thiserror::Error;

use super::Member;

/// Refuses members that were replaced. The group room stands behind it.
pub trait FetchFence: Send + Sync + std::fmt::Debug {
    /// Says of each of `partitions` why `member` may not read it now, if it may not. One that cannot be found
    /// is not refused here.
    ///
    /// # Errors
    /// What makes it an outsider, who may read none.
    fn check(
        &self,
        member: &Member,
        partitions: &[(&str, u32)],
    ) -> Result<Vec<Option<FenceError>>, FenceError>;
}

/// A member that may not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FenceError {
    /// There is no such group.
    #[error("group `{group}` does not exist")]
    UnknownGroup {
        /// Its name.
        group: String,
    },
    /// It is not in the group.
    #[error("member `{member_id}` is not in group `{group}`")]
    UnknownMember {
        /// Name of the group.
        group: String,
        /// What came.
        member_id: String,
    },
    /// It was replaced.
    #[error("`member_epoch` of member `{member_id}` is {current}, found {found}")]
    Fenced {
        /// The member.
        member_id: String,
        /// Its epoch.
        current: i32,
        /// What came.
        found: i32,
    },
    /// It has an assignment it has not taken yet.
    #[error(
        "`member_epoch` {found} of member `{member_id}` is behind its assignment of epoch {current}"
    )]
    Stale {
        /// The member.
        member_id: String,
        /// Its epoch.
        current: i32,
        /// What came.
        found: i32,
    },
    /// Somebody else's partition.
    #[error("member `{member_id}` does not own partition {partition} of topic `{topic}`")]
    NotOwned {
        /// The member.
        member_id: String,
        /// Name of the topic.
        topic: String,
        /// Partition number.
        partition: u32,
    },
}

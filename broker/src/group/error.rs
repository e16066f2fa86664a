//! Why a group refuses a member. Nothing changed when one of these is returned.

use std::sync::Arc;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The member timed out, left, or never joined. It joins anew with epoch 0.
    #[error("member `{member}` is not in the group; join with epoch 0")]
    UnknownMember {
        /// The member id that came.
        member: Arc<str>,
    },
    /// The epoch is older than the assignment before the current one, or was never given out.
    #[error("member epoch `{epoch}` is fenced; the member's epoch is `{current}`")]
    FencedEpoch {
        /// The epoch that came.
        epoch: i32,
        /// The epoch of the member.
        current: i32,
    },
    /// The member has not taken its newest assignment yet; its next heartbeat brings it.
    #[error("member epoch `{epoch}` is stale: an assignment with epoch `{current}` or later waits")]
    StaleEpoch {
        /// The epoch that came.
        epoch: i32,
        /// The epoch to learn.
        current: i32,
    },
    /// The member does not own the partition.
    #[error("the member does not own this partition")]
    NotOwned,
    /// Another live member holds the instance id.
    #[error("instance id `{instance_id}` is in use by the live member `{holder}`")]
    InstanceIdInUse {
        /// The instance id that came.
        instance_id: Arc<str>,
        /// The member that holds it.
        holder: Arc<str>,
    },
    /// A member that has no instance id cannot leave for a while.
    #[error("member epoch -2 needs an `instance_id`")]
    NotStatic,
    /// A member joins without saying what it wants.
    #[error("`subscription` is required to join")]
    NoSubscription,
    /// The group has as many members as it may have.
    #[error("the group has `{max}` members, the most it may have (`groups.members_per_group_max`)")]
    Full {
        /// The bound.
        max: usize,
    },
    /// The group's epoch reached its end.
    #[error("the group's epochs are used up; delete the group and create it again")]
    EpochsUsedUp,
}

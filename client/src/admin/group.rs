//! Groups as the broker describes them.

use std::time::Duration;

use riverrun_proto::{Offset, TopicPartition, grpc::v1};

use crate::error::Error;

/// State of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupState {
    /// Not one this client knows.
    Unknown,
    /// No members; stored offsets are kept.
    Empty,
    /// Partitions are moving between members.
    Reconciling,
    /// Every member has its assignment.
    Stable,
}

impl GroupState {
    fn from_wire(wire: i32) -> GroupState {
        match v1::GroupState::try_from(wire) {
            Ok(v1::GroupState::Empty) => GroupState::Empty,
            Ok(v1::GroupState::Reconciling) => GroupState::Reconciling,
            Ok(v1::GroupState::Stable) => GroupState::Stable,
            Ok(v1::GroupState::Unspecified) | Err(_) => GroupState::Unknown,
        }
    }
}

/// One group in short.
#[derive(Clone, Debug)]
pub struct GroupSummary {
    /// Its name.
    pub group: String,
    /// Its state.
    pub state: GroupState,
    /// Members.
    pub member_count: u32,
    /// Records not read yet, over all partitions.
    pub lag: u64,
}

impl GroupSummary {
    pub(super) fn from_wire(wire: v1::GroupSummary) -> GroupSummary {
        GroupSummary {
            state: GroupState::from_wire(wire.state),
            group: wire.group,
            member_count: wire.member_count,
            lag: wire.lag,
        }
    }
}

/// One group in detail.
#[derive(Clone, Debug)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// Its state.
    pub state: GroupState,
    /// Rises with every change of members, subscriptions or partitions.
    pub group_epoch: i32,
    /// Name of the assignor.
    pub assignor: String,
    /// Node that coordinates the group.
    pub coordinator_node_id: u32,
    /// Its members.
    pub members: Vec<MemberDescription>,
    /// One per partition with a stored offset or an owner.
    pub partitions: Vec<GroupPartition>,
}

impl GroupDescription {
    pub(super) fn from_wire(wire: v1::DescribeGroupResponse) -> GroupDescription {
        GroupDescription {
            state: GroupState::from_wire(wire.state),
            group: wire.group,
            group_epoch: wire.group_epoch,
            assignor: wire.assignor,
            coordinator_node_id: wire.coordinator_node_id,
            members: wire.members.into_iter().map(MemberDescription::from_wire).collect(),
            partitions: wire.partitions.into_iter().map(GroupPartition::from_wire).collect(),
        }
    }
}

/// One member of a group.
#[derive(Clone, Debug)]
pub struct MemberDescription {
    /// Member id.
    pub member_id: String,
    /// Static name, if it has one.
    pub instance_id: Option<String>,
    /// Free text it gave.
    pub client_id: String,
    /// Address it connects from.
    pub host: String,
    /// Its epoch.
    pub member_epoch: i32,
    /// Topics it wants.
    pub subscription: Vec<String>,
    /// Partitions it holds.
    pub assignment: Vec<TopicPartition>,
    /// Partitions it shall hold once others let go.
    pub target: Vec<TopicPartition>,
}

impl MemberDescription {
    fn from_wire(wire: v1::MemberDescription) -> MemberDescription {
        let partitions = |list: Vec<v1::TopicPartition>| {
            list.into_iter().map(|one| TopicPartition::new(one.topic, one.partition)).collect()
        };
        MemberDescription {
            member_id: wire.member_id,
            instance_id: wire.instance_id,
            client_id: wire.client_id,
            host: wire.host,
            member_epoch: wire.member_epoch,
            subscription: wire.subscription,
            assignment: partitions(wire.assignment),
            target: partitions(wire.target),
        }
    }
}

/// One partition as a group sees it.
#[derive(Clone, Debug)]
pub struct GroupPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// Next offset to read, when one is stored.
    pub committed: Option<Offset>,
    /// First offset kept.
    pub log_start: Offset,
    /// First offset not visible yet.
    pub high_watermark: Offset,
    /// Records not read yet.
    pub lag: u64,
    /// Age of the oldest record not read yet; zero when there is none.
    pub lag_time: Duration,
    /// Member that owns the partition, if one does.
    pub member_id: Option<String>,
    /// The reader's note.
    pub metadata: String,
    /// Why lag could not be found, when it could not.
    pub error: Option<Error>,
}

impl GroupPartition {
    fn from_wire(wire: v1::GroupPartition) -> GroupPartition {
        GroupPartition {
            partition: TopicPartition::new(wire.topic, wire.partition),
            committed: wire.committed_offset.map(Offset),
            log_start: Offset(wire.log_start_offset),
            high_watermark: Offset(wire.high_watermark),
            lag: wire.lag,
            lag_time: Duration::from_millis(wire.lag_ms),
            member_id: Some(wire.member_id).filter(|member| !member.is_empty()),
            metadata: wire.metadata,
            error: wire.error.as_ref().map(Error::from_wire),
        }
    }
}

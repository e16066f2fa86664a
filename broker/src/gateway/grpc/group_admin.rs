//! The verbs of `Admin` that concern groups, on the wire.

use riverrun_proto::grpc::v1::{self, reset_offsets_request::Target};
use tonic::{Request, Response, Status};

use super::{
    group::{GroupGateway, wire_partition},
    status::{Describe, status},
};
use crate::{
    group::event::Phase,
    service::{
        group_admin::{GroupDescription, Lag, MemberDescription, PartitionDescription},
        reset::{OffsetMoved, ResetRequest, ResetTarget},
    },
    topic::error::InvalidField,
};

impl GroupGateway {
    pub(super) async fn list_groups(
        &self,
        _request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let groups = self.service.list().into_iter().map(|summary| v1::GroupSummary {
            group: summary.group.to_string(),
            state: wire_state(summary.phase) as i32,
            member_count: u32::try_from(summary.member_count).unwrap_or(u32::MAX),
            lag: summary.lag,
        });
        Ok(Response::new(v1::ListGroupsResponse { groups: groups.collect() }))
    }

    pub(super) async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        let described = self.service.describe(&request.into_inner().group).await;
        let described = described.map_err(|error| status(&error))?;
        Ok(Response::new(wire_description(described, self.node_id)))
    }

    pub(super) async fn reset_offsets(
        &self,
        request: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        let request = reset_request(request.into_inner()).map_err(|error| status(&error))?;
        let moved = self.service.reset(request).await.map_err(|error| status(&error))?;
        let resets = moved.into_iter().map(wire_reset).collect();
        Ok(Response::new(v1::ResetOffsetsResponse { resets }))
    }

    pub(super) async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let deleted = self.service.delete(&request.into_inner().group).await;
        deleted.map_err(|error| status(&error))?;
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }
}

fn wire_state(phase: Phase) -> v1::GroupState {
    match phase {
        Phase::Empty => v1::GroupState::Empty,
        Phase::Reconciling => v1::GroupState::Reconciling,
        Phase::Stable => v1::GroupState::Stable,
    }
}

fn wire_description(described: GroupDescription, node_id: u32) -> v1::DescribeGroupResponse {
    v1::DescribeGroupResponse {
        group: described.group.to_string(),
        state: wire_state(described.phase) as i32,
        group_epoch: described.epoch,
        assignor: described.assignor.to_owned(),
        coordinator_node_id: node_id,
        members: described.members.into_iter().map(wire_member).collect(),
        partitions: described.partitions.into_iter().map(wire_group_partition).collect(),
    }
}

fn wire_member(described: MemberDescription) -> v1::MemberDescription {
    let MemberDescription { member, owned, target } = described;
    let profile = &member.profile;
    v1::MemberDescription {
        member_id: member.id.to_string(),
        instance_id: profile.instance_id.as_deref().map(str::to_owned),
        client_id: profile.client_id.to_string(),
        host: profile.host.to_string(),
        member_epoch: member.epoch,
        subscription: profile.subscription.iter().map(ToString::to_string).collect(),
        assignment: owned.into_iter().map(wire_partition).collect(),
        target: target.into_iter().map(wire_partition).collect(),
    }
}

fn wire_group_partition(described: PartitionDescription) -> v1::GroupPartition {
    let PartitionDescription { topic, partition, stored, owner, lag } = described;
    let (lag, error) = match lag {
        Ok(lag) => (lag, None),
        Err(error) => (Lag::default(), Some(error.describe())),
    };
    v1::GroupPartition {
        topic: topic.to_string(),
        partition,
        committed_offset: stored.as_ref().map(|stored| stored.offset.0),
        log_start_offset: lag.log_start.0,
        high_watermark: lag.high_watermark.0,
        lag: lag.records,
        lag_ms: lag.age_ms,
        member_id: owner.map_or_else(String::new, |owner| owner.to_string()),
        metadata: stored.map_or_else(String::new, |stored| stored.metadata.into()),
        error,
    }
}

pub(super) fn reset_request(wire: v1::ResetOffsetsRequest) -> Result<ResetRequest, InvalidField> {
    let target = match wire.target {
        Some(Target::Earliest(_)) => ResetTarget::Earliest,
        Some(Target::Latest(_)) => ResetTarget::Latest,
        Some(Target::TimestampMs(time_ms)) => ResetTarget::TimestampMs(time_ms),
        Some(Target::DurationMs(age_ms)) => ResetTarget::DurationMs(age_ms),
        Some(Target::ShiftBy(count)) => ResetTarget::ShiftBy(count),
        Some(Target::Offset(offset)) => ResetTarget::Offset(offset),
        Some(Target::FromGroup(group)) => ResetTarget::FromGroup(group),
        None => {
            let expected = "a place to move offsets to".to_owned();
            return Err(InvalidField { field: "target", expected, found: "nothing".to_owned() });
        }
    };
    let partitions = wire.partitions.into_iter().map(|one| (one.topic, one.partition)).collect();
    let v1::ResetOffsetsRequest { group, topics, dry_run, .. } = wire;
    Ok(ResetRequest { group, partitions, topics, target, dry_run })
}

fn wire_reset(moved: OffsetMoved) -> v1::OffsetReset {
    let OffsetMoved { topic, partition, from, to } = moved;
    let wire = v1::OffsetReset {
        topic: topic.to_string(),
        partition,
        from_offset: from.map(|offset| offset.0),
        ..v1::OffsetReset::default()
    };
    match to {
        Ok((to, lag)) => v1::OffsetReset { to_offset: to.0, lag, ..wire },
        Err(error) => v1::OffsetReset { error: Some(error.describe()), ..wire },
    }
}

//! The `Group` service on the wire. What of `Admin` concerns groups stands in `group_admin.rs`.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_proto::{
    TopicId, TopicPartition,
    grpc::v1::{self, group_server::Group, start_position::Position},
};
use tonic::{Request, Response, Status};

use super::{
    connection::Caller,
    patience,
    status::{Describe, status},
};
use crate::{
    group::coordinator::Answer,
    offset::{StartPolicy, StoredOffset},
    service::{
        GroupService,
        commit::{GroupCaller, OffsetToCommit},
        group::HeartbeatRequest,
        offsets::OffsetFound,
    },
    shutdown::ShutdownWatch,
    topic::error::InvalidField,
};

/// Translates for [`GroupService`].
#[derive(Clone, Debug)]
pub(super) struct GroupGateway {
    pub(super) service: Arc<GroupService>,
    /// The node that coordinates every group: this one.
    pub(super) node_id: u32,
    pub(super) shutdown: ShutdownWatch,
}

#[tonic::async_trait]
impl Group for GroupGateway {
    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let caller = request.extensions().get::<Caller>();
        let host = caller.map(|caller| caller.address.ip().to_string()).unwrap_or_default();
        let max_wait_ms = patience::wait_ms(&request, request.get_ref().max_wait_ms);
        let request = v1::HeartbeatRequest { max_wait_ms, ..request.into_inner() };
        let request = heartbeat_request(request, host);
        let member_id = request.member_id.clone();
        tokio::select! {
            biased;
            answer = self.service.heartbeat(request) => {
                let answer = answer.map_err(|error| status(&error))?;
                Ok(Response::new(heartbeat_response(member_id, answer)))
            }
            () = self.shutdown.begun() => Err(status(&crate::offset::StoreError::Closed)),
        }
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        let v1::CommitOffsetsRequest { member, offsets } = request.into_inner();
        let member = caller(member.unwrap_or_default());
        let named: Vec<(String, u32)> =
            offsets.iter().map(|one| (one.topic.clone(), one.partition)).collect();
        let offsets = offsets.into_iter().map(offset_to_commit).collect();
        let results = self.service.commit(&member, offsets).await;
        let results = results.map_err(|error| status(&error))?;
        let results = named.into_iter().zip(results).map(|((topic, partition), result)| {
            let error = result.err().map(|error| error.describe());
            v1::OffsetCommitResult { topic, partition, error }
        });
        Ok(Response::new(v1::CommitOffsetsResponse { results: results.collect() }))
    }

    async fn get_offsets(
        &self,
        request: Request<v1::GetOffsetsRequest>,
    ) -> Result<Response<v1::GetOffsetsResponse>, Status> {
        let v1::GetOffsetsRequest { group, partitions, member } = request.into_inner();
        let partitions = partitions.into_iter().map(|one| (one.topic, one.partition)).collect();
        let member = member.map(caller);
        if let Some(member) = &member
            && member.group != group
        {
            let (expected, found) =
                (format!("the `group` of the member, `{}`", member.group), group);
            return Err(status(&InvalidField { field: "group", expected, found }));
        }
        let found = self.service.offsets(&group, partitions, member.as_ref()).await;
        let found = found.map_err(|error| status(&error))?;
        let offsets = found.into_iter().map(stored_offset).collect();
        Ok(Response::new(v1::GetOffsetsResponse { offsets }))
    }
}

pub(super) fn heartbeat_request(wire: v1::HeartbeatRequest, host: String) -> HeartbeatRequest {
    let owned = |list: v1::PartitionList| list.partitions.into_iter().map(named).collect();
    HeartbeatRequest {
        group: wire.group,
        member_id: wire.member_id,
        member_epoch: wire.member_epoch,
        instance_id: wire.instance_id,
        client_id: wire.client_id,
        host,
        subscription: wire.subscription.map(|list| list.topics),
        owned: wire.owned.map(owned),
        rebalance_timeout_ms: wire.rebalance_timeout_ms,
        session_timeout_ms: wire.session_timeout_ms,
        max_wait_ms: wire.max_wait_ms,
        start: wire.start.map(start_policy).unwrap_or_default(),
        assignor: wire.assignor,
    }
}

fn named(wire: v1::TopicPartition) -> TopicPartition {
    TopicPartition::new(wire.topic, wire.partition)
}

pub(super) fn wire_partition(named: TopicPartition) -> v1::TopicPartition {
    v1::TopicPartition { topic: named.topic.to_string(), partition: named.partition.0 }
}

fn start_policy(wire: v1::StartPosition) -> StartPolicy {
    match wire.position {
        None | Some(Position::Earliest(_)) => StartPolicy::Earliest,
        Some(Position::Latest(_)) => StartPolicy::Latest,
        Some(Position::TimestampMs(time_ms)) => StartPolicy::TimestampMs(time_ms),
        Some(Position::Fail(_)) => StartPolicy::Fail,
    }
}

fn heartbeat_response(member_id: String, answer: Answer) -> v1::HeartbeatResponse {
    let Answer { member_epoch, heartbeat_interval, assignment, topics, reset, group_epoch } =
        answer;
    let identity = |(topic, id): (Arc<str>, TopicId)| v1::TopicIdentity {
        topic: topic.to_string(),
        topic_id: Bytes::copy_from_slice(id.0.as_bytes()),
    };
    let list = |partitions: Vec<TopicPartition>| v1::PartitionList {
        partitions: partitions.into_iter().map(wire_partition).collect(),
    };
    v1::HeartbeatResponse {
        member_id,
        member_epoch,
        heartbeat_interval_ms: u32::try_from(heartbeat_interval.as_millis()).unwrap_or(u32::MAX),
        assignment: assignment.map(list),
        group_epoch,
        reset: (!reset.is_empty()).then(|| list(reset)),
        topics: topics.into_iter().map(identity).collect(),
    }
}

pub(super) fn caller(wire: v1::GroupMember) -> GroupCaller {
    let v1::GroupMember { group, member_id, member_epoch } = wire;
    GroupCaller { group, member_id, member_epoch }
}

pub(super) fn offset_to_commit(wire: v1::OffsetCommit) -> OffsetToCommit {
    OffsetToCommit {
        topic: wire.topic,
        partition: wire.partition,
        offset: wire.offset,
        leader_epoch: wire.leader_epoch,
        metadata: wire.metadata,
        expected_offset: wire.expected_offset,
    }
}

fn stored_offset(found: OffsetFound) -> v1::StoredOffset {
    let OffsetFound { topic, partition, stored } = found;
    let topic = topic.to_string();
    let wire = v1::StoredOffset { topic, partition, ..v1::StoredOffset::default() };
    match stored {
        Ok(Some(StoredOffset { offset, leader_epoch, metadata, commit_time_ms, member_id: _ })) => {
            v1::StoredOffset {
                offset: Some(offset.0),
                leader_epoch: leader_epoch.map(|epoch| epoch.0),
                metadata: metadata.into(),
                commit_time_ms,
                ..wire
            }
        }
        Ok(None) => wire,
        Err(error) => v1::StoredOffset { error: Some(error.describe()), ..wire },
    }
}

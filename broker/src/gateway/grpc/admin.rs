//! The `Admin` service on the wire. What concerns groups is passed on to `group.rs`.

use std::sync::Arc;

use riverrun_proto::{
    Offset,
    grpc::v1::{self, admin_server::Admin},
};
use tonic::{Request, Response, Status};

use super::{
    convert::{new_topic, partition_description, topic_change, topic_metadata},
    group::GroupGateway,
    status::{Describe, status},
};
use crate::service::AdminService;

/// Translates for [`AdminService`].
#[derive(Clone, Debug)]
pub(super) struct AdminGateway {
    pub(super) service: Arc<AdminService>,
    pub(super) groups: GroupGateway,
}

impl AdminGateway {
    fn metadata(&self, topic: &crate::topic::Topic) -> v1::TopicMetadata {
        topic_metadata(topic, self.service.cluster().node_id)
    }

    /// Adds the partitions up to `count` that a change would make and that was only checked.
    fn add_partitions(&self, metadata: &mut v1::TopicMetadata, count: u32) {
        let leader_node_id = self.service.cluster().node_id;
        let made = metadata.partitions.len();
        let added = (0..count).skip(made).map(|partition| v1::PartitionMetadata {
            partition,
            leader_node_id,
            leader_epoch: 0,
        });
        metadata.partitions.extend(added);
    }

    fn metadata_or_error(&self, name: String) -> v1::TopicMetadata {
        match self.service.topic(&name) {
            Ok(topic) => self.metadata(&topic),
            Err(error) => {
                let error = Some(error.describe());
                v1::TopicMetadata { topic: name, error, ..v1::TopicMetadata::default() }
            }
        }
    }
}

#[tonic::async_trait]
impl Admin for AdminGateway {
    async fn get_metadata(
        &self,
        request: Request<v1::GetMetadataRequest>,
    ) -> Result<Response<v1::GetMetadataResponse>, Status> {
        let names = request.into_inner().topics;
        let topics = if names.is_empty() {
            self.service.topics().iter().map(|topic| self.metadata(topic)).collect()
        } else {
            names.into_iter().map(|name| self.metadata_or_error(name)).collect()
        };
        let cluster = self.service.cluster();
        Ok(Response::new(v1::GetMetadataResponse {
            cluster_id: bytes::Bytes::copy_from_slice(cluster.cluster_id.as_bytes()),
            // One node: the address already used reaches it.
            nodes: vec![v1::Node { node_id: cluster.node_id, address: String::new() }],
            topics,
            version: env!("CARGO_PKG_VERSION").into(),
        }))
    }

    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let new = new_topic(request.into_inner());
        let partition_count = new.partition_count.max(1);
        let topic = self.service.create_topic(new).await.map_err(|error| status(&error))?;
        let mut metadata = self.metadata(&topic);
        if metadata.partitions.is_empty() {
            // Only checked.
            self.add_partitions(&mut metadata, partition_count);
            metadata.topic_id = bytes::Bytes::new();
        }
        Ok(Response::new(v1::CreateTopicResponse { topic: Some(metadata) }))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let change = topic_change(request.into_inner());
        let partition_count = change.partition_count;
        let topic = self.service.alter_topic(change).await.map_err(|error| status(&error))?;
        let mut metadata = self.metadata(&topic);
        self.add_partitions(&mut metadata, partition_count);
        Ok(Response::new(v1::AlterTopicResponse { topic: Some(metadata) }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let v1::DeleteTopicRequest { topic, topic_id } = request.into_inner();
        let deleted = self.service.delete_topic(topic, topic_id.to_vec()).await;
        deleted.map_err(|error| status(&error))?;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let topic =
            self.service.topic(&request.into_inner().topic).map_err(|error| status(&error))?;
        let described = (0..).zip(&topic.partitions);
        Ok(Response::new(v1::DescribeTopicResponse {
            topic: Some(self.metadata(&topic)),
            partitions: described
                .map(|(number, slot)| partition_description(number, slot))
                .collect(),
        }))
    }

    async fn delete_records(
        &self,
        request: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        let v1::DeleteRecordsRequest { topic, partition, before_offset } = request.into_inner();
        let deleted = self.service.delete_records(&topic, partition, Offset(before_offset)).await;
        let log_start = deleted.map_err(|error| status(&error))?;
        Ok(Response::new(v1::DeleteRecordsResponse { log_start_offset: log_start.0 }))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        self.groups.list_groups(request).await
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        self.groups.describe_group(request).await
    }

    async fn reset_offsets(
        &self,
        request: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        self.groups.reset_offsets(request).await
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        self.groups.delete_group(request).await
    }
}

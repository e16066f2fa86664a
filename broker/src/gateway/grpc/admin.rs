//! The `Admin` service on the wire. What concerns groups is passed on to `group.rs`.

use std::sync::Arc;

use riverrun_proto::{
    Offset,
    grpc::v1::{self, admin_server::Admin},
};
use tonic::{Request, Response, Status};

use super::{
    connection::Caller,
    convert::{new_topic, partition_description, topic_change, topic_metadata},
    group::GroupGateway,
    reply::{FREE_BYTES, Paid},
    status::{Describe, status},
};
use crate::{
    service::{AdminService, admin::NamedTopic},
    topic::Topic,
};

/// Bytes that metadata of a topic takes beside its name and its partitions, as it is made and as it is encoded.
const TOPIC_BYTES: usize = size_of::<v1::TopicMetadata>() + 256;
/// A text is there twice, as it is made and as it is encoded.
const COPIES: usize = 2;
/// Bytes that it takes for a partition, likewise.
const PARTITION_BYTES: usize = size_of::<v1::PartitionMetadata>() + 20;

/// Translates for [`AdminService`].
#[derive(Clone, Debug)]
pub(super) struct AdminGateway {
    pub(super) service: Arc<AdminService>,
    pub(super) groups: GroupGateway,
}

impl AdminGateway {
    fn metadata(&self, topic: &Topic) -> v1::TopicMetadata {
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

    fn metadata_or_error(&self, (found, name): NamedTopic) -> v1::TopicMetadata {
        match found {
            Ok(topic) => self.metadata(&topic),
            Err(error) => {
                let error = Some(error.describe());
                v1::TopicMetadata { topic: name, error, ..v1::TopicMetadata::default() }
            }
        }
    }
}

/// Bytes that metadata of these topics takes at most while it is made, encoded and sent.
fn metadata_bytes(topics: &[NamedTopic]) -> usize {
    let bytes = |(found, name): &NamedTopic| {
        let rest = match found {
            Ok(topic) => PARTITION_BYTES * topic.partitions.len(),
            Err(error) => COPIES * error.to_string().len(),
        };
        TOPIC_BYTES + COPIES * name.len() + rest
    };
    topics.iter().map(bytes).sum()
}

#[tonic::async_trait]
impl Admin for AdminGateway {
    async fn get_metadata(
        &self,
        request: Request<v1::GetMetadataRequest>,
    ) -> Result<Response<v1::GetMetadataResponse>, Status> {
        let room = request.extensions().get::<Caller>().expect("set for every connection");
        let room = room.replies.clone();
        let names = request.into_inner().topics;
        let topics = if names.is_empty() {
            let name = |topic: Arc<Topic>| (Ok(topic.clone()), topic.name.to_string());
            self.service.topics().into_iter().map(name).collect()
        } else {
            self.service.named_topics(names).map_err(|error| status(&error))?
        };
        let bytes = metadata_bytes(&topics);
        let share = match bytes > FREE_BYTES {
            true => Some(room.try_take(bytes).map_err(|error| status(&error))?),
            false => None,
        };
        let topics = topics.into_iter().map(|topic| self.metadata_or_error(topic)).collect();
        let cluster = self.service.cluster();
        let mut response = Response::new(v1::GetMetadataResponse {
            cluster_id: bytes::Bytes::copy_from_slice(cluster.cluster_id.as_bytes()),
            // One node: the address already used reaches it.
            nodes: vec![v1::Node { node_id: cluster.node_id, address: String::new() }],
            topics,
            version: env!("CARGO_PKG_VERSION").into(),
        });
        response.extensions_mut().insert(Paid::ahead(share.into_iter().collect()));
        Ok(response)
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

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::topic::error::UnknownTopicOrPartition;

    #[test]
    fn what_is_counted_for_a_topic_is_what_its_metadata_takes() {
        let full = v1::TopicConfig {
            durability: Some(3),
            flush_interval_ms: Some(u32::MAX),
            retention_ms: Some(-1),
            retention_bytes: Some(-1),
            segment_bytes: Some(u64::MAX),
            segment_ms: Some(u64::MAX),
            message_bytes_max: Some(u32::MAX),
            cleanup_policy: Some(3),
            tombstone_retention_ms: Some(u64::MAX),
            compaction_lag_ms: Some(u64::MAX),
        };
        let partition = v1::PartitionMetadata {
            partition: u32::MAX,
            leader_node_id: u32::MAX,
            leader_epoch: u32::MAX,
        };
        let topic = v1::TopicMetadata {
            topic_id: vec![7; 16].into(),
            config: Some(full),
            overrides: Some(full),
            ..v1::TopicMetadata::default()
        };
        let made = size_of_val(&topic);
        // Tag and length of the message around it.
        assert!(made + topic.encoded_len() + 5 <= TOPIC_BYTES, "{}", topic.encoded_len());
        let of_two = v1::TopicMetadata { partitions: vec![partition; 2], ..topic.clone() };
        let of_one = v1::TopicMetadata { partitions: vec![partition; 1], ..topic };
        let one_more = of_two.encoded_len() - of_one.encoded_len() + size_of_val(&partition);
        assert!(one_more <= PARTITION_BYTES, "{one_more}");

        let name = "\u{1}".repeat(300);
        let error = UnknownTopicOrPartition::Topic { topic: name.clone() };
        let described = error.describe();
        let absent = v1::TopicMetadata {
            topic: name.clone(),
            error: Some(described.clone()),
            ..v1::TopicMetadata::default()
        };
        let takes = made + name.len() + described.message.len() + absent.encoded_len() + 5;
        assert!(takes <= metadata_bytes(&[(Err(error), name)]), "{takes}");
    }
}

//! The `Group` service on the wire, and the verbs of `Admin` that concern groups.

use riverrun_proto::grpc::v1::{self, group_server::Group};
use tonic::{Request, Response, Status};

/// Translates for the group services.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupGateway {}

fn not_here() -> Status {
    Status::unimplemented("consumer groups are not served by this build")
}

impl GroupGateway {
    pub(super) async fn list_groups(
        &self,
        _request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Err(not_here())
    }

    pub(super) async fn describe_group(
        &self,
        _request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        Err(not_here())
    }

    pub(super) async fn reset_offsets(
        &self,
        _request: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        Err(not_here())
    }

    pub(super) async fn delete_group(
        &self,
        _request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        Err(not_here())
    }
}

#[tonic::async_trait]
impl Group for GroupGateway {
    async fn heartbeat(
        &self,
        _request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        Err(not_here())
    }

    async fn commit_offsets(
        &self,
        _request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        Err(not_here())
    }

    async fn get_offsets(
        &self,
        _request: Request<v1::GetOffsetsRequest>,
    ) -> Result<Response<v1::GetOffsetsResponse>, Status> {
        Err(not_here())
    }
}

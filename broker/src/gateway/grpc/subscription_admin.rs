//! The `Subscriptions` service on the wire.

use std::sync::Arc;

use riverrun_proto::grpc::v1::{
    self, seek_subscription_request::To, subscriptions_server::Subscriptions,
};
use tonic::{Request, Response, Status};

use super::{
    push_convert::{description, listing, peeked, spec},
    reason_convert::explanation,
    status::{Describe, status},
};
use crate::{
    service::{
        DeliveryService,
        delivery::{
            PushError,
            create::Start,
            redrive::{RedriveRequest, Redriven},
            seek::{Moved, SeekRequest},
        },
    },
    topic::error::InvalidField,
};

/// Translates for [`DeliveryService`].
#[derive(Clone, Debug)]
pub(super) struct SubscriptionsGateway {
    pub(super) service: Arc<DeliveryService>,
}

fn refused(error: PushError) -> Status {
    status(&error)
}

#[tonic::async_trait]
impl Subscriptions for SubscriptionsGateway {
    async fn create_subscription(
        &self,
        request: Request<v1::CreateSubscriptionRequest>,
    ) -> Result<Response<v1::CreateSubscriptionResponse>, Status> {
        let v1::CreateSubscriptionRequest { subscription, spec: given } = request.into_inner();
        let given = spec(given.unwrap_or_default()).map_err(refused)?;
        let created = self.service.create(&subscription, given).await.map_err(refused)?;
        Ok(Response::new(v1::CreateSubscriptionResponse { created }))
    }

    async fn alter_subscription(
        &self,
        request: Request<v1::AlterSubscriptionRequest>,
    ) -> Result<Response<v1::AlterSubscriptionResponse>, Status> {
        let v1::AlterSubscriptionRequest { subscription, settings, add_topics } =
            request.into_inner();
        let settings = settings.unwrap_or_default();
        self.service.alter(&subscription, settings, add_topics).await.map_err(refused)?;
        Ok(Response::new(v1::AlterSubscriptionResponse {}))
    }

    async fn delete_subscription(
        &self,
        request: Request<v1::DeleteSubscriptionRequest>,
    ) -> Result<Response<v1::DeleteSubscriptionResponse>, Status> {
        let v1::DeleteSubscriptionRequest { subscription, force } = request.into_inner();
        self.service.delete(&subscription, force).await.map_err(refused)?;
        Ok(Response::new(v1::DeleteSubscriptionResponse {}))
    }

    async fn list_subscriptions(
        &self,
        _request: Request<v1::ListSubscriptionsRequest>,
    ) -> Result<Response<v1::ListSubscriptionsResponse>, Status> {
        let subscriptions = self.service.list().into_iter().map(listing).collect();
        Ok(Response::new(v1::ListSubscriptionsResponse { subscriptions }))
    }

    async fn describe_subscription(
        &self,
        request: Request<v1::DescribeSubscriptionRequest>,
    ) -> Result<Response<v1::DescribeSubscriptionResponse>, Status> {
        let name = request.into_inner().subscription;
        let described = self.service.describe(&name).await.map_err(refused)?;
        Ok(Response::new(description(described)))
    }

    async fn seek_subscription(
        &self,
        request: Request<v1::SeekSubscriptionRequest>,
    ) -> Result<Response<v1::SeekSubscriptionResponse>, Status> {
        let request = seek_request(request.into_inner()).map_err(refused)?;
        let moved = self.service.seek(request).await.map_err(refused)?;
        let partitions = moved.into_iter().map(seek_result).collect();
        Ok(Response::new(v1::SeekSubscriptionResponse { partitions }))
    }

    async fn pause_subscription(
        &self,
        request: Request<v1::PauseSubscriptionRequest>,
    ) -> Result<Response<v1::PauseSubscriptionResponse>, Status> {
        let name = request.into_inner().subscription;
        self.service.pause(&name, true).await.map_err(refused)?;
        Ok(Response::new(v1::PauseSubscriptionResponse {}))
    }

    async fn resume_subscription(
        &self,
        request: Request<v1::ResumeSubscriptionRequest>,
    ) -> Result<Response<v1::ResumeSubscriptionResponse>, Status> {
        let name = request.into_inner().subscription;
        self.service.pause(&name, false).await.map_err(refused)?;
        Ok(Response::new(v1::ResumeSubscriptionResponse {}))
    }

    async fn explain_subscription(
        &self,
        request: Request<v1::ExplainSubscriptionRequest>,
    ) -> Result<Response<v1::ExplainSubscriptionResponse>, Status> {
        let name = request.into_inner().subscription;
        let explained = self.service.explain(&name).await.map_err(refused)?;
        let partitions = explained.into_iter().map(explanation).collect();
        Ok(Response::new(v1::ExplainSubscriptionResponse { partitions }))
    }

    async fn peek_subscription(
        &self,
        request: Request<v1::PeekSubscriptionRequest>,
    ) -> Result<Response<v1::PeekSubscriptionResponse>, Status> {
        let v1::PeekSubscriptionRequest { subscription, max_records } = request.into_inner();
        let records = self.service.peek(&subscription, max_records as usize).await;
        let records = records.map_err(refused)?.into_iter().map(peeked).collect();
        Ok(Response::new(v1::PeekSubscriptionResponse { records }))
    }

    async fn redrive(
        &self,
        request: Request<v1::RedriveRequest>,
    ) -> Result<Response<v1::RedriveResponse>, Status> {
        let wire = request.into_inner();
        let request = RedriveRequest {
            subscription: wire.subscription,
            key: wire.key,
            from_ms: wire.from_ms,
            until_ms: wire.until_ms,
            to_topic: wire.to_topic,
            records_max: wire.max_records,
            dry_run: wire.dry_run,
        };
        let Redriven { matched, redriven, failed, error } =
            self.service.redrive(request).await.map_err(refused)?;
        let error = error.map(|error| error.describe());
        Ok(Response::new(v1::RedriveResponse { matched, redriven, failed, error }))
    }

    async fn cancel_scheduled(
        &self,
        request: Request<v1::CancelScheduledRequest>,
    ) -> Result<Response<v1::CancelScheduledResponse>, Status> {
        let v1::CancelScheduledRequest { topic, partition, offset } = request.into_inner();
        let cancelled = self.service.cancel_scheduled((&topic, partition), offset).await;
        let cancelled = cancelled.map_err(refused)?;
        Ok(Response::new(v1::CancelScheduledResponse { cancelled }))
    }
}

pub(super) fn seek_request(wire: v1::SeekSubscriptionRequest) -> Result<SeekRequest, PushError> {
    let to = match wire.to {
        Some(To::Earliest(_)) => Start::Earliest,
        Some(To::Latest(_)) => Start::Latest,
        Some(To::TimestampMs(time_ms)) => Start::TimestampMs(time_ms),
        Some(To::Offset(offset)) => Start::Offset(offset),
        None => {
            let expected = "earliest, latest, timestamp_ms or offset".into();
            return Err(InvalidField { field: "to", expected, found: "nothing".into() }.into());
        }
    };
    let partitions = wire.partitions.into_iter().map(|one| (one.topic, one.partition)).collect();
    Ok(SeekRequest {
        subscription: wire.subscription,
        partitions,
        to,
        dry_run: wire.dry_run,
        advance: wire.advance,
    })
}

fn seek_result(moved: Moved) -> v1::SeekResult {
    let Moved { place, from, to, error } = moved;
    v1::SeekResult {
        topic: place.topic.to_string(),
        partition: place.partition,
        from_offset: from,
        to_offset: to,
        error: error.map(|error| error.describe()),
    }
}

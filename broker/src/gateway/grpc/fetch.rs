//! The `Fetch` service on the wire.

mod pipeline;
mod singly;

use std::{pin::Pin, sync::Arc};

use futures_core::Stream;
use futures_util::StreamExt;
use riverrun_proto::grpc::v1::{self, fetch_server::Fetch};
use tonic::{Request, Response, Status, Streaming};

use self::singly::Singly;
use super::{
    connection::Caller,
    convert::{fetch_request, fetched_partition, offset_query, partition_state, watch_targets},
    patience,
    reply::Paid,
    status::{Describe, status},
    traced,
};
use crate::{
    metrics::Refusals,
    service::{FetchService, LookupService, WatchService, fetch::Fetched},
    shutdown::ShutdownWatch,
};

/// Translates for [`FetchService`], [`WatchService`] and [`LookupService`].
#[derive(Clone, Debug)]
pub(super) struct FetchGateway {
    pub(super) fetch: Arc<FetchService>,
    pub(super) watch: Arc<WatchService>,
    pub(super) lookup: Arc<LookupService>,
    pub(super) shutdown: ShutdownWatch,
    pub(super) refusals: Arc<Refusals>,
}

#[tonic::async_trait]
impl Fetch for FetchGateway {
    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        let caller = request.extensions().get::<Caller>().expect("set for every connection");
        let room = caller.replies.clone();
        let notes = traced::notes(&request);
        let max_wait_ms = patience::wait_ms(&request, request.get_ref().max_wait_ms);
        let request = v1::FetchRequest { max_wait_ms, ..request.into_inner() };
        let request = fetch_request(request).map_err(|error| status(&error))?;
        let fetched = self.fetch.fetch(request, &room).await.map_err(|error| status(&error))?;
        let answer = answer(fetched.partitions, &self.refusals);
        if let Some(notes) = notes {
            traced::note_fetched(&notes, &answer);
        }
        let mut response = Response::new(answer);
        response.extensions_mut().insert(Paid::whole(fetched.shares));
        Ok(response)
    }

    type FetchPipelineStream =
        Pin<Box<dyn Stream<Item = Result<v1::FetchResponse, Status>> + Send>>;

    async fn fetch_pipeline(
        &self,
        request: Request<Streaming<v1::FetchPipelineRequest>>,
    ) -> Result<Response<Self::FetchPipelineStream>, Status> {
        let caller = request.extensions().get::<Caller>().expect("set for every connection");
        let (room, paid) = (caller.replies.clone(), Paid::whole(Vec::new()));
        let services = (self.fetch.clone(), self.refusals.clone());
        let origin = traced::origin(&request);
        let asks = (request.into_inner(), origin);
        let answers = pipeline::run(services, asks, (room, paid.clone()));
        let shutdown = self.shutdown.clone();
        let ended = Box::pin(async move { shutdown.begun().await });
        let answers = Singly::new(Box::pin(answers.take_until(ended)));
        let answers: Self::FetchPipelineStream = Box::pin(answers);
        let mut response = Response::new(answers);
        response.extensions_mut().insert(paid);
        Ok(response)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let targets = watch_targets(request.into_inner());
        let states = self.watch.watch(targets).map_err(|error| status(&error))?;
        let responses = states.map(|states| {
            let partitions = states.into_iter().map(partition_state).collect();
            Ok(v1::WatchResponse { partitions })
        });
        let shutdown = self.shutdown.clone();
        let ended = Box::pin(async move { shutdown.begun().await });
        Ok(Response::new(Box::pin(responses.take_until(ended))))
    }

    async fn lookup_offsets(
        &self,
        request: Request<v1::LookupOffsetsRequest>,
    ) -> Result<Response<v1::LookupOffsetsResponse>, Status> {
        let v1::LookupOffsetsRequest { queries } = request.into_inner();
        let parsed = queries.iter().map(offset_query).collect::<Result<Vec<_>, _>>();
        let parsed = parsed.map_err(|error| status(&error))?;
        let found = self.lookup.lookup(&parsed).await.map_err(|error| status(&error))?;
        let answers = queries.into_iter().zip(found).map(|(query, found)| {
            let v1::OffsetQuery { topic, partition, position: _ } = query;
            let answer = v1::OffsetAnswer { topic, partition, ..v1::OffsetAnswer::default() };
            match found {
                Ok(found) => v1::OffsetAnswer {
                    offset: found.offset.0,
                    timestamp_ms: found.timestamp_ms,
                    leader_epoch: found.leader_epoch.0,
                    ..answer
                },
                Err(error) => v1::OffsetAnswer { error: Some(error.describe()), ..answer },
            }
        });
        Ok(Response::new(v1::LookupOffsetsResponse { answers: answers.collect() }))
    }
}

/// An answer on the wire, its errors counted.
fn answer(fetched: Vec<Fetched>, refusals: &Refusals) -> v1::FetchResponse {
    let partitions: Vec<v1::FetchedPartition> =
        fetched.into_iter().map(fetched_partition).collect();
    for error in partitions.iter().filter_map(|one| one.error.as_ref()) {
        refusals.count(error.code);
    }
    v1::FetchResponse { partitions }
}

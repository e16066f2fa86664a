//! The `Produce` service on the wire.

pub(super) mod pipeline;

use std::sync::Arc;

use futures_core::Stream;
use riverrun_proto::grpc::v1::{self, produce_server::Produce};
use tonic::{Request, Response, Status, Streaming};

use super::{
    connection::Caller,
    convert::{append_response, produce_request},
    status::{Describe, status},
    traced,
};
use crate::{
    metrics::Refusals,
    quota::Quota,
    service::{
        ProduceService,
        produce::{Acks, ProduceError, ProduceRequest},
    },
    shutdown::ShutdownWatch,
    topic::error::InvalidField,
};

/// Translates for [`ProduceService`].
#[derive(Clone, Debug)]
pub(super) struct ProduceGateway {
    pub(super) service: Arc<ProduceService>,
    pub(super) shutdown: ShutdownWatch,
    pub(super) refusals: Arc<Refusals>,
}

/// The in-flight share of the connection that a call came by.
fn connection_quota<T>(request: &Request<T>) -> Option<Quota> {
    request.extensions().get::<Caller>().map(|caller| caller.in_flight.clone())
}

#[tonic::async_trait]
impl Produce for ProduceGateway {
    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let v1::InitProducerRequest { producer_id, producer_epoch } = request.into_inner();
        let known = match (producer_id, producer_epoch) {
            (None, None) => None,
            (Some(id), Some(epoch)) => Some((id, epoch)),
            (Some(_), None) | (None, Some(_)) => {
                return Err(status(&InvalidField {
                    field: "producer_epoch",
                    expected: "set together with `producer_id`".into(),
                    found: format!("{producer_id:?}, {producer_epoch:?}"),
                }));
            }
        };
        let identity = self.service.init_producer(known).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::InitProducerResponse {
            producer_id: identity.id.0,
            producer_epoch: i32::from(identity.epoch.0),
        }))
    }

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let connection = connection_quota(&request);
        let notes = traced::notes(&request);
        let wire = request.into_inner();
        if let Some(notes) = notes {
            traced::note_append(&notes, &wire);
        }
        let request_id = wire.request_id;
        let request = produce_request(wire).map_err(|error| status(&error))?;
        let appended = self.service.append(request, connection.as_ref()).await;
        let receipt = appended.map_err(|error| status(&error))?;
        Ok(Response::new(append_response(request_id, receipt)))
    }

    async fn append_bulk(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<v1::AppendBulkResponse>, Status> {
        let connection = connection_quota(&request);
        let notes = traced::notes(&request);
        let mut requests = request.into_inner();
        let mut bulk = Bulk::new(self.service.clone(), connection);
        let mut response = v1::AppendBulkResponse::default();
        while let Some(wire) = requests.message().await? {
            if let Some(notes) = &notes {
                traced::note_append(notes, &wire);
            }
            if let Err(error) = bulk.append(wire).await {
                response.error = Some(error);
                break;
            }
        }
        let settled = bulk.settle().await;
        (response.batch_count, response.record_count) = (bulk.batch_count, bulk.record_count);
        if let Err(error) = settled {
            // Nobody can say which of them survived.
            (response.batch_count, response.record_count) = (0, 0);
            response.error.get_or_insert(error);
        }
        if let Some(error) = &response.error {
            self.refusals.count(error.code);
        }
        Ok(Response::new(response))
    }

    type AppendPipelineStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<v1::AppendPipelineResponse, Status>> + Send>>;

    async fn append_pipeline(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendPipelineStream>, Status> {
        let caller =
            request.extensions().get::<Caller>().expect("set for every connection").clone();
        let origin = traced::origin(&request);
        let requests = request.into_inner();
        let end = self.shutdown.clone();
        let served = (self.service.clone(), self.refusals.clone());
        let replies = pipeline::run(served, (caller, origin), requests, end);
        Ok(Response::new(Box::pin(replies)))
    }
}

/// A bulk append: each batch is in the page cache before the next is sent, so that none is appended after
/// one that failed; all are flushed together at the end.
#[derive(Debug)]
struct Bulk {
    service: Arc<ProduceService>,
    connection: Option<Quota>,
    batch_count: u64,
    record_count: u64,
    /// What is to be flushed, by partition.
    unsettled: Vec<Unsettled>,
}

#[derive(Debug)]
struct Unsettled {
    request: ProduceRequest,
    end_offset: riverrun_proto::Offset,
}

impl Bulk {
    fn new(service: Arc<ProduceService>, connection: Option<Quota>) -> Bulk {
        let unsettled = Vec::new();
        Bulk { service, connection, batch_count: 0, record_count: 0, unsettled }
    }

    async fn append(
        &mut self,
        wire: v1::AppendRequest,
    ) -> Result<(), riverrun_proto::grpc::v1::Error> {
        let mut request = produce_request(wire).map_err(|error| error.describe())?;
        let place = request.without_payload();
        let acks = request.acks;
        request.acks = Acks::Leader;
        let appended = self.service.append(request, self.connection.as_ref()).await;
        let receipt = appended.map_err(|error| error.describe())?;
        self.batch_count += 1;
        if let Some(receipt) = receipt {
            self.record_count += receipt.end_offset.since(receipt.base_offset);
            if acks == Acks::All {
                self.note(place, receipt.end_offset);
            }
        }
        Ok(())
    }

    fn note(&mut self, request: ProduceRequest, end_offset: riverrun_proto::Offset) {
        let same = |known: &&mut Unsettled| {
            known.request.topic == request.topic && known.request.partition == request.partition
        };
        match self.unsettled.iter_mut().find(same) {
            Some(known) => {
                known.end_offset = known.end_offset.max(end_offset);
                known.request.durability_min =
                    known.request.durability_min.max(request.durability_min);
            }
            None => self.unsettled.push(Unsettled { request, end_offset }),
        }
    }

    async fn settle(&mut self) -> Result<(), v1::Error> {
        for Unsettled { request, end_offset } in std::mem::take(&mut self.unsettled) {
            let settled: Result<(), ProduceError> = self.service.settle(&request, end_offset).await;
            settled.map_err(|error| error.describe())?;
        }
        Ok(())
    }
}

//! The `Push` service on the wire. The stream of a session stands in `session.rs`.

use std::{pin::Pin, sync::Arc};

use futures_core::Stream;
use futures_util::TryStreamExt;
use riverrun_proto::grpc::v1::{self, push_server::Push};
use tonic::{Request, Response, Status, Streaming};

use super::{
    connection::Caller,
    metered::code_of,
    patience,
    push_convert::{delivered, format, ms, settle_item, settle_result, spec},
    reason_convert::idle_reason,
    session,
    status::status,
    traced,
};
use crate::{
    metrics::Refusals,
    service::{
        DeliveryService,
        delivery::{
            PushError,
            receive::{ReceiveRequest, Received},
        },
    },
};

/// Translates for [`DeliveryService`].
#[derive(Clone, Debug)]
pub(super) struct PushGateway {
    pub(super) service: Arc<DeliveryService>,
    pub(super) refusals: Arc<Refusals>,
}

/// Address that a call came from.
pub(super) fn host<T>(request: &Request<T>) -> String {
    let caller = request.extensions().get::<Caller>();
    caller.map(|caller| caller.address.ip().to_string()).unwrap_or_default()
}

#[tonic::async_trait]
impl Push for PushGateway {
    type SessionStream =
        Pin<Box<dyn Stream<Item = Result<v1::SessionResponse, Status>> + Send + 'static>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let host = host(&request);
        let refusals = self.refusals.clone();
        let origin = traced::origin(&request);
        let frames = session::run(self.service.clone(), request.into_inner(), (host, origin));
        let frames = frames.inspect_err(move |refused| {
            code_of(refused).into_iter().for_each(|code| refusals.count(code));
        });
        Ok(Response::new(Box::pin(frames)))
    }

    async fn receive(
        &self,
        request: Request<v1::ReceiveRequest>,
    ) -> Result<Response<v1::ReceiveResponse>, Status> {
        let host = host(&request);
        let notes = traced::notes(&request);
        let max_wait_ms = patience::wait_ms(&request, request.get_ref().max_wait_ms);
        let request = v1::ReceiveRequest { max_wait_ms, ..request.into_inner() };
        let request = receive_request(request, host);
        let request = request.map_err(|error| status(&error))?;
        let received = self.service.receive(request).await.map_err(|error| status(&error))?;
        let response = receive_response(received);
        if let Some(notes) = notes {
            traced::note_received(&notes, &response);
        }
        Ok(Response::new(response))
    }

    async fn settle(
        &self,
        request: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        let v1::SettleRequest { subscription, session_id, items, sync } = request.into_inner();
        let items = items.into_iter().map(settle_item).collect();
        let results = self.service.settle(&subscription, &session_id, (items, sync)).await;
        let results = results.map_err(|error| status(&error))?;
        let results = (0..).zip(results).map(settle_result).collect();
        Ok(Response::new(v1::SettleResponse { results }))
    }
}

pub(super) fn receive_request(
    wire: v1::ReceiveRequest,
    host: String,
) -> Result<ReceiveRequest, PushError> {
    Ok(ReceiveRequest {
        subscription: wire.subscription,
        session_id: wire.session_id,
        records_max: wire.max_records,
        bytes_max: wire.max_bytes,
        wait_ms: wire.max_wait_ms,
        format: format(wire.format)?,
        create: wire.create.map(spec).transpose()?,
        attempt: wire.attempt_id,
        host,
    })
}

fn receive_response(received: Received) -> v1::ReceiveResponse {
    let Received { session_id, epoch, deliveries, ack_wait, idle } = received;
    v1::ReceiveResponse {
        session_id: session_id.to_string(),
        session_epoch: epoch,
        deliveries: deliveries.into_iter().map(delivered).collect(),
        ack_wait_ms: ms(ack_wait),
        idle_reason: idle.map_or(0, |reason| idle_reason(&reason) as i32),
    }
}

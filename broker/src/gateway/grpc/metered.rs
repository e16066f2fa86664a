//! A service whose calls are timed, and whose refusals are counted by code.
//!
//! It sees calls that are answered at once or fail as a whole. Errors that come later in a stream, or inside replies
//! (for one batch of a pipeline, one partition of a fetch), are counted where those replies are made.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use prost::Message;
use riverrun_proto::grpc::v1;
use tonic::{
    Status,
    body::Body,
    codegen::{
        Service,
        http::{HeaderMap, Request, Response},
    },
    server::NamedService,
};

use super::{status::TRAILER, traced};
use crate::{
    clock::Clock,
    metrics::{DoorMeter, Refusals},
    traces::Traces,
};

/// What all paths begin with.
const PREFIX: &str = "/riverrun.v1.";

/// Calls that are timed, by service and method. Those that answer with a stream are not among them: they begin
/// to answer at once, whatever comes later.
pub(crate) const APIS: &[&str] = &[
    "Produce/Append",
    "Produce/AppendBulk",
    "Produce/InitProducer",
    "Fetch/Fetch",
    "Fetch/LookupOffsets",
    "Group/Heartbeat",
    "Group/CommitOffsets",
    "Group/GetOffsets",
    "Push/Receive",
    "Push/Settle",
    "Admin/GetMetadata",
    "Admin/CreateTopic",
    "Admin/AlterTopic",
    "Admin/DeleteTopic",
    "Admin/DescribeTopic",
    "Admin/DeleteRecords",
    "Admin/ListGroups",
    "Admin/DescribeGroup",
    "Admin/ResetOffsets",
    "Admin/DeleteGroup",
    "Subscriptions/CreateSubscription",
    "Subscriptions/AlterSubscription",
    "Subscriptions/DeleteSubscription",
    "Subscriptions/ListSubscriptions",
    "Subscriptions/DescribeSubscription",
    "Subscriptions/SeekSubscription",
    "Subscriptions/PauseSubscription",
    "Subscriptions/ResumeSubscription",
    "Subscriptions/ExplainSubscription",
    "Subscriptions/PeekSubscription",
    "Subscriptions/Redrive",
    "Subscriptions/CancelScheduled",
];

/// What the door measures with.
#[derive(Clone, Debug)]
pub(crate) struct Meters {
    /// Connections and times.
    pub(crate) door: Arc<DoorMeter>,
    /// Refusals by code.
    pub(crate) refusals: Arc<Refusals>,
    /// Time.
    pub(crate) clock: Clock,
    /// Where spans of calls begin.
    pub(crate) traces: Traces,
}

/// A service that is measured.
#[derive(Clone, Debug)]
pub(super) struct Metered<S> {
    service: S,
    meters: Meters,
}

impl<S> Metered<S> {
    pub(super) fn new(service: S, meters: &Meters) -> Metered<S> {
        Metered { service, meters: meters.clone() }
    }
}

impl<S: NamedService> NamedService for Metered<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (meters, began) = (self.meters.clone(), self.meters.clock.elapsed());
        let api = known(request.uri().path());
        let span = traced::begin(&meters.traces, api, &mut request);
        let call = self.service.call(request);
        Box::pin(async move {
            let response = call.await?;
            if let Some(span) = span {
                traced::end(span, response.headers());
            }
            if let Some(api) = api {
                meters.door.answered(api, meters.clock.elapsed().saturating_sub(began));
            }
            if let Some(code) = refused_with(response.headers()) {
                meters.refusals.count(code);
            }
            Ok(response)
        })
    }
}

/// The name of a call that is timed.
fn known(path: &str) -> Option<&'static str> {
    let name = path.strip_prefix(PREFIX)?;
    APIS.iter().find(|api| **api == name).copied()
}

/// The code of a call that failed as a whole with an error of ours.
pub(super) fn refused_with(headers: &HeaderMap) -> Option<i32> {
    headers.get(TRAILER)?;
    code_of(&Status::from_header_map(headers)?)
}

/// The code of our error in a failed call.
pub(super) fn code_of(status: &Status) -> Option<i32> {
    let bytes = status.metadata().get_bin(TRAILER)?.to_bytes().ok()?;
    v1::Error::decode(bytes).ok().map(|error| error.code)
}

#[cfg(test)]
mod tests {
    use riverrun_proto::grpc::DESCRIPTORS;

    use super::*;
    use crate::gateway::grpc::status::{plain, status_of};

    #[test]
    fn the_calls_named_here_exist() {
        for api in APIS {
            let (service, method) = api.split_once('/').unwrap();
            for name in [service, method] {
                let found = DESCRIPTORS.windows(name.len()).any(|bytes| bytes == name.as_bytes());
                assert!(found, "{name}");
            }
            assert_eq!(known(&format!("/riverrun.v1.{api}")), Some(*api));
        }
        assert_eq!(known("/grpc.health.v1.Health/Check"), None);
    }

    #[test]
    fn the_code_of_a_refusal_is_read_from_its_reply() {
        let refused = status_of(plain(v1::ErrorCode::DiskFull, &"no room"));
        let response: Response<Body> = refused.into_http();
        assert_eq!(refused_with(response.headers()), Some(v1::ErrorCode::DiskFull as i32));
        assert_eq!(refused_with(&HeaderMap::new()), None);
    }
}

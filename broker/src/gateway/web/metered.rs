//! Measures every request: by what route it came, what became of it, and how long that took.
//!
//! A request is named by its method and the path of its route, as the description has them, so the number of names is bounded: one that
//! leads nowhere is `other`, and `HEAD` counts as `GET`. gRPC-Web is measured where gRPC is.

use std::sync::Arc;

use axum::{
    body::HttpBody,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method},
    middleware::Next,
    response::Response,
};

use super::{WebDoor, openapi, problem::Refused};
use crate::{
    clock::Clock,
    gateway::grpc::TRACEPARENT,
    metrics::{Refusals, WebMeter},
    traces::{Door, Ended, OpenSpan, Traces},
};

/// The name of requests that no route is for.
const OTHER: &str = "other";
/// What the routes of gRPC-Web begin with.
const GRPC: &str = "/riverrun.";

/// What the door measures with.
#[derive(Clone, Debug)]
pub(crate) struct WebMeters {
    /// Requests.
    pub(crate) requests: Arc<WebMeter>,
    /// Refusals by code.
    pub(crate) refusals: Arc<Refusals>,
    /// Time.
    pub(crate) clock: Clock,
    /// Where spans of requests begin.
    pub(crate) traces: Traces,
}

/// Names of everything that can be asked.
pub(crate) fn call_names() -> Vec<String> {
    let mut names = openapi::calls();
    names.push(OTHER.to_owned());
    names
}

/// A request that is being answered, until this is dropped.
struct InFlight(Arc<WebMeter>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// Measures a request.
pub(super) async fn measure(
    State(door): State<WebDoor>,
    mut request: Request,
    next: Next,
) -> Response {
    let WebMeters { requests, refusals, clock, traces } = &door.meters;
    let Some(name) = name(&request, requests) else { return next.run(request).await };
    requests.begun();
    let span = begin(traces, &name, &mut request);
    let in_flight = InFlight(requests.clone());
    let began = clock.elapsed();
    let response = next.run(request).await;
    requests.answered(&name, response.status().as_u16(), clock.elapsed().saturating_sub(began));
    drop(in_flight);
    if let Some(Refused(code)) = response.extensions().get() {
        refusals.count(*code as i32);
    }
    if let Some(span) = span {
        end(span, &response);
    }
    response
}

/// Begins the span of a request, to which its handler may add.
fn begin(traces: &Traces, name: &str, request: &mut Request) -> Option<OpenSpan> {
    let parent = || request.headers().get(TRACEPARENT).map(HeaderValue::as_bytes);
    let span = traces.origin(Door::Web, parent)?.begin(name.to_owned())?;
    request.extensions_mut().insert(span.notes().clone());
    Some(span)
}

/// Ends it with the head of the reply: what is streamed behind it may go on for ever. Where no records came, the bytes are those of the reply.
fn end(span: OpenSpan, response: &Response) {
    if span.notes().bytes() == 0 {
        let bytes = response.body().size_hint().exact().unwrap_or(0);
        span.notes().add_bytes(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
    span.end(Ended::Http(response.status().as_u16()));
}

/// The name of a request; `None` when it is measured elsewhere.
fn name(request: &Request, known: &WebMeter) -> Option<String> {
    let Some(path) = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) else {
        return Some(OTHER.to_owned());
    };
    if path.starts_with(GRPC) {
        return None;
    }
    let method = match request.method() {
        &Method::HEAD => &Method::GET,
        method => method,
    };
    let name = format!("{method} {path}");
    Some(if known.knows(&name) { name } else { OTHER.to_owned() })
}

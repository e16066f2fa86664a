//! Measures every request: by what route it came, what became of it, and how long that took.
//!
//! A request is named by its method and the path of its route, as the description has them, so the number of names is bounded: one that
//! leads nowhere is `other`, and `HEAD` counts as `GET`. gRPC-Web is measured where gRPC is.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};

use super::{WebDoor, openapi, problem::Refused};
use crate::{
    clock::Clock,
    metrics::{Refusals, WebMeter},
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
pub(super) async fn measure(State(door): State<WebDoor>, request: Request, next: Next) -> Response {
    let WebMeters { requests, refusals, clock } = &door.meters;
    let Some(name) = name(&request, requests) else { return next.run(request).await };
    requests.begun();
    let in_flight = InFlight(requests.clone());
    let began = clock.elapsed();
    let response = next.run(request).await;
    requests.answered(&name, response.status().as_u16(), clock.elapsed().saturating_sub(began));
    drop(in_flight);
    if let Some(Refused(code)) = response.extensions().get() {
        refusals.count(*code as i32);
    }
    response
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

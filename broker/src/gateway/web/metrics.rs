//! `/metrics`: what the broker counts, as OpenMetrics text. All of it: the parameter by which some exporters choose (`name[]`) is
//! refused, as everything that a route does not know, so that nobody takes what is left out for what is not there.

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};

use super::{WebDoor, call::Call, problem::Answer};
use crate::metrics::CONTENT_TYPE;

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    let text = door.services.metrics.render().await;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

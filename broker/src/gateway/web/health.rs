//! `/healthz` and `/readyz`, for those who watch the process.
//!
//! Alive is whoever answers. Ready is the door from its first connection on, because it opens after the last log
//! was recovered, until the end is announced, the disk failed or the log of topics stopped. A parameter is refused here as everywhere: a probe that
//! asks for what is not there (`?verbose`, `?exclude=`) is told when it is set up, not believed to be obeyed.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use serde_json::json;

use super::{
    WebDoor,
    call::Call,
    problem::{Answer, Problem},
    reply,
};

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

async fn healthz(call: Call) -> Answer {
    call.finish()?;
    Ok(reply::json(&json!({"status": "alive"})))
}

async fn readyz(State(door): State<WebDoor>, call: Call) -> Answer {
    call.finish()?;
    if door.shutdown.has_begun() {
        let message = "the broker is stopping";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message));
    }
    if let Some(failure) = door.services.admin.failure() {
        return Err(failure.into());
    }
    Ok(reply::json(&json!({"status": "ready"})))
}

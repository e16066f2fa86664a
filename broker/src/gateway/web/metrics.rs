//! `/metrics`: what the broker counts, as OpenMetrics text.

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use super::WebDoor;
use crate::metrics::CONTENT_TYPE;

pub(super) fn routes() -> Router<WebDoor> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(door): State<WebDoor>) -> Response {
    let text = door.services.metrics.render().await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

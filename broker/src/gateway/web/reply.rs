//! Replies of the web door: what a handler has to say, as bytes with their media type.

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use serde_json::Value;

/// Media type of JSON.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A small reply, which is not counted.
pub(super) fn json(value: &Value) -> Response {
    typed(JSON, Bytes::from(value.to_string()))
}

fn typed(media_type: HeaderValue, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

//! CloudEvents 1.0 in binary mode: attributes in `ce-*` headers, data in the body.
//!
//! In the record they stand as the binding for Kafka has them: headers `ce_*` and `content-type`, the extension
//! `partitionkey` as key. So whoever reads CloudEvents from Kafka reads them here.

use axum::http::{StatusCode, header};
use riverrun_proto::Header;

use super::{
    call::{Call, decoded},
    problem::Problem,
};

/// Attributes that every event has.
const REQUIRED: [&str; 4] = ["id", "source", "specversion", "type"];
/// The extension that names the key.
const KEY: &str = "partitionkey";

/// What the headers of a request say about the event in it.
#[derive(Debug)]
pub(super) struct CloudEvent {
    pub(super) key: Option<String>,
    pub(super) headers: Vec<Header>,
}

/// The event of a request, if it is one.
pub(super) fn cloud_event(call: &Call) -> Result<Option<CloudEvent>, Problem> {
    let mut event = CloudEvent { key: None, headers: Vec::new() };
    let mut attributes: Vec<&str> = Vec::new();
    for (name, value) in &call.headers {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        let value = value.to_str().ok().and_then(|value| decoded(value, false));
        let Some(value) = value else {
            let expected = "percent-encoded UTF-8";
            return Err(Problem::field(name.as_str(), expected, "other bytes"));
        };
        if attributes.contains(&attribute) {
            return Err(Problem::field(name.as_str(), "given once", "it twice"));
        }
        attributes.push(attribute);
        if attribute == KEY {
            event.key = Some(value.clone());
        }
        if attribute == "specversion" && value != "1.0" {
            return Err(Problem::field(name.as_str(), "1.0", value));
        }
        event
            .headers
            .push(Header { key: format!("ce_{attribute}").into(), value: Some(value.into()) });
    }
    if attributes.is_empty() {
        return Ok(None);
    }
    if let Some(missing) = REQUIRED.iter().find(|required| !attributes.contains(required)) {
        let message = format!("header `ce-{missing}` of the event is missing");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message));
    }
    let content_type = call.header(header::CONTENT_TYPE)?;
    if !content_type.is_empty() {
        let value = Some(content_type.to_owned().into());
        event.headers.push(Header { key: "content-type".into(), value });
    }
    Ok(Some(event))
}

//! Spans of calls of gRPC. One of a call with a single answer ends with it; in a pipeline each batch and each answer has one, with the
//! caller of the whole stream as its parent; that of a push session ends with the session.

use prost::Message;
use riverrun_proto::grpc::v1;
use tonic::{
    Request, Status,
    codegen::http::{HeaderMap, Request as HttpRequest},
};

use super::metered::{code_of, refused_with};
use crate::traces::{Door, Ended, Notes, OpenSpan, Origin, Traces};

/// Where a caller tells its own span.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// Begins the span of a call that arrives, and lets its handler add to it; that of a stream begins its own.
pub(super) fn begin<B>(
    traces: &Traces,
    api: Option<&'static str>,
    request: &mut HttpRequest<B>,
) -> Option<OpenSpan> {
    let parent = || request.headers().get(TRACEPARENT).map(|value| value.as_bytes());
    let origin = traces.origin(Door::Grpc, parent)?;
    let Some(api) = api else {
        request.extensions_mut().insert(origin);
        return None;
    };
    let span = origin.begin(api)?;
    request.extensions_mut().insert(span.notes().clone());
    Some(span)
}

/// Ends it with its answer. One without a status among its headers goes on to a message, and so is well.
pub(super) fn end(span: OpenSpan, headers: &HeaderMap) {
    let status = Status::from_header_map(headers);
    span.end(match (refused_with(headers), status) {
        (Some(code), _) => Ended::Refused(code),
        (None, Some(status)) => Ended::Grpc(status.code() as i32),
        (None, None) => Ended::Grpc(0),
    });
}

/// Ends the span of a part of a stream.
pub(super) fn end_part(span: OpenSpan, refused: Option<&Status>) {
    span.end(match refused {
        None => Ended::Grpc(0),
        Some(status) => code_of(status).map_or(Ended::Grpc(status.code() as i32), Ended::Refused),
    });
}

/// What the handler of a call adds to its span.
pub(super) fn notes<T>(request: &Request<T>) -> Option<Notes> {
    request.extensions().get().cloned()
}

/// What the handler of a stream begins spans with.
pub(super) fn origin<T>(request: &Request<T>) -> Option<Origin> {
    request.extensions().get().cloned()
}

/// Notes a batch that came.
pub(super) fn note_append(notes: &Notes, wire: &v1::AppendRequest) {
    note_topic(notes, &wire.topic);
    notes.partitions(1);
    notes.add_bytes(wire.encoded_len());
}

/// Notes records that go.
pub(super) fn note_fetched(notes: &Notes, response: &v1::FetchResponse) {
    response.partitions.iter().for_each(|one| note_topic(notes, &one.topic));
    notes.partitions(response.partitions.len());
    notes.add_bytes(response.encoded_len());
}

/// Notes deliveries that go. Each is of one partition, and one may have several.
pub(super) fn note_received(notes: &Notes, response: &v1::ReceiveResponse) {
    response.deliveries.iter().for_each(|one| note_topic(notes, &one.topic));
    let partitions = response.deliveries.iter().map(|one| (&*one.topic, one.partition));
    notes.partitions(partitions.collect::<std::collections::BTreeSet<_>>().len());
    notes.add_bytes(response.encoded_len());
}

/// Notes what a push session is told.
pub(super) fn note_told(notes: &Notes, response: &v1::SessionResponse) {
    if let Some(v1::session_response::Frame::Deliver(delivered)) = &response.frame {
        note_topic(notes, &delivered.topic);
        notes.add_bytes(response.encoded_len());
    }
}

/// A topic may be named by its id alone.
fn note_topic(notes: &Notes, name: &str) {
    if !name.is_empty() {
        notes.topic(name);
    }
}

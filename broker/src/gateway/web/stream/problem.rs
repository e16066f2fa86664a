//! Errors of streams: what the protocol tells in headers beside what every problem has.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode},
    response::IntoResponse,
};

use super::{
    Refused, StreamError,
    headers::{CLOSED, EXPECTED_SEQ, NEXT_OFFSET, PRODUCER_EPOCH, RECEIVED_SEQ},
    offset,
};
use crate::{
    gateway::{grpc::status::Describe, web::problem::Problem},
    partition::ReadError,
    service::fetch::FetchPartitionError,
    stream::WriterError,
};

/// The refusal that tells of an error.
pub(super) fn told<T>(result: Result<T, StreamError>) -> Result<T, Refused> {
    result.map_err(|error| {
        let headers = headers(&error);
        let mut response = problem(error).into_response();
        response.headers_mut().extend(headers);
        Refused(Box::new(response))
    })
}

/// What a program reads of an error without its body.
fn headers(error: &StreamError) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match error {
        StreamError::Closed { tail } => {
            headers.insert(CLOSED, HeaderValue::from_static("true"));
            let tail = HeaderValue::from_str(&offset::text(*tail));
            headers.insert(NEXT_OFFSET, tail.expect("digits and a line"));
        }
        StreamError::Writer(WriterError::StaleEpoch { current, .. }) => {
            headers.insert(PRODUCER_EPOCH, (*current).into());
        }
        StreamError::Writer(WriterError::Gap { expected, found, .. }) => {
            headers.insert(EXPECTED_SEQ, (*expected).into());
            headers.insert(RECEIVED_SEQ, (*found).into());
        }
        StreamError::Writer(
            WriterError::EpochStart { .. }
            | WriterError::TooManyProducers { .. }
            | WriterError::StaleSeq { .. },
        )
        | StreamError::Find(_)
        | StreamError::Gone { .. }
        | StreamError::NoStream { .. }
        | StreamError::Exists { .. }
        | StreamError::ContentType { .. }
        | StreamError::Json { .. }
        | StreamError::Field(_)
        | StreamError::SourceGone { .. }
        | StreamError::ForkTooLarge
        | StreamError::Hole { .. }
        | StreamError::Topic(_)
        | StreamError::Produce(_)
        | StreamError::Fetch(_)
        | StreamError::Read(_)
        | StreamError::Interrupted => {}
    }
    headers
}

/// An error as every door tells it.
pub(super) fn problem(error: StreamError) -> Problem {
    let (status, code) = match &error {
        StreamError::Gone { .. } => (StatusCode::GONE, "STREAM_DELETED"),
        StreamError::NoStream { .. } => (StatusCode::CONFLICT, "NOT_A_STREAM"),
        StreamError::Exists { .. } => (StatusCode::CONFLICT, "STREAM_EXISTS"),
        StreamError::Closed { .. } => (StatusCode::CONFLICT, "STREAM_CLOSED"),
        StreamError::ContentType { .. } => (StatusCode::CONFLICT, "CONTENT_TYPE_MISMATCH"),
        StreamError::Json { .. } => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
        StreamError::SourceGone { .. } => (StatusCode::CONFLICT, "STREAM_DELETED"),
        StreamError::ForkTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "FORK_TOO_LARGE"),
        StreamError::Hole { .. } => (StatusCode::GONE, "OFFSET_OUT_OF_RANGE"),
        StreamError::Interrupted => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        StreamError::Writer(error) => out_of_turn(error),
        StreamError::Read(FetchPartitionError::Read(error)) => match unreadable(error) {
            Some(known) => known,
            None => return error.clone().into(),
        },
        StreamError::Find(error) => return error.clone().into(),
        StreamError::Field(error) => return error.clone().into(),
        StreamError::Topic(error) => return Problem::from_wire(error.describe()),
        StreamError::Produce(error) => return error.clone().into(),
        StreamError::Fetch(error) => return error.clone().into(),
        StreamError::Read(error) => return error.clone().into(),
    };
    let problem = Problem::new(status, code, &error);
    if let StreamError::Writer(WriterError::TooManyProducers { retry_after, .. }) = error {
        return problem.after(retry_after);
    }
    problem
}

fn out_of_turn(error: &WriterError) -> (StatusCode, &'static str) {
    match error {
        WriterError::StaleEpoch { .. } => (StatusCode::FORBIDDEN, "PRODUCER_FENCED"),
        WriterError::Gap { .. } => (StatusCode::CONFLICT, "OUT_OF_ORDER_SEQUENCE"),
        WriterError::EpochStart { .. } => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
        WriterError::TooManyProducers { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_PRODUCERS")
        }
        WriterError::StaleSeq { .. } => (StatusCode::CONFLICT, "STREAM_SEQ_CONFLICT"),
    }
}

/// The protocol's own status for places that cannot be read: gone, or never told.
fn unreadable(error: &ReadError) -> Option<(StatusCode, &'static str)> {
    match error {
        ReadError::OutOfRange { requested, log_start, .. } if requested < log_start => {
            Some((StatusCode::GONE, "OFFSET_OUT_OF_RANGE"))
        }
        ReadError::OutOfRange { .. } => Some((StatusCode::BAD_REQUEST, "OFFSET_OUT_OF_RANGE")),
        ReadError::Truncated { .. } => Some((StatusCode::GONE, "OFFSET_TRUNCATED")),
        ReadError::Corrupt { .. }
        | ReadError::Failed(_)
        | ReadError::Io { .. }
        | ReadError::Closed => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_producer_for_whom_there_is_no_place_is_told_when_to_come_again() {
        let retry_after = Duration::from_millis(1_500);
        let (id, limit) = ("p".to_owned(), 1_000);
        let error = WriterError::TooManyProducers { id, limit, retry_after };
        let Refused(response) = told::<()>(Err(error.into())).unwrap_err();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "2");
    }
}

//! Errors as JSON: `{"code": "...", "message": "...", ...}` with a fitting status.
//!
//! The codes are those of gRPC's `ErrorCode` without their prefix. What only HTTP knows (a path, a method, a body)
//! has codes of its own, listed here as constants.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use riverrun_proto::grpc::v1::{self, ErrorCode};
use serde_json::{Map, Value, json};

use crate::gateway::grpc::status::Describe;

/// Prefix of the names of codes in the protocol.
const CODE_PREFIX: &str = "ERROR_CODE_";

/// Goes along with a reply that tells a code of gRPC, for whoever counts them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused(pub(super) ErrorCode);

/// A request that is refused or failed.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    code: String,
    message: String,
    /// Further fields of the reply.
    more: Map<String, Value>,
    retry_after: Option<Duration>,
}

/// What a handler gives.
pub(super) type Answer = Result<Response, Problem>;

impl Problem {
    /// A problem that only HTTP knows.
    pub(super) fn new(status: StatusCode, code: &str, message: impl ToString) -> Problem {
        Problem {
            status,
            code: code.to_owned(),
            message: message.to_string(),
            more: Map::new(),
            retry_after: None,
        }
    }

    /// A malformed part of the request: a field, what is allowed and what came.
    pub(super) fn field(field: &str, expected: &str, found: impl std::fmt::Display) -> Problem {
        let mut found = found.to_string();
        if found.len() > 200 {
            found.truncate(found.floor_char_boundary(200));
            found.push_str("...");
        }
        let message = format!("`{field}` must be {expected}, found `{found}`");
        Problem::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
    }

    /// With a further field in the reply.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// A copy with a further field in the reply.
    pub(super) fn with_more(&self, name: &str, value: impl Into<Value>) -> Problem {
        self.clone().with(name, value)
    }

    /// A further field of the reply.
    pub(super) fn more(&self, name: &str) -> Option<&Value> {
        self.more.get(name)
    }

    /// The code of this name.
    pub(super) fn code_of(name: &str) -> ErrorCode {
        // What only HTTP knows is malformed input.
        known_code(name).unwrap_or(ErrorCode::InvalidArgument)
    }

    /// As gRPC tells it.
    pub(super) fn to_wire(&self) -> v1::Error {
        let number = |of: &str, name: &str| self.more(of)?.get(name)?.as_u64();
        let range = number("range", "start_offset").zip(number("range", "end_offset"));
        let end = number("epoch_end", "leader_epoch").zip(number("epoch_end", "end_offset"));
        let after = self.retry_after.map_or(0, |after| after.as_millis());
        v1::Error {
            code: Problem::code_of(&self.code) as i32,
            message: self.message.clone(),
            retry_after_ms: u32::try_from(after).unwrap_or(u32::MAX),
            range: range
                .map(|(start_offset, end_offset)| v1::OffsetRange { start_offset, end_offset }),
            epoch_end: end.map(|(epoch, end_offset)| v1::EpochEnd {
                leader_epoch: u32::try_from(epoch).unwrap_or(u32::MAX),
                end_offset,
            }),
        }
    }

    /// With the time after which it may go well.
    pub(super) fn after(mut self, retry_after: Duration) -> Problem {
        self.retry_after = Some(retry_after);
        self
    }

    /// What went wrong, for people.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The reply to a path that leads nowhere.
    pub(super) async fn unknown_route(request: Request) -> Problem {
        let path = request.uri().path();
        let message = format!("there is nothing at `{}`", cut(path));
        Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// The reply to a method that the path does not have; the header `allow` names those it has.
    pub(super) async fn wrong_method(request: Request) -> Problem {
        let (method, path) = (request.method(), request.uri().path());
        let message = format!("`{}` cannot be called with {}", cut(path), cut(method.as_str()));
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
    }

    /// As JSON, for replies that cover several things of which some failed.
    pub(super) fn to_json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("code".into(), self.code.clone().into());
        fields.insert("message".into(), self.message.clone().into());
        if let Some(after) = self.retry_after {
            let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            fields.insert("retry_after_ms".into(), ms.into());
        }
        fields.extend(self.more.clone());
        Value::Object(fields)
    }
}

fn known_code(name: &str) -> Option<ErrorCode> {
    ErrorCode::from_str_name(&format!("{CODE_PREFIX}{name}"))
}

/// The beginning of a text that a client sent.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(200)]
}

impl<E: Describe> From<E> for Problem {
    fn from(error: E) -> Problem {
        Problem::from_wire(error.describe())
    }
}

impl Problem {
    /// From the error as gRPC tells it.
    pub(super) fn from_wire(error: v1::Error) -> Problem {
        let code = error.code();
        let name = code.as_str_name();
        let mut problem = Problem::new(
            status_of(code),
            name.strip_prefix(CODE_PREFIX).unwrap_or(name),
            error.message,
        );
        if error.retry_after_ms > 0 {
            problem.retry_after = Some(Duration::from_millis(u64::from(error.retry_after_ms)));
        }
        if let Some(v1::OffsetRange { start_offset, end_offset }) = error.range {
            let range = json!({"start_offset": start_offset, "end_offset": end_offset});
            problem = problem.with("range", range);
        }
        if let Some(v1::EpochEnd { leader_epoch, end_offset }) = error.epoch_end {
            let end = json!({"leader_epoch": leader_epoch, "end_offset": end_offset});
            problem = problem.with("epoch_end", end);
        }
        problem
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidArgument | ErrorCode::CorruptBatch => StatusCode::BAD_REQUEST,
        ErrorCode::RecordTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::UnknownGroup
        | ErrorCode::UnknownSubscription => StatusCode::NOT_FOUND,
        ErrorCode::TopicExists
        | ErrorCode::SubscriptionExists
        | ErrorCode::OffsetConflict
        | ErrorCode::StaleMemberEpoch
        | ErrorCode::TopicIdMismatch
        | ErrorCode::ProducerFenced
        | ErrorCode::OutOfOrderSequence
        | ErrorCode::UnknownProducerId
        | ErrorCode::UnknownMember
        | ErrorCode::FencedMemberEpoch
        | ErrorCode::PartitionNotOwned
        | ErrorCode::InstanceIdInUse
        | ErrorCode::GroupNotEmpty
        | ErrorCode::SubscriptionInUse
        | ErrorCode::SessionReplaced
        | ErrorCode::UnknownSession => StatusCode::CONFLICT,
        ErrorCode::OffsetOutOfRange | ErrorCode::OffsetTruncated => {
            StatusCode::RANGE_NOT_SATISFIABLE
        }
        ErrorCode::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::PartitionFailed
        | ErrorCode::Unavailable
        | ErrorCode::Indeterminate
        | ErrorCode::NotLeader => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::ReadOnly => StatusCode::FORBIDDEN,
        ErrorCode::DataCorrupt | ErrorCode::Internal | ErrorCode::Unspecified => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status;
        if let Some(code) = known_code(&self.code) {
            response.extensions_mut().insert(Refused(code));
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after {
            // The header counts whole seconds; the body is exact.
            let seconds = after.as_secs_f64().ceil();
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                headers.insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

//! The only map from gRPC status to [`Error`].

use prost::Message as _;
use riverrun_proto::grpc::v1;
use tonic::{Code, Status};

use crate::error::{Error, ErrorCode};

/// Trailer in which the broker puts the machine-readable reason.
const ERROR_TRAILER: &str = "riverrun-error-bin";

/// What a failed call means. The trailer decides; without one the failure is the transport's.
pub(super) fn to_error(call: &'static str, status: &Status) -> Error {
    let trailer = status.metadata().get_bin(ERROR_TRAILER).and_then(|value| value.to_bytes().ok());
    match trailer.map(v1::Error::decode) {
        Some(Ok(wire)) => Error::from_wire(&wire),
        Some(Err(_)) => Error::new(
            ErrorCode::Protocol,
            format!("{call}: the broker's reason could not be read: {}", status.message()),
        ),
        None => Error::new(code_alone(status.code()), format!("{call}: {}", words(status))),
    }
}

/// Whether the broker itself gave the reason.
pub(super) fn is_the_brokers(status: &Status) -> bool {
    status.metadata().get_bin(ERROR_TRAILER).is_some()
}

/// Whether the link itself refused the call and must be replaced. Other breaks show in the socket.
pub(super) fn breaks_link(status: &Status) -> bool {
    status.code() == Code::Unavailable && !is_the_brokers(status)
}

/// What the code says when the broker gave no reason.
fn code_alone(code: Code) -> ErrorCode {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => {
            ErrorCode::InvalidArgument
        }
        Code::ResourceExhausted => ErrorCode::QuotaExceeded,
        Code::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        // Nobody here cancels a call and then waits for it: its connection closed before it was sent.
        Code::Cancelled | Code::Internal | Code::Unknown | Code::Unavailable | Code::Aborted => {
            ErrorCode::Unreachable
        }
        Code::Ok
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => ErrorCode::Protocol,
    }
}

/// The status' own words, or its code where it has none.
fn words(status: &Status) -> String {
    let message = status.message();
    if message.is_empty() { format!("{:?}", status.code()) } else { message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trailer_decides_over_the_code() {
        let wire = v1::Error {
            code: v1::ErrorCode::TopicExists.into(),
            message: "topic `orders` exists".into(),
            ..v1::Error::default()
        };
        let mut status = Status::internal("something else");
        let value = tonic::metadata::MetadataValue::from_bytes(&wire.encode_to_vec());
        status.metadata_mut().insert_bin(ERROR_TRAILER, value);
        let error = to_error("create topic", &status);
        assert!(!breaks_link(&status));
        assert_eq!(error.code(), ErrorCode::TopicExists);
        assert_eq!(error.message(), "topic `orders` exists");
    }

    #[test]
    fn a_status_without_a_reason_is_the_transports() {
        let error = to_error("fetch", &Status::unavailable("tcp connect error"));
        assert_eq!(error.code(), ErrorCode::Unreachable);
        assert_eq!(error.message(), "fetch: tcp connect error");
        assert!(breaks_link(&Status::unavailable("")));
        assert!(!breaks_link(&Status::unknown("one stream was reset")));
        let unsent = to_error("commit_offsets", &Status::cancelled("operation was canceled"));
        assert_eq!(unsent.code(), ErrorCode::Unreachable);
    }
}

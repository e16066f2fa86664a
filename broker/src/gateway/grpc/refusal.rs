//! Refusals that the protocol stack makes before a service sees the call, such as a message past its limit:
//! they get the same error in the trailer as those of the services.
//!
//! It looks at replies that fail at once. A stream that fails later names its error itself, by [`named`].

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::{TryFutureExt, future::MapOk};
use riverrun_proto::grpc::v1::ErrorCode;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        Service,
        http::{Request, Response},
    },
    server::NamedService,
};

use super::status::{TRAILER, plain, status_of};

/// A service whose stack names its refusals.
#[derive(Clone, Debug)]
pub(super) struct NamedRefusals<S>(pub(super) S);

impl<S: NamedService> NamedService for NamedRefusals<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for NamedRefusals<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = MapOk<S::Future, fn(Response<Body>) -> Response<Body>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request).map_ok(with_name)
    }
}

/// The reply, with our error where it is a refusal without one.
fn with_name(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    if !headers.contains_key("grpc-status") || headers.contains_key(TRAILER) {
        return response;
    }
    match Status::from_header_map(headers) {
        Some(refused) if is_the_callers_fault(refused.code()) => named(refused).into_http(),
        _ => response,
    }
}

/// The refusal with our error, unless it has one or is none.
pub(super) fn named(refused: Status) -> Status {
    if !is_the_callers_fault(refused.code()) || refused.metadata().contains_key(TRAILER) {
        return refused;
    }
    // Only a message past the limit ends so.
    let too_large = matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted);
    let reason = if too_large {
        "request is past `grpc.message_bytes_max`"
    } else {
        "request cannot be read"
    };
    let message = format!("{reason}: {}", refused.message());
    let named = status_of(plain(ErrorCode::InvalidArgument, &message));
    if refused.code() == Code::Unimplemented {
        // What generic clients know a missing call or encoding by.
        return Status::with_metadata(refused.code(), message, named.metadata().clone());
    }
    named
}

/// Codes by which the stack refuses what it cannot read. Faults of our own bring their error along.
fn is_the_callers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::OutOfRange | Code::ResourceExhausted | Code::Internal | Code::Unimplemented
    )
}

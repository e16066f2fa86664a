//! gRPC-Web on the web door: the paths of gRPC, for pages with a client made from the `.proto` files.
//!
//! The services answer; what is here is which paths there are, how long a body may be silent, and a clear word to a client
//! that speaks plain gRPC.

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
    routing::post,
};

use super::{WebDoor, body, problem::Problem};
use crate::gateway::grpc::{GrpcWeb, GrpcWebCaller};

pub(super) fn routes() -> Router<WebDoor> {
    GrpcWeb::services().fold(Router::new(), |routes, service| {
        routes.route(&format!("/{service}/{{method}}"), post(call))
    })
}

async fn call(
    State(mut door): State<WebDoor>,
    Extension(caller): Extension<GrpcWebCaller>,
    request: Request,
) -> Result<Response, Problem> {
    let given = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::to_str);
    let given = given.and_then(Result::ok).unwrap_or_default();
    if !GrpcWeb::is_content_type(given) {
        let message = format!(
            "`content-type` is `{given}`; here it is `application/grpc-web+proto` or `application/grpc-web-text+proto`, plain gRPC has a door of its own"
        );
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "UNSUPPORTED_MEDIA_TYPE", message));
    }
    let request = request.map(|body| body::timed(body, &door));
    Ok(door.grpc.call(request, caller).await.map(Body::new))
}

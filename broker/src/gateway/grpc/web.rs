//! gRPC-Web: the same services for pages, whose browsers give them neither HTTP/2 frames nor trailers.
//!
//! ```text
//! POST /riverrun.v1.Admin/GetMetadata   content-type: application/grpc-web+proto (or application/grpc-web-text+proto, as base64)
//! ```
//!
//! Only what a message is wrapped in is translated; requests and replies are counted, measured and refused as those of gRPC are.
//! A stream of requests is read to its end by browsers before they send it, so a push session is no use here: the WebSocket has one.

use std::{net::SocketAddr, sync::Arc};

use tonic::{
    body::Body,
    codegen::{
        Bytes, Service, StdError,
        http::{
            HeaderMap, HeaderName, HeaderValue, Request, Response,
            header::{ACCEPT, CONTENT_TYPE},
        },
    },
    service::Routes,
};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower_layer::Layer;

use super::{
    GrpcDoor,
    bounded::AsText,
    caller,
    connection::Caller,
    reply::{Paid, Reply},
};
use crate::{config::Config, quota::Quota};

/// What the type of a request's body begins with.
const MEDIA_TYPE: &str = "application/grpc-web";
/// What the type of a reply in base64 begins with.
const TEXT_TYPE: &str = "application/grpc-web-text";
/// Services that pages may call, by the first part of the path.
const SERVICES: [&str; 7] = [
    "riverrun.v1.Produce",
    "riverrun.v1.Fetch",
    "riverrun.v1.Admin",
    "riverrun.v1.Group",
    "riverrun.v1.Push",
    "riverrun.v1.Subscriptions",
    "grpc.health.v1.Health",
];

/// The services of gRPC for requests that come through the web door.
#[derive(Clone, Debug)]
pub(crate) struct GrpcWeb {
    service: GrpcWebService<Routes>,
    config: Arc<Config>,
    receiving: Quota,
    reading: Quota,
}

/// One connection of the web door, as the services of gRPC know it.
#[derive(Clone, Debug)]
pub(crate) struct GrpcWebCaller(Caller);

impl GrpcWeb {
    /// The services of this door.
    pub(crate) fn new(door: &GrpcDoor) -> GrpcWeb {
        GrpcWeb {
            service: GrpcWebLayer::new().layer(door.routes()),
            config: door.config.clone(),
            receiving: door.receiving.clone(),
            reading: door.services.fetch.reading().clone(),
        }
    }

    /// Services that pages may call, by the first part of the path.
    pub(crate) fn services() -> impl Iterator<Item = &'static str> {
        SERVICES.into_iter()
    }

    /// Whether a body of this type is a message of gRPC-Web.
    pub(crate) fn is_content_type(text: &str) -> bool {
        text.strip_prefix(MEDIA_TYPE).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(['+', ';']) || rest.starts_with("-text")
        })
    }

    /// A new connection from `address`.
    pub(crate) fn caller(&self, address: SocketAddr) -> GrpcWebCaller {
        GrpcWebCaller(caller(address, &self.config.limits, (&self.receiving, &self.reading)))
    }

    /// Answers one call.
    pub(crate) async fn call<B>(
        &mut self,
        mut request: Request<B>,
        GrpcWebCaller(caller): GrpcWebCaller,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + std::fmt::Display + std::fmt::Debug,
    {
        let replies = caller.replies.clone();
        request.extensions_mut().insert(caller);
        without_parameters(&mut request);
        if is_text(request.headers()) || asks_for_text(request.headers()) {
            request.extensions_mut().insert(AsText);
        }
        let response = match self.service.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        // What was counted inside is given back when it is written as base64: that is other memory.
        match is_text(response.headers()) {
            true => {
                response.map(|body| Body::new(Reply::new(body, replies, Paid::default(), true)))
            }
            false => response,
        }
    }
}

/// Leaves of the type of the body what the services look at.
fn without_parameters<B>(request: &mut Request<B>) {
    let headers = request.headers_mut();
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kept = given.and_then(|text| text.split_once(';')).map(|(kept, _)| kept.trim_end());
    if let Some(Ok(kept)) = kept.map(HeaderValue::from_str) {
        headers.insert(CONTENT_TYPE, kept);
    }
}

fn is_text(headers: &HeaderMap) -> bool {
    begins(headers, CONTENT_TYPE, TEXT_TYPE)
}

/// The type of the reply follows from what is accepted.
fn asks_for_text(headers: &HeaderMap) -> bool {
    begins(headers, ACCEPT, TEXT_TYPE)
}

fn begins(headers: &HeaderMap, name: HeaderName, with: &str) -> bool {
    let given = headers.get(name).and_then(|value| value.to_str().ok());
    given.is_some_and(|text| text.starts_with(with))
}

#[cfg(test)]
mod tests {
    use riverrun_proto::grpc::DESCRIPTORS;

    use super::*;

    #[test]
    fn the_services_named_here_exist() {
        for service in GrpcWeb::services() {
            let name = service.rsplit('.').next().unwrap().as_bytes();
            let all = [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
            let exists = |set: &&[u8]| set.windows(name.len()).any(|found| found == name);
            assert!(all.iter().any(exists), "{service}");
        }
    }

    #[test]
    fn a_message_of_grpc_web_is_told_by_its_type() {
        for yes in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpc-web-text+proto",
            "application/grpc-web;x=y",
        ] {
            assert!(GrpcWeb::is_content_type(yes), "{yes}");
        }
        for no in ["application/grpc", "application/grpc-webby", "application/json", ""] {
            assert!(!GrpcWeb::is_content_type(no), "{no}");
        }
    }
}

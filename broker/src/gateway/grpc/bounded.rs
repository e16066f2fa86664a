//! A service whose requests and replies are counted against the memory of their connection, from the first
//! byte received to the last byte sent.
//!
//! ```text
//! socket -> HTTP/2 window -> [request body: receiving] -> handler -> [reply body: replies] -> socket
//! ```
//!
//! A request keeps its share until its call is answered, the messages of a stream until the handler asks for
//! the next. A reply keeps its share until the protocol stack has written or dropped the last byte.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tonic::{
    body::Body,
    codegen::{
        Service,
        http::{Request, Response},
    },
    server::NamedService,
};

use super::{
    connection::Caller,
    received::{Kind, Received},
    reply::{Paid, Reply},
};

/// Calls whose request is a stream of messages. They wait for room; other calls are refused at once.
const STREAMS: [&str; 4] = [
    "/riverrun.v1.Fetch/FetchPipeline",
    "/riverrun.v1.Produce/AppendBulk",
    "/riverrun.v1.Produce/AppendPipeline",
    "/riverrun.v1.Push/Session",
];
/// A call with one message that waits for room.
const APPEND: &str = "/riverrun.v1.Produce/Append";

/// What a request brings whose reply becomes base64.
#[derive(Clone, Copy, Debug)]
pub(super) struct AsText;

/// A service with counted bodies.
#[derive(Clone, Debug)]
pub(super) struct Bounded<S> {
    service: S,
    /// Largest request message, in bytes.
    message_bytes_max: usize,
}

impl<S> Bounded<S> {
    pub(super) fn new(service: S, message_bytes_max: usize) -> Bounded<S> {
        Bounded { service, message_bytes_max }
    }
}

impl<S: NamedService> NamedService for Bounded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let caller = request.extensions().get::<Caller>().expect("set for every connection");
        let (receiving, replies) = (caller.receiving.clone(), caller.replies.clone());
        let is_text = request.extensions().get::<AsText>().is_some();
        let kind = kind(request.uri().path());
        let message_bytes_max = self.message_bytes_max;
        let (parts, body) = request.into_parts();
        let (body, held) = Received::new(body, receiving, kind, message_bytes_max);
        let call = self.service.call(Request::from_parts(parts, Body::new(body)));
        Box::pin(async move {
            let mut response = call.await?;
            drop(held);
            let paid = response.extensions_mut().remove::<Paid>().unwrap_or_default();
            Ok(response.map(|body| Body::new(Reply::new(body, replies, paid, is_text))))
        })
    }
}

fn kind(path: &str) -> Kind {
    match path {
        APPEND => Kind { streams: false, waits: true },
        path => {
            let streams = STREAMS.contains(&path);
            Kind { streams, waits: streams }
        }
    }
}

#[cfg(test)]
mod tests {
    use riverrun_proto::grpc::DESCRIPTORS;

    use super::*;

    #[test]
    fn the_calls_named_here_exist() {
        let bytes = DESCRIPTORS;
        for path in STREAMS.iter().chain([&APPEND]) {
            let name = path.rsplit('/').next().unwrap().as_bytes();
            assert!(bytes.windows(name.len()).any(|found| found == name), "{path}");
        }
    }
}

//! The web door: HTTP/1.1 with JSON over the same services as gRPC.
//!
//! axum's and hyper's types stay in this folder. Each file holds one resource and gives its routes by `routes()`;
//! `problem.rs` tells errors, `body.rs` and `reply.rs` count the bytes of requests and replies, `guard.rs` is what
//! every request passes. There is no state here and no second path of data: what a connection owns ends with it, and what
//! readers share (`tail/shared.rs`) is a copy that may be forgotten at any time.

mod body;
mod call;
mod cloud_event;
mod connection;
mod docs;
mod events;
mod fetch;
mod groups;
mod grpc_web;
mod guard;
mod health;
mod metered;
mod metrics;
mod object;
mod openapi;
mod pace;
mod problem;
mod produce;
mod receive;
mod record;
mod reply;
mod session_json;
mod settings;
mod socket;
mod stream;
mod subscription_events;
mod subscription_json;
mod subscription_settings;
mod subscriptions;
mod tail;
mod topics;

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicU32},
};

use axum::{Router, extract::Request, middleware};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_util::task::TaskTracker;
use tower_service::Service;

pub(crate) use self::metered::{WebMeters, call_names};
use self::{
    connection::{Caller, Connection},
    events::Events,
    problem::Problem,
    socket::{Codec, Found},
    tail::Shared,
};
use crate::{
    config::Config,
    gateway::{
        accept::{Arrivals, Handover},
        grpc::GrpcWeb,
    },
    quota::Quota,
    service::Services,
    shutdown::ShutdownWatch,
};

/// Headers of one request, by count.
const HEADERS_MAX: usize = 100;
/// How much larger a header list may be than its limit and still get an answer that says so.
const HEADER_BYTES_ANSWERED: usize = 16 << 10;

/// What the door needs to know.
#[derive(Clone, Debug)]
pub(crate) struct WebDoor {
    /// The services behind it.
    pub(crate) services: Services,
    /// Settings in force.
    pub(crate) config: Arc<Config>,
    /// Bytes of requests being received, over all connections of all doors.
    pub(crate) receiving: Quota,
    /// Hears of the end.
    pub(crate) shutdown: ShutdownWatch,
    /// What requests are measured with.
    pub(crate) meters: WebMeters,
    /// The services of gRPC, for pages.
    pub(crate) grpc: GrpcWeb,
    /// WebSockets that are open.
    pub(crate) sockets: TaskTracker,
    /// Steps that readers of topics take together.
    pub(crate) steps: Steps,
    /// Moves records without a key from partition to partition.
    pub(crate) turn: Arc<AtomicU32>,
}

/// What readers of topics share, by the form they are written to in.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    events: Shared<Events>,
    json: Shared<Found>,
    protobuf: Shared<Found>,
}

impl Default for Steps {
    fn default() -> Steps {
        Steps {
            events: Shared::new(Events::default),
            json: Shared::new(|| Found::new(Codec::Json)),
            protobuf: Shared::new(|| Found::new(Codec::Protobuf)),
        }
    }
}

impl WebDoor {
    /// Serves the connections that arrive, until the end is announced and the last request is answered.
    pub(crate) async fn serve(self, mut arrivals: Arrivals) {
        let router = router(&self);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                arrived = arrivals.recv() => match arrived {
                    Some(handover) => {
                        connections.spawn(self.clone().connection(router.clone(), handover));
                    }
                    None => break,
                },
                Some(_) = connections.join_next() => {}
                () = self.shutdown.begun() => break,
            }
        }
        while connections.join_next().await.is_some() {}
        self.sockets.close();
        self.sockets.wait().await;
    }

    /// Serves one connection to its end.
    async fn connection(self, router: Router, handover: Handover) {
        let Handover { socket, address, place } = handover;
        let Ok(socket) = TcpStream::from_std(socket) else { return };
        let caller = (Caller::new(address, &self), self.grpc.caller(address));
        let socket = Connection::new(socket, self.config.http.write_timeout, place);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (own, grpc) = caller.clone();
            request.extensions_mut().insert(own);
            request.extensions_mut().insert(grpc);
            let mut router = router.clone();
            async move { answer(&mut router, request).await }
        });
        let serving = self.protocol().serve_connection(TokioIo::new(socket), service);
        let mut serving = std::pin::pin!(serving.with_upgrades());
        let served = tokio::select! {
            served = serving.as_mut() => served,
            () = self.shutdown.begun() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%address, %error, "web connection ended");
        }
    }

    /// The protocol stack with its bounds.
    fn protocol(&self) -> http1::Builder {
        let http = &self.config.http;
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(http.header_timeout)
            .max_headers(HEADERS_MAX)
            .max_header_size(http.header_bytes_max + HEADER_BYTES_ANSWERED);
        builder
    }
}

async fn answer(
    router: &mut Router,
    request: Request<Incoming>,
) -> Result<axum::response::Response, Infallible> {
    router.call(request).await
}

/// Every route, behind the guard.
fn router(door: &WebDoor) -> Router {
    let routes = Router::new()
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(topics::routes())
        .merge(groups::routes())
        .merge(subscriptions::routes())
        .merge(receive::routes())
        .merge(subscription_events::routes())
        .merge(produce::routes())
        .merge(fetch::routes())
        .merge(events::routes())
        .merge(socket::routes())
        .merge(stream::routes())
        .merge(openapi::routes())
        .merge(docs::routes())
        .merge(grpc_web::routes());
    routes
        .fallback(Problem::unknown_route)
        .method_not_allowed_fallback(Problem::wrong_method)
        .layer(middleware::from_fn_with_state(door.clone(), guard::check))
        .layer(middleware::from_fn_with_state(door.clone(), metered::measure))
        .with_state(door.clone())
}

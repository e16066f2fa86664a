//! The gRPC door: one listener, connections spread over the serving threads.
//!
//! tonic's types stay in this folder. Each file translates one service; `convert.rs` maps messages,
//! `status.rs` errors. Windows and frame size are fixed, and Nagle's algorithm is off on every socket, because
//! both were measured to matter most.

mod admin;
mod bounded;
mod connection;
pub(crate) mod convert;
mod fetch;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod group;
mod group_admin;
mod group_status;
mod metered;
mod patience;
mod produce;
mod push;
pub(crate) mod push_convert;
mod push_status;
pub(crate) mod reason_convert;
mod received;
mod refusal;
mod reply;
pub(crate) mod session;
pub(crate) mod status;
mod subscription_admin;
mod traced;
mod web;

use std::{io, net::SocketAddr, sync::Arc};

use riverrun_proto::grpc::{
    DESCRIPTORS,
    v1::{
        admin_server::AdminServer, fetch_server::FetchServer, group_server::GroupServer,
        produce_server::ProduceServer, push_server::PushServer,
        subscriptions_server::SubscriptionsServer,
    },
};
use tokio::net::TcpStream;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{service::Routes, transport::Server};

use self::{
    admin::AdminGateway,
    bounded::Bounded,
    connection::{Caller, Connection},
    fetch::FetchGateway,
    group::GroupGateway,
    metered::Metered,
    produce::{ProduceGateway, pipeline},
    push::PushGateway,
    received::Receiving,
    refusal::NamedRefusals,
    subscription_admin::SubscriptionsGateway,
};
pub(crate) use self::{
    metered::{APIS, Meters},
    traced::TRACEPARENT,
    web::{GrpcWeb, GrpcWebCaller},
};
use crate::{
    config::{Config, GrpcConfig, LimitsConfig},
    gateway::accept::{Arrivals, Handover},
    quota::{Quota, Room},
    service::Services,
    shutdown::ShutdownWatch,
};

/// Largest HTTP/2 frame.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Streams that a client may open and reset before it is asked to go.
const PENDING_RESETS_MAX: usize = 20;
/// Streams that the door may reset for errors before it closes the connection.
const LOCAL_RESETS_MAX: usize = 1_024;

/// What the door needs to know.
#[derive(Clone, Debug)]
pub(crate) struct GrpcDoor {
    /// The services behind it.
    pub(crate) services: Services,
    /// Settings in force.
    pub(crate) config: Arc<Config>,
    /// Bytes of requests being received, over all connections.
    pub(crate) receiving: Quota,
    /// Hears of the end.
    pub(crate) shutdown: ShutdownWatch,
    /// Tells clients that the broker serves.
    pub(crate) health: tonic_health::server::HealthReporter,
    /// What is measured here.
    pub(crate) meters: Meters,
}

impl GrpcDoor {
    /// Serves the connections that arrive, until the end is announced and the last call is answered.
    ///
    /// # Errors
    /// When the protocol stack refuses its settings.
    pub(crate) async fn serve(self, arrivals: Arrivals) -> Result<(), tonic::transport::Error> {
        let handshake_timeout = self.config.grpc.handshake_timeout;
        let (limits, receiving) = (self.config.limits.clone(), self.receiving.clone());
        let reading = self.services.fetch.reading().clone();
        let connections = ReceiverStream::new(arrivals).map(move |handover| {
            let Handover { socket, address, place } = handover;
            let caller = caller(address, &limits, (&receiving, &reading));
            let socket = TcpStream::from_std(socket)?;
            Ok::<_, io::Error>(Connection::new(socket, caller, handshake_timeout, place))
        });
        let shutdown = self.shutdown.clone();
        server(&self.config.grpc)
            .add_routes(self.routes())
            .serve_with_incoming_shutdown(connections, async move { shutdown.begun().await })
            .await
    }

    /// Every service. A request has to bring its [`Caller`].
    fn routes(&self) -> Routes {
        let services = &self.services;
        let groups = GroupGateway {
            service: services.groups.clone(),
            node_id: services.admin.cluster().node_id,
            shutdown: self.shutdown.clone(),
        };
        let refusals = &self.meters.refusals;
        let produce = ProduceGateway {
            service: services.produce.clone(),
            shutdown: self.shutdown.clone(),
            refusals: refusals.clone(),
        };
        let fetch = FetchGateway {
            fetch: services.fetch.clone(),
            watch: services.watch.clone(),
            lookup: services.lookup.clone(),
            shutdown: self.shutdown.clone(),
            refusals: refusals.clone(),
        };
        let admin = AdminGateway { service: services.admin.clone(), groups: groups.clone() };
        let push = PushGateway { service: services.delivery.clone(), refusals: refusals.clone() };
        let subscriptions = SubscriptionsGateway { service: services.delivery.clone() };
        let bytes_max = self.config.grpc.message_bytes_max;
        let health = tonic_health::server::HealthService::from_health_reporter(self.health.clone());
        let produce = ProduceServer::new(produce).max_decoding_message_size(bytes_max);
        let fetch = FetchServer::new(fetch).max_decoding_message_size(bytes_max);
        let admin = AdminServer::new(admin).max_decoding_message_size(bytes_max);
        let groups = GroupServer::new(groups).max_decoding_message_size(bytes_max);
        let push = PushServer::new(push).max_decoding_message_size(bytes_max);
        let subscriptions =
            SubscriptionsServer::new(subscriptions).max_decoding_message_size(bytes_max);
        let meters = &self.meters;
        Routes::new(measured(produce, meters, bytes_max))
            .add_service(measured(fetch, meters, bytes_max))
            .add_service(measured(admin, meters, bytes_max))
            .add_service(measured(groups, meters, bytes_max))
            .add_service(measured(push, meters, bytes_max))
            .add_service(measured(subscriptions, meters, bytes_max))
            .add_service(Bounded::new(
                tonic_health::pb::health_server::HealthServer::new(health),
                bytes_max,
            ))
            .add_service(Bounded::new(reflection(), bytes_max))
            .add_service(Bounded::new(older_reflection(), bytes_max))
    }
}

/// A service of ours, with its refusals named, its calls measured, and its bodies counted.
fn measured<S>(
    service: S,
    meters: &Meters,
    bytes_max: usize,
) -> Bounded<Metered<NamedRefusals<S>>> {
    Bounded::new(Metered::new(NamedRefusals(service), meters), bytes_max)
}

/// The protocol stack with its bounds.
fn server(grpc: &GrpcConfig) -> Server {
    Server::builder()
        .initial_stream_window_size(grpc.window_bytes / 2)
        .initial_connection_window_size(grpc.window_bytes)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(grpc.streams_per_connection_max)
        .http2_max_header_list_size(grpc.header_list_bytes_max)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
        .http2_keepalive_interval(Some(grpc.keepalive_interval))
        .http2_keepalive_timeout(Some(grpc.keepalive_timeout))
}

/// A new connection from `address`, with its room in the quotas of all.
fn caller(
    address: SocketAddr,
    limits: &LimitsConfig,
    (receiving, reading): (&Quota, &Quota),
) -> Caller {
    let quota = |name, limit| Quota::new(name, limit, limits.quota_wait);
    let own = || quota("limits.connection_bytes", limits.connection_bytes);
    let in_flight = || {
        let limit = limits.in_flight_bytes_per_connection_max;
        quota("limits.in_flight_bytes_per_connection_max", limit)
    };
    let replies =
        quota("limits.read_bytes_per_connection_max", limits.read_bytes_per_connection_max);
    Caller {
        address,
        in_flight: in_flight(),
        pipeline_slots: pipeline::connection_slots(),
        receiving: Receiving::new(Room::of_connection(own(), in_flight(), receiving.clone())),
        replies: Room::of_connection(own(), replies, reading.clone()),
    }
}

/// The reflection service, by which generic clients explore the others.
fn reflection() -> tonic_reflection::server::v1::ServerReflectionServer<
    impl tonic_reflection::server::v1::ServerReflection,
> {
    described().build_v1().expect("the descriptors were made by the build")
}

/// The same by the name it had before, which many clients still ask for first or only.
fn older_reflection() -> tonic_reflection::server::v1alpha::ServerReflectionServer<
    impl tonic_reflection::server::v1alpha::ServerReflection,
> {
    described().build_v1alpha().expect("the descriptors were made by the build")
}

/// All that reflection tells of.
fn described() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// What the health service says of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// All of them serve.
    Serving,
    /// Only reading is served, so the broker as a whole is not what it should be.
    OnlyReads,
    /// Records come and go, topics cannot be changed, so the broker as a whole is not what it should be.
    NoChanges,
    /// None of them does.
    Ended,
}

/// Marks every service as serving, or not.
pub(crate) async fn set_health(reporter: &tonic_health::server::HealthReporter, health: Health) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    for service in [
        "",
        "riverrun.v1.Produce",
        "riverrun.v1.Fetch",
        "riverrun.v1.Admin",
        "riverrun.v1.Group",
        "riverrun.v1.Push",
        "riverrun.v1.Subscriptions",
    ] {
        let serves = match health {
            Health::Serving => true,
            Health::OnlyReads => service == "riverrun.v1.Fetch",
            Health::NoChanges => !matches!(service, "" | "riverrun.v1.Admin"),
            Health::Ended => false,
        };
        let status = if serves { Serving } else { NotServing };
        reporter.set_service_status(service, status).await;
    }
}

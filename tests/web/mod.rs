//! Checks of the web door through real sockets.

mod curl;
mod docs;
mod door;
mod events;
mod fetch;
mod frames;
mod groups;
mod grpc_web;
mod metrics;
mod openapi;
mod produce;
mod socket;
mod socket_protobuf;
mod streams;
mod subscription_events;
mod subscriptions;
mod together;
mod topics;
mod yardstick;

use std::net::SocketAddr;

use crate::support::http::call;

/// Creates a topic with settings that make tests quick.
async fn create(web: SocketAddr, topic: &str, partitions: u32) {
    let body = format!(
        r#"{{"topic":"{topic}","partitions":{partitions},"config":{{"durability":"os"}}}}"#
    );
    call(web, "POST /v1/topics", body.as_bytes()).await.ok(201);
}

//! The doors: each translates between a protocol and the services, and decides nothing.

pub(crate) mod accept;
pub(crate) mod caps;
pub mod grpc;
mod turn;
pub(crate) mod web;
pub(crate) mod webhook;

//! The doors: each translates between a protocol and the services, and decides nothing.

pub mod grpc;

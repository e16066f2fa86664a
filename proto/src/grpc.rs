//! Wire types and services generated from the `.proto` files.
//!
//! They stay inside the gateway and the client; everything else speaks domain types.

pub mod codec;
pub mod gather;
mod secrets;

/// The public protocol, `riverrun.v1`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::too_many_arguments,
    clippy::excessive_nesting,
    clippy::large_futures,
    clippy::wildcard_enum_match_arm,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("riverrun.v1");
}

/// Records of the broker's internal logs.
pub mod state {
    /// Version 1 of them.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::large_futures,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("riverrun.state.v1");
    }
}

/// Descriptors of every service, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/riverrun.bin"));

//! The house: topics, partitions and the doors that open them to the world.
//!
//! - [`broker`]: the composition root. [`config`], [`clock`], [`shutdown`], [`quota`], [`metrics`], [`traces`]: what everybody
//!   needs.
//! - [`gateway`]: the doors; they translate. [`service`]: the verbs; they check and find.
//! - [`topic`], [`partition`], [`group`], [`offset`], [`delivery`], [`subscription`]: the
//!   core rooms.
//!
//! Imports go downward only: gateway, service, core rooms, storage.

mod blocking;
pub mod broker;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod gateway;
pub mod group;
pub mod metrics;
pub mod offset;
pub mod partition;
pub mod quota;
pub mod service;
pub mod shutdown;
pub mod stream;
pub mod subscription;
pub mod topic;
pub mod traces;

#[cfg(test)]
mod test_random;

pub use broker::{Broker, StartError};
pub use config::Config;

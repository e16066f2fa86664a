//! Topics: their names, settings and partitions.
//!
//! - [`name`]: what a name may be.
//! - [`config`]: settings with defaults and bounds.
//! - [`catalog`]: all metadata as a fold over logged commands.
//! - [`registry`]: name to partitions; creates, alters and deletes. [`live`]: one topic as it is now.
//! - [`producers`]: identities of idempotent producers; [`producer_epochs`]: which were raised.

pub mod catalog;
pub mod config;
pub mod error;
pub mod live;
pub mod name;
pub mod producer_epochs;
pub mod producers;
pub mod registry;
mod settings;

pub use config::{CleanupPolicy, TopicConfig};
pub use live::{Slot, Topic};
pub use registry::Registry;

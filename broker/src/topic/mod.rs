//! Topics: their names, settings and partitions.
//!
//! - [`name`]: what a name may be.
//! - [`config`]: settings with defaults and bounds.
//! - [`catalog`]: all metadata as a fold over logged commands.

pub mod catalog;
pub mod config;
pub mod name;

pub use config::{CleanupPolicy, Durability, TopicConfig};

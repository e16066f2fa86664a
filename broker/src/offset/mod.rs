//! Stored offsets of groups, durable.

mod key;

pub use key::PartitionKey;

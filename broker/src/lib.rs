//! The house: topics, partitions and the doors that open them to the world.

pub mod clock;
pub mod config;
pub mod partition;
pub mod topic;

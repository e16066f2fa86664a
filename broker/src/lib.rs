//! The house: topics, partitions and the doors that open them to the world.

pub mod clock;
pub mod config;
pub mod group;
pub mod offset;
pub mod partition;
pub mod quota;
pub mod topic;

#[cfg(test)]
mod test_random;

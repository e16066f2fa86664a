//! The name of a lane.
//!
//! A lane is one subscription on one partition. Inside a subscription the partition names it.

/// One lane of a subscription: its partition, by topic id.
pub type LaneKey = crate::offset::PartitionKey;

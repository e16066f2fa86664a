//! Consumer groups: who reads which partition.
//!
//! - [`state`], [`member`], [`assignor`]: pure; events and the time in, replies and effects out.
//! - [`event`], [`error`], [`topics`]: what they speak of. [`image`]: what of a group is stored.
//! - [`coordinator`]: all groups while they live, with their locks, held heartbeats and deadlines.
//!
//! The rules, with the state machine drawn, stand in `docs/groups.md`. A group knows member ids, never
//! connections; it does not read or write records.

pub mod assignor;
pub mod coordinator;
pub mod error;
pub mod event;
pub mod image;
pub mod member;
pub mod state;
pub mod topics;

//! What the broker remembers of groups, durable: that they exist, their stored offsets, their members.
//!
//! - [`record`]: entries of the groups' log, written and read.
//! - [`image`]: the state as a fold over them. [`once_wanted`]: the topics of members that are gone.
//! - [`store`]: the one writer with group commit, and reads of what is durable.
//! - [`state_log`]: the log as the store needs it; [`disk_log`]: that log on disk.
//!
//! Invariants: nothing is readable here that a crash could take back; an offset moves back only by a reset or a
//! commit that says so; offsets live until their group or topic is deleted.

pub mod disk_log;
pub mod image;
mod key;
pub mod once_wanted;
pub mod record;
pub mod state_log;
pub mod store;

pub use image::{GroupImage, StartPolicy, StoredOffset};
pub use key::PartitionKey;
pub use store::{OffsetStore, StoreError};

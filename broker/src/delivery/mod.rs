//! Broker-managed delivery: what one subscription gives to whom, and what became of it.
//!
//! Pure: events and the time go in, effects come out. No clock, lock, I/O, randomness or wire type.
//! Offsets are bare numbers in this room, because it computes with chunks of them; all ranges are half-open.
//!
//! - [`lane_key`], [`run`], [`settings`]: the words.
//! - [`offset_set`]: which offsets of a lane are settled.
//! - [`change`], [`image`]: what must be remembered, as a stream of changes and as their sum.

pub mod change;
pub mod image;
pub mod lane_key;
pub mod offset_set;
pub mod run;
pub mod settings;

pub use change::{Attempt, Change, DeadCause, FailureCause};
pub use image::{DeadImage, FailureImage, LaneImage};
pub use lane_key::LaneKey;
pub use offset_set::OffsetSet;
pub use run::Run;
pub use settings::{Order, Settings};

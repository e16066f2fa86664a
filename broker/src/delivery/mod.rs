//! Broker-managed delivery: what one subscription gives to whom, and what became of it.
//!
//! Pure: events and the time go in, effects come out. No clock, lock, I/O, randomness or wire type.
//! Offsets are bare numbers in this room, because it computes with chunks of them; all ranges are half-open.
//!
//! - [`engine`]: [`Delivery`], the state machine of one subscription.
//! - [`lane_key`], [`run`], [`settings`], [`now`]: the words.
//! - [`open`], [`settle`], [`scan`]: what comes in; [`effects`]: what goes out; [`reason`], [`view`], [`tally`]: what operators see.
//! - [`change`], [`image`]: what must be remembered, as a stream of changes and as their sum.
//! - [`offset_set`], `open_table`, `keys`, `schedule`: the records of a lane; `lane` keeps them.
//! - `session`, [`credit`], `grants`, `late`: who holds what, until when.

pub mod change;
pub mod credit;
pub mod effects;
pub mod engine;
pub mod image;
pub mod lane_key;
pub mod now;
mod number_hasher;
pub mod offset_set;
pub mod open;
pub mod reason;
pub mod run;
pub mod scan;
pub mod settings;
pub mod settle;
pub mod tally;
pub mod view;

mod bit_set;
mod entry;
mod grants;
mod keys;
mod lane;
mod lanes;
mod late;
mod open_table;
mod run_set;
mod schedule;
mod session;
mod sessions;

#[cfg(test)]
mod tests;

pub use change::{Attempt, Change, DeadCause, FailureCause};
pub use credit::Credit;
pub use effects::{DeadLetter, DeliveryCount, Effects, Handout, RevokeReason, Told};
pub use engine::{Delivery, SettingsError, Visible};
pub use image::{DeadImage, FailureImage, LaneImage};
pub use lane_key::LaneKey;
pub use now::Now;
pub use offset_set::{OffsetSet, Piece};
pub use open::{Ask, GoneReason, Open, OpenError, Opened, ResumePoint, SessionRef, Used};
pub use reason::Reason;
pub use run::Run;
pub use scan::{Found, Scan, ScanFailure, ScanFailureCause, Scanned};
pub use session::{UNSENT_DELIVERIES_MAX, UNSENT_RECORDS_MAX};
pub use settings::{Order, Settings};
pub use settle::{Outcome, SettleItem, SettleResult, SettleStatus};
pub use tally::Tally;
pub use view::{Counts, Peeked, RecordState, SessionView};

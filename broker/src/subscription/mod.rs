//! What the broker remembers of subscriptions, durable: that they exist, their settings, what they settled, what
//! failed, which dead letters are on their way.
//!
//! - [`settings`], [`filter`], [`webhook`]: what a subscription is told to do.
//! - [`delta`]: changes of one lane gathered between two flushes; [`lane`]: a lane as it is remembered.
//! - [`record`], [`offsets`]: entries of the subscriptions' log, written and read.
//! - [`image`]: the state as a fold over them.
//! - [`store`]: the one writer with group commit.
//! - [`disk_log`]: the log on disk.
//!
//! Invariants: memory of the live subscriptions may run ahead of the log, so a crash costs deliveries that are
//! repeated; what was confirmed as durable is never forgotten, and nothing that was not settled is ever taken for
//! settled. What is in consumers' hands is not stored.
//!
//! It decides nothing about delivery.

pub mod delta;
pub mod disk_log;
pub mod filter;
pub mod image;
pub mod lane;
#[cfg(test)]
mod model;
pub mod offsets;
pub mod record;
pub mod settings;
pub mod store;
pub mod webhook;

pub use image::{Subscription, Subscriptions};
pub use lane::{DeadIntent, RememberedLane};
pub use settings::{InvalidSetting, SubscriptionSettings};
pub use store::{StoreError, SubscriptionStore};
pub use webhook::Webhook;

//! What joins delivery to the rest of the house: reading the log for it, frames for its sessions, its timers.
//!
//! - [`scan`], [`filter`], [`scan_cache`]: finding records, their keys and times, once for all subscriptions.
//! - [`frame`]: from offsets handed out to bytes for a consumer.

pub mod frame;
pub mod scan;
pub mod scan_cache;

#[cfg(test)]
mod scan_tests;

pub use crate::subscription::filter;

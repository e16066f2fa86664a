//! The words of metrics: what may be measured, meters for the hot path, and the text that scrapers read.
//!
//! - [`families`]: every metric there is, in one table; [`family`] says what one consists of.
//! - [`counter`], [`histogram`]: numbers that are counted where things happen. [`traffic`], [`writing`],
//!   [`door`], [`web`], [`refusals`], [`scrubbing`], [`spans`]: meters made of them, for the rooms that count.
//! - [`exposition`]: OpenMetrics text. [`process`]: what the operating system says of this process.
//!
//! Invariants:
//! - Meters are counted per batch, per flush or per call, never per record, with relaxed atomics and no lock.
//! - A counter never goes back while the broker runs.
//! - No label holds what a client may choose freely, but for names of topics, groups and subscriptions, whose
//!   numbers are bounded.
//!
//! Nothing here knows the rooms that are measured: `service/metrics` gathers from them, and doors serve the text.

pub mod counter;
pub mod door;
pub mod exposition;
pub mod families;
pub mod family;
pub mod histogram;
pub mod process;
pub mod refusals;
pub mod scrubbing;
pub mod spans;
pub mod traffic;
pub mod web;
pub mod writing;

pub use self::{
    counter::Counter,
    door::DoorMeter,
    exposition::Exposition,
    families::FAMILIES,
    family::{Family, Kind},
    histogram::Histogram,
    refusals::Refusals,
    scrubbing::ScrubMeter,
    spans::SpanMeter,
    traffic::Traffic,
    web::WebMeter,
    writing::WriteMeter,
};

/// Media type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

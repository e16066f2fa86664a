//! What became of the spans of traces.

use super::counter::Counter;

/// Counts spans, by what became of them.
#[derive(Debug, Default)]
pub struct SpanMeter {
    /// A collector took them.
    pub exported: Counter,
    /// There was no room for them, or no collector took them.
    pub lost: Counter,
}

//! How far the scrubber is and what it met.

use super::counter::Counter;

/// What re-reading sealed segments counts, the broker's own logs included.
#[derive(Debug, Default)]
pub struct ScrubMeter {
    /// Bytes read.
    pub bytes: Counter,
    /// Passes over all partitions that came to their end.
    pub passes: Counter,
    /// Damaged places met, each time they were met.
    pub damages: Counter,
}

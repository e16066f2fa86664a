//! What went through one partition in one direction.

use super::Counter;

/// Sums since the partition was opened.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Record batches, or answers with records.
    pub batches: Counter,
    /// Records.
    pub records: Counter,
    /// Bytes of the batches.
    pub bytes: Counter,
}

impl Traffic {
    /// Enters one batch or answer.
    pub fn count(&self, records: u64, bytes: u64) {
        self.batches.add(1);
        self.records.add(records);
        self.bytes.add(bytes);
    }
}

//! How often a record was put off by its endpoint without failing. One that is put off for ever would never be dead-lettered.

use std::collections::HashMap;

use riverrun_proto::TopicId;

/// Times that a record is put off without a failure.
const POSTPONED_MAX: u32 = 20;
/// Records that are remembered. Past it all are forgotten: some are put off for longer.
const RECORDS_MAX: usize = 10_000;

/// A record: topic, partition, offset.
pub(super) type At = (TopicId, u32, u64);

/// Counts of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Postponements(HashMap<At, u32>);

impl Postponements {
    /// Counts one more; true when it is one too many.
    pub(super) fn wear_out(&mut self, at: At) -> bool {
        if self.0.len() >= RECORDS_MAX && !self.0.contains_key(&at) {
            self.0.clear();
        }
        let count = self.0.entry(at).or_default();
        *count += 1;
        *count > POSTPONED_MAX
    }

    /// It was taken, or failed.
    pub(super) fn forget(&mut self, at: &At) {
        self.0.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_put_off_twenty_times_in_a_row_and_memory_is_bounded() {
        let at = |offset| (TopicId(uuid::Uuid::nil()), 0, offset);
        let mut counts = Postponements::default();
        for _ in 0..3 {
            for _ in 0..POSTPONED_MAX {
                assert!(!counts.wear_out(at(1)));
            }
            assert!(counts.wear_out(at(1)) && !counts.wear_out(at(2)));
            counts.forget(&at(1));
            counts.forget(&at(2));
        }
        for offset in 0..3 * RECORDS_MAX as u64 {
            assert!(!counts.wear_out(at(offset)));
            assert!(counts.0.len() <= RECORDS_MAX);
        }
    }
}

//! How much a session may still be given.
//!
//! Credit is a pair of running totals that only rise, so an update that is lost, repeated or late does no harm.

/// Records and bytes that a session allowed, and what it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    records_total: u64,
    bytes_total: u64,
    records_given: u64,
    bytes_given: u64,
}

impl Credit {
    /// Raises the totals; one smaller than before is ignored.
    pub fn raise(&mut self, records_total: u64, bytes_total: u64) {
        self.records_total = self.records_total.max(records_total);
        self.bytes_total = self.bytes_total.max(bytes_total);
    }

    /// Allows so much from now on, whatever was allowed before.
    pub fn set(&mut self, records: u64, bytes: u64) {
        self.records_total = self.records_given.saturating_add(records);
        self.bytes_total = self.bytes_given.saturating_add(bytes);
    }

    /// Records that may still be given.
    pub fn records_left(&self) -> u64 {
        self.records_total.saturating_sub(self.records_given)
    }

    /// Bytes that may still be given.
    pub fn bytes_left(&self) -> u64 {
        self.bytes_total.saturating_sub(self.bytes_given)
    }

    /// Records given so far.
    pub fn records_given(&self) -> u64 {
        self.records_given
    }

    /// Bytes given so far.
    pub fn bytes_given(&self) -> u64 {
        self.bytes_given
    }

    /// A record of `bytes` may be given to a session that holds `in_flight` records. One that is larger than what
    /// is left goes to a session that holds nothing, so that it is not stuck for ever.
    pub fn allows(&self, bytes: u32, in_flight: u32) -> bool {
        self.records_left() > 0 && (u64::from(bytes) <= self.bytes_left() || in_flight == 0)
    }

    /// Notes that a record was given.
    pub fn give(&mut self, bytes: u32) {
        self.records_given = self.records_given.saturating_add(1);
        self.bytes_given = self.bytes_given.saturating_add(u64::from(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_only_rise_and_a_large_record_needs_empty_hands() {
        let mut credit = Credit::default();
        assert!(!credit.allows(0, 0));
        credit.raise(3, 100);
        credit.raise(2, 90);
        assert_eq!((credit.records_left(), credit.bytes_left()), (3, 100));
        assert!(credit.allows(100, 5) && !credit.allows(101, 1) && credit.allows(101, 0));
        credit.give(150);
        assert_eq!((credit.records_left(), credit.bytes_left()), (2, 0));
        credit.raise(3, 200);
        assert_eq!(credit.bytes_left(), 50);
        credit.raise(u64::MAX, u64::MAX);
        credit.give(u32::MAX);
        assert!(credit.allows(u32::MAX, 9));
    }
}

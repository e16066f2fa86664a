//! How much the broker may send: running totals that never shrink.
//!
//! Credit is for what is *unsettled*: a record holds its part until it is settled or taken back. Totals are
//! told again once half of the window came free, and at once when the program has nothing left to take, so
//! that workers never wait for credit that exists. The window in bytes doubles, up to its maximum, when
//! the program ran dry while bytes were what held the broker back.
//!
//! The broker counts what it *used* of the totals, and part of that may never come: it was lost with a stream and its lease ended
//! meanwhile, or it could not be read. So what counts as received is what the broker says it used; else that part of the window
//! would be gone for good, and with all of it the records.

/// How much the broker may send.
#[derive(Clone, Debug)]
pub(super) struct Credit {
    records_window: u64,
    bytes_window: u64,
    bytes_max: u64,
    /// Received in this session, and what of it will not come any more.
    received: Amount,
    /// Of it what is neither settled nor taken back.
    held: Amount,
    /// Totals told last.
    granted: Amount,
}

/// Records and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Amount {
    fn plus(self, other: Amount) -> Amount {
        let records = self.records.saturating_add(other.records);
        Amount { records, bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// What is left without `other`; nothing where that is more.
    fn less(self, other: Amount) -> Amount {
        let records = self.records.saturating_sub(other.records);
        Amount { records, bytes: self.bytes.saturating_sub(other.bytes) }
    }

    fn max_of_each(self, other: Amount) -> Amount {
        Amount { records: self.records.max(other.records), bytes: self.bytes.max(other.bytes) }
    }
}

impl Credit {
    pub(super) fn new(records_window: u64, bytes_window: u64, bytes_max: u64) -> Credit {
        let zero = Amount::default();
        Credit {
            records_window,
            bytes_window,
            bytes_max: bytes_max.max(bytes_window),
            received: zero,
            held: zero,
            granted: zero,
        }
    }

    /// A new session: totals count from zero. The window keeps what it learned.
    pub(super) fn restart(&mut self) {
        let fresh = Credit::new(self.records_window, self.bytes_window, self.bytes_max);
        *self = fresh;
    }

    /// The totals must be told again, since the last frame may be lost.
    pub(super) fn forget_granted(&mut self) {
        self.granted = Amount::default();
    }

    pub(super) fn receive(&mut self, amount: Amount) {
        self.received = self.received.plus(amount);
        self.held = self.held.plus(amount);
    }

    /// What was received before came again, and the broker counts it as used once more.
    pub(super) fn receive_again(&mut self, amount: Amount) {
        self.received = self.received.plus(amount);
    }

    /// The broker used so much before the stream that begins now, without what it sends again.
    pub(super) fn begin_at(&mut self, used: Amount) {
        self.received = used;
    }

    /// The broker used so much up to now. What of it did not come will not.
    pub(super) fn used(&mut self, used: Amount) {
        self.received = self.received.max_of_each(used);
    }

    pub(super) fn free(&mut self, amount: Amount) {
        self.held = self.held.less(amount);
    }

    /// The totals to tell now, if it is time to. `dry`: the program has nothing left to take.
    pub(super) fn due(&mut self, dry: bool) -> Option<Amount> {
        if dry && self.bytes_held_back() {
            self.bytes_window = (self.bytes_window * 2).min(self.bytes_max);
        }
        let window = Amount { records: self.records_window, bytes: self.bytes_window };
        let total = self.received.less(self.held).plus(window).max_of_each(self.granted);
        let Amount { records: more_records, bytes: more_bytes } = total.less(self.granted);
        let is_half =
            more_records * 2 >= self.records_window || more_bytes * 2 >= self.bytes_window;
        let is_more = more_records > 0 || more_bytes > 0;
        if !(is_half || dry && is_more) {
            return None;
        }
        self.granted = total;
        Some(total)
    }

    /// Whether most of the bytes granted are used and many of the records are not.
    fn bytes_held_back(&self) -> bool {
        let bytes_left = self.granted.bytes.saturating_sub(self.received.bytes);
        let records_left = self.granted.records.saturating_sub(self.received.records);
        self.granted != Amount::default()
            && self.received.bytes > 0
            && bytes_left < self.bytes_window / 4
            && records_left > self.records_window / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(records: u64, bytes: u64) -> Amount {
        Amount { records, bytes }
    }

    #[test]
    fn totals_are_told_at_half_and_at_once_when_the_program_is_dry() {
        let mut credit = Credit::new(8, 800, 3200);
        assert_eq!(credit.due(false), Some(amount(8, 800)));
        assert_eq!(credit.due(true), None, "nothing came free");
        credit.receive(amount(8, 80));
        credit.free(amount(3, 30));
        assert_eq!(credit.due(false), None, "less than half");
        assert_eq!(credit.due(true), Some(amount(11, 830)));
        credit.free(amount(4, 40));
        assert_eq!(credit.due(false), Some(amount(15, 870)));
        assert_eq!(credit.due(true), None);
    }

    #[test]
    fn lost_frames_are_told_again_and_new_sessions_count_from_zero() {
        let mut credit = Credit::new(8, 800, 3200);
        credit.due(false);
        credit.receive(amount(5, 50));
        credit.free(amount(5, 50));
        credit.forget_granted();
        assert_eq!(credit.due(false), Some(amount(13, 850)));
        credit.restart();
        assert_eq!(credit.due(false), Some(amount(8, 800)));
    }

    #[test]
    fn what_was_used_and_never_came_is_granted_anew() {
        let mut credit = Credit::new(8, 800, 800);
        credit.due(false);
        credit.receive(amount(3, 30));
        // Eight were given before the stream broke: three came, two are sent again, and three are lost.
        credit.forget_granted();
        credit.begin_at(amount(6, 60));
        assert_eq!(credit.due(true), Some(amount(6 - 3 + 8, 60 - 30 + 800)));
        // One of the two had come before; with the other, four are held.
        credit.receive_again(amount(1, 10));
        credit.receive(amount(1, 10));
        assert_eq!(credit.due(true), Some(amount(8 - 4 + 8, 80 - 40 + 800)));
        credit.free(amount(4, 40));
        assert_eq!(credit.due(true), Some(amount(8 + 8, 80 + 800)));
        // The broker used two more, which could not be read.
        credit.used(amount(10, 100));
        assert_eq!(credit.due(true), Some(amount(10 + 8, 100 + 800)));
        credit.used(amount(9, 90));
        assert_eq!(credit.due(true), None, "totals never shrink");
    }

    #[test]
    fn the_byte_window_doubles_only_while_bytes_hold_the_broker_back() {
        let mut credit = Credit::new(100, 800, 3000);
        credit.due(false);
        credit.receive(amount(4, 790));
        assert_eq!(credit.due(true), Some(amount(100, 1600)));
        credit.receive(amount(4, 800));
        assert_eq!(credit.due(true), Some(amount(100, 3000)), "never over the maximum");
        credit.receive(amount(4, 1400));
        assert_eq!(credit.due(true), None);
        // Records are what is used up: more bytes would not help.
        let mut credit = Credit::new(4, 800, 3000);
        credit.due(false);
        credit.receive(amount(4, 790));
        credit.free(amount(4, 790));
        assert_eq!(credit.due(true), Some(amount(8, 1590)));
    }
}

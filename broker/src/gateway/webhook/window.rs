//! How much an endpoint may be handed out: its credit, so that memory for records that wait or are under way is bounded.
//!
//! ```text
//! credit = taken up - held + what may be held
//! ```
//!
//! What was taken up counts everything that credit was used for, so what is lost on the way (retention, records that cannot be
//! read) comes back by itself. Totals only rise.

use crate::service::delivery::session::Amount;

/// What was handed out, and what is still held of it.
#[derive(Debug)]
pub(super) struct Window {
    bytes_max: u64,
    taken: Amount,
    held: Amount,
}

impl Window {
    /// One through which at most `bytes_max` are held, or a single larger record.
    pub(super) fn new(bytes_max: usize) -> Window {
        let (taken, held) = (Amount::default(), Amount::default());
        Window { bytes_max: bytes_max as u64, taken, held }
    }

    /// So much was handed out in all.
    pub(super) fn take_up(&mut self, taken: Amount) {
        self.taken = taken;
    }

    /// A record is held.
    pub(super) fn hold(&mut self, bytes: usize) {
        self.held.records += 1;
        self.held.bytes += bytes as u64;
    }

    /// It is not any more.
    pub(super) fn let_go(&mut self, bytes: usize) {
        self.held.records -= 1;
        self.held.bytes -= bytes as u64;
    }

    /// Nothing is held.
    pub(super) fn clear(&mut self) {
        self.held = Amount::default();
    }

    /// Credit, as totals, of an endpoint that may hold `records`. One more than that, so that what stops it is told as what it is.
    pub(super) fn credit(&self, records: u32) -> Amount {
        Amount {
            records: self.taken.records.saturating_sub(self.held.records) + u64::from(records) + 1,
            bytes: self.taken.bytes.saturating_sub(self.held.bytes) + self.bytes_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_what_may_be_held_less_what_is_and_what_was_lost_on_the_way_comes_back() {
        let amount = |records, bytes| Amount { records, bytes };
        let mut window = Window::new(100);
        assert_eq!(window.credit(2), amount(3, 100));
        // Two records, one of which never came.
        window.take_up(amount(2, 80));
        window.hold(30);
        assert_eq!(window.credit(2), amount(2 - 1 + 3, 80 - 30 + 100));
        window.take_up(amount(3, 580));
        window.hold(500);
        assert_eq!(window.credit(2), amount(3 - 2 + 3, 580 - 530 + 100));
        window.let_go(30);
        window.let_go(500);
        assert_eq!(window.credit(2), amount(3 + 3, 580 + 100));
        window.hold(1);
        window.clear();
        assert_eq!(window.credit(2), amount(3 + 3, 580 + 100));
    }
}

//! What happened so far, as sums. They are counted where things happen, under the lock of the subscription.

use super::{change::FailureCause, effects::Handout};

/// Sums since the broker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records handed out, every try counted.
    pub delivered: u64,
    /// Bytes of them.
    pub delivered_bytes: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Deliveries that ended with a nack.
    pub nacked: u64,
    /// Deliveries that ended because the record will never succeed.
    pub rejected: u64,
    /// Deliveries given back untouched.
    pub released: u64,
    /// Deliveries whose lease ended.
    pub expired: u64,
    /// Deliveries whose session was lost.
    pub crashed: u64,
    /// Dead letters written.
    pub dead: u64,
}

impl Tally {
    /// Records were handed out.
    pub(super) fn hand_out(&mut self, handout: &Handout) {
        self.delivered += handout.count();
        self.delivered_bytes += handout.bytes;
    }

    /// A delivery failed.
    pub(super) fn fail(&mut self, cause: FailureCause) {
        let sum = match cause {
            FailureCause::Nack => &mut self.nacked,
            FailureCause::Expired => &mut self.expired,
            FailureCause::Crashed => &mut self.crashed,
            FailureCause::Rejected => &mut self.rejected,
        };
        *sum += 1;
    }
}

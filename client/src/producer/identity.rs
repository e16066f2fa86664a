//! Who an idempotent producer is, and how its batches are numbered.

use riverrun_proto::{ProducerEpoch, ProducerId};

/// Producer id and epoch, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
}

impl Identity {
    /// No idempotence.
    pub(super) const NONE: Identity = Identity { id: ProducerId::NONE, epoch: ProducerEpoch(-1) };

    /// Whether batches carry sequence numbers.
    pub(super) fn is_idempotent(self) -> bool {
        self != Identity::NONE
    }

    /// What a batch carries for `sequence`: nothing without idempotence.
    pub(super) fn sequence(self, sequence: i32) -> i32 {
        if self.is_idempotent() { sequence } else { -1 }
    }
}

/// The sequence number `count` records later. They run to `i32::MAX` and begin again at 0.
pub(super) fn next_sequence(base: i32, count: u32) -> i32 {
    let next = (i64::from(base) + i64::from(count)) % (i64::from(i32::MAX) + 1);
    i32::try_from(next).expect("a remainder of 2^31 fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap_to_zero() {
        assert_eq!(next_sequence(0, 10), 10);
        assert_eq!(next_sequence(i32::MAX, 1), 0);
        assert_eq!(next_sequence(i32::MAX - 1, 5), 3);
    }
}

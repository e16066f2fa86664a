//! Entries of the subscriptions' log. An input is parts; each is one entry.

use riverrun_broker::subscription::image::Subscriptions;
use riverrun_proto::Offset;

use crate::{Taken, pieces::pieces};

/// Bytes of an entry of a snapshot: so few that every change is one.
const ENTRY_BYTES: usize = 64;

pub(crate) fn run(input: &[u8]) -> Taken {
    let mut state = Subscriptions::default();
    let mut taken = Taken::Refused;
    for (_, bytes) in pieces(input) {
        if let Err(error) = state.apply(bytes) {
            assert!(!error.to_string().is_empty());
            break;
        }
        taken = Taken::Accepted;
    }
    for entry_bytes in [ENTRY_BYTES, usize::MAX] {
        let mut again = Subscriptions::default();
        for entry in state.snapshot(entry_bytes) {
            again.apply(&entry).expect("a snapshot of what was taken in");
        }
        assert_eq!(again, state, "a snapshot is the state");
    }
    for (_, offsets) in state.all_cancelled() {
        assert!(offsets.runs().all(|run| run.end <= Offset::MAX.0), "offsets past the largest");
    }
    for subscription in state.iter() {
        assert!(subscription.number < state.next_number(), "numbers are never used again");
        assert_eq!(state.by_name(&subscription.name), Some(subscription));
    }
    taken
}

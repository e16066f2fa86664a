//! When each subscription has something to do: one structure for the deadlines of all of them.

use std::{collections::BTreeSet, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Deadlines of subscriptions, by number.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: Mutex<BTreeSet<(Duration, u64)>>,
    /// The first deadline came closer.
    closer: Notify,
}

impl Deadlines {
    /// Moves the deadline of a subscription from `old` to `new`.
    pub(super) fn set(&self, subscription: u64, old: Option<Duration>, new: Option<Duration>) {
        let mut by_time = self.by_time.lock();
        if let Some(old) = old {
            by_time.remove(&(old, subscription));
        }
        if let Some(new) = new {
            let is_first = by_time.first().is_none_or(|(first, _)| new < *first);
            by_time.insert((new, subscription));
            drop(by_time);
            if is_first {
                self.closer.notify_one();
            }
        }
    }

    /// Subscriptions whose deadline passed; each is taken off.
    pub(super) fn due(&self, now: Duration) -> Vec<u64> {
        let mut by_time = self.by_time.lock();
        let later = by_time.split_off(&(now + Duration::from_nanos(1), 0));
        std::mem::replace(&mut *by_time, later).into_iter().map(|(_, number)| number).collect()
    }

    /// The first deadline.
    pub(super) fn first(&self) -> Option<Duration> {
        self.by_time.lock().first().map(|(deadline, _)| *deadline)
    }

    /// Waits until the first deadline comes closer.
    pub(super) async fn closer(&self) {
        self.closer.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_taken_off_once() {
        let at = Duration::from_secs;
        let deadlines = Deadlines::default();
        deadlines.set(1, None, Some(at(5)));
        deadlines.set(2, None, Some(at(3)));
        deadlines.set(3, None, Some(at(9)));
        deadlines.set(1, Some(at(5)), Some(at(2)));
        assert_eq!(deadlines.first(), Some(at(2)));
        assert_eq!(deadlines.due(at(3)), [1, 2]);
        assert!(deadlines.due(at(3)).is_empty());
        deadlines.set(3, Some(at(9)), None);
        assert_eq!((deadlines.first(), deadlines.due(at(99))), (None, vec![]));
    }
}

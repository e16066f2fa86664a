//! When each group has something to do: one structure for the deadlines of all groups.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Deadlines of groups.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    deadlines: Mutex<BTreeSet<(Duration, Arc<str>)>>,
    /// The first deadline came closer.
    closer: Notify,
}

impl Schedule {
    /// Moves the deadline of `group` from `old` to `new`.
    pub(super) fn set(&self, group: &Arc<str>, old: Option<Duration>, new: Option<Duration>) {
        let mut deadlines = self.deadlines.lock();
        if let Some(old) = old {
            deadlines.remove(&(old, group.clone()));
        }
        if let Some(new) = new {
            let first = deadlines.first().is_none_or(|(first, _)| new < *first);
            deadlines.insert((new, group.clone()));
            drop(deadlines);
            if first {
                self.closer.notify_one();
            }
        }
    }

    /// Groups whose deadline passed; each is taken off.
    pub(super) fn due(&self, now: Duration) -> Vec<Arc<str>> {
        let mut deadlines = self.deadlines.lock();
        let mut due = Vec::new();
        while let Some((deadline, group)) = deadlines.pop_first() {
            if deadline > now {
                deadlines.insert((deadline, group));
                break;
            }
            due.push(group);
        }
        due
    }

    /// The first deadline.
    pub(super) fn first(&self) -> Option<Duration> {
        self.deadlines.lock().first().map(|(deadline, _)| *deadline)
    }

    /// Waits until the first deadline comes closer.
    pub(super) async fn closer(&self) {
        self.closer.notified().await;
    }
}

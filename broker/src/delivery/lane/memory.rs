//! What of a lane is to be remembered and was not taken yet.

use crate::delivery::{change::Change, lane_key::LaneKey, run::Run};

/// Changes in order; what is settled stands apart, as runs.
///
/// A record is settled last of all, so the runs go after the other changes. Only a seek comes after them.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    changes: Vec<Change>,
    settled: Vec<Run>,
}

impl Memory {
    /// Offsets are settled.
    pub(crate) fn settled(&mut self, run: Run) {
        Run::push(&mut self.settled, run);
    }

    /// Something else is to be remembered.
    pub(crate) fn note(&mut self, change: Change) {
        if let Change::Seek { .. } = change {
            // Nothing that came before it is remembered.
            self.changes.clear();
            self.settled.clear();
        }
        self.changes.push(change);
    }

    /// A record waits for an hour that is far away.
    pub(crate) fn note_scheduled(&mut self, lane: LaneKey, hour: i64, offset: u64) {
        if let Some(Change::Scheduled { hour: last, run, .. }) = self.changes.last_mut()
            && *last == hour
            && run.end == offset
        {
            run.end += 1;
            return;
        }
        self.changes.push(Change::Scheduled { lane, hour, run: Run::one(offset) });
    }

    /// Nothing is to be remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.settled.is_empty()
    }

    /// Moves everything to `changes`, runs sorted and joined.
    pub(crate) fn take(&mut self, lane: LaneKey, changes: &mut Vec<Change>) {
        changes.append(&mut self.changes);
        self.settled.sort_unstable();
        let mut joined: Vec<Run> = Vec::new();
        for run in self.settled.drain(..) {
            match joined.last_mut() {
                Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
                _ => joined.push(run),
            }
        }
        changes.extend(joined.into_iter().map(|run| Change::Done { lane, run }));
    }
}

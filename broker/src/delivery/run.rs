//! A run of offsets.

use std::{fmt, ops::Range};

/// Offsets `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// First offset.
    pub start: u64,
    /// First offset past the run.
    pub end: u64,
}

impl Run {
    /// Offsets `[start, end)`; empty when `end` is not past `start`.
    pub fn new(start: u64, end: u64) -> Run {
        Run { start, end }
    }

    /// One offset.
    pub fn one(offset: u64) -> Run {
        Run { start: offset, end: offset + 1 }
    }

    /// Number of offsets.
    pub fn count(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// No offsets.
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// `offset` is in the run.
    pub fn contains(self, offset: u64) -> bool {
        self.start <= offset && offset < self.end
    }

    /// What both have; maybe empty.
    pub fn intersect(self, other: Run) -> Run {
        Run { start: self.start.max(other.start), end: self.end.min(other.end) }
    }

    /// The offsets in order.
    pub fn offsets(self) -> Range<u64> {
        self.start..self.end
    }

    /// Appends `offset` to `runs`, which end at or before it, joining it to the last one where they touch.
    pub fn push(runs: &mut Vec<Run>, run: Run) {
        match runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => runs.push(run),
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

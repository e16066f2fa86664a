//! A set of offsets as runs.

use std::collections::BTreeMap;

use super::run::Run;

/// Offsets as runs that neither overlap nor touch.
#[derive(Debug, Default)]
pub(super) struct RunSet {
    runs: BTreeMap<u64, u64>,
}

impl RunSet {
    /// The lowest run.
    pub(super) fn first(&self) -> Option<Run> {
        self.runs.first_key_value().map(|(start, end)| Run::new(*start, *end))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Number of runs.
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// The runs in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Run> {
        self.runs.iter().map(|(start, end)| Run::new(*start, *end))
    }

    /// Bytes of memory.
    pub(super) fn state_bytes(&self) -> usize {
        self.runs.len() * 32
    }

    pub(super) fn contains(&self, offset: u64) -> bool {
        self.runs.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
    }

    /// Adds a run.
    pub(super) fn insert(&mut self, run: Run) {
        if run.is_empty() {
            return;
        }
        let (mut start, mut end) = (run.start, run.end);
        while let Some((other, other_end)) = self.runs.range(..=end).next_back() {
            if *other_end < start {
                break;
            }
            let (other, other_end) = (*other, *other_end);
            self.runs.remove(&other);
            start = start.min(other);
            end = end.max(other_end);
        }
        self.runs.insert(start, end);
    }

    /// Takes a run out.
    pub(super) fn remove(&mut self, run: Run) {
        if run.is_empty() {
            return;
        }
        while let Some((start, end)) = self.runs.range(..run.end).next_back() {
            let (start, end) = (*start, *end);
            if end <= run.start {
                return;
            }
            self.runs.remove(&start);
            if end > run.end {
                self.runs.insert(run.end, end);
            }
            if start < run.start {
                self.runs.insert(start, run.start);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::test_random::Random;

    #[test]
    fn a_run_set_holds_what_a_plain_set_holds() {
        Random::each(50, |random| {
            let (mut runs, mut plain) = (RunSet::default(), BTreeSet::new());
            for _ in 0..200 {
                let start = random.below(60);
                let run = Run::new(start, start + random.below(12));
                if random.chance(2) {
                    runs.insert(run);
                    plain.extend(run.offsets());
                } else {
                    runs.remove(run);
                    plain.retain(|offset| !run.contains(*offset));
                }
                let held: Vec<u64> = (0..80).filter(|offset| runs.contains(*offset)).collect();
                assert_eq!(held, plain.iter().copied().collect::<Vec<_>>());
                assert_eq!(runs.first().map(|run| run.start), plain.first().copied());
                let touching = runs.runs.iter().zip(runs.runs.iter().skip(1));
                assert!(touching.into_iter().all(|((_, end), (start, _))| end < start));
            }
        });
    }
}

//! The line that moves on a terminal while a workload runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;

use crate::{clock, progress::Progress, units};

/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(500);

/// Counts what is done. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds to it. Callers on a hot path add many at a time.
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What was added so far.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The line; it goes away when dropped.
#[derive(Debug)]
pub(super) struct Live {
    counter: Counter,
    progress: Progress,
    telling: tokio::task::JoinHandle<()>,
}

impl Live {
    /// Starts a line that says `doing` and how far it is on the way to `goal` records.
    pub(super) fn start(doing: &str, goal: Option<u64>, quiet: bool) -> Live {
        let counter = Counter::default();
        let progress = Progress::line(quiet);
        progress.say(doing.to_owned());
        let telling = tell(doing.to_owned(), goal, counter.clone(), progress.clone());
        Live { counter, progress, telling: tokio::spawn(telling) }
    }

    /// Where to count.
    pub(super) fn counter(&self) -> Counter {
        self.counter.clone()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.telling.abort();
        self.progress.finish();
    }
}

async fn tell(doing: String, goal: Option<u64>, counter: Counter, progress: Progress) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = clock::instant();
    let mut last = (start, 0);
    loop {
        ticks.tick().await;
        let now = (clock::instant(), counter.get());
        progress.say(line(&doing, goal, (now.1, rate(last, now)), now.0 - start));
        last = now;
    }
}

fn rate((then, before): (Instant, u64), (now, after): (Instant, u64)) -> u64 {
    let micros = u64::try_from((now - then).as_micros()).unwrap_or(u64::MAX).max(1);
    (after - before).saturating_mul(1_000_000) / micros
}

/// `sending: 1,284 of 10,000 records, 812,000/s, 12 s`
fn line(doing: &str, goal: Option<u64>, (done, rate): (u64, u64), elapsed: Duration) -> String {
    let time = units::millis(elapsed.as_secs() * 1000);
    let of = goal.map_or(String::new(), |goal| format!(" of {}", units::count(goal)));
    format!("{doing}: {}{of} records, {}/s, {time}", units::count(done), units::count(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_and_how_fast() {
        let text = line("sending", Some(10_000), (1284, 812_000), Duration::from_millis(12_900));
        assert_eq!(text, "sending: 1,284 of 10,000 records, 812,000/s, 12 s");
        let text = line("sending", None, (0, 0), Duration::ZERO);
        assert_eq!(text, "sending: 0 records, 0/s, 0 s");
        let start = clock::instant();
        assert_eq!(rate((start, 100), (start + INTERVAL, 600)), 1000);
    }
}

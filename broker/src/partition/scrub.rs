//! The scrubber: re-reads the sealed segments of all partitions, slowly and for ever, so that damage is found while
//! there is a copy to put back, and not by whoever needs the records.
//!
//! ```text
//! pass begins --> next partition --> a piece on the blocking pool --> told and counted --> wait for the piece's share of time
//!      ^               ^                                                                      |
//!      |               `------------------------------ more to look at ----------------------'
//!      `-- `interval` after the last one began
//! ```
//!
//! Invariants:
//! - In any span of time at most `bytes_per_second` of it are read, and one piece. Time that was not used is not made up for.
//! - It holds no partition while it waits: one that is closed or deleted meanwhile goes, its log at the next step.
//! - It decides nothing. What it finds is told as a read of it is, and counted; reads of it are refused as ever, and of nothing else.
//!
//! Where it is in a pass is not stored. A pass begins with a partition that the clock chooses, so that a broker that
//! never runs as long as a pass takes comes to all of them in time.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use riverrun_storage::LogScrubber;

use super::{Partition, damages::Damages};
use crate::{blocking, clock::Clock, metrics::ScrubMeter};

/// Bytes read at a time, or one entry when that is larger.
const PIECE_BYTES: u64 = 1 << 20;
/// The first pass begins so long after the start: a broker that has just started has other work.
const FIRST_PASS: Duration = Duration::from_secs(60);
/// Partitions without sealed segments that are passed over at a time.
const PASSED_MAX: usize = 256;

/// How fast and how often it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPace {
    /// Most bytes read in a second.
    pub bytes_per_second: u64,
    /// Time between the beginnings of two passes.
    pub interval: Duration,
}

/// Does it, step by step.
#[derive(Debug)]
pub struct Scrubber {
    pace: ScrubPace,
    clock: Clock,
    meter: Arc<ScrubMeter>,
    /// Monotonic time of the next step.
    due: Duration,
    /// Monotonic time at which the pass began.
    began: Duration,
    /// A pass is under way.
    is_passing: bool,
    /// Partitions that the pass has not come to.
    waiting: VecDeque<Weak<Partition>>,
    /// The partition in hand.
    hand: Option<Hand>,
}

/// One partition being looked at.
#[derive(Debug)]
struct Hand {
    partition: Weak<Partition>,
    log: LogScrubber,
    /// Damaged places met so far.
    damages: Damages,
}

impl Scrubber {
    /// A scrubber that begins soon; `None` when the settings say that nothing is to be re-read.
    pub fn new(pace: ScrubPace, clock: Clock, meter: Arc<ScrubMeter>) -> Option<Scrubber> {
        if pace.bytes_per_second == 0 || pace.interval.is_zero() {
            return None;
        }
        let due = clock.elapsed() + pace.interval.min(FIRST_PASS);
        let (waiting, hand) = (VecDeque::new(), None);
        Some(Scrubber { pace, clock, meter, due, began: due, is_passing: false, waiting, hand })
    }

    /// Takes the next step if it is due. `partitions` gives all there are, when a pass begins. Returns how long to
    /// wait before the next call.
    pub async fn turn(&mut self, partitions: impl FnOnce() -> Vec<Arc<Partition>>) -> Duration {
        let now = self.clock.elapsed();
        if now < self.due {
            return self.due - now;
        }
        if !self.is_passing {
            self.begin(partitions(), now);
        }
        match self.hand.take() {
            Some(hand) => self.look(hand, now).await,
            None => self.take_up_next(),
        }
        self.due.saturating_sub(self.clock.elapsed())
    }

    fn begin(&mut self, mut partitions: Vec<Arc<Partition>>, now: Duration) {
        if !partitions.is_empty() {
            let first = self.clock.wall_ms().unsigned_abs() % partitions.len() as u64;
            partitions.rotate_left(usize::try_from(first).unwrap_or(0));
        }
        self.waiting = partitions.iter().map(Arc::downgrade).collect();
        self.is_passing = true;
        self.began = now;
    }

    /// Takes up the next partition with something to look at, or ends the pass.
    fn take_up_next(&mut self) {
        for _ in 0..PASSED_MAX {
            let Some(next) = self.waiting.pop_front() else { return self.end_pass() };
            let Some(partition) = next.upgrade().filter(|partition| !partition.is_closed()) else {
                continue;
            };
            let log = partition.scrubber();
            if log.has_more() {
                self.hand = Some(Hand { partition: next, log, damages: Damages::default() });
                return;
            }
            *partition.damages.lock() = Damages::default();
        }
    }

    fn end_pass(&mut self) {
        self.is_passing = false;
        self.meter.passes.add(1);
        self.due = self.due.max(self.began + self.pace.interval);
        tracing::debug!(
            bytes = self.meter.bytes.get(),
            damages = self.meter.damages.get(),
            "sealed segments were re-read; the sums count from the start"
        );
    }

    /// Looks at a piece, which is paid for with time from `now` on.
    async fn look(&mut self, mut hand: Hand, now: Duration) {
        let looked = blocking::run(move || {
            let scrubbed = hand.log.step(PIECE_BYTES);
            (hand, scrubbed)
        });
        // A panic was told where it happened; that partition's turn is over.
        let Ok((mut hand, scrubbed)) = looked.await else { return };
        self.meter.bytes.add(scrubbed.bytes);
        self.due = now + time_of(scrubbed.bytes, self.pace.bytes_per_second);
        // What belongs to a partition that was closed may be gone for good reason.
        let Some(partition) = hand.partition.upgrade().filter(|found| !found.is_closed()) else {
            return;
        };
        let count = scrubbed.found.len() as u64;
        self.meter.damages.add(count);
        let met = hand.damages.count + count;
        for error in scrubbed.found {
            // Said in the log, and noted, as a read of it is; nobody asked for the records.
            hand.damages.note(&partition.read_failure(error));
        }
        hand.damages.count = met;
        if scrubbed.is_complete {
            *partition.damages.lock() = hand.damages;
        } else {
            let mut known = partition.damages.lock();
            known.count = known.count.max(hand.damages.count);
            drop(known);
            self.hand = Some(hand);
        }
    }
}

impl Partition {
    /// Damaged places that are known.
    pub fn damages(&self) -> Damages {
        self.damages.lock().clone()
    }

    /// How many there are.
    pub fn damaged_places(&self) -> u64 {
        self.damages.lock().count
    }

    fn scrubber(&self) -> LogScrubber {
        self.reader.scrubber()
    }
}

/// The time that reading `bytes` takes at `bytes_per_second`.
fn time_of(bytes: u64, bytes_per_second: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;

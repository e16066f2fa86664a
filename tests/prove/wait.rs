//! WAIT: the wait lists and the publication of a log's end, over the orders in which their threads can meet.
//!
//! ```text
//! broker/src/partition/tail.rs  compiled again over a scheduler that picks the next thread at every step (seeded: half of the
//!                               schedules at random, half by priorities): a missed wake is a reader that sleeps for ever
//! storage/src/offsets.rs        compiled again over a model of memory: all executions of a small program, those included that
//!                               only weak memory shows
//! ```

mod bell;
mod publication;
mod races;
mod sync;
#[expect(unreachable_pub, reason = "a file of the broker, where it is public")]
#[path = "../../broker/src/partition/tail.rs"]
mod tail;

use std::panic::{self, AssertUnwindSafe};

use shuttle::{
    Config, FailurePersistence, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};

use crate::harness::{Size, Verdict, Violation};

/// Schedules of a batch: what `--minutes` looks at the clock between, and a replay does again at most.
const BATCH: u64 = 500;

/// How many times a schedule by priorities takes the word from a thread where it hurts.
const CHANGES: usize = 3;

pub(crate) fn run(size: &Size) -> Verdict {
    let started = std::time::Instant::now();
    let executions = match quietly(publication::run) {
        Ok(executions) => executions,
        Err(what) => {
            let what = format!("publication of the log's end: {what}");
            return Verdict::Violation(Violation { what, again: "--count 0".into() });
        }
    };
    let rounds = size.rounds(20_000, 100_000);
    let (mut done, mut seed) = (0, size.seed);
    while done < rounds && size.time.is_none_or(|time| started.elapsed() < time) {
        let count = BATCH.min(rounds - done);
        if let Err(what) = batch(seed, count) {
            let again = format!("--seed {seed} --count {count}");
            return Verdict::Violation(Violation { what, again });
        }
        done += count;
        seed += 1;
    }
    let races = races::ALL.len();
    Verdict::Green(format!(
        "{done} schedules of {races} races, 0 missed wakes; {executions} executions of the publication"
    ))
}

/// Runs `count` schedules, shared by the races.
fn batch(seed: u64, count: u64) -> Result<(), String> {
    let races = races::ALL.len() as u64 * 2;
    for (index, (name, race)) in (0_u64..).zip(races::ALL) {
        let share = |part: u64| {
            let extra = u64::from(index * 2 + part < count % races);
            usize::try_from(count / races + extra).unwrap_or(usize::MAX)
        };
        let seed = seed.wrapping_mul(1_000).wrapping_add(index);
        schedules(RandomScheduler::new_from_seed(seed, share(0)), share(0), *race)
            .and_then(|()| {
                schedules(PctScheduler::new_from_seed(seed, CHANGES, share(1)), share(1), *race)
            })
            .map_err(|what| format!("{name}: {what}"))?;
    }
    Ok(())
}

/// Runs a race under one scheduler.
fn schedules(scheduler: impl Scheduler + 'static, count: usize, race: fn()) -> Result<(), String> {
    if count == 0 {
        return Ok(());
    }
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    quietly(move || Runner::new(scheduler, config).run(race)).map(|_| ())
}

/// Runs what may panic, without the words on standard error: they become the error.
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    panic::set_hook(hook);
    outcome.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        text.unwrap_or("a panic without words").lines().next().unwrap_or_default().to_owned()
    })
}

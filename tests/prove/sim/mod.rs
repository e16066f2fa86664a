//! SIM: the broker's rooms on one thread, over a simulated disk and clock; a seed decides everything.
//!
//! A seed is a list of steps: calls of clients over a network that loses, steps of the broker's workers one by one, failing
//! syncs, jumps of the clock, ends of the process and of the machine at any change of the disk. After each start and at the
//! end everything is read and held against what the clients were told. A list that fails is made shorter as long as it fails.

mod images;
mod model;
mod random;
mod run;
mod shrink;
mod step;
mod topics;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use self::{
    images::Tried,
    model::{Broken, Model},
    step::{Step, steps_of},
};
use crate::harness::{Size, Verdict, Violation};

/// One seed of so many is done twice, to see that it is the same both times.
const TWICE_EVERY: u64 = 16;
/// A seed takes milliseconds; one that takes so long never ends.
const SEED_TIME_MAX: Duration = Duration::from_secs(60);
/// How often the seeds at work are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What all seeds found.
#[derive(Debug, Default)]
struct Found {
    next: AtomicU64,
    steps: AtomicU64,
    acked: AtomicU64,
    over: AtomicBool,
    /// The first seed that fails, and why.
    broken: Mutex<Option<(u64, Broken)>>,
    /// Seeds at work, and since when.
    at_work: Mutex<Vec<(u64, Instant)>>,
}

pub(crate) fn run(size: &Size) -> Verdict {
    // What panics is a finding, told once at the end.
    std::panic::set_hook(Box::new(|_| {}));
    // A replay of some seeds is that alone.
    let tried = match size.count {
        Some(_) => None,
        None => match catch(images::try_all) {
            Ok(tried) => Some(tried),
            Err(what) => return Verdict::Violation(Violation { what, again: String::new() }),
        },
    };
    let count = size.rounds(5_000, 20_000);
    let began = Instant::now();
    let found = Arc::new(Found::default());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<_> = (0..workers)
        .map(|_| {
            let (size, found) = (size.clone(), Arc::clone(&found));
            thread::spawn(move || work(&size, count, began, &found))
        })
        .collect();
    while !threads.iter().all(thread::JoinHandle::is_finished) {
        thread::sleep(LOOK_EVERY);
        if let Some(seed) = found.hanging() {
            // Its thread never ends, so it is left behind, and no shorter list is looked for.
            let what = format!("seed {seed}: hang: no end after {SEED_TIME_MAX:?}");
            return Verdict::Violation(Violation {
                what,
                again: format!("--seed {seed} --count 1"),
            });
        }
    }
    let verdict = judge(size, &found, tried);
    drop(std::panic::take_hook());
    verdict
}

impl Found {
    /// A seed that has been at work for too long.
    fn hanging(&self) -> Option<u64> {
        let at_work = self.at_work.lock();
        at_work.iter().find(|(_, began)| began.elapsed() > SEED_TIME_MAX).map(|(seed, _)| *seed)
    }
}

fn work(size: &Size, count: u64, began: Instant, found: &Found) {
    while !found.over.load(SeqCst) && size.time.is_none_or(|time| began.elapsed() < time) {
        let index = found.next.fetch_add(1, SeqCst);
        if index >= count {
            return;
        }
        let seed = size.seed.wrapping_add(index);
        let steps = steps_of(seed);
        found.at_work.lock().push((seed, Instant::now()));
        let outcome = attempt(seed, &steps).and_then(|model| {
            let again = index.is_multiple_of(TWICE_EVERY);
            if again && attempt(seed, &steps)?.sum != model.sum {
                return Err("not-repeatable: the seed gives two histories".into());
            }
            Ok(model)
        });
        found.at_work.lock().retain(|(at_work, _)| *at_work != seed);
        found.steps.fetch_add(steps.len() as u64, SeqCst);
        match outcome {
            Ok(model) => drop(found.acked.fetch_add(model.acked_count, SeqCst)),
            Err(broken) => {
                found.over.store(true, SeqCst);
                found.broken.lock().get_or_insert((seed, broken));
            }
        }
    }
}

/// One run; a panic is a finding.
fn attempt(seed: u64, steps: &[Step]) -> Result<Model, Broken> {
    catch(|| run::run(seed, steps))
}

fn catch<T>(run: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn judge(size: &Size, found: &Found, tried: Option<Tried>) -> Verdict {
    let (steps, acked) = (found.steps.load(SeqCst), found.acked.load(SeqCst));
    let Some((seed, broken)) = found.broken.lock().take() else {
        let seeds = found.next.load(SeqCst).min(size.rounds(5_000, 20_000));
        let images = tried.map_or_else(String::new, |tried| {
            let Tried { cuts, whole, images } = tried;
            format!("{images} images of {cuts} power cuts ({whole} with every subset), ")
        });
        return Verdict::Green(format!(
            "{images}{seeds} seeds from {}, {steps} steps, {acked} records acked, 0 violations",
            size.seed
        ));
    };
    let short = shrink::shorten(steps_of(seed), |steps| attempt(seed, steps).is_err());
    let cause = attempt(seed, &short).err().unwrap_or(broken);
    let mut what = format!("seed {seed}: {cause}\n  in {} steps:", short.len());
    for step in &short {
        what.push_str(&format!("\n    {step:?}"));
    }
    Verdict::Violation(Violation { what, again: format!("--seed {seed} --count 1") })
}

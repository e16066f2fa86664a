//! INJECT: one system call of the real broker fails, as `strace` injects it, and no promise may break.
//!
//! ```text
//! template: a broker with two topics, killed. Each point begins on a copy of it.
//! point:    (start or load, call, number, error): the number-th call of a thread fails
//! seed:     the place of the point in an enumeration that depends on no run; past its half, SIGKILL follows the load
//! ```
//!
//! A point that was not reached in its run is counted apart and not as passed. `strace` counts by thread; the broker has one
//! thread of each kind here, so a point is one call, or a few.
//!
//! A flush of a topic's log that fails under load must stop that log: from the first refusal on nothing is taken, while the other
//! topic refuses nothing. Other failures may stop the log that the call names, and no other. One kind of call names none: a path
//! is opened name by name, so the open of `logs` is the first step to a directory of any log, to make a new segment in it or its
//! name durable. Where it fails the log may stop, for a name whose durability is unknown is as bad as such bytes; but the broker
//! must have said of this very log that it stopped, and for what error.

mod broker;
mod judge;
mod load;
mod point;
mod strace;

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use parking_lot::Mutex;

use self::point::{Point, Ran};
use crate::harness::{Size, Verdict, Violation};

/// Points at the size of the check.
const CHECK: u64 = 240;
/// Points run at a time.
const WORKERS: usize = 2;
/// Begin of the names of the folders made here.
const PREFIX: &str = "riverrun-prove-inject-";

/// What the points said so far.
#[derive(Default)]
struct Tally {
    hit: usize,
    missed: usize,
    refused: usize,
    stopped: usize,
    violation: Option<Violation>,
}

pub(crate) fn run(size: &Size) -> Verdict {
    remove_leftovers();
    if let Err(why) = strace::usable() {
        return Verdict::Skipped(why);
    }
    let folder = match tempfile::Builder::new().prefix(PREFIX).tempdir() {
        Ok(folder) => folder,
        Err(error) => return Verdict::Skipped(format!("no temporary folder: {error}")),
    };
    match run_in(folder.path(), size) {
        Ok(verdict) => verdict,
        Err(what) => Verdict::Violation(Violation { what, again: String::new() }),
    }
}

fn run_in(folder: &Path, size: &Size) -> Result<Verdict, String> {
    let template = point::template(folder)?;
    let all = point::all();
    let count = usize::try_from(size.rounds(CHECK, CHECK)).unwrap_or(usize::MAX);
    let points = point::choose(&all, size, count);
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    let begun = Instant::now();
    let step = |next: &AtomicUsize| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let over = size.time.is_some_and(|time| begun.elapsed() >= time);
        let Some(point) = points.get(number).filter(|_| !over) else { return false };
        let home = folder.join(format!("point-{number}"));
        let ran = point::run(&home, &template, point);
        std::fs::remove_dir_all(&home).ok();
        let goes_on = take(&tally, point, ran);
        if !goes_on {
            next.store(points.len(), Ordering::Relaxed);
        }
        goes_on
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| while step(&next) {});
        }
    });
    let tally = tally.into_inner();
    if let Some(violation) = tally.violation {
        return Ok(Verdict::Violation(violation));
    }
    if tally.hit == 0 {
        return Err("no point was reached: nothing was proved".to_owned());
    }
    Ok(Verdict::Green(format!(
        "{} points of {} reached and survived ({} not reached, not counted), {} starts refused by \
         name, {} partitions stopped by a failed flush",
        tally.hit,
        all.len(),
        tally.missed,
        tally.refused,
        tally.stopped
    )))
}

/// Counts what a point did. False when it broke a promise.
fn take(tally: &Mutex<Tally>, point: &Point, ran: Result<Ran, String>) -> bool {
    let mut tally = tally.lock();
    match ran {
        Ok(ran) => {
            tally.hit += usize::from(ran.hit);
            tally.missed += usize::from(!ran.hit);
            tally.refused += usize::from(ran.refused);
            tally.stopped += ran.stopped;
            true
        }
        Err(what) => {
            let again = format!("--seed {} --count 1", point.number);
            tally.violation = Some(Violation { what: format!("{point}: {what}"), again });
            false
        }
    }
}

/// Removes what a killed run left.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if is_leftover(&path) {
            std::fs::remove_dir_all(path).ok();
        }
    }
}

/// True for a folder of ours that nothing touched for ten minutes: another run may be at work.
fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let age = path.metadata().and_then(|stat| stat.modified()).map(|time| time.elapsed());
    name.starts_with(PREFIX)
        && matches!(age, Ok(Ok(age)) if age > std::time::Duration::from_secs(600))
}

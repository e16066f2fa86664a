//! NET: broker and clients on a bad network.
//!
//! ```text
//!   clients ──▶ proxy ──▶ line between namespaces ──▶ broker
//! ```
//!
//! Each round is made of five parts:
//!
//! - *storm*: producers, a group and workers at work while the line goes down, packets vanish, and the proxy swallows, resets,
//!   cuts, trickles, slows, delays, drops replies and stops reading. Then all is healed: nothing acknowledged is lost, nothing is
//!   there twice, no partition had two owners, every record is settled, and a restart changes nothing;
//! - *replies*: three of ten replies never arrive (G11);
//! - *window*: a session that settles nothing gets its window and no more (G14);
//! - *stalled*: sessions that stop reading (G15), once in all rounds;
//! - *polls*: long polls that are given up (G16), once in all rounds.
//!
//! Without the right to make namespaces everything runs on loopback, without the line; the figures say so.

pub(crate) mod crowd;
pub(crate) mod ledger;
mod polls;
mod replies;
pub(crate) mod server;
mod stalled;
mod storm;
pub(crate) mod town;
mod window;

use std::time::Instant;

use ledger::Ledger;
use server::text;
use town::{Place, Town};

use crate::harness::{Size, Verdict, Violation};

/// Records of a round whose replies are dropped, in the check and in full.
const REPLIES: (usize, usize) = (2_000, 10_000);
/// Sessions that stop reading.
const STALLED: (u64, u64) = (200, 1_000);
/// Polls that are given up.
const POLLS: (usize, usize) = (2_000, 10_000);

/// Figures of all rounds.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    acknowledged: usize,
    repeats: u64,
    dropped: u64,
    handed: u64,
    fenced: u64,
    held_max: usize,
    cost: Option<stalled::Cost>,
    polls: usize,
}

impl Tally {
    fn take(&mut self, ledger: &Ledger) {
        self.acknowledged += ledger.acknowledged();
        self.repeats += ledger.repeats;
        self.handed += ledger.handed;
        self.fenced += ledger.fenced;
        self.held_max = self.held_max.max(ledger.held_max);
    }
}

pub(crate) fn run(size: &Size) -> Verdict {
    server::remove_leftovers();
    town::remove_leftovers();
    let town = Town::build();
    let ran = match &town {
        Ok(town) => inside(town, size),
        Err(_) => start(None, size),
    };
    let (tally, seed) = match ran {
        Ok(tally) => (tally, None),
        Err((seed, what)) => (Tally::default(), Some((seed, what))),
    };
    if let Some((seed, what)) = seed {
        return Verdict::Violation(Violation { what, again: format!("--seed {seed} --count 1") });
    }
    let figures = figures(&tally);
    match town {
        Ok(_) => Verdict::Green(figures),
        Err(why) => {
            Verdict::Green(format!("{figures}; SKIPPED link down, blackhole, slow line: {why}"))
        }
    }
}

fn figures(tally: &Tally) -> String {
    let Tally { rounds, acknowledged, repeats, dropped, handed, fenced, held_max, cost, polls } =
        tally;
    let mut text = format!(
        "{rounds} rounds, {acknowledged} acked, 0 lost, 0 twice ({repeats} sent again, {dropped} replies dropped), \
         {handed} handed out, {held_max} at most in hand of {}, {fenced} commits fenced",
        crowd::WINDOW
    );
    if let Some(cost) = cost {
        let stalled::Cost { sessions, grown, allowed, .. } = cost;
        let each = (grown / (*sessions).max(1)) >> 10;
        text.push_str(&format!(
            ", {sessions} stalled sessions cost {each} KiB each of {} allowed",
            (allowed / (*sessions).max(1)) >> 10
        ));
    }
    text.push_str(&format!(", {polls} polls given up, 0 waiters left"));
    text
}

/// A seed and what was broken with it.
type Failure = (u64, String);

/// Runs on a thread that lives where the clients do.
fn inside(town: &Town, size: &Size) -> Result<Tally, Failure> {
    let door = town.door(Place::Client).map_err(|what| (size.seed, what))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            door.enter().map_err(|what| (size.seed, what))?;
            start(Some(town), size)
        });
        thread.join().unwrap_or_else(|_| Err((size.seed, "the harness panicked".to_owned())))
    })
}

fn start(town: Option<&Town>, size: &Size) -> Result<Tally, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| (size.seed, text(error)))?;
    let begun = Instant::now();
    let mut tally = Tally::default();
    for seed in size.seed..size.seed.saturating_add(size.rounds(5, 20)) {
        if size.time.is_some_and(|time| begun.elapsed() >= time) {
            break;
        }
        runtime.block_on(round(town, seed, size, &mut tally)).map_err(|what| (seed, what))?;
        tally.rounds += 1;
    }
    Ok(tally)
}

async fn round(
    town: Option<&Town>,
    seed: u64,
    size: &Size,
    tally: &mut Tally,
) -> Result<(), String> {
    let pick = |check, full| if size.full { full } else { check };
    let begun = Instant::now();
    let ledger = window::run(town, seed).await.map_err(|what| format!("window: {what}"))?;
    judge("window", &ledger, tally)?;
    let records = if size.full { REPLIES.1 } else { REPLIES.0 };
    let ran = replies::run(town, seed, records).await;
    let (ledger, dropped) = ran.map_err(|what| format!("replies: {what}"))?;
    tally.dropped += dropped;
    judge("replies", &ledger, tally)?;
    if tally.cost.is_none() {
        let cost = stalled::run(town, seed, pick(STALLED.0, STALLED.1)).await;
        let cost = cost.map_err(|what| format!("stalled: {what}"))?;
        if cost.grown > cost.allowed {
            return Err(format!("stalled: the broker grew by more than allowed: {cost:?}"));
        }
        let kib = |bytes: u64| (bytes / cost.sessions.max(1)) >> 10;
        println!(
            "  a session costs {} KiB open, {} KiB stalled",
            kib(cost.opened),
            kib(cost.grown)
        );
        tally.cost = Some(cost);
        let count = if size.full { POLLS.1 } else { POLLS.0 };
        tally.polls =
            polls::run(town, seed, count).await.map_err(|what| format!("polls: {what}"))?;
    }
    let before = begun.elapsed().as_secs_f64();
    let ledger = storm::run(town, seed).await.map_err(|what| format!("storm: {what}"))?;
    judge("storm", &ledger, tally)?;
    let all = begun.elapsed().as_secs_f64();
    println!("  seed {seed}: {all:.1} s, of them {:.1} s of storm", all - before);
    Ok(())
}

/// Ends the round when a promise was broken.
fn judge(part: &str, ledger: &Ledger, tally: &mut Tally) -> Result<(), String> {
    tally.take(ledger);
    match ledger.broken.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => Err(format!("{part}: {first} (and {} more)", rest.len())),
    }
}

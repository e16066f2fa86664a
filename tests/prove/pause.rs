//! PAUSE: processes that stand still and go on as if nothing had been.
//!
//! Under load of idempotent producers, members of a group and workers, the broker is stopped by SIGSTOP for seconds, then a member
//! and a worker in processes of their own. The broker loses nothing by it; the member is fenced and takes part again; what the
//! worker held comes back and is done by others. At the end nothing is lost or there twice.

mod staff;

use std::time::{Duration, Instant};

use riverrun_tests::proxy::Dice;
use rustix::process::Signal;

use self::staff::Staff;
use crate::{
    harness::{Size, Verdict, Violation},
    net::{
        crowd::{self, Crowd, check_again, furnish},
        ledger::Ledger,
        server::{self, Server},
    },
};

const CROWD: crowd::Size =
    crowd::Size { producers: 3, members: 0, workers: 1, pause: Duration::from_millis(3) };
/// At work between two pauses.
const BETWEEN: Duration = Duration::from_millis(700);
/// Longer than the session of a member (2 s) and the lease of a record (1 s).
const CLIENT_PAUSE: Duration = Duration::from_millis(3_500);
/// Longest pause of the broker in the check, and in full.
const BROKER_PAUSE_MS: (u64, u64) = (3_000, 10_000);

/// Figures of all rounds.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    acknowledged: usize,
    repeats: u64,
    paused: Duration,
    fenced: u64,
    moves: usize,
    expired: u64,
}

pub(crate) fn run(size: &Size) -> Verdict {
    server::remove_leftovers();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return violation(size.seed, error.to_string()),
    };
    let begun = Instant::now();
    let mut tally = Tally::default();
    for seed in size.seed..size.seed.saturating_add(size.rounds(5, 20)) {
        if size.time.is_some_and(|time| begun.elapsed() >= time) {
            break;
        }
        if let Err(what) = runtime.block_on(round(seed, size.full, &mut tally)) {
            return violation(seed, what);
        }
        tally.rounds += 1;
    }
    let Tally { rounds, acknowledged, repeats, paused, fenced, moves, expired } = tally;
    Verdict::Green(format!(
        "{rounds} rounds, broker paused {:.1} s in all, {acknowledged} acked, 0 lost, 0 twice ({repeats} sent again), {moves} \
         partitions went to other members, {fenced} commits fenced, {expired} records came back from paused workers",
        paused.as_secs_f64()
    ))
}

fn violation(seed: u64, what: String) -> Verdict {
    Verdict::Violation(Violation { what, again: format!("--seed {seed} --count 1") })
}

async fn round(seed: u64, full: bool, tally: &mut Tally) -> Result<(), String> {
    let mut dice = Dice::seeded(seed);
    let mut server = Server::start(None, "")?;
    let address = server.address(None);
    furnish(address).await?;
    let mut staff = Staff::new(server.folder(), address);
    let workers = [staff.worker()?, staff.worker()?];
    let members = [staff.member("a")?, staff.member("b")?];
    let crowd = Crowd::start(address, seed, CROWD);
    staff.until_busy().await?;

    let most = if full { BROKER_PAUSE_MS.1 } else { BROKER_PAUSE_MS.0 };
    let pause = Duration::from_millis(1_000 + dice.below(most - 1_000));
    server.signal(Signal::STOP)?;
    tokio::time::sleep(pause).await;
    server.signal(Signal::CONT)?;
    tokio::time::sleep(BETWEEN).await;

    let (worker, member) = (workers[usize::from(dice.hits(50))], usize::from(dice.hits(50)));
    staff.signal(worker, Signal::STOP)?;
    staff.signal(members[member], Signal::STOP)?;
    tokio::time::sleep(CLIENT_PAUSE).await;
    staff.until_alone(1 - member).await?;
    staff.signal(worker, Signal::CONT)?;
    staff.signal(members[member], Signal::CONT)?;
    staff.until_back(member).await?;
    tokio::time::sleep(BETWEEN).await;

    let (mut ledger, view) = crowd.finish(address).await?;
    staff.end();
    let moves = staff.tell(&mut ledger)?;
    server.restart()?;
    check_again(server.address(None), &mut ledger, &view).await?;
    tally.paused += pause;
    tally.fenced += ledger.fenced;
    tally.moves += moves;
    tally.expired += ledger.expired;
    if ledger.broken.is_empty() && ledger.expired == 0 {
        return Err("no lease ended: nothing was proved".to_owned());
    }
    judge(&ledger, tally)
}

fn judge(ledger: &Ledger, tally: &mut Tally) -> Result<(), String> {
    tally.acknowledged += ledger.acknowledged();
    tally.repeats += ledger.repeats;
    match ledger.broken.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => Err(format!("{first} (and {} more)", rest.len())),
    }
}

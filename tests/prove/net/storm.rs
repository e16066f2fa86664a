//! One round of everything that a network does, one after another in an order that the seed picks, under full load.

use std::{sync::atomic::Ordering, time::Duration};

use riverrun_tests::proxy::{Dice, Fault, Proxy, Way};

use super::{
    crowd::{Crowd, Size, check_again, furnish},
    ledger::Ledger,
    server::{Server, text},
    town::{Place, Town},
};

/// Longest that one fault lasts.
const FAULT: Duration = Duration::from_millis(700);
/// The same of a long one, which outlasts leases.
const LONG_FAULT: Duration = Duration::from_secs(4);
/// Time without a fault after each.
const WELL: Duration = Duration::from_millis(250);
/// At work before the first fault.
const BEGIN: Duration = Duration::from_millis(500);

const SIZE: Size = Size { producers: 3, members: 3, workers: 3, pause: Duration::from_millis(3) };

/// Something that befalls the clients.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// By the proxy, to so many of a hundred connections.
    Proxy(Fault, u8),
    /// The same, for long.
    ProxyForLong(Fault, u8),
    /// The line is down.
    LinkDown,
    /// The line is up and nothing comes through.
    Blackhole,
}

/// Those of the proxy, and how many connections they hit.
const FAULTS: [(Fault, u8); 10] = [
    (Fault::Swallow(Way::Up), 60),
    (Fault::Swallow(Way::Down), 60),
    (Fault::Reset(20_000), 70),
    (Fault::Cut(20_000), 70),
    (Fault::Trickle(7, Duration::from_millis(2)), 60),
    // 8 kbit/s.
    (Fault::Limit(1_000), 50),
    (Fault::DropReplies(30), 100),
    (Fault::Stall(Way::Down), 60),
    (Fault::Stall(Way::Up), 60),
    (Fault::Delay(Duration::from_millis(100)), 100),
];

/// Runs it.
pub(super) async fn run(town: Option<&Town>, seed: u64) -> Result<Ledger, String> {
    let mut server = Server::start(town, "insecure = true\n")?;
    let direct = server.address(town.map(|town| town.broker(Place::Client)));
    furnish(direct).await?;
    let proxy = Proxy::start(direct, seed).map_err(text)?;
    let mut dice = Dice::seeded(seed);
    let mut moves: Vec<Move> =
        FAULTS.iter().map(|(fault, percent)| Move::Proxy(*fault, *percent)).collect();
    moves.push(Move::ProxyForLong(Fault::Swallow(Way::Down), 60));
    if town.is_some() {
        moves.extend([Move::LinkDown, Move::Blackhole]);
    }
    dice.shuffle(&mut moves);
    let crowd = Crowd::start(proxy.address(), seed, SIZE);
    tokio::time::sleep(BEGIN).await;
    for one in moves {
        befall(one, town, &proxy, &mut dice).await?;
    }
    let (mut ledger, view) = crowd.finish(direct).await?;
    server.restart()?;
    check_again(direct, &mut ledger, &view).await?;
    if proxy.counts().cuts.load(Ordering::Relaxed) == 0 {
        return Err("no connection was cut: nothing was proved".to_owned());
    }
    Ok(ledger)
}

/// One fault from beginning to end.
async fn befall(
    one: Move,
    town: Option<&Town>,
    proxy: &Proxy,
    dice: &mut Dice,
) -> Result<(), String> {
    let longest = if matches!(one, Move::ProxyForLong(..)) { LONG_FAULT } else { FAULT };
    let half = u64::try_from(longest.as_millis() / 2).unwrap_or(0);
    let lasts = Duration::from_millis(half + dice.below(half));
    match (one, town) {
        (Move::Proxy(fault, percent) | Move::ProxyForLong(fault, percent), _) => {
            proxy.set(fault, percent);
            tokio::time::sleep(lasts).await;
            proxy.heal();
        }
        (Move::LinkDown, Some(town)) => {
            town.link(false)?;
            tokio::time::sleep(lasts).await;
            town.link(true)?;
        }
        (Move::Blackhole, Some(town)) => {
            town.blackhole(true)?;
            tokio::time::sleep(lasts).await;
            town.blackhole(false)?;
        }
        (Move::LinkDown | Move::Blackhole, None) => {}
    }
    tokio::time::sleep(WELL).await;
    Ok(())
}

//! A session that settles nothing is given its window and no record more, also when its connection breaks meanwhile (G14).

use std::time::Duration;

use parking_lot::Mutex;
use riverrun_client::{Job, Subscriber};
use riverrun_tests::proxy::{Dice, Proxy};
use tokio::time::timeout;

use super::{
    crowd::{TOPIC, WINDOW, connect, furnish, in_time, subscribe},
    ledger::{Ledger, record_of},
    server::{Server, text},
    town::{Place, Town},
};

/// Times that the window is filled.
const TURNS: u64 = 6;
/// Silence after which nothing more is thought to come.
const SILENCE: Duration = Duration::from_millis(250);

/// Runs it.
pub(super) async fn run(town: Option<&Town>, seed: u64) -> Result<Ledger, String> {
    let server = Server::start(town, "insecure = true\n")?;
    let direct = server.address(town.map(|town| town.broker(Place::Client)));
    furnish(direct).await?;
    let proxy = Proxy::start(direct, seed).map_err(text)?;
    let mq = connect(direct).await?;
    let producer = mq.producer(TOPIC).build().await.map_err(text)?;
    let wanted = u64::from(WINDOW) * (TURNS + 4);
    producer.send_all((0..wanted).map(record_of)).await.map_err(text)?;
    in_time("the receipts", producer.flush()).await?.map_err(text)?;

    let mq = connect(proxy.address()).await?;
    let mut jobs = subscribe(&mq).await?;
    let mut dice = Dice::seeded(seed);
    let ledger = Mutex::new(Ledger::default());
    let mut full = false;
    for _ in 0..TURNS {
        let mut held = Vec::new();
        fill(&mut jobs, &mut held, &ledger).await?;
        full |= held.len() >= window();
        if dice.hits(40) {
            proxy.reset_all();
            fill(&mut jobs, &mut held, &ledger).await?;
        }
        for job in held {
            job.ack();
        }
    }
    if !full {
        return Err("the window was never full: nothing was proved".to_owned());
    }
    Ok(ledger.into_inner())
}

fn window() -> usize {
    usize::try_from(WINDOW).unwrap_or(0)
}

/// Takes what comes.
async fn fill(
    jobs: &mut Subscriber,
    held: &mut Vec<Job>,
    ledger: &Mutex<Ledger>,
) -> Result<(), String> {
    while let Ok(next) = timeout(SILENCE, jobs.next()).await {
        held.push(next.ok_or("the session ended")?.map_err(text)?);
        let own = held.iter().filter(|job| !job.is_revoked()).count();
        let mut ledger = ledger.lock();
        ledger.handed += 1;
        ledger.hold(own, window());
    }
    Ok(())
}

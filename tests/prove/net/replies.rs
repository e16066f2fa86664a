//! Replies that never arrive: three of ten, so nearly every record is sent more than once and must be stored once (G11).

use std::{sync::atomic::Ordering, time::Duration};

use riverrun_tests::proxy::{Fault, Proxy};

use super::{
    crowd::{Crowd, Size, check_log_again, furnish, in_time},
    ledger::Ledger,
    server::{Server, text},
    town::{Place, Town},
};

const SIZE: Size = Size { producers: 8, members: 0, workers: 0, pause: Duration::from_millis(1) };

/// Sends so many records; gives what became of them and how many replies were dropped.
pub(super) async fn run(
    town: Option<&Town>,
    seed: u64,
    records: usize,
) -> Result<(Ledger, u64), String> {
    let mut server = Server::start(town, "insecure = true\n")?;
    let direct = server.address(town.map(|town| town.broker(Place::Client)));
    furnish(direct).await?;
    let proxy = Proxy::start(direct, seed).map_err(text)?;
    proxy.set(Fault::DropReplies(30), 100);
    let crowd = Crowd::start(proxy.address(), seed, SIZE);
    let ledger = crowd.ledger.clone();
    let mut there = 0;
    while there < records {
        let more = async {
            while ledger.lock().acknowledged() == there {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        in_time("another acknowledgement", more).await?;
        there = ledger.lock().acknowledged();
    }
    proxy.heal();
    let (mut ledger, view) = crowd.finish(direct).await?;
    server.restart()?;
    check_log_again(direct, &mut ledger, &view).await?;
    let dropped = proxy.counts().replies_dropped.load(Ordering::Relaxed);
    if dropped == 0 || ledger.repeats == 0 && ledger.broken.is_empty() {
        return Err("no record was sent twice: nothing was proved".to_owned());
    }
    Ok((ledger, dropped))
}

//! What is stored already: how fast more is written, and how soon a broker starts with it.

use super::{Args, writing::Writing};
use crate::{broker::Setup, clock, error::Result, process, report::progress, series::Series};

/// Name of the data directory.
const DATA: &str = "stored";

pub(super) async fn run(args: &Args, setup: &Setup) -> Result<Series> {
    let mut series = Series::default();
    let (mut stored, mut broker) = (0, setup.start(DATA).await?);
    Writing { mib: 1, ..Writing::of(args) }.fill(&broker.client().await?).await?;
    for gib in [1, 4, 16, 64].into_iter().filter(|gib| *gib <= args.stored_gib) {
        progress(&format!("scale: {gib} GiB stored"));
        let writing = |mib| Writing { mib, ..Writing::of(args) };
        // The last part of it is what is measured.
        let before = ((gib - stored) << 10).saturating_sub(args.mib);
        writing(before).more(&broker.client().await?).await?;
        let start = clock::now();
        writing(args.mib).more(&broker.client().await?).await?;
        let seconds = clock::seconds_since(start);
        stored = gib;
        broker.kill()?;
        broker = setup.start(DATA).await?;
        let memory = process::memory(broker.pid())?.anonymous as f64 / f64::from(1 << 20);
        series.add(
            gib as f64,
            vec![
                ("written", "MB/s", (args.mib << 20) as f64 / 1e6 / seconds),
                ("start after SIGKILL", "ms", broker.ready_seconds * 1e3),
                ("broker heap after the start", "MiB", memory),
            ],
        );
    }
    broker.stop()?;
    Ok(series)
}

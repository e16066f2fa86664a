//! Workload `scale`: what more of something costs, one thing varied at a time.
//!
//! | axis | varied | the same at each point |
//! | --- | --- | --- |
//! | `partitions` | 1, 16, 1,000, 10,000 partitions written in turn | one producer, 1 KiB |
//! | `producers` | 1, 4, 16, 64 producers, each on a connection of its own | one partition, 1 KiB |
//! | `consumers` | 1, 10, 100 consumers of everything | one partition, 1 KiB, 64 MiB |
//! | `size` | records of 16 B to 1 MiB | one producer, one partition |
//! | `stored` | 1, 4, 16 GiB stored before | one producer, one partition, 1 KiB |
//! | `behind` | nobody, or one who reads all that is stored from the start, off the disk | a reader at the tail, 1,000 records/s |
//!
//! Every point of the first four has a broker of its own on an empty directory. A step or a bend in a chart is what to look for; how high a
//! point lies depends on the machine.

mod behind;
mod stored;
mod writing;

use tokio::task::JoinSet;

use self::writing::Writing;
use crate::{
    broker::Setup,
    chart::Chart,
    clock,
    error::{Error, Result},
    process,
    report::{Report, progress},
    series::Series,
};

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// What is varied, separated by commas; all of it when left out
    #[arg(long, value_delimiter = ',')]
    axes: Vec<Axis>,
    /// MiB written at each point
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// GiB stored at the last point of `stored` and `behind`
    #[arg(long, default_value_t = 16)]
    stored_gib: u64,
}

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Axis {
    /// Partitions that are written.
    Partitions,
    /// Producers.
    Producers,
    /// Consumers.
    Consumers,
    /// Bytes of a record.
    Size,
    /// Bytes stored before.
    Stored,
    /// A consumer far behind.
    Behind,
}

/// Measures every axis that was asked for.
pub(crate) async fn run(args: &Args, setup: &Setup, report: &mut Report) -> Result<()> {
    use clap::ValueEnum;
    let axes = if args.axes.is_empty() { Axis::value_variants() } else { &args.axes };
    for axis in axes {
        let (name, unit, series) = match axis {
            Axis::Partitions => ("partitions", "partitions", partitions(args, setup).await?),
            Axis::Producers => ("producers", "producers", producers(args, setup).await?),
            Axis::Consumers => ("consumers", "consumers", consumers(setup).await?),
            Axis::Size => ("size", "bytes of a record", size(args, setup).await?),
            Axis::Stored => ("stored", "GiB stored", stored::run(args, setup).await?),
            Axis::Behind => {
                report.add("scale", behind::run(args, setup).await?);
                continue;
            }
        };
        report.add("scale", series.measurements(name));
        report.chart(format!("scale-{name}"), Chart { unit, series: &series }.to_string());
    }
    Ok(())
}

async fn partitions(args: &Args, setup: &Setup) -> Result<Series> {
    let mut series = Series::default();
    for count in [1, 16, 1_000, 10_000] {
        progress(&format!("scale: {count} partitions"));
        let writing = Writing { partitions: count, ..Writing::of(args) };
        series.add(f64::from(count), writing.measure(setup, "partitions").await?);
    }
    Ok(series)
}

async fn producers(args: &Args, setup: &Setup) -> Result<Series> {
    let mut series = Series::default();
    for count in [1, 4, 16, 64] {
        progress(&format!("scale: {count} producers"));
        let writing = Writing { producers: count, ..Writing::of(args) };
        series.add(f64::from(count), writing.measure(setup, "producers").await?);
    }
    Ok(series)
}

async fn size(args: &Args, setup: &Setup) -> Result<Series> {
    let mut series = Series::default();
    for bytes in [16, 100, 1 << 10, 10 << 10, 100 << 10, 1 << 20] {
        progress(&format!("scale: records of {bytes} bytes"));
        // A record has more to it than its value: as many as make a fair part of a run.
        let mib = if bytes < 1024 { args.mib / 4 } else { args.mib };
        let writing = Writing { bytes, mib, ..Writing::of(args) };
        series.add(bytes as f64, writing.measure(setup, "size").await?);
    }
    Ok(series)
}

async fn consumers(setup: &Setup) -> Result<Series> {
    const MIB: u64 = 64;
    let mut series = Series::default();
    for count in [1, 10, 100] {
        progress(&format!("scale: {count} consumers"));
        let broker = setup.start("consumers").await?;
        let writing = Writing { producers: 1, partitions: 1, bytes: 1024, mib: MIB };
        writing.fill(&broker.client().await?).await?;
        let (busy, start) = (process::processor_seconds(broker.pid())?, clock::now());
        let mut readers = JoinSet::new();
        for _ in 0..count {
            readers.spawn(read(broker.client().await?, writing.records()));
        }
        while let Some(read) = readers.join_next().await {
            read.map_err(std::io::Error::other)??;
        }
        let seconds = clock::seconds_since(start);
        let busy = process::processor_seconds(broker.pid())? - busy;
        let gigabytes = f64::from(count) * (MIB << 20) as f64 / 1e9;
        let memory = process::memory(broker.pid())?.anonymous as f64 / f64::from(1 << 20);
        broker.stop()?;
        series.add(
            f64::from(count),
            vec![
                ("delivered", "MB/s", gigabytes * 1e3 / seconds),
                ("broker", "s/GB", busy / gigabytes),
                ("broker heap", "MiB", memory),
            ],
        );
    }
    Ok(series)
}

/// Reads so many records.
async fn read(client: riverrun_client::Client, records: u64) -> Result<()> {
    let mut consumer = client.consumer(writing::TOPIC).build().await?;
    let mut count = 0;
    while count < records {
        count += consumer.next_batch().await?.into_iter().count() as u64;
    }
    consumer.close().await?;
    if count == records {
        return Ok(());
    }
    Err(Error::Wrong(format!("{count} records came back, not {records}")))
}

//! Workload `soak`: a steady rate for a long time, with retention on. Memory, latency and disk are to stay as they are.
//!
//! One producer, one consumer that sees every record and checks that none is missing, comes twice or is another one. Every ten seconds are
//! a window: latency from when a record was due, the broker's memory and processor, the disk. The first and the last quarter of the windows are
//! held against each other.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hdrhistogram::Histogram;
use riverrun_client::{Client, Consumer, Record, TopicConfig, TopicSpec};
use tokio::sync::Mutex;

use crate::{
    broker::{Broker, Setup},
    chart::Chart,
    clock,
    error::{Error, Result},
    files, process,
    report::{Measurement, Report, Target, progress},
    series::{Axis, Series},
};

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How long, in minutes
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Records of 1 KiB per second; half of what `sdk` reaches on the machine of the recorded runs
    #[arg(long, default_value_t = 400_000)]
    rate: u64,
    /// GiB that retention keeps
    #[arg(long, default_value_t = 2)]
    retain_gib: u64,
}

/// Topic of the workload.
const TOPIC: &str = "soak";
/// Bytes of a value: when it was due, which it is, and filling.
const VALUE_BYTES: usize = 1024;
/// Time between two moments at which all that fell due is sent.
const STEP: Duration = Duration::from_millis(1);
/// Seconds of a window.
const WINDOW_SECONDS: u64 = 10;
/// How much more the last quarter may have than the first, in parts of it.
const GROWTH: f64 = 1.25;

/// What one window saw.
#[derive(Clone, Copy, Debug)]
struct Window {
    p50_ms: f64,
    p99_ms: f64,
    heap_mib: f64,
    disk_mib: f64,
    cores: f64,
}

type Latency = Arc<Mutex<Histogram<u64>>>;
/// Name, unit, and where a window has it.
type Figure = (&'static str, &'static str, fn(&Window) -> f64);

/// Runs it.
pub(crate) async fn run(args: &Args, setup: &Setup, report: &mut Report) -> Result<()> {
    let broker = setup.start(TOPIC).await?;
    let client = broker.client().await?;
    // Small segments, so that retention has something to drop all the time.
    let config = TopicConfig { segment_bytes: Some(256 << 20), ..TopicConfig::default() };
    let spec = TopicSpec::new(TOPIC).config(config).retain_bytes(args.retain_gib << 30);
    client.admin().create_topic(spec).await?;
    let latency: Latency = Arc::new(Mutex::new(new_histogram()?));
    // A little more than the windows take, so that neither side ends within the last one.
    let records = args.rate * (args.minutes * 60 + WINDOW_SECONDS / 2);
    let consumer = broker.client().await?.consumer(TOPIC).build().await?;
    let mut reading = tokio::spawn(read(consumer, records, latency.clone()));
    let mut sending = tokio::spawn(send(client.clone(), args.rate, records));
    let mut windows = Vec::new();
    let mut busy = process::processor_seconds(broker.pid())?;
    for number in 0..args.minutes * 60 / WINDOW_SECONDS {
        tokio::select! {
            // Neither ends before its time unless it failed.
            ended = &mut reading => return Err(too_early(ended)),
            ended = &mut sending => return Err(too_early(ended)),
            () = tokio::time::sleep(Duration::from_secs(WINDOW_SECONDS)) => {}
        }
        let now = process::processor_seconds(broker.pid())?;
        let window = look(&broker, setup, &latency, now - busy).await?;
        busy = now;
        progress(&format!("soak: window {number}: {window:?}"));
        windows.push(window);
    }
    sending.await.map_err(std::io::Error::other)??;
    reading.await.map_err(std::io::Error::other)??;
    broker.stop()?;
    report.chart("soak", picture(&windows));
    report.add("soak", measurements(records, &windows));
    Ok(())
}

fn too_early(ended: std::result::Result<Result<()>, tokio::task::JoinError>) -> Error {
    match ended {
        Ok(Ok(())) => Error::Wrong("it was over before its time".into()),
        Ok(Err(error)) => error,
        Err(error) => Error::Wrong(error.to_string()),
    }
}

fn new_histogram() -> Result<Histogram<u64>> {
    Histogram::new(3).map_err(|error| Error::Wrong(error.to_string()))
}

async fn look(broker: &Broker, setup: &Setup, latency: &Latency, busy: f64) -> Result<Window> {
    let seen = std::mem::replace(&mut *latency.lock().await, new_histogram()?);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(Window {
        p50_ms: seen.value_at_quantile(0.5) as f64 / 1e6,
        p99_ms: seen.value_at_quantile(0.99) as f64 / 1e6,
        heap_mib: mib(process::memory(broker.pid())?.anonymous),
        disk_mib: mib(files::size(&setup.dir().join(TOPIC))?),
        cores: busy / WINDOW_SECONDS as f64,
    })
}

/// Sends all that fell due, every step.
async fn send(client: Client, rate: u64, records: u64) -> Result<()> {
    let producer = client.producer(TOPIC).build().await?;
    let (start, pace) = (clock::now(), 1_000_000_000 / rate);
    let mut ticks = tokio::time::interval(STEP);
    let mut sent = 0;
    while sent < records {
        ticks.tick().await;
        let age = u64::try_from((clock::now() - start).as_nanos()).unwrap_or(u64::MAX);
        while sent < records && sent * pace <= age {
            let due = u64::try_from(start.as_nanos()).unwrap_or(0) + sent * pace;
            let mut value = vec![0x5a; VALUE_BYTES];
            value[..8].copy_from_slice(&due.to_le_bytes());
            value[8..16].copy_from_slice(&sent.to_le_bytes());
            producer.post(Record::new(Bytes::from(value))).await?;
            sent += 1;
        }
    }
    producer.close().await?;
    Ok(())
}

/// Reads all of them, each once and in order.
async fn read(mut consumer: Consumer, records: u64, latency: Latency) -> Result<()> {
    let mut expected = 0;
    while expected < records {
        let batch = consumer.next_batch().await?;
        let now = u64::try_from(clock::now().as_nanos()).unwrap_or(u64::MAX);
        let mut latency = latency.lock().await;
        for record in batch {
            let value = record.value.unwrap_or_default();
            let number = |at: usize| {
                value
                    .get(at..)
                    .and_then(<[u8]>::first_chunk)
                    .map(|bytes| u64::from_le_bytes(*bytes))
            };
            if number(8) != Some(expected) || record.offset.0 != expected {
                let (offset, number) = (record.offset, number(8));
                return Err(Error::Wrong(format!(
                    "offset {offset} holds record {number:?}, not {expected}"
                )));
            }
            expected += 1;
            let due = number(0).unwrap_or(now);
            latency
                .record(now.saturating_sub(due))
                .map_err(|error| Error::Wrong(error.to_string()))?;
        }
    }
    Ok(())
}

fn measurements(records: u64, windows: &[Window]) -> Vec<Measurement> {
    // The first window makes connections and the first segments.
    let settled = windows.get(1..).unwrap_or_default();
    let quarter = settled.len() / 4;
    let mut all = vec![
        Measurement::new("records, each read once and in order", records as f64, "records"),
        Measurement::new("windows of ten seconds", windows.len() as f64, "windows"),
    ];
    let figures: [Figure; 5] = [
        ("latency p50", "ms", |window| window.p50_ms),
        ("latency p99", "ms", |window| window.p99_ms),
        ("broker heap", "MiB", |window| window.heap_mib),
        ("data directory", "MiB", |window| window.disk_mib),
        ("broker", "cores", |window| window.cores),
    ];
    for (name, unit, figure) in figures {
        let first = median(settled.iter().take(quarter).map(figure));
        let last = median(settled.iter().rev().take(quarter).map(figure));
        all.push(Measurement::new(format!("{name}, first quarter"), first, unit));
        let last = Measurement::new(format!("{name}, last quarter"), last, unit);
        all.push(last.target(Target::AtMost(first * GROWTH)));
    }
    all
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn picture(windows: &[Window]) -> String {
    let mut series = Series { axis: Axis::Even, ..Series::default() };
    for (number, window) in (1..).zip(windows) {
        let Window { p50_ms, p99_ms, heap_mib, disk_mib, cores } = *window;
        let minutes = f64::from(number) * WINDOW_SECONDS as f64 / 60.0;
        series.add(
            minutes,
            vec![
                ("latency p50", "ms", p50_ms),
                ("latency p99", "ms", p99_ms),
                ("broker heap", "MiB", heap_mib),
                ("data directory", "MiB", disk_mib),
                ("broker", "cores", cores),
            ],
        );
    }
    Chart { unit: "minutes", series: &series }.to_string()
}

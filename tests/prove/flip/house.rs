//! A whole broker over damaged state: it starts with everything it knew, or says by name why not.
//!
//! The broker's own logs (topics, offsets of groups, subscriptions) get a flipped bit in every byte, or in every few in the
//! check. What a broker that starts must know is what the broker of the undamaged directory knew.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use riverrun_broker::{Broker, Config, StartError, broker::Ground, clock::Clock};
use riverrun_client::{Client, Record, TopicSpec};
use riverrun_storage::{
    data_dir::Meta,
    disk::{
        Disk, EntryKind,
        sim::{CrashPolicy, SimDisk},
    },
};
use uuid::Uuid;

use super::{Damage, apply, fixture::files_of, panics};
use crate::harness::{Size, Violation};

/// Flips a bit in every so many bytes in the check.
const STEP: u64 = 11;

/// Flips, starts, asks; gives how often.
pub(super) fn every_byte(size: &Size) -> Result<u64, Violation> {
    if size.count.is_some() {
        return Ok(0);
    }
    let broken = |what: String| Violation { what, again: String::new() };
    let disk = build().map_err(|error| broken(format!("the directory was not made: {error}")))?;
    let files = state_files(&disk);
    let knew = knows(&disk.copy()).map_err(|error| broken(format!("undamaged, but: {error}")))?;
    let step = if size.full { 1 } else { STEP };
    let mut count = 0;
    for (path, used) in files {
        for pos in (size.seed % step..used).step_by(usize::try_from(step).unwrap_or(1)) {
            let image = disk.crash(CrashPolicy::keep_all());
            let damage = Damage::Flip(pos, u8::try_from(pos % 8).unwrap_or(0));
            apply(&image, &path, damage);
            let told = catch_unwind(AssertUnwindSafe(|| knows(&image)));
            let what = match told {
                Ok(Ok(now)) if now == knew => None,
                Ok(Err(StartError::Listen { .. })) => None,
                Ok(Err(error)) if !error.to_string().is_empty() => None,
                Ok(Ok(now)) => Some(format!("knows {now}\n    instead of {knew}")),
                Ok(Err(_)) => Some("refused without a word".into()),
                Err(_) => Some(panics::newest()),
            };
            if let Some(what) = what {
                return Err(broken(format!("{}, {damage:?}: {what}", path.display())));
            }
            count += 1;
        }
    }
    Ok(count)
}

/// Starts a broker on a disk.
fn start(disk: &SimDisk) -> Result<Broker, StartError> {
    let mut config = Config { data_dir: "simulated".into(), ..Config::default() };
    config.grpc.listen.set_port(0);
    config.http.enabled = false;
    config.threads.io = 1;
    config.threads.writers = 1;
    config.threads.flushers = 1;
    let ground = Ground {
        disk: Arc::new(disk.clone()),
        meta: Meta { cluster_id: Uuid::from_u128(5), node_id: 0 },
        clock: Clock::real(),
        data_dir: None,
    };
    Broker::start_on(config, ground)
}

/// A directory with topics, stored offsets and a subscription.
fn build() -> Result<SimDisk, Box<dyn std::error::Error>> {
    let disk = SimDisk::new(2);
    disk.create_dir(Path::new("logs"))?;
    disk.sync_dir(Path::new(""))?;
    let broker = start(&disk)?;
    let address = broker.address().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fill(&address))?;
    broker.stop();
    Ok(disk.kill())
}

async fn fill(address: &str) -> Result<(), riverrun_client::Error> {
    let mq = Client::connect(address).await?;
    for topic in ["one", "two"] {
        mq.admin().create_topic(TopicSpec::new(topic).partitions(2)).await?;
        let producer = mq.producer(topic).build().await?;
        for number in 0..40 {
            producer.post(Record::new(format!("{number}"))).await?;
        }
        producer.close().await?;
    }
    let mut consumer = mq.consumer("one").group("readers").build().await?;
    let mut read = 0;
    while read < 40 {
        let Some(batch) = consumer.poll(Duration::from_secs(5)).await? else { continue };
        read += batch.len();
        consumer.commit(&batch).await?;
    }
    consumer.close().await?;
    let mut jobs = mq.subscribe("two").name("workers").open().await?;
    for _ in 0..30 {
        if let Some(job) = jobs.next().await {
            job?.ack();
        }
    }
    jobs.close().await?;
    Ok(())
}

/// What a broker on this disk knows, as text that can be compared.
fn knows(disk: &SimDisk) -> Result<String, StartError> {
    let broker = start(disk)?;
    let services = broker.services();
    let mut topics: Vec<String> = services
        .admin
        .topics()
        .iter()
        .map(|topic| format!("{}:{}", topic.name, topic.partition_count()))
        .collect();
    topics.sort();
    let mut groups: Vec<String> = services
        .groups
        .list()
        .iter()
        .map(|group| format!("{}:{}", group.group, group.lag))
        .collect();
    groups.sort();
    let mut subscriptions: Vec<String> =
        services.delivery.list().iter().map(|one| format!("{}:{}", one.name, one.lag)).collect();
    subscriptions.sort();
    Ok(format!("topics {topics:?}, groups {groups:?}, subscriptions {subscriptions:?}"))
}

/// Files of the broker's own logs, each with its length up to the last byte that is not zero. The ids of these logs are small numbers.
fn state_files(disk: &SimDisk) -> Vec<(PathBuf, u64)> {
    let topics = disk.list(Path::new("logs")).expect("made before");
    let own = topics.into_iter().filter(|entry| {
        entry.kind == EntryKind::Directory && entry.name.starts_with("00000000-0000-0000-0000-")
    });
    let dirs = own.map(|entry| Path::new("logs").join(entry.name).join("0"));
    dirs.flat_map(|dir| {
        let files = files_of(disk, &dir);
        files.into_iter().map(move |(name, used)| (dir.join(name), used))
    })
    .collect()
}

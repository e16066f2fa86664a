//! Workload `behind`: one record that is kept in hand while very many behind it are settled.
//!
//! - Without an order: what the broker's memory and the state of the subscription come to with a straggler so far behind.
//! - A million records in hand at once: memory for each.
//! - By key: records per second while one key is stuck, beside the same without, in turn.

use riverrun_client::{Client, Job, Mode, Record, SubscriptionSettings, TopicSpec};

use crate::{
    broker::{Broker, Setup},
    clock,
    error::{Error, Result},
    process,
    report::{Measurement, Target, progress},
};

/// Topic of the workload.
const TOPIC: &str = "behind";
/// Keys of the records, one after another.
const KEYS: u64 = 10_000;
/// Records in the session's hands.
const IN_HAND: u32 = 1_000;
/// Bytes of each value.
const BYTES: usize = 16;
/// Records are settled so long, in seconds, while a key is stuck.
const STUCK_SECONDS: f64 = 30.0;

/// Passes with a stuck key; one more is without. Enough that what passes differ by evens out.
const STUCK_PASSES: u32 = 6;

/// Records in hand at once.
const HELD: u32 = 1_000_000;

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Records that are settled behind the straggler
    #[arg(long, default_value_t = 100_000_000)]
    records: u64,
}

impl Default for Args {
    fn default() -> Args {
        Args { records: 100_000_000 }
    }
}

/// Measures it.
pub(crate) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start("behind").await?;
    let client = broker.client().await?;
    progress(&format!("behind: {} records of {BYTES} bytes", args.records));
    fill(&client, args.records).await?;
    let mut measurements = straggler(args, &broker, &client).await?;
    measurements.extend(in_hand(&broker, &client).await?);
    progress("behind: by key, with and without one that is stuck");
    let (free, stuck) = by_key(args, &client).await?;
    broker.stop()?;
    measurements.extend([
        Measurement::new("by key, no key is stuck", free, "records/s"),
        Measurement::new("by key, one key is stuck", stuck, "records/s")
            .target(Target::AtLeast(free * 0.95)),
    ]);
    Ok(measurements)
}

/// Records per second by key while no key is stuck and while one is: the means of passes in turn, the first and the last without.
async fn by_key(args: &Args, client: &Client) -> Result<(f64, f64)> {
    let (mut free, mut stuck) = (0.0, 0.0);
    for turn in 0..STUCK_PASSES {
        free += Pass::open(client, &format!("free-{turn}"), Mode::KeyFifo)
            .await?
            .run(args.records, None)
            .await?;
        let mut pass = Pass::open(client, &format!("stuck-{turn}"), Mode::KeyFifo).await?;
        let kept = pass.first().await?;
        stuck += pass.run(args.records, Some(kept)).await?;
    }
    let last = Pass::open(client, "free", Mode::KeyFifo).await?;
    free += last.run(args.records, None).await?;
    Ok((free / f64::from(STUCK_PASSES + 1), stuck / f64::from(STUCK_PASSES)))
}

async fn fill(client: &Client, records: u64) -> Result<()> {
    client.admin().create_topic(TopicSpec::new(TOPIC)).await?;
    let producer = client.producer(TOPIC).build().await?;
    for number in 0..records {
        let key = (number % KEYS).to_string();
        producer.post(Record::new(vec![b'v'; BYTES]).key(key)).await?;
    }
    producer.flush().await?;
    producer.close().await?;
    Ok(())
}

/// Keeps the first record in hand while all others are settled.
async fn straggler(args: &Args, broker: &Broker, client: &Client) -> Result<Vec<Measurement>> {
    let name = "straggler";
    let mut pass = Pass::open(client, name, Mode::Unordered).await?;
    let kept = pass.first().await?;
    let before = process::memory(broker.pid())?;
    let start = clock::now();
    for _ in 1..args.records {
        pass.next().await?.ack();
    }
    let rate = args.records as f64 / clock::seconds_since(start);
    let after = process::memory(broker.pid())?;
    let described = client.admin().describe_subscription(name).await?;
    let state: u64 = described.partitions.iter().map(|part| part.ack_state_bytes).sum();
    kept.ack();
    pass.jobs.close().await?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(vec![
        Measurement::new("settled behind a straggler", args.records as f64 - 1.0, "records"),
        Measurement::new("rate", rate, "records/s"),
        Measurement::new("state of the subscription", state as f64, "bytes")
            .target(Target::AtMost(f64::from(1 << 20))),
        Measurement::new("broker heap before", mib(before.anonymous), "MiB"),
        Measurement::new("broker heap after", mib(after.anonymous), "MiB"),
    ])
}

/// Takes very many records and settles none.
async fn in_hand(broker: &Broker, client: &Client) -> Result<Vec<Measurement>> {
    let settings = SubscriptionSettings { max_open: Some(HELD), ..SubscriptionSettings::default() };
    let builder = client.subscribe(TOPIC).name("held").settings(settings);
    let before = process::memory(broker.pid())?.anonymous;
    let mut pass = Pass { jobs: builder.credit(HELD, 1 << 36).open().await? };
    let mut held = Vec::new();
    while held.len() < HELD as usize {
        held.push(pass.next().await?);
    }
    let grown = process::memory(broker.pid())?.anonymous.saturating_sub(before);
    held.into_iter().for_each(Job::ack);
    pass.jobs.close().await?;
    let each = grown as f64 / f64::from(HELD);
    Ok(vec![
        Measurement::new(format!("{HELD} in hand: broker heap for each"), each, "bytes")
            .target(Target::AtMost(64.0)),
    ])
}

/// One way through the topic.
struct Pass {
    jobs: riverrun_client::Subscriber,
}

impl Pass {
    async fn open(client: &Client, name: &str, mode: Mode) -> Result<Pass> {
        let hour = std::time::Duration::from_secs(3_600);
        let builder = client.subscribe(TOPIC).name(name).mode(mode).ack_wait(hour);
        Ok(Pass { jobs: builder.credit(IN_HAND, 16 << 20).open().await? })
    }

    async fn next(&mut self) -> Result<Job> {
        Ok(self.jobs.next().await.ok_or_else(|| Error::Wrong("the session ended".into()))??)
    }

    /// The first record, which is offset 0.
    async fn first(&mut self) -> Result<Job> {
        let job = self.next().await?;
        let offset = job.record().offset.0;
        if offset == 0 { Ok(job) } else { Err(Error::Wrong(format!("{offset} came first"))) }
    }

    /// Settles what comes for a while, or until only records of the stuck key can be left. Gives records per second.
    async fn run(mut self, records: u64, stuck: Option<Job>) -> Result<f64> {
        let most = records - records.div_ceil(KEYS);
        let start = clock::now();
        let mut settled = 0;
        while settled < most && (settled % 1_024 != 0 || is_time_left(start)) {
            self.next().await?.ack();
            settled += 1;
        }
        let seconds = clock::seconds_since(start);
        if let Some(job) = stuck {
            job.ack();
        }
        self.jobs.close().await?;
        Ok(settled as f64 / seconds)
    }
}

fn is_time_left(start: std::time::Duration) -> bool {
    clock::seconds_since(start) < STUCK_SECONDS
}

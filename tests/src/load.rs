//! Clients at work on one broker, recording what they do and see: producers, readers, a group, push workers.
//!
//! ```text
//! topic "p0".."pN": one per level of durability, each with PARTITIONS partitions
//!   sender ─▶ every partition in turn, one record a send       reader ─▶ polls each partition from its beginning
//!   members of group "g" ─▶ poll and commit                    workers of subscription "w" ─▶ deliver, settle with confirmation
//! ```
//!
//! They go on until they are told to stop, whatever happens to the broker: the client library reconnects for ever. What was
//! not answered then is `info`.

mod final_look;
mod payload;
mod people;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use riverrun_client::{Client, Durability, TopicConfig, TopicSpec};
use tokio::{runtime::Runtime, task::JoinHandle, time::timeout};

pub use self::{final_look::look, payload::value_of};
use crate::{history::Level, recorder::Recorder};

/// Partitions of each topic.
pub const PARTITIONS: u32 = 2;
/// Number of the one subscription and of the one group in histories.
pub const SUBSCRIPTION: u32 = 1;
/// The group.
pub const GROUP: u32 = 1;
/// Failures after which a record is a dead letter.
pub const MAX_FAILURES: u32 = 4;
/// Longest time in which everything must have ended.
const END_MAX: Duration = Duration::from_secs(60);

/// How much load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Decides sizes and outcomes.
    pub seed: u64,
    /// One topic for each.
    pub levels: Vec<Level>,
    /// Senders, each on all topics.
    pub senders: usize,
    /// Whether there are a group and push workers, on the first topic.
    pub consumers: bool,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Time between two sends of one sender.
    pub pause: Duration,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    runtime: Runtime,
    stop: Arc<AtomicBool>,
    /// Senders end first, readers when the senders are done.
    senders: Vec<JoinHandle<Result<(), String>>>,
    others: Vec<JoinHandle<Result<(), String>>>,
    rest: Arc<AtomicBool>,
}

/// What everybody at work shares.
#[derive(Clone, Debug)]
struct Shared {
    address: String,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    options: Arc<LoadOptions>,
}

/// Name of topic number `number`.
pub fn topic(number: u16) -> String {
    format!("p{number}")
}

impl Load {
    /// Makes the topics and begins.
    ///
    /// # Errors
    /// When the topics cannot be made.
    pub fn start(
        address: &str,
        options: LoadOptions,
        recorder: &Arc<Recorder>,
    ) -> Result<Load, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(make_topics(address, &options)).map_err(|error| error.to_string())?;
        let (stop, rest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let shared = |stop: &Arc<AtomicBool>| Shared {
            address: address.into(),
            recorder: recorder.clone(),
            stop: stop.clone(),
            options: Arc::new(options.clone()),
        };
        let senders = (0..options.senders)
            .map(|number| runtime.spawn(people::send(shared(&stop), number as u64)))
            .collect();
        let mut others = vec![runtime.spawn(people::read(shared(&rest)))];
        if options.consumers {
            for _ in 0..2 {
                others.push(runtime.spawn(people::be_member(shared(&rest))));
                others.push(runtime.spawn(people::work(shared(&rest))));
            }
        }
        Ok(Load { runtime, stop, senders, others, rest })
    }

    /// Stops the senders, lets the others read on for a moment, and ends them.
    ///
    /// # Errors
    /// What one of them ended with.
    pub fn finish(self) -> Result<(), String> {
        let Load { runtime, stop, senders, others, rest } = self;
        let ended = runtime.block_on(async move {
            stop.store(true, Relaxed);
            timeout(END_MAX, join(senders)).await.map_err(|_| "senders did not end")??;
            tokio::time::sleep(Duration::from_millis(300)).await;
            rest.store(true, Relaxed);
            timeout(END_MAX, join(others)).await.map_err(|_| "consumers did not end")?
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        ended
    }
}

async fn join(people: Vec<JoinHandle<Result<(), String>>>) -> Result<(), String> {
    for one in people {
        one.await.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn make_topics(address: &str, options: &LoadOptions) -> riverrun_client::Result<()> {
    let mq = Client::connect(address).await?;
    for (number, level) in (0..).zip(&options.levels) {
        let durability = match level {
            Level::None | Level::Os => Durability::Os,
            Level::Interval => Durability::Interval,
            Level::Fsync => Durability::Fsync,
        };
        let config = TopicConfig {
            segment_bytes: Some(options.segment_bytes),
            message_bytes_max: Some(100_000),
            durability: Some(durability),
            ..TopicConfig::default()
        };
        let spec = TopicSpec::new(topic(number)).partitions(PARTITIONS).config(config);
        mq.admin().create_topic(spec).await?;
    }
    Ok(())
}

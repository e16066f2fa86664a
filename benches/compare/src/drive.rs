//! The client side of one measurement, in a process of its own.
//!
//! The harness starts itself again as `compare drive JOB`; the job comes as JSON in the argument and the outcome goes as JSON to the standard output.
//! So the processor time of the clients is theirs alone, threads that a client library leaves behind end, and one that hangs can be killed.
//!
//! Every peer implements [`Guest`]; the workloads are written once, over it. Only RocketMQ's client, which is of the JVM, has them again in a
//! program of its own, with the same outcome.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    peer::{Level, Peer},
};

mod acknowledge;
mod fan_out;
mod idle;
mod kafka;
mod latency;
mod launch;
mod meter;
mod nats;
mod payload;
mod rabbit_quorum;
mod rabbit_stream;
mod redis;
mod restart;
mod riverrun;
mod throughput;
mod window;

pub(crate) use self::{
    launch::{Driver, launch},
    meter::Meter,
    restart::FIRST_RECORD_AT,
};

/// What one driver has to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// With whom.
    pub(crate) peer: Peer,
    /// Asked of the topics that are made.
    pub(crate) level: Level,
    /// Where the server is.
    pub(crate) address: String,
    /// Processes of the server.
    pub(crate) servers: Vec<u32>,
    /// Topic to work on.
    pub(crate) topic: String,
    /// Bytes of a record's value.
    pub(crate) bytes: usize,
    /// Records before those that count.
    pub(crate) warm_up: u64,
    /// Records that count.
    pub(crate) records: u64,
    /// The work.
    pub(crate) task: Task,
}

/// The work of a driver.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Makes the topic and writes all records to it.
    Produce,
    /// Reads all records of the topic from the start.
    Consume,
    /// Makes the topic, writes records when they are due, and reads them at the same time.
    Latency {
        /// Records per second.
        rate: u64,
    },
    /// Makes the topic, fills it, and acknowledges each record by itself.
    Acknowledge,
    /// Makes the topic, and writes it while many read it.
    FanOut,
    /// Makes topics, then consumers that wait.
    Idle(Idle),
    /// Waits for a server that was restarted, until it gives the first record.
    FirstRecord,
    /// Counts the records of the topic.
    Count,
}

/// How idleness is measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Idle {
    /// Topics with one record each.
    pub(crate) topics: u64,
    /// Time to come to rest.
    pub(crate) settle_ms: u64,
    /// Time over which the processor is measured.
    pub(crate) window_ms: u64,
}

/// Named figures of one measurement.
pub(crate) type Figures = BTreeMap<String, f64>;

/// How records are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As many as possible.
    Bulk,
    /// Each as soon as possible.
    Prompt,
}

/// The client of a peer.
pub(crate) trait Guest: Sized + Send + Sync {
    /// Sends records to one topic.
    type Sender: Sender;
    /// Reads one topic from the start.
    type Receiver: Receiver;

    /// Connects. The server takes connections by now, but may have to be waited for.
    fn connect(job: &Job) -> impl Future<Output = Result<Self>> + Send;

    /// Makes a topic of one partition.
    fn make_topic(&self, topic: &str, level: Level) -> impl Future<Output = Result<()>> + Send;

    /// Begins to send.
    fn sender(&self, topic: &str, pace: Pace) -> impl Future<Output = Result<Self::Sender>> + Send;

    /// Begins to read at the start of the topic. Nothing is acknowledged or stored.
    fn receiver(&self, topic: &str) -> impl Future<Output = Result<Self::Receiver>> + Send;

    /// Takes all records of the topic as a queue: at most [`IN_HAND`](crate::case::IN_HAND) in hand, each acknowledged by itself as soon as
    /// `take` had it. Ends when `records` were taken and the server has all acknowledgements, as far as the client can know.
    fn acknowledge(
        &self,
        topic: &str,
        records: u64,
        take: impl FnMut(&[u8]) -> Result<()> + Send,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// Sends records to one topic.
pub(crate) trait Sender: Send + 'static {
    /// Sends a record, and waits for room when too much is not acknowledged yet.
    fn send(&mut self, payload: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Waits until all that was sent is acknowledged. Fails when any of it was refused.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Reads one topic.
pub(crate) trait Receiver: Send + 'static {
    /// Waits for records and hands each to `take`.
    fn next(
        &mut self,
        take: impl FnMut(&[u8]) -> Result<()> + Send,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// Does the job and gives the outcome as JSON.
pub(crate) fn run(job: &str) -> Result<String> {
    let job: Job = serde_json::from_str(job)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(async {
        match job.peer {
            Peer::Riverrun => work::<riverrun::Client>(&job).await,
            Peer::Nats => work::<nats::Client>(&job).await,
            Peer::Redis => work::<redis::Client>(&job).await,
            Peer::Kafka => work::<kafka::Client>(&job).await,
            Peer::RabbitStream => work::<rabbit_stream::Client>(&job).await,
            Peer::RabbitQuorum => work::<rabbit_quorum::Client>(&job).await,
            Peer::Rocketmq => Err(Error::Wrong("its driver is a program of its own".into())),
        }
    })?;
    // What a client left running must not hold the process.
    runtime.shutdown_background();
    serde_json::to_string(&figures).map_err(Error::from)
}

async fn work<G: Guest>(job: &Job) -> Result<Figures> {
    if matches!(job.task, Task::FirstRecord) {
        return restart::first_record::<G>(job).await;
    }
    let guest = G::connect(job).await?;
    match job.task {
        Task::Produce => throughput::produce(&guest, job).await,
        Task::Consume => throughput::consume(&guest, job).await,
        Task::Latency { rate } => latency::measure(&guest, job, rate).await,
        Task::Acknowledge => acknowledge::measure(&guest, job).await,
        Task::FanOut => fan_out::measure(&guest, job).await,
        Task::Idle(idle) => idle::measure(&guest, job, idle).await,
        Task::FirstRecord | Task::Count => restart::count(&guest, job).await,
    }
}

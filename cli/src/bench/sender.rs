//! Producers: each with a connection of its own, all at full speed or at a steady rate.
//!
//! At full speed a producer is a task that posts as fast as the client takes records, and the time to the
//! acknowledgement is taken of one record in [`STRIDE`]. At a rate it is a thread that sleeps until the next
//! record is due; every record's time is taken, from when it was due.
//!
//! Invariant: what is counted as sent was acknowledged; a record that failed fails the run.

use std::{sync::Arc, time::Instant};

use clap::{Args, ValueEnum, builder::PossibleValue};
use riverrun_client::{Acks, Compression, Durability, Error, Producer};
use serde_json::{Value, json};
use tokio::{runtime::Handle, task::JoinSet};

use super::{
    acks::{AckWatch, Acked},
    amount::{Amount, parse_time},
    halt::Halt,
    live::Counter,
    pace::{self, Pace},
    payload::{Payload, RecordArgs},
    stage::Stage,
    tally::Expected,
    times::Times,
};
use crate::{
    clock,
    failure::{Class, Failure},
    produce::{AcksArg, CompressionArg},
    units,
};

/// At full speed the time of one record in so many is taken. No multiple of what fills a batch.
pub(super) const STRIDE: u64 = 97;
/// Records after which a task counts, looks at the clock, and whether it is to end.
const LOOK_EVERY: u64 = 64;

/// How records are sent. What is left out is as the client has it.
#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// Producers, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) producers: u32,
    /// When a record counts as written
    #[arg(long, value_enum, default_value = "all")]
    acks: AcksArg,
    /// Compression of the batches
    #[arg(long, value_enum, default_value = "none")]
    compression: CompressionArg,
    /// A batch with this many bytes is full; as the client has it when left out
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    batch_bytes: Option<usize>,
    /// Longest time a batch waits for more records while others are on their way
    #[arg(long, value_name = "DURATION", value_parser = units::parse_millis)]
    linger: Option<u64>,
    /// Most bytes in flight: sent by one producer and not acknowledged
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    in_flight_bytes: Option<usize>,
    /// Longest time from sending a record to its acknowledgement; then the run fails
    #[arg(long, value_name = "DURATION", value_parser = parse_time)]
    delivery_timeout: Option<std::time::Duration>,
}

impl SendArgs {
    /// Whether a record that counts is known to be in the log.
    pub(super) fn are_acknowledged(&self) -> bool {
        !matches!(self.acks, AcksArg::None)
    }

    /// In a few words.
    pub(super) fn words(&self) -> String {
        let plural = if self.producers == 1 { "" } else { "s" };
        format!("{} producer{plural}", units::count(self.producers.into()))
    }

    /// For programs; what was left out is `null`.
    pub(super) fn to_json(&self) -> Value {
        let name = |value: Option<PossibleValue>| value.map(|value| value.get_name().to_owned());
        json!({
            "producers": self.producers,
            "acks": name(self.acks.to_possible_value()),
            "compression": name(self.compression.to_possible_value()),
            "batch_bytes": self.batch_bytes,
            "linger_ms": self.linger,
            "in_flight_bytes": self.in_flight_bytes,
        })
    }
}

/// Reads a size of at least a byte.
pub(super) fn parse_bytes(text: &str) -> Result<usize, String> {
    match usize::try_from(units::parse_bytes(text)?) {
        Ok(0) => Err("must be more than 0".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(format!("`{text}` is more than this machine can address")),
    }
}

/// Producers that are ready to send.
#[derive(Debug)]
pub(super) struct Crew {
    members: Vec<Member>,
    halt: Halt,
}

/// One of them.
#[derive(Clone, Debug)]
struct Member {
    index: u32,
    /// Of how many.
    count: u32,
    producer: Producer,
    payload: Arc<Payload>,
    size: u64,
    halt: Halt,
}

/// What was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// Every record of it is acknowledged.
    pub(super) total: Expected,
    /// Seconds from the first record to the last acknowledgement.
    pub(super) seconds: f64,
    /// From due to acknowledged.
    pub(super) acked: Times,
    /// At a rate: from due to handed to the client, which is what the sender itself was late.
    pub(super) late: Times,
    /// The least that was reached of those whose times were taken.
    pub(super) durability: Option<Durability>,
}

impl Sent {
    fn new() -> Sent {
        Sent {
            total: Expected::default(),
            seconds: 0.0,
            acked: Times::new(),
            late: Times::new(),
            durability: None,
        }
    }

    fn merge(&mut self, other: &Sent) {
        self.total.merge(other.total);
        self.acked.merge(&other.acked);
        self.late.merge(&other.late);
        self.durability = [self.durability, other.durability].into_iter().flatten().min();
    }

    fn settle(&mut self, acked: &Acked) {
        self.acked.merge(&acked.times);
        self.durability = acked.durability;
    }
}

impl Crew {
    /// Connects the producers to `topic`.
    pub(super) async fn open(
        stage: &Stage<'_>,
        topic: &str,
        args: (&SendArgs, &RecordArgs),
    ) -> Result<Crew, Failure> {
        let (send, records) = args;
        let mut members = Vec::new();
        for index in 0..send.producers {
            let client = stage.connect().await?;
            members.push(Member {
                index,
                count: send.producers,
                producer: build(&client, topic, send).await?,
                payload: Arc::new(Payload::new(records, stage.run, index)),
                size: records.size as u64,
                halt: stage.halt.clone(),
            });
        }
        Ok(Crew { members, halt: stage.halt.clone() })
    }

    /// Sends so much at full speed. Ends early, with what is acknowledged by then, when asked to.
    pub(super) async fn flood(&self, amount: Amount, counter: &Counter) -> Result<Sent, Failure> {
        let mut tasks = JoinSet::new();
        let start = clock::instant();
        for member in self.members.iter().cloned() {
            let (amount, counter) = (amount.share(member.index, member.count), counter.clone());
            tasks.spawn(async move { member.flood((start, amount), &counter).await });
        }
        self.join(tasks, start).await
    }

    /// Sends at the rate of `pace`. Ends early as [`Crew::flood`] does.
    pub(super) async fn follow(&self, pace: Pace, counter: &Counter) -> Result<Sent, Failure> {
        let mut tasks = JoinSet::new();
        for member in self.members.iter().cloned() {
            let (counter, runtime) = (counter.clone(), Handle::current());
            tasks.spawn_blocking(move || member.follow(pace, &counter, &runtime));
        }
        self.join(tasks, pace.measured_from()).await
    }

    /// Waits for all; when one fails the others end, too.
    async fn join(
        &self,
        mut tasks: JoinSet<Result<Sent, Failure>>,
        start: Instant,
    ) -> Result<Sent, Failure> {
        let mut all = Sent::new();
        let mut failure = None;
        while let Some(ended) = tasks.join_next().await {
            match ended.map_err(|error| Failure::other(error.to_string())).flatten() {
                Ok(sent) => all.merge(&sent),
                Err(error) => {
                    self.halt.ask();
                    failure.get_or_insert(error);
                }
            }
        }
        all.seconds = clock::instant().saturating_duration_since(start).as_secs_f64();
        match failure {
            Some(failure) => Err(failure),
            None => Ok(all),
        }
    }
}

impl Member {
    async fn flood(
        self,
        (start, amount): (Instant, Amount),
        counter: &Counter,
    ) -> Result<Sent, Failure> {
        let mut sent = Sent::new();
        let acks = AckWatch::start();
        let mut cycle = self.payload.cycle();
        let mut halted = std::pin::pin!(self.halt.asked());
        let is_over = |count: u64| match amount {
            Amount::Records(records) => count >= records,
            Amount::Time(time) => count.is_multiple_of(LOOK_EVERY) && start.elapsed() >= time,
        };
        while !is_over(sent.total.count) {
            let count = sent.total.count;
            let (record, digest) = cycle.next();
            if count.is_multiple_of(LOOK_EVERY) {
                counter.add(LOOK_EVERY);
                if self.halt.is_asked() {
                    break;
                }
            }
            let post = async {
                if !count.is_multiple_of(STRIDE) {
                    return self.producer.post(record).await;
                }
                let due = clock::instant();
                let delivery = self.producer.send(record).await?;
                acks.watch(due, delivery).await;
                Ok(())
            };
            // A send that is given up here has sent nothing.
            tokio::select! {
                biased;
                posted = post => posted.map_err(|error| not_sent(count, error))?,
                () = &mut halted => break,
            }
            sent.total.add(self.size, digest);
        }
        self.flush().await?;
        sent.settle(&acks.finish().await?);
        Ok(sent)
    }

    fn follow(self, pace: Pace, counter: &Counter, runtime: &Handle) -> Result<Sent, Failure> {
        pace::sleep_exactly();
        let mut sent = Sent::new();
        let acks = runtime.block_on(async { AckWatch::start() });
        for turn in 0.. {
            let number = turn * u64::from(self.count) + u64::from(self.index);
            let due = pace.due(number);
            if !pace.has(number) || !pace::sleep_until(due, &self.halt) {
                break;
            }
            let is_measured = pace.is_measured(number);
            if is_measured {
                sent.late.add(due.elapsed());
            }
            let (record, digest) = self.payload.numbered(number);
            let send = async {
                tokio::select! {
                    biased;
                    delivery = self.producer.send(record) => delivery.map(Some),
                    () = self.halt.asked() => Ok(None),
                }
            };
            let delivery = runtime.block_on(send).map_err(|error| not_sent(number, error))?;
            let Some(delivery) = delivery else { break };
            if is_measured {
                runtime.block_on(acks.watch(due, delivery));
            }
            sent.total.add(self.size, digest);
            counter.add(1);
        }
        runtime.block_on(self.flush())?;
        sent.settle(&runtime.block_on(acks.finish())?);
        Ok(sent)
    }

    /// Waits until everything is acknowledged. Who asks for the end twice does not wait.
    async fn flush(&self) -> Result<(), Failure> {
        tokio::select! {
            flushed = self.producer.flush() => Ok(flushed?),
            () = self.halt.asked_twice() => {
                Err(Failure::other("interrupted before everything was acknowledged"))
            }
        }
    }
}

async fn build(
    client: &riverrun_client::Client,
    topic: &str,
    args: &SendArgs,
) -> Result<Producer, Failure> {
    let builder = client
        .producer(topic)
        .acks(Acks::from(args.acks))
        .compression(Compression::from(args.compression));
    let builder = match args.batch_bytes {
        Some(bytes) => builder.batch_bytes(bytes),
        None => builder,
    };
    let builder = match args.linger {
        Some(ms) => builder.linger(std::time::Duration::from_millis(ms)),
        None => builder,
    };
    let builder = match args.in_flight_bytes {
        Some(bytes) => builder.buffer_bytes(bytes),
        None => builder,
    };
    let builder = match args.delivery_timeout {
        Some(timeout) => builder.delivery_timeout(timeout),
        None => builder,
    };
    Ok(builder.build().await?)
}

fn not_sent(number: u64, error: Error) -> Failure {
    let failure = Failure::from(error);
    let class = failure.class;
    debug_assert_ne!(class, Class::Usage, "the command line was checked before");
    Failure::new(class, format!("record {}: {failure}", units::count(number)))
}

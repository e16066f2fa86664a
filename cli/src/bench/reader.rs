//! Readers: a pull consumer or a session of a push subscription, which counts and checks what comes.
//!
//! Everything is received through the client's ordinary calls, each record owned. A push reader acknowledges
//! every record by itself. A reader ends when it got as many records as its goal says, when it is asked to,
//! or when nothing came for longer than its patience although its goal is known. Readers that share records
//! have a [`Pot`]: when it is empty the goal of all of them is reached.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use futures_util::FutureExt;
use riverrun_client::{Consumer, Job, Subscriber};
use tokio::sync::watch;

use super::{
    halt::Halt, live::Counter, pace::Pace, sender::parse_bytes, tally::Tally, times::Times,
};
use crate::{clock, failure::Failure};

/// Jobs after which a push reader counts and lets others run.
const LOOK_EVERY: u64 = 64;

/// How pull consumers read. What is left out is as the client has it.
#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// Most bytes of one answer to a pull consumer, and of one partition in it
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    fetch_bytes: Option<usize>,
    /// A pull consumer fetches ahead until so many bytes wait to be received
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    prefetch_bytes: Option<usize>,
}

impl ReadArgs {
    /// Applies them.
    pub(super) fn apply(
        &self,
        mut builder: riverrun_client::ConsumerBuilder,
    ) -> riverrun_client::ConsumerBuilder {
        if let Some(bytes) = self.fetch_bytes {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            builder = builder.max_bytes(bytes, bytes);
        }
        match self.prefetch_bytes {
            Some(bytes) => builder.prefetch_bytes(bytes),
            None => builder,
        }
    }
}

/// How records reach a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Via {
    /// Fetched by a consumer, which long-polls at the end of the log
    #[default]
    Pull,
    /// Handed out by the broker over a session, each acknowledged
    Push,
}

impl Via {
    /// As it is spelled.
    pub(super) fn name(self) -> &'static str {
        match self {
            Via::Pull => "pull",
            Via::Push => "push",
        }
    }
}

/// Where a reader gets its records from.
#[derive(Debug)]
pub(super) enum Source {
    Pull(Consumer),
    Push(Subscriber),
}

/// How many records a reader is to get; unknown until everything is sent.
pub(super) type Goal = watch::Receiver<Option<u64>>;

/// A goal that is known from the beginning.
pub(super) fn known(goal: u64) -> Goal {
    watch::channel(Some(goal)).1
}

/// Records that several readers share.
#[derive(Debug)]
pub(super) struct Pot {
    left: AtomicU64,
    goal: watch::Sender<Option<u64>>,
}

impl Pot {
    /// One of so many records, and the goal of those who share it.
    pub(super) fn new(count: u64) -> (Arc<Pot>, Goal) {
        let (goal, of_all) = watch::channel(Some(if count == 0 { 0 } else { u64::MAX }));
        (Arc::new(Pot { left: AtomicU64::new(count), goal }), of_all)
    }

    fn take(&self, count: u64) {
        let took = |left: u64| Some(left.saturating_sub(count));
        let before = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, took);
        if before.is_ok_and(|left| left <= count) {
            self.goal.send_replace(Some(0));
        }
    }
}

/// One reader.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) source: Source,
    pub(super) tally: Tally,
    pub(super) goal: Goal,
    /// What it shares with others.
    pub(super) pot: Option<Arc<Pot>>,
    /// When records were due, to take their times.
    pub(super) pace: Option<Pace>,
    pub(super) halt: Halt,
    /// How often it must be asked to end early: once where it makes the pace, twice where senders do.
    pub(super) halts_at: u32,
    pub(super) counter: Counter,
    /// How long nothing may come once the goal is known.
    pub(super) patience: Duration,
}

/// What a reader got.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) tally: Tally,
    /// From due to received.
    pub(super) times: Times,
    /// When the first record came.
    pub(super) first: Option<Instant>,
    /// When the last one came; by push, when every outcome was durable.
    pub(super) end: Instant,
    /// Records that came for another try.
    pub(super) redelivered: u64,
}

/// Why a reader stopped waiting.
enum Wake {
    Batch(riverrun_client::Batch),
    Job(Option<Job>),
    /// The goal changed.
    Look,
    Over,
}

impl Reader {
    /// One without a goal, that ends when senders did.
    pub(super) fn new((halt, patience): (&Halt, Duration), source: Source, tally: Tally) -> Reader {
        Reader {
            source,
            tally,
            goal: watch::channel(None).1,
            pot: None,
            pace: None,
            halt: halt.clone(),
            halts_at: 2,
            counter: Counter::default(),
            patience,
        }
    }

    /// Reads to the end.
    pub(super) async fn run(mut self) -> Result<Read, Failure> {
        let mut read = Read {
            tally: std::mem::take(&mut self.tally),
            times: Times::new(),
            first: None,
            end: clock::instant(),
            redelivered: 0,
        };
        while !self.is_done(&read) {
            match self.next().await? {
                Wake::Batch(batch) => self.take_batch(&batch, &mut read),
                Wake::Job(Some(job)) => self.take_jobs(job, &mut read).await?,
                Wake::Look => {}
                Wake::Job(None) | Wake::Over => break,
            }
        }
        match self.source {
            Source::Pull(consumer) => consumer.close().await?,
            Source::Push(jobs) => {
                jobs.close().await?;
                read.end = clock::instant();
            }
        }
        Ok(read)
    }

    fn is_done(&self, read: &Read) -> bool {
        let goal = *self.goal.borrow();
        goal.is_some_and(|goal| read.tally.got.count >= goal)
    }

    async fn next(&mut self) -> Result<Wake, Failure> {
        let patience = match *self.goal.borrow_and_update() {
            Some(_) => Some(clock::instant() + self.patience),
            None => None,
        };
        let over = async {
            match patience {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            if self.goal.changed().await.is_err() {
                // The goal stays as it is.
                std::future::pending::<()>().await;
            }
        };
        let received = async {
            match &mut self.source {
                Source::Pull(consumer) => consumer.next_batch().await.map(Wake::Batch),
                Source::Push(jobs) => jobs.next().await.transpose().map(Wake::Job),
            }
        };
        tokio::select! {
            biased;
            received = received => Ok(received?),
            () = changed => Ok(Wake::Look),
            () = self.halt.at_least(self.halts_at) => Ok(Wake::Over),
            () = over => Ok(Wake::Over),
        }
    }

    fn take_batch(&self, batch: &riverrun_client::Batch, read: &mut Read) {
        let now = clock::instant();
        let partition = batch.partition().partition.0;
        for record in batch {
            let stamp = read.tally.take(partition, record.offset.0, record.value.as_ref());
            if let (Some(pace), Some(stamp)) = (&self.pace, stamp) {
                note(&mut read.times, pace, (stamp.number, now));
            }
        }
        read.first.get_or_insert(now);
        read.end = now;
        self.counter.add(batch.len() as u64);
    }

    /// Takes a job and those behind it that are there already.
    async fn take_jobs(&mut self, first: Job, read: &mut Read) -> Result<(), Failure> {
        read.first.get_or_insert_with(clock::instant);
        let (mut count, mut first_tries) = (0, 0);
        let mut next = Some(first);
        while let Some(job) = next {
            self.take_job(&job, read);
            first_tries += u64::from(job.attempts() == 1);
            job.ack();
            count += 1;
            if count % LOOK_EVERY == 0 {
                break;
            }
            next = match &mut self.source {
                Source::Push(jobs) => jobs.next().now_or_never().flatten().transpose()?,
                Source::Pull(_) => None,
            };
        }
        self.counter.add(count);
        if let Some(pot) = &self.pot {
            // A first try happens once, whoever gets it.
            pot.take(first_tries);
        }
        tokio::task::coop::consume_budget().await;
        Ok(())
    }

    fn take_job(&self, job: &Job, read: &mut Read) {
        let record = job.record();
        read.redelivered += u64::from(job.attempts() > 1);
        let partition = record.partition.partition.0;
        let stamp = read.tally.take(partition, record.offset.0, record.value.as_ref());
        if let (Some(pace), Some(stamp)) = (&self.pace, stamp) {
            note(&mut read.times, pace, (stamp.number, clock::instant()));
        }
    }
}

/// Takes the time of a record from when it was due, if it is one that is measured.
fn note(times: &mut Times, pace: &Pace, (number, now): (u64, Instant)) {
    if pace.is_measured(number) {
        times.add(now.saturating_duration_since(pace.due(number)));
    }
}

//! The topics and the readers that wait, made by a few tasks and taken away at the end.
//!
//! A pull reader first gets the record of its topic, which shows that it reads, and then waits for another one,
//! which does not come. A push reader waits in a session of a subscription that begins behind the record.

use std::time::Duration;

use futures_util::FutureExt;
use riverrun_client::{
    Client, Consumer, ErrorCode, Record, StartAt, Subscriber, TopicPartition, TopicSpec,
};
use tokio::task::JoinSet;

use super::IdleBench;
use crate::{
    bench::{halt::Halt, join, live::Counter, reader::Via, stage::Stage},
    failure::{Class, Failure},
    units,
};

/// Tasks that make topics and take them away.
const TASK_COUNT: u32 = 16;

/// One that waits.
#[derive(Debug)]
enum Waiter {
    Pull(Consumer),
    Push(Subscriber),
}

/// All of them.
#[derive(Debug)]
pub(super) struct Crowd<'a> {
    stage: &'a Stage<'a>,
    topic_count: u32,
    waiters: Vec<Waiter>,
}

impl<'a> Crowd<'a> {
    /// Nobody.
    pub(super) fn new(stage: &'a Stage<'a>) -> Crowd<'a> {
        Crowd { stage, topic_count: 0, waiters: Vec::new() }
    }

    /// Topics that were made.
    pub(super) fn topic_count(&self) -> u32 {
        self.topic_count
    }

    /// Readers that wait.
    pub(super) fn reader_count(&self) -> u64 {
        self.waiters.len() as u64
    }

    /// Makes the topics, each with a record.
    pub(super) async fn make_topics(&mut self, args: &IdleBench) -> Result<(), Failure> {
        let stage = self.stage;
        let live = stage.live("making topics", Some(args.topics.into()));
        let mut tasks = JoinSet::new();
        for task in 0..TASK_COUNT.min(args.topics) {
            let names = names(stage, (task..args.topics).step_by(TASK_COUNT as usize));
            let client = stage.connect().await?;
            let (halt, counter) = (stage.halt.clone(), live.counter());
            tasks.spawn(make_topics(client, names, halt, counter));
        }
        let made = join(tasks).await;
        self.topic_count = u32::try_from(live.counter().get()).unwrap_or(u32::MAX);
        made.map(|_| ())
    }

    /// Connects the readers.
    pub(super) async fn make_readers(&mut self, args: &IdleBench) -> Result<(), Failure> {
        let stage = self.stage;
        let live = stage.live("connecting readers", Some(args.consumers.into()));
        let mut tasks = JoinSet::new();
        let connections = args.connections.min(args.consumers);
        for connection in 0..connections {
            let client = stage.connect().await?;
            let numbers = (connection..args.consumers).step_by(connections as usize);
            let topics = names(stage, numbers.map(|number| number % args.topics));
            let (halt, counter) = (stage.halt.clone(), live.counter());
            let how = How {
                via: args.via,
                max_wait: args.max_wait,
                topics_interval: args.topics_interval,
            };
            tasks.spawn(make_readers((client, how), topics, halt, counter));
        }
        self.waiters = join(tasks).await?.into_iter().flatten().collect();
        Ok(())
    }

    /// Fails when a reader got something, or cannot go on.
    pub(super) fn check_waiting(&mut self) -> Result<(), Failure> {
        let mut awake = 0;
        for waiter in &mut self.waiters {
            let came = match waiter {
                Waiter::Pull(consumer) => {
                    consumer.next_batch().now_or_never().map(|got| got.map(|_| ()))
                }
                Waiter::Push(jobs) => {
                    jobs.next().now_or_never().map(|got| got.transpose().map(|_| ()))
                }
            };
            if let Some(came) = came {
                came?;
                awake += 1;
            }
        }
        if awake > 0 {
            let message =
                format!("{} readers got a record while nothing was sent", units::count(awake));
            return Err(Failure::new(Class::Corrupt, message));
        }
        Ok(())
    }

    /// Lets everybody go, and deletes what was made.
    pub(super) async fn clean(self, args: &IdleBench) {
        drop(self.waiters);
        let stage = self.stage;
        let _live = stage.live("deleting what was made", None);
        let mut tasks = JoinSet::new();
        for task in 0..TASK_COUNT.min(args.topics) {
            let names = names(stage, (task..args.topics).step_by(TASK_COUNT as usize));
            tasks.spawn(delete(stage.client.clone(), names, args.via));
        }
        let problems: Vec<String> = tasks.join_all().await.into_iter().flatten().collect();
        if let Some(first) = problems.first() {
            eprintln!(
                "riverrun: {} topics or subscriptions `{}-...` are left: {first}",
                units::count(problems.len() as u64),
                stage.name()
            );
        }
    }
}

/// How a reader waits.
#[derive(Clone, Copy, Debug)]
struct How {
    via: Via,
    max_wait: Option<Duration>,
    topics_interval: Option<Duration>,
}

/// Names of topics. The subscription of a topic has the same one.
fn names(stage: &Stage<'_>, numbers: impl Iterator<Item = u32>) -> Vec<String> {
    let name = stage.name();
    numbers.map(|number| format!("{name}-{number:05}")).collect()
}

async fn make_topics(
    client: Client,
    names: Vec<String>,
    halt: Halt,
    counter: Counter,
) -> Result<(), Failure> {
    for name in names {
        if halt.is_asked() {
            break;
        }
        client.admin().create_topic(TopicSpec::new(&name)).await?;
        let producer = client.producer(&name).build().await?;
        producer.post(Record::new("the only one")).await?;
        producer.close().await?;
        counter.add(1);
    }
    Ok(())
}

async fn make_readers(
    (client, how): (Client, How),
    topics: Vec<String>,
    halt: Halt,
    counter: Counter,
) -> Result<Vec<Waiter>, Failure> {
    let mut waiters = Vec::with_capacity(topics.len());
    for topic in topics {
        if halt.is_asked() {
            break;
        }
        waiters.push(match how.via {
            Via::Pull => Waiter::Pull(pull(&client, how, &topic).await?),
            Via::Push => {
                let builder = client.subscribe(&topic).name(&topic).start(StartAt::Latest);
                Waiter::Push(builder.open().await?)
            }
        });
        counter.add(1);
    }
    Ok(waiters)
}

/// A consumer that has read the only record.
async fn pull(client: &Client, how: How, topic: &str) -> Result<Consumer, Failure> {
    let builder = client.consumer(topic).assign([TopicPartition::new(topic, 0)]);
    let builder = match how.max_wait {
        Some(wait) => builder.max_wait(wait),
        None => builder,
    };
    let builder = match how.topics_interval {
        Some(every) => builder.topics_interval(every),
        None => builder,
    };
    let mut consumer = builder.build().await?;
    consumer.next_batch().await?;
    Ok(consumer)
}

/// Deletes topics and their subscriptions. Gives what went wrong.
async fn delete(client: Client, names: Vec<String>, via: Via) -> Vec<String> {
    let admin = client.admin();
    let mut problems = Vec::new();
    for name in names {
        let subscription = match via {
            Via::Pull => Ok(()),
            Via::Push => admin.delete_subscription(&name, true).await,
        };
        for deleted in [subscription, admin.delete_topic(&name).await] {
            match deleted {
                Ok(()) => {}
                // It was not made, since the run ended before.
                Err(error) if error.code() == ErrorCode::UnknownTopicOrPartition => {}
                Err(error) if error.code() == ErrorCode::UnknownSubscription => {}
                Err(error) => problems.push(error.to_string()),
            }
        }
    }
    problems
}

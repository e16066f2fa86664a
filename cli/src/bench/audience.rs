//! Readers that each get everything that is written from now on, by pull or by push.
//!
//! A push reader has a subscription of its own, which is deleted at the end.

use std::time::Duration;

use clap::Args;
use riverrun_client::{Client, Consumer, Offset, Seek, StartAt, SubscriptionSpec, TopicPartition};

use super::{
    reader::{ReadArgs, Reader, Source, Via},
    stage::Stage,
    tally::Tally,
    topic::BenchTopic,
};
use crate::failure::Failure;

/// Longest time to delete a subscription at the end.
const DELETE_TIMEOUT: Duration = Duration::from_secs(10);

/// How an audience gets its records.
#[derive(Debug, Args)]
pub(super) struct AudienceArgs {
    /// How records reach the readers
    #[arg(long, value_enum, default_value_t, value_name = "WAY")]
    pub(super) via: Via,
    /// Most records that a push reader has not acknowledged
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,
}

/// What was made at the broker for the readers.
#[derive(Debug, Default)]
pub(super) struct Audience {
    subscriptions: Vec<String>,
}

impl Audience {
    /// Makes `count` readers that begin behind what is there.
    pub(super) async fn open(
        stage: &Stage<'_>,
        topic: &BenchTopic,
        (args, read, count): (&AudienceArgs, &ReadArgs, u32),
    ) -> Result<(Audience, Vec<Reader>), Failure> {
        let ends: Vec<(u32, u64)> = topic
            .bounds(stage)
            .await?
            .into_iter()
            .map(|(partition, _, end)| (partition, end))
            .collect();
        let (mut audience, mut readers) = (Audience::default(), Vec::new());
        for number in 0..count {
            let client = stage.connect().await?;
            let source = match args.via {
                Via::Pull => pull(&client, topic, (read, &ends)).await.map(Source::Pull),
                Via::Push => audience.push(stage, (&client, topic), (args, number)).await,
            };
            match source {
                Ok(source) => {
                    let tally = Tally::new(Some(stage.run), ends.iter().copied());
                    readers.push(Reader::new((&stage.halt, stage.patience()), source, tally));
                }
                Err(failure) => return audience.close(stage, Err(failure)).await,
            }
        }
        Ok((audience, readers))
    }

    async fn push(
        &mut self,
        stage: &Stage<'_>,
        (client, topic): (&Client, &BenchTopic),
        (args, number): (&AudienceArgs, u32),
    ) -> Result<Source, Failure> {
        let name = format!("{}-{number}", stage.name());
        let spec = SubscriptionSpec::new(&topic.name).start(StartAt::Latest);
        client.admin().create_subscription(&name, &spec).await?;
        self.subscriptions.push(name.clone());
        let jobs = client.subscription(name).credit(args.in_flight, CREDIT_BYTES).open().await?;
        Ok(Source::Push(jobs))
    }

    /// Deletes what was made, and passes on what came of it.
    pub(super) async fn close<T>(
        self,
        stage: &Stage<'_>,
        outcome: Result<T, Failure>,
    ) -> Result<T, Failure> {
        for name in self.subscriptions {
            delete(stage, &name).await;
        }
        outcome
    }
}

/// Bytes of records in a push reader's hands.
pub(super) const CREDIT_BYTES: u64 = 32 << 20;

/// Deletes a subscription; says so when that does not work.
pub(super) async fn delete(stage: &Stage<'_>, name: &str) {
    let admin = stage.client.admin();
    let deleted = tokio::time::timeout(DELETE_TIMEOUT, admin.delete_subscription(name, true)).await;
    let problem = match deleted {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the broker does not answer".to_owned(),
    };
    eprintln!(
        "riverrun: subscription `{name}` is left: {problem}; delete it with `riverrun subscription \
         delete {name} --force`"
    );
}

/// A consumer that stands at the end of every partition.
async fn pull(
    client: &Client,
    topic: &BenchTopic,
    (read, ends): (&ReadArgs, &[(u32, u64)]),
) -> Result<Consumer, Failure> {
    let partition = |number: u32| TopicPartition::new(&*topic.name, number);
    let partitions = ends.iter().map(|(number, _)| partition(*number));
    let mut consumer = read.apply(client.consumer(&topic.name).assign(partitions)).build().await?;
    for (number, end) in ends {
        consumer.seek(&partition(*number), Seek::Offset(Offset(*end))).await?;
    }
    Ok(consumer)
}

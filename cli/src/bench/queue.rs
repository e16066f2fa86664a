//! W4: stored records handed out by the broker over one session or several, each acknowledged by itself.
//!
//! The time ends when the last acknowledgement is durable at the broker.

use std::time::Instant;

use clap::Args;
use riverrun_client::{Client, Mode, SubscriptionSettings, SubscriptionSpec};
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    Measured,
    amount::AmountArgs,
    audience::{self, CREDIT_BYTES},
    payload::RecordArgs,
    reader::{Pot, Read, Reader, Source},
    report::{Report, Work},
    sender::SendArgs,
    stage::{CommonArgs, Stage},
    tally::{Expected, Tally},
    topic::{BenchTopic, TopicArgs, on_topic},
};
use crate::{
    args::Server,
    clock,
    failure::{Class, Failure},
    subscription::ModeArg,
    units,
};

/// What `bench queue` takes.
#[derive(Debug, Args)]
pub(crate) struct QueueBench {
    /// Sessions, each with a connection of its own, that share the records
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    consumers: u32,
    /// Most records in the hands of each
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,
    /// Order of delivery
    #[arg(long, value_enum, default_value = "unordered")]
    mode: ModeArg,
    #[command(flatten)]
    amount: AmountArgs,
    #[command(flatten, next_help_heading = "Records")]
    records: RecordArgs,
    #[command(flatten, next_help_heading = "Sending")]
    send: SendArgs,
    #[command(flatten, next_help_heading = "Topic")]
    topic: TopicArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// What is to be handed out.
struct Stored {
    bounds: Vec<(u32, u64, u64)>,
    count: u64,
    /// What this run wrote, when it did.
    expected: Option<Expected>,
}

impl QueueBench {
    pub(super) async fn measure(self, server: &Server) -> Measured {
        let stage = Stage::open(server, &self.common).await?;
        let report = on_topic(&stage, &self.topic, async |topic| self.run(&stage, topic).await);
        Ok((report.await?, self.common.shown.output.output))
    }

    async fn run(&self, stage: &Stage<'_>, topic: &BenchTopic) -> Result<Report, Failure> {
        let stored = self.store(stage, topic).await?;
        let name = stage.name();
        let settings =
            SubscriptionSettings { mode: Some(Mode::from(self.mode)), ..Default::default() };
        let spec = SubscriptionSpec::new(&topic.name).settings(settings);
        stage.client.admin().create_subscription(&name, &spec).await?;
        let report = self.drain(stage, &name, &stored).await;
        audience::delete(stage, &name).await;
        report
    }

    async fn store(&self, stage: &Stage<'_>, topic: &BenchTopic) -> Result<Stored, Failure> {
        let expected = match topic.is_own() {
            true => {
                super::check_acknowledged(&self.send)?;
                let args = (&self.send, &self.records);
                Some(super::fill(stage, topic, args, self.amount.amount()).await?)
            }
            false => {
                self.amount.check_left_out()?;
                topic.check_countable()?;
                None
            }
        };
        let bounds = topic.bounds(stage).await?;
        let count = bounds.iter().map(|(_, start, end)| end - start).sum();
        Ok(Stored { bounds, count, expected })
    }

    /// Works everything off and looks whether the broker knows that.
    async fn drain(
        &self,
        stage: &Stage<'_>,
        name: &str,
        stored: &Stored,
    ) -> Result<Report, Failure> {
        let mut clients = Vec::new();
        for _ in 0..self.consumers {
            clients.push(stage.connect().await?);
        }
        let live = stage.live("handing out", Some(stored.count));
        let meter = stage.meter();
        let start = clock::instant();
        let (pot, goal) = Pot::new(stored.count);
        let mut tasks = JoinSet::new();
        for client in clients {
            let reader = self.reader(stage, (&client, name), stored).await?;
            let (pot, goal, counter) = (Some(pot.clone()), goal.clone(), live.counter());
            tasks.spawn(Reader { pot, goal, counter, ..reader }.run());
        }
        let reads = super::join(tasks).await?;
        let usage = meter.stop().await;
        drop(live);
        let tally = check(stage, &reads, stored)?;
        let left = self.left(stage, name, &tally).await?;
        let work = work(&reads, (start, &tally));
        let mut report = Report::new("queue", self.words(), stage);
        report.rate("records", work);
        report.usage(&usage, work, stage);
        self.tell(&mut report, &reads, (&tally, stored.count - left.min(stored.count)));
        Ok(report)
    }

    async fn reader(
        &self,
        stage: &Stage<'_>,
        (client, name): (&Client, &str),
        stored: &Stored,
    ) -> Result<Reader, Failure> {
        let jobs = client.subscription(name).credit(self.in_flight, CREDIT_BYTES).open().await?;
        let starts = stored.bounds.iter().map(|(partition, start, _)| (*partition, *start));
        let tally = Tally::new(stored.expected.map(|_| stage.run), starts);
        Ok(Reader {
            halts_at: 1,
            ..Reader::new((&stage.halt, stage.patience()), Source::Push(jobs), tally)
        })
    }

    /// Records that the broker does not hold for settled. None, unless the run ended early or others write.
    async fn left(&self, stage: &Stage<'_>, name: &str, tally: &Tally) -> Result<u64, Failure> {
        let subscription = stage.client.admin().describe_subscription(name).await?;
        let left: u64 = subscription.partitions.iter().map(|partition| partition.lag).sum();
        let visible: u64 = subscription.partitions.iter().map(|one| one.high_watermark.0).sum();
        if left > 0 && !stage.halt.is_asked() && visible <= tally.got.count {
            let message = format!(
                "{} were acknowledged, of {} the broker does not know it",
                units::records(tally.got.count),
                units::count(left)
            );
            return Err(Failure::new(Class::Corrupt, message));
        }
        Ok(left)
    }

    fn words(&self) -> String {
        format!(
            "{}, {} in flight each, {}",
            super::consumers(self.consumers),
            units::count(self.in_flight.into()),
            Mode::from(self.mode).name()
        )
    }

    fn tell(&self, report: &mut Report, reads: &[Read], (tally, settled): (&Tally, u64)) {
        let redelivered: u64 = reads.iter().map(|read| read.redelivered).sum();
        report.fact(
            "RECORDS",
            format!(
                "{} acknowledged one by one, {} handed out again",
                units::count(tally.got.count),
                units::count(redelivered)
            ),
        );
        report.put(
            "records",
            json!({
                "acknowledged": tally.got.count, "settled": settled,
                "redelivered": redelivered, "repeated": tally.repeated,
            }),
        );
        report.put(
            "settings",
            json!({
                "consumers": self.consumers, "in_flight": self.in_flight,
                "mode": Mode::from(self.mode).name(), "records": self.records.to_json(),
            }),
        );
    }
}

/// Holds what came against what is stored.
fn check(stage: &Stage<'_>, reads: &[Read], stored: &Stored) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for read in reads {
        tally.merge(read.tally.clone());
    }
    match &stored.expected {
        _ if stage.halt.is_asked() => {}
        Some(expected) => tally.check(expected)?,
        None if tally.got.count < stored.count => {
            let (got, all) = (units::count(tally.got.count), units::records(stored.count));
            return Err(Failure::new(Class::Corrupt, format!("{got} of {all} were handed out")));
        }
        None => {}
    }
    Ok(tally)
}

fn work(reads: &[Read], (start, tally): (Instant, &Tally)) -> Work {
    let end = reads.iter().map(|read| read.end).max().unwrap_or(start);
    let seconds = end.saturating_duration_since(start).as_secs_f64();
    Work { records: tally.got.count, bytes: tally.got.bytes, seconds }
}

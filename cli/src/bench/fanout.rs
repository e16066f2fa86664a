//! W5: records to many readers at the same time, each of whom gets all of them.

use std::time::Instant;

use clap::Args;
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};

use super::{
    Measured,
    amount::AmountArgs,
    audience::{Audience, AudienceArgs},
    pace::Pace,
    payload::RecordArgs,
    reader::{Read, ReadArgs, Reader},
    report::{Report, Work},
    sender::{Crew, SendArgs, Sent},
    stage::{CommonArgs, Stage},
    times::Times,
    topic::{BenchTopic, TopicArgs, on_topic},
};
use crate::{args::Server, clock, failure::Failure, settings, units};

/// What `bench fanout` takes.
#[derive(Debug, Args)]
pub(crate) struct FanoutBench {
    /// Readers of everything, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    consumers: u32,
    #[command(flatten)]
    amount: AmountArgs,
    /// Records per second over all producers, sent when they are due; as fast as it goes when left out
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: Option<u64>,
    #[command(flatten, next_help_heading = "Reading")]
    audience: AudienceArgs,
    #[command(flatten, next_help_heading = "Reading")]
    read: ReadArgs,
    #[command(flatten, next_help_heading = "Records")]
    records: RecordArgs,
    #[command(flatten, next_help_heading = "Sending")]
    send: SendArgs,
    #[command(flatten, next_help_heading = "Topic")]
    topic: TopicArgs,
    #[command(flatten)]
    common: CommonArgs,
}

impl FanoutBench {
    pub(super) async fn measure(self, server: &Server) -> Measured {
        let stage = Stage::open(server, &self.common).await?;
        let report = on_topic(&stage, &self.topic, async |topic| self.run(&stage, topic).await);
        Ok((report.await?, self.common.shown.output.output))
    }

    async fn run(&self, stage: &Stage<'_>, topic: &BenchTopic) -> Result<Report, Failure> {
        super::check_acknowledged(&self.send)?;
        let crew = Crew::open(stage, &topic.name, (&self.send, &self.records)).await?;
        let (audience, readers) =
            Audience::open(stage, topic, (&self.audience, &self.read, self.consumers)).await?;
        let meter = stage.meter();
        let start = clock::instant();
        let done = self.send_to(stage, &crew, readers).await;
        let usage = meter.stop().await;
        let (sent, reads) = audience.close(stage, done).await?;
        topic.check_written(stage, sent.total.count).await?;
        for read in &reads {
            read.tally.check(&sent.total)?;
        }
        let work = work(&reads, start);
        let mut report = Report::new("fanout", self.words(), stage);
        report.rate("deliveries", work);
        report.usage(&usage, work, stage);
        self.tell(&mut report, &sent, &reads);
        Ok(report)
    }

    /// Sends while everybody reads, until all have everything.
    async fn send_to(
        &self,
        stage: &Stage<'_>,
        crew: &Crew,
        readers: Vec<Reader>,
    ) -> Result<(Sent, Vec<Read>), Failure> {
        let amount = self.amount.amount();
        let pace = self.rate.map(|rate| Pace::of_amount(rate, amount));
        let goal = amount.records().map(|records| records * u64::from(self.consumers));
        let live = stage.live("delivering", goal);
        let (goal, known) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for mut reader in readers {
            (reader.goal, reader.pace) = (known.clone(), pace);
            reader.counter = live.counter();
            tasks.spawn(reader.run());
        }
        let unseen = super::live::Counter::default();
        let sent = match pace {
            Some(pace) => crew.follow(pace, &unseen).await?,
            None => crew.flood(amount, &unseen).await?,
        };
        goal.send_replace(Some(sent.total.count));
        Ok((sent, super::join(tasks).await?))
    }

    fn words(&self) -> String {
        format!(
            "records of {}, {}, {} by {}",
            units::bytes(self.records.size as u64),
            self.send.words(),
            super::consumers(self.consumers),
            self.audience.via.name(),
        )
    }

    fn tell(&self, report: &mut Report, sent: &Sent, reads: &[Read]) {
        let level = sent.durability.map_or("-", settings::durability);
        let total = sent.total.count;
        let delivered: u64 = reads.iter().map(|read| read.tally.got.count).sum();
        report.fact(
            "RECORDS",
            format!(
                "{} acknowledged at {level}, all of them to every one of {} consumers",
                units::count(total),
                reads.len()
            ),
        );
        report.put(
            "records",
            json!({
                "sent": total, "acknowledged": total, "stored": total, "delivered": delivered,
                "redelivered": reads.iter().map(|read| read.redelivered).sum::<u64>(),
            }),
        );
        report.put("acknowledged_at", json!(level));
        report.put(
            "settings",
            json!({
                "records": self.records.to_json(), "send": self.send.to_json(), "rate": self.rate,
                "consumers": self.consumers, "via": self.audience.via.name(),
            }),
        );
        report.times("acknowledged", sent.acked.clone());
        if self.rate.is_some() {
            let mut received = Times::new();
            reads.iter().for_each(|read| received.merge(&read.times));
            report.times("received", received);
        }
    }
}

/// All deliveries, from the beginning to the last of them.
fn work(reads: &[Read], start: Instant) -> Work {
    let end = reads.iter().map(|read| read.end).max().unwrap_or(start);
    Work {
        records: reads.iter().map(|read| read.tally.got.count).sum(),
        bytes: reads.iter().map(|read| read.tally.got.bytes).sum(),
        seconds: end.saturating_duration_since(start).as_secs_f64(),
    }
}

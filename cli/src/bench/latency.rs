//! W3: records at a steady rate, each timed from when it was due to its acknowledgement and to its reader.
//!
//! Senders and readers run in this process, so that one clock tells both ends.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};

use super::{
    Measured,
    amount::parse_time,
    audience::{Audience, AudienceArgs},
    pace::Pace,
    payload::RecordArgs,
    reader::{Read, ReadArgs},
    report::{Report, Work},
    sender::{Crew, SendArgs, Sent},
    stage::{CommonArgs, Stage},
    times::Times,
    topic::{BenchTopic, TopicArgs, on_topic},
};
use crate::{args::Server, failure::Failure, settings, units};

/// What `bench latency` takes.
#[derive(Debug, Args)]
pub(crate) struct LatencyBench {
    /// Records per second over all producers
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_time)]
    duration: Duration,
    /// How long to send before that
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::parse_millis)]
    warm_up: u64,
    /// Readers of everything, each with a connection of its own; 0 measures acknowledgements alone
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000))]
    consumers: u32,
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

impl LatencyBench {
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
        let pace = Pace::new(self.rate, Duration::from_millis(self.warm_up), self.duration);
        let live = stage.live("sending", Some(pace.count()));
        let meter = stage.meter();
        let (goal, known) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for mut reader in readers {
            (reader.goal, reader.pace) = (known.clone(), Some(pace));
            tasks.spawn(reader.run());
        }
        let sent = crew.follow(pace, &live.counter()).await;
        let sent = match sent {
            Ok(sent) => sent,
            Err(failure) => return audience.close(stage, Err(failure)).await,
        };
        goal.send_replace(Some(sent.total.count));
        let reads = super::join(tasks).await;
        let usage = meter.stop().await;
        drop(live);
        let reads = audience.close(stage, reads).await?;
        topic.check_written(stage, sent.total.count).await?;
        for read in &reads {
            read.tally.check(&sent.total)?;
        }
        let mut report = Report::new("latency", self.words(), stage);
        let work =
            Work { records: sent.total.count, bytes: sent.total.bytes, seconds: usage.seconds };
        report.usage(&usage, work, stage);
        self.tell(&mut report, &sent, &reads);
        Ok(report)
    }

    fn words(&self) -> String {
        format!(
            "records of {}, {}, at {}/s, {} by {}",
            units::bytes(self.records.size as u64),
            self.send.words(),
            units::count(self.rate),
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
                "{} acknowledged at {level}, {} deliveries",
                units::count(total),
                units::count(delivered)
            ),
        );
        report.put(
            "records",
            json!({
                "sent": total, "acknowledged": total, "stored": total, "delivered": delivered,
                "measured": sent.acked.count(),
                "redelivered": reads.iter().map(|read| read.redelivered).sum::<u64>(),
            }),
        );
        report.put("acknowledged_at", json!(level));
        report.put("seconds", json!(sent.seconds));
        report.put(
            "settings",
            json!({
                "records": self.records.to_json(), "send": self.send.to_json(), "rate": self.rate,
                "warm_up_ms": self.warm_up, "consumers": self.consumers, "via": self.audience.via.name(),
            }),
        );
        report.times("acknowledged", sent.acked.clone());
        let mut received = Times::new();
        reads.iter().for_each(|read| received.merge(&read.times));
        if self.consumers > 0 {
            report.times("received", received);
        }
        report.times("sender was late", sent.late.clone());
    }
}

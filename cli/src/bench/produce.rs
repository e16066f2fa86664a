//! W1: records from one producer or several, at full speed or at a rate, until all are acknowledged.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{
    Measured,
    amount::{Amount, AmountArgs},
    pace::Pace,
    payload::RecordArgs,
    report::{Report, Work},
    sender::{Crew, STRIDE, SendArgs, Sent},
    stage::{CommonArgs, Stage},
    tally::Expected,
    topic::{BenchTopic, TopicArgs, on_topic},
};
use crate::{args::Server, failure::Failure, settings, units};

/// What `bench produce` takes.
#[derive(Debug, Args)]
pub(crate) struct ProduceBench {
    #[command(flatten)]
    amount: AmountArgs,
    /// Records per second over all producers, sent when they are due; as fast as it goes when left out
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// Records to send before those that are measured
    #[arg(long, value_name = "N", default_value_t = 0)]
    warm_up: u64,
    #[command(flatten, next_help_heading = "Records")]
    records: RecordArgs,
    #[command(flatten, next_help_heading = "Sending")]
    send: SendArgs,
    #[command(flatten, next_help_heading = "Topic")]
    topic: TopicArgs,
    #[command(flatten)]
    common: CommonArgs,
}

impl ProduceBench {
    pub(super) async fn measure(self, server: &Server) -> Measured {
        let stage = Stage::open(server, &self.common).await?;
        let report = on_topic(&stage, &self.topic, async |topic| self.run(&stage, topic).await);
        Ok((report.await?, self.common.shown.output.output))
    }

    async fn run(&self, stage: &Stage<'_>, topic: &BenchTopic) -> Result<Report, Failure> {
        let crew = Crew::open(stage, &topic.name, (&self.send, &self.records)).await?;
        let mut total = self.warm_up(stage, &crew).await?;
        let amount = self.amount.amount();
        let live = stage.live("sending", amount.records());
        let meter = stage.meter();
        let sent = match self.rate {
            Some(rate) => crew.follow(Pace::of_amount(rate, amount), &live.counter()).await?,
            None => crew.flood(amount, &live.counter()).await?,
        };
        let usage = meter.stop().await;
        drop(live);
        total.merge(sent.total);
        let stored = self.stored(stage, topic, &total).await?;
        let Expected { count, bytes, .. } = sent.total;
        let work = Work { records: count, bytes, seconds: sent.seconds };
        let mut report = Report::new("produce", self.words(), stage);
        report.rate("records", work);
        report.usage(&usage, work, stage);
        self.tell(&mut report, &sent, (total.count, stored));
        Ok(report)
    }

    /// Sends what is not measured.
    async fn warm_up(&self, stage: &Stage<'_>, crew: &Crew) -> Result<Expected, Failure> {
        if self.warm_up == 0 {
            return Ok(Expected::default());
        }
        let live = stage.live("warming up", Some(self.warm_up));
        Ok(crew.flood(Amount::Records(self.warm_up), &live.counter()).await?.total)
    }

    /// Records in the log, which are at least those that were acknowledged. What was only accepted may be lost
    /// and is waited for a while.
    async fn stored(
        &self,
        stage: &Stage<'_>,
        topic: &BenchTopic,
        total: &Expected,
    ) -> Result<u64, Failure> {
        if self.send.are_acknowledged() {
            return topic.check_written(stage, total.count).await;
        }
        let arrived = async {
            loop {
                let stored = topic.written(stage).await?;
                if stored >= total.count {
                    return Ok::<u64, Failure>(stored);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(stage.patience(), arrived).await {
            Ok(stored) => stored,
            Err(_) => topic.written(stage).await,
        }
    }

    fn words(&self) -> String {
        let size = units::bytes(self.records.size as u64);
        let rate = self
            .rate
            .map_or("at full speed".to_owned(), |rate| format!("at {}/s", units::count(rate)));
        format!("records of {size}, {}, {rate}", self.send.words())
    }

    fn tell(&self, report: &mut Report, sent: &Sent, (total, stored): (u64, u64)) {
        let level = sent.durability.map_or("-", settings::durability);
        let is_acknowledged = self.send.are_acknowledged();
        let acknowledged = match is_acknowledged {
            true => format!("acknowledged at {level}"),
            false => "sent without waiting for an acknowledgement".to_owned(),
        };
        report.fact(
            "RECORDS",
            format!("{} {acknowledged}, {} in the log", units::count(total), units::count(stored)),
        );
        let measured = match self.rate {
            Some(_) => "every record's".to_owned(),
            None => format!("of one record in {STRIDE}"),
        };
        report.fact("TIMES", format!("{measured}, from when it was due to its acknowledgement"));
        report.put(
            "records",
            json!({
                "sent": total, "acknowledged": is_acknowledged.then_some(total), "stored": stored,
                "measured": sent.total.count, "warm_up": self.warm_up,
            }),
        );
        report.put("acknowledged_at", json!(level));
        report.put(
            "settings",
            json!({ "records": self.records.to_json(), "send": self.send.to_json(), "rate": self.rate }),
        );
        report.times("acknowledged", sent.acked.clone());
        if self.rate.is_some() {
            report.times("sender was late", sent.late.clone());
        }
    }
}

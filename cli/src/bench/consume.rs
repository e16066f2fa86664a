//! W2: stored records read from their beginning, each once, nothing stored about it.

use std::time::Instant;

use clap::Args;
use riverrun_client::{Client, TopicPartition};
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    Measured,
    amount::AmountArgs,
    payload::RecordArgs,
    reader::{Read, ReadArgs, Reader, Source, known},
    report::{Report, Work, rounded},
    sender::SendArgs,
    stage::{CommonArgs, Stage},
    tally::{Expected, Tally},
    topic::{BenchTopic, TopicArgs, on_topic},
};
use crate::{
    args::Server,
    clock,
    failure::{Class, Failure},
    units,
};

/// What `bench consume` takes.
#[derive(Debug, Args)]
pub(crate) struct ConsumeBench {
    /// Readers, each with a connection of its own, that share the partitions
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    consumers: u32,
    #[command(flatten)]
    amount: AmountArgs,
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

/// What there is to read.
struct Stored {
    /// Each partition with its first offset and its end.
    bounds: Vec<(u32, u64, u64)>,
    /// What the readers are to get together, when this run wrote it.
    expected: Option<Expected>,
}

impl ConsumeBench {
    pub(super) async fn measure(self, server: &Server) -> Measured {
        let stage = Stage::open(server, &self.common).await?;
        let report = on_topic(&stage, &self.topic, async |topic| self.run(&stage, topic).await);
        Ok((report.await?, self.common.shown.output.output))
    }

    async fn run(&self, stage: &Stage<'_>, topic: &BenchTopic) -> Result<Report, Failure> {
        if self.consumers > topic.partitions {
            return Err(Failure::usage(format!(
                "`--consumers {}` is more than the topic has partitions, which is {}: some would \
                 get nothing",
                self.consumers, topic.partitions
            )));
        }
        let stored = self.store(stage, topic).await?;
        let count = stored.bounds.iter().map(|(_, start, end)| end - start).sum();
        let mut clients = Vec::new();
        for _ in 0..self.consumers {
            clients.push(stage.connect().await?);
        }
        let live = stage.live("reading", Some(count));
        let meter = stage.meter();
        let start = clock::instant();
        let mut tasks = JoinSet::new();
        for (index, client) in (0..).zip(clients) {
            let reader = self.reader(stage, topic, (index, client), &stored).await?;
            tasks.spawn(Reader { counter: live.counter(), ..reader }.run());
        }
        let reads = super::join(tasks).await?;
        let usage = meter.stop().await;
        drop(live);
        let tally = check(stage, &reads, (&stored, count))?;
        let work = work(&reads, (start, &tally));
        let mut report = Report::new("consume", self.words(), stage);
        report.rate("records", work);
        report.usage(&usage, work, stage);
        self.tell(&mut report, (&reads, start), (&tally, count));
        Ok(report)
    }

    /// Writes what is to be read, unless a topic was named that has something.
    async fn store(&self, stage: &Stage<'_>, topic: &BenchTopic) -> Result<Stored, Failure> {
        if !topic.is_own() {
            self.amount.check_left_out()?;
            topic.check_countable()?;
            return Ok(Stored { bounds: topic.bounds(stage).await?, expected: None });
        }
        super::check_acknowledged(&self.send)?;
        let expected =
            super::fill(stage, topic, (&self.send, &self.records), self.amount.amount()).await?;
        Ok(Stored { bounds: topic.bounds(stage).await?, expected: Some(expected) })
    }

    /// Begins to read the partitions of one reader.
    async fn reader(
        &self,
        stage: &Stage<'_>,
        topic: &BenchTopic,
        (index, client): (u32, Client),
        stored: &Stored,
    ) -> Result<Reader, Failure> {
        let mine =
            || stored.bounds.iter().filter(|(partition, ..)| partition % self.consumers == index);
        let partitions =
            mine().map(|(partition, ..)| TopicPartition::new(&*topic.name, *partition));
        let builder = client.consumer(&topic.name).assign(partitions);
        let run = stored.expected.map(|_| stage.run);
        let starts = mine().map(|(partition, start, _)| (*partition, *start));
        let goal = mine().map(|(_, start, end)| end - start).sum();
        Ok(Reader {
            goal: known(goal),
            halts_at: 1,
            ..Reader::new(
                (&stage.halt, stage.patience()),
                Source::Pull(self.read.apply(builder).build().await?),
                Tally::new(run, starts),
            )
        })
    }

    fn words(&self) -> String {
        super::consumers(self.consumers)
    }

    fn tell(
        &self,
        report: &mut Report,
        (reads, start): (&[Read], Instant),
        (tally, stored): (&Tally, u64),
    ) {
        let first = reads.iter().filter_map(|read| read.first).min();
        let first_ms = first.map(|at| rounded((at - start).as_secs_f64() * 1e3, 1e3));
        let (got, all) = (units::count(tally.got.count), units::count(stored));
        let first = first_ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
        report.fact(
            "RECORDS",
            format!("{got} read of {all} that are stored, the first after {first}"),
        );
        report.put(
            "records",
            json!({ "stored": stored, "read": tally.got.count, "repeated": tally.repeated }),
        );
        report.put("first_record_ms", json!(first_ms));
        report.put(
            "settings",
            json!({ "consumers": self.consumers, "records": self.records.to_json() }),
        );
    }
}

/// Holds what came against what is stored; what came must be without a gap, also when it is not all.
fn check(
    stage: &Stage<'_>,
    reads: &[Read],
    (stored, count): (&Stored, u64),
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for read in reads {
        tally.merge(read.tally.clone());
    }
    if let Some((partition, offset)) = tally.gap() {
        let message = format!("offset {offset} of partition {partition} did not come");
        return Err(Failure::new(Class::Corrupt, message));
    }
    if stage.halt.is_asked() {
        return Ok(tally);
    }
    match &stored.expected {
        Some(expected) => tally.check(expected)?,
        // Others may write meanwhile, so there may be more.
        None if tally.got.count < count => {
            let (got, all) = (units::count(tally.got.count), units::records(count));
            return Err(Failure::new(Class::Corrupt, format!("{got} of {all} came")));
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

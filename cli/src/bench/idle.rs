//! W6: what the broker holds and works while there is nothing to do, with many topics and many readers that wait.
//!
//! Three states are looked at: before, with the topics, and with the readers as well. [`crowd`] makes both and
//! takes them away.

mod crowd;

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use self::crowd::Crowd;
use super::{
    Measured,
    amount::parse_time,
    meter::{self, Memory},
    reader::Via,
    report::{Report, rounded},
    stage::{CommonArgs, Stage},
};
use crate::{args::Server, clock, failure::Failure, units};

/// What `bench idle` takes.
#[derive(Debug, Args)]
pub(crate) struct IdleBench {
    /// Topics to make, with one record each
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    topics: u32,
    /// Readers that wait, spread over the topics
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=100_000))]
    consumers: u32,
    /// Connections that the readers share
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// How the readers wait: in a fetch that the broker holds, or in a session
    #[arg(long, value_enum, default_value_t, value_name = "WAY")]
    via: Via,
    /// How long the broker may hold a fetch; the client's 30 s when left out
    #[arg(long, value_name = "DURATION", value_parser = parse_wait)]
    max_wait: Option<Duration>,
    /// How often a pull reader looks for its topic; the client's 30 s when left out
    #[arg(long, value_name = "DURATION", value_parser = parse_time)]
    topics_interval: Option<Duration>,
    /// How long to measure each state
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_time)]
    duration: Duration,
    /// How long to let things come to rest before that
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::parse_millis)]
    settle: u64,
    #[command(flatten)]
    common: CommonArgs,
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    match parse_time(text)? {
        wait if wait > Duration::from_secs(60) => Err("must be at most 60s".to_owned()),
        wait => Ok(wait),
    }
}

/// One state of the broker.
#[derive(Debug)]
struct State {
    name: String,
    /// Seconds it took to bring it about.
    made_seconds: f64,
    /// Share of one core over the time that was measured, and memory at its end, where the broker can be seen.
    seen: Option<(f64, Memory)>,
}

impl IdleBench {
    pub(super) async fn measure(self, server: &Server) -> Measured {
        let stage = Stage::open(server, &self.common).await?;
        let mut crowd = Crowd::new(&stage);
        let outcome = self.run(&stage, &mut crowd).await;
        crowd.clean(&self).await;
        Ok((outcome?, self.common.shown.output.output))
    }

    async fn run(&self, stage: &Stage<'_>, crowd: &mut Crowd<'_>) -> Result<Report, Failure> {
        let mut states = vec![self.look(stage, "before".to_owned(), 0.0).await?];
        let start = clock::instant();
        crowd.make_topics(self).await?;
        let name = format!("with {} topics", units::count(crowd.topic_count().into()));
        states.push(self.look(stage, name, start.elapsed().as_secs_f64()).await?);
        if !stage.halt.is_asked() && self.consumers > 0 {
            let start = clock::instant();
            crowd.make_readers(self).await?;
            let name = format!("and {} readers", units::count(crowd.reader_count()));
            states.push(self.look(stage, name, start.elapsed().as_secs_f64()).await?);
            crowd.check_waiting()?;
        }
        Ok(self.report(stage, crowd, &states))
    }

    /// Lets things come to rest, then looks for the time that was asked for, or until the run is to end.
    async fn look(
        &self,
        stage: &Stage<'_>,
        name: String,
        made_seconds: f64,
    ) -> Result<State, Failure> {
        let _live = stage.live(&format!("looking at the broker {name}"), None);
        let wait = async |time: Duration| {
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                () = stage.halt.asked() => {}
            }
        };
        wait(Duration::from_millis(self.settle)).await;
        let gone = |error| Failure::other(format!("the broker's process cannot be read: {error}"));
        let Ok(pid) = stage.broker else {
            return Ok(State { name, made_seconds, seen: None });
        };
        let (before, start) = (meter::processor_seconds(pid).map_err(gone)?, clock::instant());
        wait(self.duration).await;
        let busy = meter::processor_seconds(pid).map_err(gone)? - before;
        let share = busy / start.elapsed().as_secs_f64().max(1e-3);
        Ok(State { name, made_seconds, seen: Some((share, meter::memory(pid).map_err(gone)?)) })
    }

    fn report(&self, stage: &Stage<'_>, crowd: &Crowd<'_>, states: &[State]) -> Report {
        let what = format!(
            "{} topics, {} on {} connections by {}",
            units::count(self.topics.into()),
            super::consumers(self.consumers),
            units::count(self.connections.into()),
            self.via.name()
        );
        let mut report = Report::new("idle", what, stage);
        for state in states {
            report.fact("BROKER", state.text());
        }
        if let Err(why) = &stage.broker {
            report.fact("", format!("processor and memory are not measured: {why}"));
        }
        report.put("states", states.iter().map(State::to_json).collect());
        report.put(
            "records",
            json!({ "topics": crowd.topic_count(), "readers_waiting": crowd.reader_count() }),
        );
        report.put(
            "settings",
            json!({
                "topics": self.topics, "consumers": self.consumers, "connections": self.connections,
                "via": self.via.name(),
                "max_wait_ms": self.max_wait.map(|wait| wait.as_millis()),
                "topics_interval_ms": self.topics_interval.map(|every| every.as_millis()),
            }),
        );
        report
    }
}

impl State {
    fn text(&self) -> String {
        let made = match self.made_seconds {
            0.0 => String::new(),
            seconds => format!(", made in {seconds:.2} s"),
        };
        let Some((share, memory)) = &self.seen else { return format!("{}{made}", self.name) };
        format!(
            "{}: {} resident, {} heap, {:.2} % of a core{made}",
            self.name,
            units::bytes(memory.resident),
            units::bytes(memory.heap),
            share * 100.0
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "made_seconds": rounded(self.made_seconds, 1e3),
            "resident_bytes": self.seen.map(|(_, memory)| memory.resident),
            "heap_bytes": self.seen.map(|(_, memory)| memory.heap),
            "percent_of_a_core": self.seen.map(|(share, _)| rounded(share * 100.0, 1e3)),
        })
    }
}

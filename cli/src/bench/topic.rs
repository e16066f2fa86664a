//! The topic that is measured: one made for the run and deleted at its end, or one that is there already.

use std::time::Duration;

use clap::{Args, ValueEnum};
use riverrun_client::{CleanupPolicy, TopicDescription, TopicSpec};
use serde_json::json;

use super::{report::Report, stage::Stage};
use crate::{
    failure::{Class, Failure},
    settings, units,
};

/// Longest time to delete a topic at the end.
const DELETE_TIMEOUT: Duration = Duration::from_secs(10);

/// Which topic.
#[derive(Debug, Args)]
pub(super) struct TopicArgs {
    /// A topic that exists, to use and to leave; one is made and deleted when left out
    #[arg(long, value_name = "NAME")]
    #[arg(conflicts_with_all = ["partitions", "durability", "settings", "keep"])]
    topic: Option<String>,
    #[command(flatten)]
    new: NewTopicArgs,
}

/// How a topic is made.
#[derive(Debug, Args)]
pub(super) struct NewTopicArgs {
    /// Partitions of the topic that is made
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Its durability; the broker's default when left out
    #[arg(long, value_enum, value_name = "LEVEL")]
    durability: Option<DurabilityArg>,
    /// A setting of it as in `topic create`, for instance retention_bytes=10GiB; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Do not delete it at the end
    #[arg(long)]
    keep: bool,
}

/// `--durability`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DurabilityArg {
    /// In the page cache: survives the death of the broker, not a power cut
    Os,
    /// As os, and flushed in the background
    Interval,
    /// On disk before the acknowledgement
    Fsync,
}

impl NewTopicArgs {
    /// Number of partitions.
    pub(super) fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Whether it stays.
    pub(super) fn is_kept(&self) -> bool {
        self.keep
    }

    /// The topic that is made, under this name.
    fn spec(&self, name: &str) -> Result<TopicSpec, Failure> {
        let level = self.durability.map(|level| match level {
            DurabilityArg::Os => "durability=os",
            DurabilityArg::Interval => "durability=interval",
            DurabilityArg::Fsync => "durability=fsync",
        });
        let pairs = level.map(str::to_owned).into_iter().chain(self.settings.iter().cloned());
        let config = settings::parse(&pairs.collect::<Vec<_>>()).map_err(Failure::usage)?;
        Ok(TopicSpec::new(name).partitions(self.partitions).config(config))
    }
}

/// The topic.
#[derive(Debug)]
pub(super) struct BenchTopic {
    pub(super) name: String,
    /// Number of partitions.
    pub(super) partitions: u32,
    durability: &'static str,
    is_own: bool,
    is_kept: bool,
    /// As it was before the run.
    before: TopicDescription,
}

/// Does `work` on the topic, and deletes it when it was made for that, however the work ended.
pub(super) async fn on_topic(
    stage: &Stage<'_>,
    args: &TopicArgs,
    work: impl AsyncFnOnce(&BenchTopic) -> Result<Report, Failure>,
) -> Result<Report, Failure> {
    let topic = BenchTopic::prepare(stage, args).await?;
    let worked = work(&topic).await;
    let left = topic.leave(stage).await;
    let mut report = worked?;
    report.put(
        "topic",
        json!({
            "name": topic.name, "partitions": topic.partitions, "durability": topic.durability,
            "made_for_this_run": topic.is_own, "deleted": left == Left::Deleted,
        }),
    );
    let plural = if topic.partitions == 1 { "" } else { "s" };
    let left = match left {
        Left::Deleted => "made for this run and deleted",
        Left::Stuck => "made for this run and NOT deleted",
        Left::Kept => "made for this run and kept",
        Left::Others => "was there before",
    };
    let (name, count) = (&topic.name, units::count(topic.partitions.into()));
    let durability = topic.durability;
    report.fact("TOPIC", format!("`{name}`: {count} partition{plural}, {durability}, {left}"));
    Ok(report)
}

/// What became of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Deleted,
    Stuck,
    Kept,
    Others,
}

impl BenchTopic {
    async fn prepare(stage: &Stage<'_>, args: &TopicArgs) -> Result<BenchTopic, Failure> {
        match &args.topic {
            Some(name) => BenchTopic::look(stage, name.clone()).await,
            None => BenchTopic::make(stage, &args.new).await,
        }
    }

    /// Makes one for this run.
    pub(super) async fn make(
        stage: &Stage<'_>,
        args: &NewTopicArgs,
    ) -> Result<BenchTopic, Failure> {
        let name = stage.name();
        stage.client.admin().create_topic(args.spec(&name)?).await?;
        let topic = BenchTopic::look(stage, name).await?;
        Ok(BenchTopic { is_own: true, is_kept: args.keep, ..topic })
    }

    async fn look(stage: &Stage<'_>, name: String) -> Result<BenchTopic, Failure> {
        let before = stage.client.admin().describe_topic(&name).await?;
        Ok(BenchTopic {
            name,
            partitions: u32::try_from(before.partitions.len()).unwrap_or(u32::MAX),
            durability: before.info.config.durability.map_or("-", settings::durability),
            is_own: false,
            is_kept: true,
            before,
        })
    }

    async fn leave(&self, stage: &Stage<'_>) -> Left {
        if !self.is_own {
            return Left::Others;
        }
        if self.is_kept {
            return Left::Kept;
        }
        let admin = stage.client.admin();
        let problem =
            match tokio::time::timeout(DELETE_TIMEOUT, admin.delete_topic(&self.name)).await {
                Ok(Ok(())) => return Left::Deleted,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the broker does not answer".to_owned(),
            };
        let name = &self.name;
        eprintln!(
            "riverrun: topic `{name}` is left: {problem}; delete it with `riverrun topic delete {name}`"
        );
        Left::Stuck
    }

    /// Whether the topic was made for this run, so that nobody else writes to it.
    pub(super) fn is_own(&self) -> bool {
        self.is_own
    }

    /// Each partition with its first offset and the end of what can be read, as they are now.
    pub(super) async fn bounds(&self, stage: &Stage<'_>) -> Result<Vec<(u32, u64, u64)>, Failure> {
        let now = stage.client.admin().describe_topic(&self.name).await?;
        let bounds = now
            .partitions
            .iter()
            .map(|one| (one.partition.0, one.log_start.0, one.high_watermark.0));
        Ok(bounds.collect())
    }

    /// Records that were written since the run began, by whomever.
    pub(super) async fn written(&self, stage: &Stage<'_>) -> Result<u64, Failure> {
        let now = stage.client.admin().describe_topic(&self.name).await?;
        let ends = |topic: &TopicDescription| -> u64 {
            topic.partitions.iter().map(|partition| partition.log_end.0).sum()
        };
        Ok(ends(&now).saturating_sub(ends(&self.before)))
    }

    /// Fails when fewer records were written than the broker acknowledged.
    pub(super) async fn check_written(
        &self,
        stage: &Stage<'_>,
        acknowledged: u64,
    ) -> Result<u64, Failure> {
        let written = self.written(stage).await?;
        if written < acknowledged || (self.is_own && written > acknowledged) {
            let message = format!(
                "{} were acknowledged and {} are in the log",
                units::records(acknowledged),
                units::count(written)
            );
            return Err(Failure::new(Class::Corrupt, message));
        }
        Ok(written)
    }

    /// Fails when records of the topic go away one by one, so that it cannot be known how many there are.
    pub(super) fn check_countable(&self) -> Result<(), Failure> {
        match self.before.info.config.cleanup_policy {
            None | Some(CleanupPolicy::Delete) => Ok(()),
            Some(CleanupPolicy::Compact | CleanupPolicy::CompactDelete) => {
                Err(Failure::usage(format!(
                    "topic `{}` is compacted, so nobody knows how many records a reader should \
                     get; name one with cleanup_policy=delete",
                    self.name
                )))
            }
        }
    }
}

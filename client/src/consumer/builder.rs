//! Settings of a consumer.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use riverrun_proto::TopicPartition;
use uuid::Uuid;

use super::{
    Consumer,
    fetcher::Fetcher,
    membership::MembershipTask,
    shared::{GroupSettings, Settings, Shared},
    topics::{self, Followed},
};
use crate::{
    client::Client,
    error::{Error, ErrorCode, Result},
};

/// Where to begin on a partition without a stored offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// The first offset kept. The default.
    #[default]
    Earliest,
    /// The first offset not visible yet.
    Latest,
    /// The first record at or after this time.
    Time(SystemTime),
    /// Nowhere: the consumer gets an error and decides by a seek.
    Fail,
}

/// What to do when the offset to read does not exist any more, or not yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfRange {
    /// The consumer gets an error and decides by a seek. The default.
    #[default]
    Fail,
    /// Go on at the first offset kept.
    Earliest,
    /// Go on at the first offset not visible yet.
    Latest,
}

/// When offsets are committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Commit {
    /// When the program says so. The default.
    #[default]
    Manual,
    /// In the background, what was processed: a batch counts as processed when the next one is asked
    /// for, a record of the stream when the next one is. Never what was only received.
    Processed {
        /// How often.
        every: Duration,
    },
}

/// Settings of a [`Consumer`]. Every one has a default that works.
#[derive(Clone, Debug)]
#[must_use = "call `build` to get the consumer"]
pub struct ConsumerBuilder {
    client: Client,
    settings: Settings,
    group: Option<GroupSettings>,
    assigned: Option<Vec<TopicPartition>>,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client, topics: Vec<String>) -> ConsumerBuilder {
        let settings = Settings {
            topics,
            group: None,
            start: Start::default(),
            out_of_range: OutOfRange::default(),
            max_wait: Duration::from_secs(30),
            max_bytes: 8 << 20,
            partition_max_bytes: 2 << 20,
            max_records: 0,
            prefetch_bytes: 4 << 20,
            commit: Commit::default(),
            open_max: 100_000,
            topics_interval: Duration::from_secs(30),
        };
        ConsumerBuilder { client, settings, group: None, assigned: None }
    }

    /// Reads as a member of this group: the broker shares the partitions out and stores offsets.
    pub fn group(mut self, group: impl Into<String>) -> ConsumerBuilder {
        self.group = Some(GroupSettings {
            group: group.into(),
            joins: true,
            instance_id: None,
            session_timeout: Duration::from_secs(30),
            rebalance_timeout: Duration::from_secs(60),
            revoke_grace: Duration::from_secs(5),
        });
        self
    }

    /// A name that stays over restarts: who comes back under it within the session timeout takes its
    /// partitions over without moving any. Only with a group.
    pub fn instance_id(self, instance_id: impl Into<String>) -> ConsumerBuilder {
        self.with_group(|group| group.instance_id = Some(instance_id.into()))
    }

    /// Silence after which the broker removes the member: 1 s to 10 min. Default 30 s. Only with a group.
    pub fn session_timeout(self, timeout: Duration) -> ConsumerBuilder {
        self.with_group(|group| group.session_timeout = timeout)
    }

    /// Time after which the broker takes revoked partitions unasked. Default 60 s. Only with a group.
    pub fn rebalance_timeout(self, timeout: Duration) -> ConsumerBuilder {
        self.with_group(|group| group.rebalance_timeout = timeout)
    }

    /// How long a revoked partition is kept for the commit of what was received of it. It is let go
    /// earlier when that is committed. Default 5 s. Only with a group.
    pub fn revoke_grace(self, grace: Duration) -> ConsumerBuilder {
        self.with_group(|group| group.revoke_grace = grace)
    }

    fn with_group(mut self, change: impl FnOnce(&mut GroupSettings)) -> ConsumerBuilder {
        if let Some(group) = &mut self.group {
            change(group);
        }
        self
    }

    /// Reads these partitions, and never shares them out. With a group its stored offsets are used.
    pub fn assign(
        mut self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> ConsumerBuilder {
        self.assigned = Some(partitions.into_iter().collect());
        self
    }

    /// Where to begin without a stored offset. Default `Earliest`. For a group it is fixed when the
    /// group is created.
    pub fn start_missing(mut self, start: Start) -> ConsumerBuilder {
        self.settings.start = start;
        self
    }

    /// What to do when the offset to read does not exist. Default `Fail`.
    pub fn out_of_range(mut self, policy: OutOfRange) -> ConsumerBuilder {
        self.settings.out_of_range = policy;
        self
    }

    /// How long the broker may wait for records before it answers: 0 is short polling, at most 60 s.
    /// Default 30 s. Waiting costs nothing and new records come at once.
    pub fn max_wait(mut self, wait: Duration) -> ConsumerBuilder {
        self.settings.max_wait = wait;
        self
    }

    /// Most bytes of one answer, and of one partition in it. The first batch comes even when it is
    /// larger. Default 8 MiB and 2 MiB.
    pub fn max_bytes(mut self, bytes: u32, of_partition: u32) -> ConsumerBuilder {
        self.settings.max_bytes = bytes;
        self.settings.partition_max_bytes = of_partition;
        self
    }

    /// Most records of one answer. Default unlimited.
    pub fn max_records(mut self, records: u32) -> ConsumerBuilder {
        self.settings.max_records = records;
        self
    }

    /// Nothing more is fetched while this many bytes wait to be received. Default 4 MiB.
    pub fn prefetch_bytes(mut self, bytes: usize) -> ConsumerBuilder {
        self.settings.prefetch_bytes = bytes.max(1);
        self
    }

    /// When offsets are committed. Default `Manual`.
    pub fn commit(mut self, commit: Commit) -> ConsumerBuilder {
        self.settings.commit = commit;
        self
    }

    /// With a tracker: nothing more is received while this many records are not done. Default 100,000.
    pub fn open_max(mut self, records: usize) -> ConsumerBuilder {
        self.settings.open_max = records.max(1);
        self
    }

    /// Without a group: how often it is looked for partitions that were added to the topics. They are read from
    /// their first record on. Default 30 s, at least 10 ms. A group is told by the broker at once.
    pub fn topics_interval(mut self, every: Duration) -> ConsumerBuilder {
        self.settings.topics_interval = every.max(Duration::from_millis(10));
        self
    }

    /// Starts to read. A member's first partitions come a moment later.
    ///
    /// # Errors
    /// `InvalidArgument` for settings that contradict each other; `UnknownTopicOrPartition` without a group.
    pub async fn build(mut self) -> Result<Consumer> {
        self.check()?;
        let member = self.group.is_some() && self.assigned.is_none();
        let (topics, added) = if member {
            (Vec::new(), Vec::new())
        } else {
            topics::find(&self.client, &self.settings.topics, self.assigned.as_deref()).await?
        };
        let group = self.group.take().map(|group| GroupSettings { joins: member, ..group });
        self.settings.group = group.clone();
        let member_id = Uuid::new_v4().hyphenated().to_string();
        let shared = Arc::new(Shared::new(self.client, self.settings, member_id));
        if !member {
            shared.book.lock().assign(added);
        }
        start(&shared, group, topics);
        Ok(Consumer::new(shared))
    }

    #[cfg(test)]
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    #[cfg(test)]
    pub(super) fn group_settings(&self) -> Option<GroupSettings> {
        self.group.clone()
    }

    fn check(&self) -> Result<()> {
        let commits = self.settings.commit != Commit::Manual;
        let problem = if commits && self.group.is_none() {
            "`commit` needs a `group`"
        } else if self.settings.topics.is_empty() && self.assigned.is_none() {
            "`topics` is empty"
        } else if self.settings.max_wait > Duration::from_secs(60) {
            "`max_wait` is over 60 s"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorCode::InvalidArgument, problem))
    }
}

/// Starts the tasks; `ended` is cancelled when all of them are done.
fn start(shared: &Arc<Shared>, group: Option<GroupSettings>, topics: Vec<Followed>) {
    let fetcher = Fetcher::new(shared.clone());
    let shared = shared.clone();
    let membership =
        group.filter(|group| group.joins).map(|group| MembershipTask::new(shared.clone(), group));
    let ended = shared.ended.clone().drop_guard();
    tokio::spawn(async move {
        let stay = async {
            match membership {
                Some(membership) => membership.run().await,
                None => topics::follow(&shared, topics).await,
            }
        };
        tokio::join!(fetcher.run(), stay, shared.clone().commit_in_background());
        drop(ended);
    });
}

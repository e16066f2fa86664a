//! What must go on, or be refused by name, while the disk is full.

use std::time::Duration;

use riverrun_client::{
    Client, Error, ErrorCode, Offset, OffsetToCommit, TopicConfig, TopicPartition, TopicSpec,
};

use super::hoard::HOARD;

/// The group that commits while the disk is full.
const GROUP: &str = "probe";
/// Longest time that one call may take.
const CALL: Duration = Duration::from_secs(15);

/// Calls that were answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answers {
    /// Done.
    pub(super) done: u64,
    /// Refused as `DISK_FULL`.
    pub(super) refused: u64,
    /// Commits that waited for room for longer than the call was to last.
    pub(super) waiting: u64,
}

/// Makes the calls.
pub(super) struct Probes {
    mq: Client,
    /// Offset of the last commit that was confirmed.
    committed: Option<u64>,
    /// Commits that were refused or not answered: they may be there as well.
    doubtful: Vec<u64>,
    count: u64,
    pub(super) answers: Answers,
}

impl Probes {
    pub(super) fn new(mq: &Client) -> Probes {
        let answers = Answers::default();
        Probes { mq: mq.clone(), committed: None, doubtful: Vec::new(), count: 0, answers }
    }

    /// One call of each kind.
    pub(super) async fn all(&mut self) -> Result<(), String> {
        self.commit().await?;
        let mq = self.mq.clone();
        let config = TopicConfig {
            segment_bytes: Some(1 << 20),
            message_bytes_max: Some(32 << 10),
            ..TopicConfig::default()
        };
        let spec = TopicSpec::new("passing").partitions(1).config(config);
        let made = self.take(("create a topic", false), mq.admin().create_topic(spec)).await?;
        if made.is_some() {
            self.take(("delete a topic", false), mq.admin().delete_topic("passing")).await?;
        }
        Ok(())
    }

    /// Stores the next offset for a group without members.
    async fn commit(&mut self) -> Result<(), String> {
        self.count += 1;
        let offset = self.count;
        let at = TopicPartition::new(HOARD, 0);
        let mq = self.mq.clone();
        let store = async {
            let builder = mq.consumer(HOARD).group(GROUP).assign([at.clone()]);
            let consumer = builder.build().await?;
            consumer.commit_offsets(&[OffsetToCommit::new(at.clone(), Offset(offset))]).await
        };
        match self.take(("commit", true), store).await? {
            Some(()) => {
                self.committed = Some(offset);
                self.doubtful.clear();
            }
            None => self.doubtful.push(offset),
        }
        Ok(())
    }

    /// The answer to a call, `None` when it was refused as `DISK_FULL`. What a group stores waits for room, so its deadline may
    /// pass.
    async fn take<T>(
        &mut self,
        (what, waits): (&str, bool),
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, String> {
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(answer)) => {
                self.answers.done += 1;
                Ok(Some(answer))
            }
            Ok(Err(error)) if error.code() == ErrorCode::DiskFull => {
                self.answers.refused += 1;
                Ok(None)
            }
            Ok(Err(error)) if error.code() == ErrorCode::DeadlineExceeded && waits => {
                self.answers.waiting += 1;
                Ok(None)
            }
            Ok(Err(error)) => Err(format!("{what} on a full disk: {error:?}")),
            Err(_) => Err(format!("{what} on a full disk: no answer")),
        }
    }

    /// What is stored is the last commit that was confirmed, or one after it.
    pub(super) async fn check(&self) -> Result<(), String> {
        let Some(committed) = self.committed else { return Ok(()) };
        let group = self.mq.admin().describe_group(GROUP).await;
        let group = group.map_err(|error| format!("the group: {error:?}"))?;
        let stored = group.partitions.iter().find_map(|one| one.committed).map(|at| at.0);
        let is_right = stored.is_some_and(|at| at == committed || self.doubtful.contains(&at));
        if is_right {
            return Ok(());
        }
        Err(format!("committed {committed}, stored {stored:?}"))
    }
}

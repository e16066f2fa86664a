//! Storing offsets: one commit at a time, tried again while the membership changes.

use std::{sync::Arc, time::Duration};

use riverrun_proto::{Offset, TopicPartition, grpc::v1};
use tokio::time::{sleep, timeout};

use super::{
    Commit,
    book::{Progress, gone},
    shared::Shared,
};
use crate::{
    clock,
    error::{Error, ErrorCode, Result},
};

/// How long a commit waits for the next epoch before it tries again anyway.
const EPOCH_WAIT: Duration = Duration::from_millis(500);
/// Between tries of the background commit after an error.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// One offset to store.
#[derive(Clone, Debug)]
pub struct OffsetToCommit {
    pub(super) partition: TopicPartition,
    pub(super) offset: Offset,
    pub(super) metadata: String,
    pub(super) expected: Option<Offset>,
}

impl OffsetToCommit {
    /// Stores `offset` as the next to read.
    pub fn new(partition: TopicPartition, offset: Offset) -> OffsetToCommit {
        OffsetToCommit { partition, offset, metadata: String::new(), expected: None }
    }

    /// A note of the reader, at most 4,096 bytes.
    pub fn metadata(mut self, note: impl Into<String>) -> OffsetToCommit {
        self.metadata = note.into();
        self
    }

    /// Store only if this is the stored offset now.
    pub fn expect(mut self, offset: Offset) -> OffsetToCommit {
        self.expected = Some(offset);
        self
    }

    fn to_wire(&self) -> v1::OffsetCommit {
        v1::OffsetCommit {
            topic: self.partition.topic.to_string(),
            partition: self.partition.partition.0,
            offset: self.offset.0,
            leader_epoch: None,
            metadata: self.metadata.clone(),
            expected_offset: self.expected.map(|offset| offset.0),
        }
    }
}

impl Shared {
    /// Commits how far partitions have come. What was given up since is refused here already.
    pub(super) async fn commit_progress(&self, progress: Vec<Progress>) -> Result<()> {
        let _one = self.committing.lock().await;
        let mut first_error = None;
        let mut offsets = Vec::new();
        let mut kept = Vec::new();
        {
            let book = self.book.lock();
            for progress in progress {
                match book.partitions.get(&progress.partition).filter(|p| p.life == progress.life) {
                    None => first_error = first_error.or(Some(gone(&progress.partition))),
                    Some(part) if part.committed.is_some_and(|c| c >= progress.offset) => {}
                    Some(_) => {
                        let partition = progress.partition.clone();
                        offsets.push(OffsetToCommit::new(partition, progress.offset));
                        kept.push(progress);
                    }
                }
            }
        }
        let results = self.store(&offsets).await?;
        for (progress, result) in kept.iter().zip(results) {
            match result {
                Ok(()) => self.book.lock().committed(progress),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        self.member.notify_one();
        first_error.map_or(Ok(()), Err)
    }

    /// Commits offsets as given.
    pub(super) async fn commit_offsets(&self, offsets: &[OffsetToCommit]) -> Result<()> {
        let _one = self.committing.lock().await;
        self.store(offsets).await?.into_iter().collect()
    }

    /// Stores offsets; a result for each.
    async fn store(&self, offsets: &[OffsetToCommit]) -> Result<Vec<Result<()>>> {
        if offsets.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = self.client.deadline();
        loop {
            let member = self.as_committer();
            let epoch = member.as_ref().map_or(0, |member| member.member_epoch);
            if member.is_none() {
                let message = "offsets can only be committed with a `group`";
                return Err(Error::new(ErrorCode::InvalidArgument, message));
            }
            let request = v1::CommitOffsetsRequest {
                member,
                offsets: offsets.iter().map(OffsetToCommit::to_wire).collect(),
            };
            let stored = self.client.connection().commit_offsets(request, deadline).await;
            let results = stored.map(|reply| results(reply, offsets));
            let error = match &results {
                Err(error) => Some(error),
                Ok(results) => results.iter().find_map(|result| result.as_ref().err()),
            };
            let Some(error) = error else { return results };
            self.suspect(error, epoch);
            if error.code() != ErrorCode::StaleMemberEpoch || clock::now() + EPOCH_WAIT > deadline {
                return results;
            }
            self.next_epoch(epoch).await;
        }
    }

    /// Waits until the member has another epoch, for a while.
    async fn next_epoch(&self, epoch: i32) {
        self.member.notify_one();
        let mut membership = self.membership.subscribe();
        let changed = membership.wait_for(|membership| membership.epoch != epoch);
        let _late_or_closed = timeout(EPOCH_WAIT, changed).await;
    }

    /// Commits in the background what trackers and going on allow.
    pub(super) async fn commit_in_background(self: Arc<Self>) {
        let (by_going_on, every) = match self.settings.commit {
            Commit::Manual => (false, Duration::from_secs(1)),
            Commit::Processed { every } => (true, every),
        };
        while !self.closing.is_cancelled() {
            let progress = self.book.lock().progress(by_going_on);
            if progress.is_empty() {
                tokio::select! {
                    () = self.committer.notified() => {}
                    () = self.closing.cancelled() => return,
                }
            } else if let Err(error) = self.commit_progress(progress).await {
                tracing::debug!(%error, "background commit failed");
                if error.is_fatal() {
                    self.book.lock().tell(error);
                }
                sleep(RETRY_WAIT).await;
            }
            tokio::select! {
                () = sleep(every) => {}
                () = self.closing.cancelled() => {}
                () = self.hurried() => {}
            }
        }
    }

    /// Resolves while partitions are being given up and there is progress to commit for them.
    async fn hurried(&self) {
        loop {
            if self.book.lock().is_giving_up() {
                return sleep(Duration::from_millis(20)).await;
            }
            self.committer.notified().await;
        }
    }

    /// The last commit of a consumer that ends.
    pub(super) async fn commit_rest(&self) -> Result<()> {
        let by_going_on = self.settings.commit != Commit::Manual;
        let progress = self.book.lock().progress(by_going_on);
        self.commit_progress(progress).await
    }
}

fn results(reply: v1::CommitOffsetsResponse, offsets: &[OffsetToCommit]) -> Vec<Result<()>> {
    let result = |result: v1::OffsetCommitResult| match result.error {
        None => Ok(()),
        Some(error) => Err(Error::from_wire(&error)),
    };
    let mut results: Vec<_> = reply.results.into_iter().map(result).collect();
    let missing = || Error::new(ErrorCode::Protocol, "the broker's reply leaves a commit out");
    results.resize_with(offsets.len(), || Err(missing()));
    results
}

//! Storing offsets: one commit at a time, tried again while the membership changes.

use std::{sync::Arc, time::Duration};

use riverrun_proto::{Offset, TopicPartition, grpc::v1};
use tokio::time::{sleep, timeout};

use super::{
    Commit,
    batch::Batch,
    book::{Progress, gone},
    shared::Shared,
};
use crate::{
    clock::{self, Instant},
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
    /// The life of the partition that it belongs to. Without one it belongs to any.
    life: Option<u64>,
}

impl OffsetToCommit {
    /// Stores `offset` as the next to read.
    pub fn new(partition: TopicPartition, offset: Offset) -> OffsetToCommit {
        OffsetToCommit { partition, offset, metadata: String::new(), expected: None, life: None }
    }

    /// Store only while the partition is read as it was when `batch` was received: not once it was given
    /// up, sought, or its offset was set by an operator, even if it came back since.
    pub fn received_in(mut self, batch: &Batch) -> OffsetToCommit {
        self.life = Some(batch.life);
        self
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

    fn of(progress: &Progress) -> OffsetToCommit {
        let life = Some(progress.life);
        OffsetToCommit { life, ..OffsetToCommit::new(progress.partition.clone(), progress.offset) }
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
        let (new, kept): (Vec<_>, Vec<_>) = {
            let book = self.book.lock();
            let done = |progress: &Progress| {
                let part = book.partitions.get(&progress.partition);
                let committed = part.and_then(|part| part.committed);
                book.lives(&progress.partition, progress.life)
                    && committed.is_some_and(|committed| committed >= progress.offset)
            };
            let new = progress.into_iter().filter(|progress| !done(progress));
            new.map(|progress| (OffsetToCommit::of(&progress), progress)).unzip()
        };
        let results = self.store(&new).await?;
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
        let offsets: Vec<OffsetToCommit> = {
            let book = self.book.lock();
            let now = |one: &TopicPartition| book.partitions.get(one).map(|part| part.life);
            let held = |one: &OffsetToCommit| one.life.or_else(|| now(&one.partition));
            offsets.iter().map(|one| OffsetToCommit { life: held(one), ..one.clone() }).collect()
        };
        let results = self.store(&offsets).await?;
        let mut book = self.book.lock();
        for (one, _) in offsets.iter().zip(&results).filter(|(_, result)| result.is_ok()) {
            book.committed_at(&one.partition, one.life, one.offset);
        }
        drop(book);
        // A partition that is being given up may be let go now.
        self.member.notify_one();
        results.into_iter().collect()
    }

    /// Stores offsets; a result for each. Those that are refused because the membership moves on are sent
    /// again under the next epoch, unless their partition was given up, sought or reset with it.
    async fn store(&self, offsets: &[OffsetToCommit]) -> Result<Vec<Result<()>>> {
        let deadline = self.client.deadline();
        let mut results: Vec<Option<Result<()>>> = offsets.iter().map(|_| None).collect();
        loop {
            // The epoch first: the book is changed before an epoch is known.
            let member = self.as_committer();
            let epoch = member.as_ref().map_or(0, |member| member.member_epoch);
            self.refuse_outlived(offsets, &mut results);
            let open: Vec<usize> = (0..offsets.len()).filter(|at| results[*at].is_none()).collect();
            if open.is_empty() {
                return Ok(results.into_iter().flatten().collect());
            }
            if member.is_none() {
                let message = "offsets can only be committed with a `group`";
                return Err(Error::new(ErrorCode::InvalidArgument, message));
            }
            let offsets = open.iter().map(|at| offsets[*at].to_wire()).collect();
            let answers = self.send(v1::CommitOffsetsRequest { member, offsets }, deadline).await;
            let answers = answers.inspect_err(|error| self.suspect(error, epoch))?;
            let may_wait = clock::now() + EPOCH_WAIT <= deadline;
            let waits = |error: &Error| may_wait && error.code() == ErrorCode::StaleMemberEpoch;
            let mut is_behind = false;
            for (at, answer) in open.into_iter().zip(answers) {
                answer.as_ref().inspect_err(|error| self.suspect(error, epoch)).ok();
                if answer.as_ref().is_err_and(waits) {
                    is_behind = true;
                } else {
                    results[at] = Some(answer);
                }
            }
            if is_behind {
                self.next_epoch(epoch).await;
            }
        }
    }

    /// Sends one request; an answer for each of its offsets.
    async fn send(
        &self,
        request: v1::CommitOffsetsRequest,
        deadline: Instant,
    ) -> Result<Vec<Result<()>>> {
        let count = request.offsets.len();
        match self.client.connection().commit_offsets(request, deadline).await {
            Ok(reply) => Ok(results(reply, count)),
            Err(error) if error.code() == ErrorCode::StaleMemberEpoch => {
                Ok(vec![Err(error); count])
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses what belongs to an earlier life of its partition.
    fn refuse_outlived(&self, offsets: &[OffsetToCommit], results: &mut [Option<Result<()>>]) {
        let book = self.book.lock();
        for (one, result) in offsets.iter().zip(results) {
            let is_outlived = one.life.is_some_and(|life| !book.lives(&one.partition, life));
            if result.is_none() && is_outlived {
                *result = Some(Err(gone(&one.partition)));
            }
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

fn results(reply: v1::CommitOffsetsResponse, count: usize) -> Vec<Result<()>> {
    let result = |result: v1::OffsetCommitResult| match result.error {
        None => Ok(()),
        Some(error) => Err(Error::from_wire(&error)),
    };
    let mut results: Vec<_> = reply.results.into_iter().map(result).collect();
    let missing = || Error::new(ErrorCode::Protocol, "the broker's reply leaves a commit out");
    results.resize_with(count, || Err(missing()));
    results
}

//! What was processed of each partition, and what of it is committed.

use std::collections::BTreeSet;

use riverrun_proto::{Offset, TopicPartition};

use super::{Book, Part, Phase};
use crate::{
    clock::Instant,
    consumer::prefix::Prefix,
    error::{Error, ErrorCode, Result},
};

/// Something to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consumer) struct Progress {
    pub(in crate::consumer) partition: TopicPartition,
    pub(in crate::consumer) life: u64,
    pub(in crate::consumer) offset: Offset,
}

impl Book {
    /// Notes that everything below `offset` was processed.
    pub(in crate::consumer) fn processed(
        &mut self,
        partition: &TopicPartition,
        life: u64,
        offset: Offset,
    ) {
        if let Some(part) = self.partitions.get_mut(partition)
            && part.life == life
        {
            part.processed = part.processed.max(offset);
        }
    }

    /// Marks one record as done. An error when the partition is no longer read in this life.
    pub(in crate::consumer) fn done(
        &mut self,
        partition: &TopicPartition,
        life: u64,
        offset: Offset,
    ) -> Result<()> {
        let part = self.partitions.get_mut(partition).filter(|part| part.life == life);
        let prefix = part.and_then(|part| part.prefix.as_mut());
        let Some(prefix) = prefix else { return Err(gone(partition)) };
        if prefix.done(offset.0) {
            self.wake();
        }
        Ok(())
    }

    /// What could be committed now and is not, by tracker or by going on.
    pub(in crate::consumer) fn progress(&self, by_going_on: bool) -> Vec<Progress> {
        let progress = |(partition, part): (&TopicPartition, &Part)| {
            let offset = match &part.prefix {
                Some(prefix) => Offset(prefix.floor()),
                None if by_going_on => part.processed,
                None => return None,
            };
            let new = part.is_placed() && part.committed_or_origin() < offset;
            new.then(|| Progress { partition: partition.clone(), life: part.life, offset })
        };
        self.partitions.iter().filter_map(progress).collect()
    }

    /// Notes a commit.
    pub(in crate::consumer) fn committed(&mut self, progress: &Progress) {
        if let Some(part) = self.partitions.get_mut(&progress.partition)
            && part.life == progress.life
        {
            part.committed =
                Some(part.committed.map_or(progress.offset, |c| c.max(progress.offset)));
        }
    }

    /// Notes what was stored as given, also backwards.
    pub(in crate::consumer) fn committed_at(
        &mut self,
        partition: &TopicPartition,
        life: Option<u64>,
        offset: Offset,
    ) {
        if let Some(part) = self.partitions.get_mut(partition)
            && Some(part.life) == life
        {
            part.committed = Some(offset);
        }
    }

    /// Partitions being given up whose time is over, or of which everything handed out is committed.
    pub(in crate::consumer) fn released(&self, now: Instant) -> BTreeSet<TopicPartition> {
        let released = |part: &Part| match part.phase {
            Phase::Revoking { until } => until <= now || part.is_committed(),
            Phase::Resolving | Phase::Active | Phase::Stopped => false,
        };
        let parts = self.partitions.iter().filter(|(_, part)| released(part));
        parts.map(|(partition, _)| partition.clone()).collect()
    }

    /// Records handed out and not done.
    pub(in crate::consumer) fn open(&self) -> usize {
        let open = |part: &Part| part.prefix.as_ref().map_or(0, Prefix::open);
        self.partitions.values().map(open).sum()
    }
}

/// The partition was taken away or moved since.
pub(in crate::consumer) fn gone(partition: &TopicPartition) -> Error {
    Error::new(
        ErrorCode::FencedMemberEpoch,
        format!("partition `{partition}` was given up, sought or reset since this was received"),
    )
}

//! One pass over the partitions of a request: what it found, and how much may still go into the answer.

use std::sync::Arc;

use riverrun_proto::Offset;

use super::{
    Answer, FenceError, FetchPartition, FetchPartitionError, FetchRequest, Fetched, FetchedRecords,
};
use crate::{
    partition::{Partition, VisibleRange},
    quota::{QuotaExceeded, Room, Share},
    topic::error::FindError,
};

/// Bytes of one partition when the caller does not say.
const PARTITION_BYTES_DEFAULT: u32 = 1 << 20;

/// Least to read with what room is left.
const BYTES_LEAST: usize = 64 << 10;

/// One partition of a request, looked up.
#[derive(Debug)]
pub(super) struct Source {
    /// As asked for.
    pub(super) request: FetchPartition,
    /// The partition.
    pub(super) found: Result<Arc<Partition>, FindError>,
    /// Why the member may not read it now, if it may not.
    pub(super) refused: Option<FenceError>,
}

/// One pass over all partitions.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// By index of the request.
    fetched: Vec<(usize, Fetched)>,
    /// What was taken for the records.
    shares: Vec<Share>,
    /// Bytes read.
    bytes: usize,
    /// Records counted.
    records: usize,
    /// Some partition answered with an error.
    any_error: bool,
}

/// What may still be put into an answer.
#[derive(Debug)]
pub(super) struct Budget {
    /// Bytes left.
    pub(super) bytes: usize,
    /// Records left, when they are bounded.
    pub(super) records: Option<usize>,
    /// Nothing was put in yet: one batch may come even when it is larger.
    pub(super) is_first: bool,
}

impl Budget {
    /// Nothing more may be put in.
    pub(super) fn is_spent(&self) -> bool {
        self.records == Some(0) || (self.bytes == 0 && !self.is_first)
    }

    /// Bytes to read of the next partition, of which the caller wants at most so many.
    fn bytes_for(&self, partition_bytes_max: u32) -> usize {
        let asked =
            if partition_bytes_max == 0 { PARTITION_BYTES_DEFAULT } else { partition_bytes_max };
        self.bytes.min(asked as usize).max(1)
    }

    /// Takes room for a partition: what is asked for, or what is left of the connection's own. Only a request
    /// that holds nothing yet waits; `None` when there is no room for more.
    pub(super) async fn take(
        &self,
        partition_bytes_max: u32,
        room: &Room,
    ) -> Result<Option<(usize, Share)>, QuotaExceeded> {
        let bytes = self.bytes_for(partition_bytes_max);
        match room.try_take_some(bytes, BYTES_LEAST.min(bytes)) {
            None if self.is_first => Ok(Some((bytes, room.take(bytes).await?))),
            taken => Ok(taken),
        }
    }

    /// Makes the share fit what was read: one batch, or what it inflated to, may be more than was asked for.
    /// False when there is no room for it beside what was read before.
    pub(super) fn top_up(
        &self,
        share: &mut Share,
        (taken, bytes): (usize, usize),
        room: &Room,
    ) -> Result<bool, QuotaExceeded> {
        if bytes <= taken {
            share.shrink(bytes);
            return Ok(true);
        }
        *share = Share::default();
        match room.try_take(bytes) {
            Ok(whole) => *share = whole,
            Err(exceeded) if self.is_first => return Err(exceeded),
            Err(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Notes what was put in.
    pub(super) fn spend(&mut self, bytes: usize, records: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.records = self.records.map(|left| left.saturating_sub(records));
        self.is_first &= bytes == 0;
    }
}

impl Pass {
    /// Notes what the partition at `index` of the request answered.
    pub(super) fn add(&mut self, index: usize, fetched: Fetched, share: Share) {
        match &fetched.records {
            Ok(records) => {
                self.bytes += records.bytes();
                self.records += records.record_count;
            }
            Err(_) => self.any_error = true,
        }
        self.fetched.push((index, fetched));
        self.shares.push(share);
    }

    /// True when there is no reason to wait for more.
    pub(super) fn is_enough(&self, request: &FetchRequest) -> bool {
        let full = request.records_max > 0 && self.records >= request.records_max as usize;
        self.any_error || full || self.bytes >= request.bytes_min.max(1) as usize
    }

    /// Bytes that must become visible before there is enough.
    pub(super) fn missing(&self, request: &FetchRequest) -> u64 {
        u64::from(request.bytes_min.max(1)).saturating_sub(self.bytes as u64)
    }

    /// Gives back what was read.
    pub(super) fn forget(&mut self) {
        self.fetched = Vec::new();
        self.shares = Vec::new();
    }

    /// Partitions that have something, in the order of the request.
    pub(super) fn answer(mut self, sources: &[Source]) -> Answer {
        self.fetched.sort_by_key(|(index, _)| *index);
        self.fetched.iter().for_each(|(index, fetched)| sources[*index].count(fetched));
        let partitions = self.fetched.into_iter().map(|(_, fetched)| fetched).collect();
        Answer { partitions, shares: self.shares }
    }

    /// Every partition, in the order of the request.
    pub(super) fn answer_with_all(mut self, sources: &[Source]) -> Answer {
        let mut missing = vec![true; sources.len()];
        for (index, _) in &self.fetched {
            missing[*index] = false;
        }
        let empty = sources.iter().enumerate().filter(|(index, _)| missing[*index]);
        self.fetched.extend(empty.map(|(index, source)| (index, source.nothing())));
        self.answer(sources)
    }
}

impl Source {
    /// The partition, when it can be found and the caller may read it.
    pub(super) fn partition(&self) -> Result<&Arc<Partition>, FetchPartitionError> {
        let found = self.found.as_ref().map_err(|error| error.clone())?;
        match &self.refused {
            None => Ok(found),
            Some(refused) => Err(refused.clone().into()),
        }
    }

    /// The answer for this partition.
    pub(super) fn answer(
        &self,
        visible: Option<VisibleRange>,
        records: Result<FetchedRecords, FetchPartitionError>,
    ) -> Fetched {
        let FetchPartition { topic, partition, .. } = &self.request;
        Fetched { topic: topic.clone(), partition: *partition, visible, records }
    }

    /// The answer when there is nothing to read.
    fn nothing(&self) -> Fetched {
        let next_offset = Offset(self.request.offset);
        let records =
            self.partition().map(|_| FetchedRecords { next_offset, ..Default::default() });
        self.answer(self.visible(), records)
    }

    /// Enters what goes into an answer in the sums of the partition.
    fn count(&self, fetched: &Fetched) {
        let (Ok(partition), Ok(records)) = (&self.found, &fetched.records) else { return };
        let bytes = records.bytes() as u64;
        if bytes == 0 {
            return;
        }
        let covered = records.next_offset.0.saturating_sub(self.request.offset);
        let count = if records.record_count > 0 { records.record_count as u64 } else { covered };
        partition.fetched().count(count, bytes);
    }

    /// What may be read of it, when it can be found.
    pub(super) fn visible(&self) -> Option<VisibleRange> {
        self.found.as_ref().ok().map(|partition| partition.visible())
    }
}

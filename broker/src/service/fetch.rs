//! Fetch: reads from several partitions, now or as soon as there is enough.
//!
//! ```text
//! read what is there -> enough, an error, or no time left? answer
//!                    -> else stand on the tails of all partitions, read again, wait, read again ...
//! ```
//!
//! A timeout is an empty answer. A partition that fails, or that the member may not read, answers with its error;
//! the others are served. Only what concerns the whole request (a field, a quota, a caller who is no member)
//! refuses it as a whole.
//! The order of partitions is rotated with every request, so that the last is not starved by the first.

mod cut;
mod fence;
mod fetched;
mod pass;
mod request;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use riverrun_proto::{LeaderEpoch, Offset, limits::WAIT_MS_MAX};
use tokio::time::{Instant, timeout_at};

use self::pass::{Budget, Pass, Source};
pub use self::{
    fence::{FenceError, FetchFence},
    fetched::{Answer, FetchError, FetchPartitionError, Fetched, FetchedRecords},
    request::{FetchPartition, FetchRequest, Format, Member},
};
use crate::{
    partition::TailWaiter,
    quota::{Quota, Room, Share},
    shutdown::ShutdownWatch,
    topic::{Registry, error::InvalidField},
};

/// Most partitions of one request.
pub const PARTITIONS_MAX: usize = 10_000;
/// Bytes of the answer when the caller does not say.
const BYTES_DEFAULT: u32 = 16 << 20;

/// Bounds of all fetches.
#[derive(Clone, Debug)]
pub struct FetchLimits {
    /// Those who wait.
    pub waiters: Quota,
    /// Bytes being read and decoded.
    pub reading: Quota,
    /// Largest answer, in bytes.
    pub bytes_max: u32,
}

/// Reads for consumers.
#[derive(Debug)]
pub struct FetchService {
    registry: Arc<Registry>,
    /// Those who wait.
    waiters: Quota,
    /// Bytes being read and decoded.
    reading: Quota,
    /// Largest answer.
    bytes_max: u32,
    /// Rotates the order of partitions.
    turn: AtomicUsize,
    /// Knows the members of groups.
    fence: Option<Arc<dyn FetchFence>>,
    /// Those who wait are answered when the broker stops.
    shutdown: ShutdownWatch,
}

impl FetchService {
    /// A service over `registry`.
    pub fn new(
        registry: Arc<Registry>,
        FetchLimits { waiters, reading, bytes_max }: FetchLimits,
        fence: Option<Arc<dyn FetchFence>>,
        shutdown: ShutdownWatch,
    ) -> FetchService {
        let turn = AtomicUsize::new(0);
        FetchService { registry, waiters, reading, bytes_max, turn, fence, shutdown }
    }

    /// Bytes of replies being made or sent, over all callers.
    pub fn reading(&self) -> &Quota {
        &self.reading
    }

    /// Callers that wait now.
    pub fn waiter_count(&self) -> usize {
        self.waiters.used()
    }

    /// Reads. Answers as soon as `bytes_min` are there, a partition has an error, or the wait is over. The
    /// records are counted against `room`, that of the caller's connection.
    ///
    /// # Errors
    /// When the request is refused as a whole; errors of single partitions are in the answer.
    pub async fn fetch(&self, request: FetchRequest, room: &Room) -> Result<Answer, FetchError> {
        check(&request)?;
        let deadline = Instant::now() + request.wait;
        let mut sources = self.find(&request);
        self.fence(&request, &mut sources)?;
        let pass = self.read_all(&request, &sources, room).await?;
        if pass.is_enough(&request) {
            return Ok(pass.answer(&sources));
        }
        if request.wait.is_zero() {
            return Ok(pass.answer_with_all(&sources));
        }
        let _waiter_share = self.waiters.try_take(1)?;
        self.wait_and_read(&request, sources, (deadline, pass), room).await
    }

    /// Stands on all tails until there is enough or the deadline is over.
    async fn wait_and_read(
        &self,
        request: &FetchRequest,
        mut sources: Vec<Source>,
        (deadline, mut pass): (Instant, Pass),
        room: &Room,
    ) -> Result<Answer, FetchError> {
        let mut waiter = TailWaiter::for_bytes();
        for partition in sources.iter().filter_map(|source| source.found.as_ref().ok()) {
            waiter.register(partition.tail(), 0);
        }
        loop {
            // Before it reads again: what was read so far is read again when there is more, and takes no
            // memory meanwhile.
            let missing = pass.missing(request);
            pass.forget();
            waiter.rearm(missing);
            pass = self.read_all(request, &sources, room).await?;
            if pass.is_enough(request) {
                return Ok(pass.answer(&sources));
            }
            if pass.missing(request) < missing {
                // Some came between the two looks, which the waiter may not have counted.
                continue;
            }
            pass.forget();
            let woken = tokio::select! {
                woken = timeout_at(deadline, waiter.wait()) => woken.is_ok(),
                () = self.shutdown.begun() => false,
            };
            // A member may have been replaced meanwhile.
            self.fence(request, &mut sources)?;
            if !woken {
                let last = self.read_all(request, &sources, room).await?;
                return Ok(last.answer_with_all(&sources));
            }
        }
    }

    /// Notes which partitions the member may not read now.
    fn fence(&self, request: &FetchRequest, sources: &mut [Source]) -> Result<(), FenceError> {
        let Some(member) = &request.member else { return Ok(()) };
        let Some(fence) = &self.fence else {
            return Err(FenceError::UnknownGroup { group: member.group.clone() });
        };
        let partitions: Vec<_> =
            request.partitions.iter().map(|part| (part.topic.as_str(), part.partition)).collect();
        for (source, refused) in sources.iter_mut().zip(fence.check(member, &partitions)?) {
            source.refused = refused;
        }
        Ok(())
    }

    fn find(&self, request: &FetchRequest) -> Vec<Source> {
        let find = |part: &FetchPartition| Source {
            found: self.registry.partition(&part.topic, &part.topic_id, part.partition),
            request: part.clone(),
            refused: None,
        };
        request.partitions.iter().map(find).collect()
    }

    /// Reads what is there, within the bounds of the request.
    async fn read_all(
        &self,
        request: &FetchRequest,
        sources: &[Source],
        room: &Room,
    ) -> Result<Pass, FetchError> {
        let bytes_max = if request.bytes_max == 0 { BYTES_DEFAULT } else { request.bytes_max };
        let mut budget = Budget {
            bytes: bytes_max.min(self.bytes_max) as usize,
            records: (request.records_max > 0).then_some(request.records_max as usize),
            is_first: true,
        };
        let mut pass = Pass::default();
        let start = self.turn.fetch_add(1, Relaxed);
        for index in 0..sources.len() {
            let index = (start + index) % sources.len();
            let source = &sources[index];
            let read = self.read_one(source, request.format, (&mut budget, room)).await?;
            if let Some((fetched, share)) = read {
                pass.add(index, fetched, share);
            }
        }
        Ok(pass)
    }

    /// Reads one partition; `None` when there is nothing for the reader yet.
    async fn read_one(
        &self,
        source: &Source,
        format: Format,
        (budget, room): (&mut Budget, &Room),
    ) -> Result<Option<(Fetched, Share)>, FetchError> {
        let part = &source.request;
        let failed = |visible, error: FetchPartitionError| {
            Ok(Some((source.answer(visible, Err(error)), Share::default())))
        };
        let partition = match source.partition() {
            Ok(partition) => partition,
            Err(error) => return failed(source.visible(), error),
        };
        let offset = Offset(part.offset);
        let visible = match partition.check_position(offset, part.leader_epoch.map(LeaderEpoch)) {
            Ok(visible) => visible,
            Err(error) => return failed(source.visible(), error.into()),
        };
        if offset >= visible.high_watermark || budget.is_spent() {
            return Ok(None);
        }
        let Some((bytes_max, mut share)) = budget.take(part.bytes_max, room).await? else {
            return Ok(None);
        };
        let read = match partition.read(offset, bytes_max).await {
            Ok(read) => read,
            Err(error) => return failed(Some(visible), error.into()),
        };
        if !budget.is_first && read.batches.len() > budget.bytes {
            // A batch larger than what is left comes first in a later turn.
            return Ok(None);
        }
        let records = match cut::cut(read, offset, format, budget.records).await {
            Ok(records) => records,
            Err(error) => return failed(Some(visible), error),
        };
        if !budget.top_up(&mut share, (bytes_max, records.held_bytes()), room)? {
            return Ok(None);
        }
        budget.spend(records.bytes(), records.record_count);
        Ok(Some((source.answer(Some(visible), Ok(records)), share)))
    }
}

/// Checks what concerns the whole request.
fn check(request: &FetchRequest) -> Result<(), InvalidField> {
    let count = request.partitions.len();
    if !(1..=PARTITIONS_MAX).contains(&count) {
        let expected = format!("a list of 1 to {PARTITIONS_MAX}");
        return Err(InvalidField { field: "partitions", expected, found: count.to_string() });
    }
    if request.wait > Duration::from_millis(WAIT_MS_MAX.into()) {
        let (expected, found) = (format!("at most {WAIT_MS_MAX}"), request.wait.as_millis());
        return Err(InvalidField { field: "max_wait_ms", expected, found: found.to_string() });
    }
    Ok(())
}

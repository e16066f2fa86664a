//! Fetch: reads from several partitions, now or as soon as there is enough.
//!
//! ```text
//! read what is there -> enough, an error, or no time left? answer
//!                    -> else stand on the tails of all partitions, read again, wait, read again ...
//! ```
//!
//! A timeout is an empty answer. A partition that fails answers with its error; the others are served.
//! The order of partitions is rotated with every request, so that the last is not starved by the first.

mod cut;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use riverrun_proto::{LeaderEpoch, Offset, batch::OffsetRecord};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use crate::{
    partition::{Partition, ReadError, TailWaiter, VisibleRange},
    quota::{Quota, QuotaExceeded, Room, Share},
    shutdown::ShutdownWatch,
    topic::{
        Registry,
        error::{FindError, InvalidField},
    },
};

/// Most partitions of one request.
pub const PARTITIONS_MAX: usize = 10_000;
/// Bytes of the answer when the caller does not say.
const BYTES_DEFAULT: u32 = 16 << 20;
/// Bytes of one partition when the caller does not say.
const PARTITION_BYTES_DEFAULT: u32 = 1 << 20;
/// Least to read with what room is left.
const BYTES_LEAST: usize = 64 << 10;

/// How records come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Stored batches.
    Encoded,
    /// Decoded records.
    Structured,
}

/// A member of a group, as it names itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name of the group.
    pub group: String,
    /// Its id.
    pub member_id: String,
    /// Its epoch.
    pub member_epoch: i32,
}

/// Refuses members that were replaced. The group room stands behind it.
pub trait FetchFence: Send + Sync + std::fmt::Debug {
    /// Checks that `member` may read `partitions` now.
    ///
    /// # Errors
    /// What makes it an outsider.
    fn check(&self, member: &Member, partitions: &[(&str, u32)]) -> Result<(), FenceError>;
}

/// A member that may not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FenceError {
    /// There is no such group.
    #[error("group `{group}` does not exist")]
    UnknownGroup {
        /// Its name.
        group: String,
    },
    /// It is not in the group.
    #[error("member `{member_id}` is not in group `{group}`")]
    UnknownMember {
        /// Name of the group.
        group: String,
        /// What came.
        member_id: String,
    },
    /// It was replaced.
    #[error("`member_epoch` of member `{member_id}` is {current}, found {found}")]
    Fenced {
        /// The member.
        member_id: String,
        /// Its epoch.
        current: i32,
        /// What came.
        found: i32,
    },
    /// It has an assignment it has not taken yet.
    #[error(
        "`member_epoch` {found} of member `{member_id}` is behind its assignment of epoch {current}"
    )]
    Stale {
        /// The member.
        member_id: String,
        /// Its epoch.
        current: i32,
        /// What came.
        found: i32,
    },
    /// Somebody else's partition.
    #[error("member `{member_id}` does not own partition {partition} of topic `{topic}`")]
    NotOwned {
        /// The member.
        member_id: String,
        /// Name of the topic.
        topic: String,
        /// Partition number.
        partition: u32,
    },
}

/// One partition to read.
#[derive(Clone, Debug)]
pub struct FetchPartition {
    /// Name of the topic.
    pub topic: String,
    /// Id the topic must have; empty for any.
    pub topic_id: Bytes,
    /// Partition number.
    pub partition: u32,
    /// First offset wanted.
    pub offset: u64,
    /// Most bytes of it; 0 for the default.
    pub bytes_max: u32,
    /// Epoch of the record before `offset`, when known.
    pub leader_epoch: Option<u32>,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// From where.
    pub partitions: Vec<FetchPartition>,
    /// How long to wait for `bytes_min`.
    pub wait: Duration,
    /// Answer once so many bytes are there.
    pub bytes_min: u32,
    /// Most bytes of the answer; 0 for the default. The first batch comes even when it is larger.
    pub bytes_max: u32,
    /// Most records of the answer; 0 for no limit.
    pub records_max: u32,
    /// Form of the records.
    pub format: Format,
    /// Set when reading as a member of a group.
    pub member: Option<Member>,
}

/// What was read from one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Name of the topic.
    pub topic: String,
    /// Partition number.
    pub partition: u32,
    /// What may be read; absent when the partition cannot be found.
    pub visible: Option<VisibleRange>,
    /// The records, or why there are none.
    pub records: Result<FetchedRecords, FetchPartitionError>,
}

/// What was read, and the room it takes until the last byte of the reply is sent.
#[derive(Debug)]
pub struct Answer {
    /// Partitions that have something, in the order of the request.
    pub partitions: Vec<Fetched>,
    /// What was taken for their records.
    pub shares: Vec<Share>,
}

/// Records of one partition.
#[derive(Clone, Debug, Default)]
pub struct FetchedRecords {
    /// Whole batches, with [`Format::Encoded`].
    pub batches: Bytes,
    /// Records, with [`Format::Structured`].
    pub records: Vec<OffsetRecord>,
    /// Where to read on.
    pub next_offset: Offset,
    /// Epoch of the last record.
    pub leader_epoch: LeaderEpoch,
    /// Records at or past the offset asked for; counted when the request bounds records or wants them decoded.
    pub record_count: usize,
}

/// Why one partition was not read.
#[derive(Clone, Debug, Error)]
pub enum FetchPartitionError {
    /// It cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It cannot be read there.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its records cannot be decoded.
    #[error("record batch at offset {offset} cannot be decoded: {reason}")]
    Decode {
        /// Where.
        offset: Offset,
        /// Why.
        reason: Arc<str>,
    },
}

/// A fetch that was refused as a whole.
#[derive(Clone, Debug, Error)]
pub enum FetchError {
    /// A field is out of bounds.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// The member may not read.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// Too many wait or read.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
}

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

/// One partition of a request, looked up.
#[derive(Debug)]
struct Source {
    request: FetchPartition,
    found: Result<Arc<Partition>, FindError>,
}

/// One pass over all partitions.
#[derive(Debug, Default)]
struct Pass {
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
        self.check(&request)?;
        let deadline = Instant::now() + request.wait;
        let sources = self.find(&request);
        let pass = self.read_all(&request, &sources, room).await?;
        if pass.is_enough(&request) {
            return Ok(pass.answer());
        }
        if request.wait.is_zero() {
            return Ok(pass.answer_with_all(&sources));
        }
        let _waiter_share = self.waiters.try_take(1)?;
        self.wait_and_read(&request, &sources, (deadline, pass), room).await
    }

    /// Stands on all tails until there is enough or the deadline is over.
    async fn wait_and_read(
        &self,
        request: &FetchRequest,
        sources: &[Source],
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
            pass = self.read_all(request, sources, room).await?;
            if pass.is_enough(request) {
                return Ok(pass.answer());
            }
            pass.forget();
            let woken = tokio::select! {
                woken = timeout_at(deadline, waiter.wait()) => woken.is_ok(),
                () = self.shutdown.begun() => false,
            };
            if !woken {
                let last = self.read_all(request, sources, room).await?;
                return Ok(last.answer_with_all(sources));
            }
            self.check_fence(request)?;
        }
    }

    fn check(&self, request: &FetchRequest) -> Result<(), FetchError> {
        let count = request.partitions.len();
        if !(1..=PARTITIONS_MAX).contains(&count) {
            return Err(InvalidField {
                field: "partitions",
                expected: format!("a list of 1 to {PARTITIONS_MAX}"),
                found: count.to_string(),
            }
            .into());
        }
        self.check_fence(request)
    }

    fn check_fence(&self, request: &FetchRequest) -> Result<(), FetchError> {
        let Some(member) = &request.member else { return Ok(()) };
        let Some(fence) = &self.fence else {
            return Err(FenceError::UnknownGroup { group: member.group.clone() }.into());
        };
        let partitions: Vec<_> =
            request.partitions.iter().map(|part| (part.topic.as_str(), part.partition)).collect();
        Ok(fence.check(member, &partitions)?)
    }

    fn find(&self, request: &FetchRequest) -> Vec<Source> {
        let find = |part: &FetchPartition| Source {
            found: self.registry.partition(&part.topic, &part.topic_id, part.partition),
            request: part.clone(),
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
        let fetched = |visible, records| {
            let (topic, partition) = (part.topic.clone(), part.partition);
            Fetched { topic, partition, visible, records }
        };
        let failed = |visible, error: FetchPartitionError| {
            Ok(Some((fetched(visible, Err(error)), Share::default())))
        };
        let partition = match &source.found {
            Ok(partition) => partition,
            Err(error) => return failed(None, error.clone().into()),
        };
        let offset = Offset(part.offset);
        let visible = match partition.check_position(offset, part.leader_epoch.map(LeaderEpoch)) {
            Ok(visible) => visible,
            Err(error) => return failed(Some(partition.visible()), error.into()),
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
        Ok(Some((fetched(Some(visible), Ok(records)), share)))
    }
}

/// What may still be put into an answer.
#[derive(Debug)]
struct Budget {
    bytes: usize,
    records: Option<usize>,
    /// Nothing was put in yet: one batch may come even when it is larger.
    is_first: bool,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.records == Some(0) || (self.bytes == 0 && !self.is_first)
    }

    fn bytes_for(&self, partition_bytes_max: u32) -> usize {
        let asked =
            if partition_bytes_max == 0 { PARTITION_BYTES_DEFAULT } else { partition_bytes_max };
        self.bytes.min(asked as usize).max(1)
    }

    /// Takes room for a partition: what is asked for, or what is left of the connection's own. Only a request
    /// that holds nothing yet waits; `None` when there is no room for more.
    async fn take(
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
    fn top_up(
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

    fn spend(&mut self, bytes: usize, records: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.records = self.records.map(|left| left.saturating_sub(records));
        self.is_first &= bytes == 0;
    }
}

impl Pass {
    fn add(&mut self, index: usize, fetched: Fetched, share: Share) {
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

    fn is_enough(&self, request: &FetchRequest) -> bool {
        let full = request.records_max > 0 && self.records >= request.records_max as usize;
        self.any_error || full || self.bytes >= request.bytes_min.max(1) as usize
    }

    fn missing(&self, request: &FetchRequest) -> u64 {
        u64::from(request.bytes_min.max(1)).saturating_sub(self.bytes as u64)
    }

    fn forget(&mut self) {
        self.fetched = Vec::new();
        self.shares = Vec::new();
    }

    /// Partitions that have something, in the order of the request.
    fn answer(mut self) -> Answer {
        self.fetched.sort_by_key(|(index, _)| *index);
        let partitions = self.fetched.into_iter().map(|(_, fetched)| fetched).collect();
        Answer { partitions, shares: self.shares }
    }

    /// Every partition, in the order of the request.
    fn answer_with_all(mut self, sources: &[Source]) -> Answer {
        let mut missing = vec![true; sources.len()];
        for (index, _) in &self.fetched {
            missing[*index] = false;
        }
        let empty = sources.iter().enumerate().filter(|(index, _)| missing[*index]);
        self.fetched.extend(empty.map(|(index, source)| (index, source.nothing())));
        self.answer()
    }
}

impl Source {
    /// The answer when there is nothing to read.
    fn nothing(&self) -> Fetched {
        let FetchPartition { topic, partition, offset, .. } = &self.request;
        let (visible, records) = match &self.found {
            Ok(found) => {
                let next_offset = Offset(*offset);
                (Some(found.visible()), Ok(FetchedRecords { next_offset, ..Default::default() }))
            }
            Err(error) => (None, Err(error.clone().into())),
        };
        Fetched { topic: topic.clone(), partition: *partition, visible, records }
    }
}

impl FetchedRecords {
    /// Bytes they take in memory.
    fn held_bytes(&self) -> usize {
        self.bytes() + self.records.len() * size_of::<OffsetRecord>()
    }

    /// Bytes of the records.
    fn bytes(&self) -> usize {
        let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        let record =
            |record: &OffsetRecord| 16 + field(&record.record.key) + field(&record.record.value);
        self.batches.len() + self.records.iter().map(record).sum::<usize>()
    }
}

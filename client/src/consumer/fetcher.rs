//! The task that reads ahead: one fetch pipeline at a time, asked while what waits to be handed out is small enough.
//!
//! A pipeline is given up when what is to be read changes (assignment, seek, pause, another member epoch); nothing moves by
//! that, since positions only move when an answer is taken.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use riverrun_proto::{Offset, TopicPartition, grpc::v1};
use tokio::time::{sleep, sleep_until};

use super::{
    OutOfRange, Start,
    batch::{Batch, Range},
    book::{Book, Part, Phase},
    reading::{Asked, Reading},
    shared::Shared,
};
use crate::{
    admin::OffsetAt,
    backoff::Backoff,
    clock::{self, Instant},
    error::{Error, ErrorCode, Result},
};

/// How long a partition that could not be read is left alone.
const HOLD: Duration = Duration::from_millis(200);

/// Where to read on, and the leader epoch of the record before it when that is known.
type Position = (Offset, Option<u32>);

/// What to fetch now.
#[derive(Debug, Default)]
struct Plan {
    /// Rises with every change; a plan of an older version is given up.
    version: u64,
    asked: Asked,
    partitions: Vec<v1::FetchPartition>,
    /// Partitions whose position is to be looked up.
    resolving: Vec<Resolving>,
    /// When a partition on hold may be read again.
    wake_at: Option<Instant>,
}

/// A partition whose position is to be looked up.
#[derive(Debug)]
struct Resolving {
    partition: TopicPartition,
    life: u64,
    /// As in [`super::book::Added`].
    late: bool,
}

/// The task that reads ahead.
pub(super) struct Fetcher {
    pub(super) shared: Arc<Shared>,
    backoff: Backoff,
}

impl Fetcher {
    pub(super) fn new(shared: Arc<Shared>) -> Fetcher {
        let backoff = shared.client.connection().backoff();
        Fetcher { shared, backoff }
    }

    pub(super) async fn run(mut self) {
        let closing = self.shared.closing.clone();
        tokio::select! {
            () = self.read() => {}
            () = closing.cancelled() => {}
        }
    }

    async fn read(&mut self) {
        loop {
            let plan = self.plan();
            if !plan.resolving.is_empty() {
                self.resolve(&plan.resolving).await;
            } else if plan.partitions.is_empty() {
                self.wait(plan.wake_at).await;
            } else {
                self.fetch(plan).await;
            }
        }
    }

    fn plan(&self) -> Plan {
        let book = self.shared.book.lock();
        let now = clock::now();
        let mut plan = Plan { version: book.version, ..Plan::default() };
        let has_room = book.queued_bytes() < self.shared.settings.prefetch_bytes;
        for (partition, part) in &book.partitions {
            let held = part.hold.filter(|hold| *hold > now);
            plan.wake_at = [plan.wake_at, held].into_iter().flatten().min();
            if held.is_some() {
                continue;
            }
            match part.phase {
                Phase::Resolving => plan.resolving.push(Resolving {
                    partition: partition.clone(),
                    life: part.life,
                    late: part.late,
                }),
                Phase::Active if has_room && !part.paused => {
                    plan.asked.insert(partition.clone(), (part.life, part.fetch_position));
                    plan.partitions.push(self.ask(partition, part));
                }
                Phase::Active | Phase::Stopped | Phase::Revoking { .. } => {}
            }
        }
        plan
    }

    fn ask(&self, partition: &TopicPartition, part: &Part) -> v1::FetchPartition {
        let id = part.topic_id.map(|id| Bytes::copy_from_slice(id.0.as_bytes()));
        v1::FetchPartition {
            topic: partition.topic.to_string(),
            topic_id: id.unwrap_or_default(),
            partition: partition.partition.0,
            offset: part.fetch_position.0,
            max_bytes: self.shared.settings.partition_max_bytes,
            leader_epoch: part.leader_epoch,
        }
    }

    /// Waits for a change, or until something on hold may go on.
    async fn wait(&self, wake_at: Option<Instant>) {
        match wake_at {
            None => self.shared.fetcher.notified().await,
            Some(at) => tokio::select! {
                () = self.shared.fetcher.notified() => {}
                () = sleep_until(at) => {}
            },
        }
    }

    /// Reads by one pipeline until the plan is outdated, or the pipeline ends.
    async fn fetch(&mut self, plan: Plan) {
        let epoch = self.shared.epoch();
        if let Err(error) = self.read_by_pipeline(plan, epoch).await {
            self.failed(error, epoch).await;
        }
    }

    async fn read_by_pipeline(&mut self, plan: Plan, epoch: i32) -> Result<()> {
        let shared = self.shared.clone();
        let request = self.request(plan.partitions);
        let mut reading = Reading::open(&shared, request, plan.asked).await?;
        while let Some(queued) = self.queued(plan.version, epoch) {
            let is_due = reading.ask(queued, shared.settings.prefetch_bytes);
            // The one place that waits for the notice: it wakes one waiter.
            let answer = tokio::select! {
                answer = reading.next(), if is_due => answer?,
                () = shared.fetcher.notified() => continue,
                () = until(plan.wake_at) => return Ok(()),
            };
            let Some(answer) = answer else { return reading.ended() };
            self.backoff.reset();
            for partition in answer.partitions {
                self.take(&mut reading.asked, epoch, partition);
            }
        }
        Ok(())
    }

    /// Bytes that wait to be handed out; `None` once the plan is outdated.
    fn queued(&self, version: u64, epoch: i32) -> Option<usize> {
        let book = self.shared.book.lock();
        (book.version == version && self.shared.epoch() == epoch).then(|| book.queued_bytes())
    }

    fn request(&self, partitions: Vec<v1::FetchPartition>) -> v1::FetchRequest {
        let settings = &self.shared.settings;
        v1::FetchRequest {
            partitions,
            max_wait_ms: u32::try_from(settings.max_wait.as_millis()).unwrap_or(u32::MAX),
            min_bytes: 1,
            max_bytes: settings.max_bytes,
            max_records: settings.max_records,
            format: v1::RecordFormat::Encoded.into(),
            member: self.shared.as_member(),
        }
    }

    /// The whole fetch failed.
    async fn failed(&mut self, error: Error, epoch: i32) {
        self.shared.suspect(&error, epoch);
        if error.code() == ErrorCode::Closed {
            self.shared.book.lock().tell(error);
            return std::future::pending().await;
        }
        if error.is_fatal() {
            self.shared.book.lock().tell(error.clone());
        }
        // The next try waits for a connection by itself.
        let hold = if error.code() == ErrorCode::Unreachable { Duration::ZERO } else { HOLD };
        sleep(self.backoff.next_wait().max(hold)).await;
    }

    /// Takes one partition of an answer.
    fn take(&self, asked: &mut Asked, epoch: i32, fetched: v1::FetchedPartition) {
        let partition = TopicPartition::new(fetched.topic, fetched.partition);
        let Some(place) = asked.get_mut(&partition) else { return };
        let (life, start) = *place;
        if let Some(error) = &fetched.error {
            let error = Error::from_wire(error);
            self.shared.suspect(&error, epoch);
            return self.refused(&partition, life, &error);
        }
        let next = Offset(fetched.next_offset);
        // Where the next answer begins.
        place.1 = next.max(start);
        let leader_epoch = fetched.leader_epoch;
        let range = Range { partition: partition.clone(), life, start, next, leader_epoch };
        let decoded = Batch::decode(range, &fetched.batches);
        let mut book = self.shared.book.lock();
        match decoded {
            Ok(batch) => book.fetched(batch, Offset(fetched.high_watermark)),
            Err(error) if book.lives(&partition, life) => book.stop(&partition, error),
            Err(_) => {}
        }
    }

    /// One partition could not be read.
    fn refused(&self, partition: &TopicPartition, life: u64, error: &Error) {
        let mut book = self.shared.book.lock();
        if !book.lives(partition, life) {
            return;
        }
        let id = book.partitions.get(partition).and_then(|part| part.topic_id);
        if id.is_some() && is_deleted(error) {
            tracing::debug!(%partition, "the topic is not there any more: {error}");
            match self.shared.joins() {
                // The group tells what becomes of it.
                true => hold(&mut book, partition),
                false => book.topic_deleted(&partition.topic, deleted(&partition.topic, error)),
            }
            return;
        }
        if let Some(offset) = self.moved_to(error) {
            tracing::debug!(%partition, %offset, "went on at another offset: {error}");
            book.seek(partition, offset);
        } else if error.is_fatal() {
            book.stop(partition, error.of_partition(partition));
        } else {
            hold(&mut book, partition);
        }
    }

    /// Where to go on by the policy, when the offset asked for does not exist.
    fn moved_to(&self, error: &Error) -> Option<Offset> {
        let policy = self.shared.settings.out_of_range;
        match (error.code(), policy) {
            (_, OutOfRange::Fail) => None,
            (ErrorCode::OffsetTruncated, OutOfRange::Earliest | OutOfRange::Latest) => {
                error.epoch_end().map(|(_, end)| end)
            }
            (ErrorCode::OffsetOutOfRange, OutOfRange::Earliest) => error.range().map(|r| r.start),
            (ErrorCode::OffsetOutOfRange, OutOfRange::Latest) => error.range().map(|r| r.end),
            (_, OutOfRange::Earliest | OutOfRange::Latest) => None,
        }
    }

    /// Looks positions up and begins to read there.
    async fn resolve(&mut self, resolving: &[Resolving]) {
        let epoch = self.shared.epoch();
        let found = match &self.shared.settings.group {
            Some(group) => {
                let group = group.group.clone();
                self.stored(&group, resolving).await
            }
            None => self.starts(resolving).await,
        };
        match found {
            Ok(found) => {
                for (Resolving { partition, life, .. }, position) in resolving.iter().zip(found) {
                    match position {
                        Ok(position) => self.shared.place(partition, *life, position),
                        Err(error) => {
                            self.shared.suspect(&error, epoch);
                            self.refused(partition, *life, &error);
                        }
                    }
                }
            }
            Err(error) => self.failed(error, epoch).await,
        }
    }

    /// Stored offsets of the group; where there is none, the start.
    async fn stored(&self, group: &str, resolving: &[Resolving]) -> Result<Vec<Result<Position>>> {
        let wire = |Resolving { partition, .. }: &Resolving| v1::TopicPartition {
            topic: partition.topic.to_string(),
            partition: partition.partition.0,
        };
        let request = v1::GetOffsetsRequest {
            group: group.to_owned(),
            partitions: resolving.iter().map(wire).collect(),
            member: self.shared.as_member(),
        };
        let deadline = self.shared.client.deadline();
        let reply = self.shared.client.connection().get_offsets(request, deadline).await?;
        let mut stored: HashMap<TopicPartition, Result<Option<Position>>> = HashMap::new();
        for offset in reply.offsets {
            let result = match &offset.error {
                Some(error) => Err(Error::from_wire(error)),
                None => Ok(offset.offset.map(|at| (Offset(at), offset.leader_epoch))),
            };
            stored.insert(TopicPartition::new(offset.topic, offset.partition), result);
        }
        let is_missing = |one: &Resolving| matches!(stored.get(&one.partition), Some(Ok(None)));
        let starts = match resolving.iter().any(is_missing) {
            true => self.starts(resolving).await?,
            false => Vec::new(),
        };
        let mut found = Vec::with_capacity(resolving.len());
        for (index, Resolving { partition, .. }) in resolving.iter().enumerate() {
            found.push(match stored.remove(partition) {
                Some(Ok(Some(position))) => Ok(position),
                // An error is never taken for "there is no offset", and neither is silence.
                Some(Err(error)) => Err(error),
                Some(Ok(None)) => starts[index].clone(),
                None => Err(Error::new(ErrorCode::Internal, "the broker left an offset out")),
            });
        }
        Ok(found)
    }

    /// Where to begin without a stored offset. Of a partition that was added meanwhile everything is read,
    /// also where others begin at their end.
    async fn starts(&self, resolving: &[Resolving]) -> Result<Vec<Result<Position>>> {
        let at = match self.shared.settings.start {
            Start::Earliest => OffsetAt::Earliest,
            Start::Latest => OffsetAt::Latest,
            Start::Time(time) => OffsetAt::Time(time),
            Start::Fail => return Ok(resolving.iter().map(no_offset).collect()),
        };
        let mut found: Vec<Result<Position>> = resolving.iter().map(no_offset).collect();
        for (late, at) in [(false, at), (true, later(at))] {
            let asked: Vec<usize> =
                (0..resolving.len()).filter(|index| resolving[*index].late == late).collect();
            let partitions: Vec<_> =
                asked.iter().map(|index| resolving[*index].partition.clone()).collect();
            if partitions.is_empty() {
                continue;
            }
            let answers = self.shared.client.admin().lookup_offsets(&partitions, at).await?;
            for (index, (_, offset)) in asked.into_iter().zip(answers) {
                found[index] = offset.map(|offset| (offset, None));
            }
        }
        Ok(found)
    }
}

/// Where a partition begins that was added meanwhile.
fn later(at: OffsetAt) -> OffsetAt {
    match at {
        OffsetAt::Earliest | OffsetAt::Latest => OffsetAt::Earliest,
        OffsetAt::Time(time) => OffsetAt::Time(time),
    }
}

fn no_offset(Resolving { partition, .. }: &Resolving) -> Result<Position> {
    let message = format!("no offset is stored for partition `{partition}`");
    Err(Error::new(ErrorCode::NoOffset, message))
}

/// Whether the topic that was meant is gone.
fn is_deleted(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::UnknownTopicOrPartition | ErrorCode::TopicIdMismatch)
}

/// What the consumer is told of a topic that is gone.
pub(super) fn deleted(topic: &str, error: &Error) -> Error {
    let again = match error.code() == ErrorCode::TopicIdMismatch {
        true => " and created again",
        false => "",
    };
    let message = format!("topic `{topic}` was deleted{again}");
    Error::new(ErrorCode::TopicDeleted, message)
}

/// Leaves a partition alone for a while.
fn hold(book: &mut Book, partition: &TopicPartition) {
    if let Some(part) = book.partitions.get_mut(partition) {
        part.hold = Some(clock::now() + HOLD);
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

//! Forks: a new stream that begins with a copy of another's records up to a position.
//!
//! The copy is the fork's own, offset for offset the same, so that every door reads it as any topic and nothing of the
//! source is needed for it. It is made as a whole before the fork is there, and so it is bounded; what is copied is
//! in memory once, as the batches that are to be written, and counted against the caller's room.

use std::time::Duration;

use bytes::Bytes;
use riverrun_proto::{
    LeaderEpoch, Offset, Record, RecordBatch, batch::OffsetRecord, limits::BATCH_BYTES_DEFAULT,
};

use super::{Found, Position, StreamError, StreamService};
use crate::{
    blocking,
    quota::{Room, Share},
    service::{
        fetch::{FetchError, FetchPartitionError},
        produce::encode,
    },
    stream::{Origin, StreamFacts},
};

/// Most bytes of the records of a fork when it is made.
pub const FORK_BYTES_MAX: usize = 64 << 20;
/// Bytes of a record beside its value, about.
const RECORD_BYTES: usize = 64;
/// Bytes that are read at once, and about as many are written as one batch.
const STEP_BYTES: u32 = 1 << 20;

/// What to fork.
#[derive(Clone, Debug)]
pub struct ForkRequest {
    /// Name of the source.
    pub source: String,
    /// Where the fork parts from it; its end when absent.
    pub offset: Option<Position>,
    /// How much of what follows there it has too: bytes of the next append, or values of JSON.
    pub sub_offset: u64,
}

/// What a fork begins with.
#[derive(Debug)]
pub(super) struct Inherited {
    /// Copies of the records, each batch with what was taken for it.
    pub(super) batches: Vec<(RecordBatch, Share)>,
    pub(super) origin: Origin,
    pub(super) source: StreamFacts,
    /// Largest batch of the source, when it is more than the default.
    pub(super) message_bytes_max: Option<u32>,
}

/// How far a fork copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    /// First offset that is not copied.
    end: u64,
    /// Only so many bytes of the last record are.
    last_bytes: Option<u64>,
}

impl StreamService {
    /// Copies what a fork begins with.
    pub(super) async fn inherited(
        &self,
        fork: &ForkRequest,
        room: &Room,
    ) -> Result<Inherited, StreamError> {
        let found = match self.find(&fork.source, 0) {
            Err(StreamError::Gone { name }) => {
                return Err(StreamError::SourceGone { source_name: name });
            }
            found => found?,
        };
        let facts = found.stream("be forked")?.facts().clone();
        if let Some(Position { epoch, offset }) = fork.offset {
            // What was told before an older copy of the data was put back, or an end was lost, may name other records now.
            let epoch = Some(LeaderEpoch(epoch)).filter(|epoch| epoch.0 > 0);
            let partition = found.topic.partition(found.partition)?;
            partition.check_position(Offset(offset), epoch).map_err(FetchPartitionError::from)?;
        }
        let tail = self.tail(&found, room).await?.position.offset;
        let at = fork.offset.map_or(tail, |position| position.offset);
        let extent = extent((at, fork.sub_offset), tail, facts.is_json())?;
        // A smaller one may be younger than some of the records.
        let given = found.topic.given.message_bytes_max;
        let message_bytes_max = given.filter(|bytes| *bytes > BATCH_BYTES_DEFAULT);
        let bytes_max = message_bytes_max.unwrap_or(BATCH_BYTES_DEFAULT) as usize;
        let batches = self.copy(&found, (extent, bytes_max), room).await?;
        let topic = found.topic.name.to_string();
        let origin =
            Origin { topic_id: found.topic.id, topic, offset: at, sub_offset: fork.sub_offset };
        Ok(Inherited { batches, origin, source: facts, message_bytes_max })
    }

    /// The records of an extent in batches, without what they say of their writers.
    async fn copy(
        &self,
        found: &Found,
        (extent, bytes_max): (Extent, usize),
        room: &Room,
    ) -> Result<Vec<(RecordBatch, Share)>, StreamError> {
        let (mut batches, mut bytes, mut from) = (Vec::new(), 0, Position::default());
        while from.offset < extent.end {
            let read = self.read_log(found, from, (Duration::ZERO, STEP_BYTES), room).await?;
            let (records, shares) = (read.records.records, read.shares);
            let records = copies(records, from.offset, extent)?;
            let step = records.iter().map(record_bytes).sum::<usize>();
            bytes += step;
            if bytes > FORK_BYTES_MAX {
                return Err(StreamError::ForkTooLarge);
            }
            from.offset += records.len() as u64;
            // The batch has a head of its own.
            let mut share = room.take(step + RECORD_BYTES).await.map_err(FetchError::from)?;
            let now_ms = self.clock.wall_ms();
            let batch = blocking::run(move || encode(&records, bytes_max, now_ms)).await;
            let batch = batch.map_err(|_| StreamError::Interrupted)??;
            drop(shares);
            share.shrink(batch.as_bytes().len());
            batches.push((batch, share));
        }
        Ok(batches)
    }
}

/// How far a fork at `at` copies of a source whose data ends at `tail`.
fn extent((at, sub_offset): (u64, u64), tail: u64, is_json: bool) -> Result<Extent, StreamError> {
    if at > tail {
        let expected = format!("at most the end of the source, {tail}");
        return Err(StreamError::field("stream-fork-offset", expected, at));
    }
    let beyond = tail - at;
    match (sub_offset, is_json) {
        (0, _) => Ok(Extent { end: at, last_bytes: None }),
        (values, true) if values <= beyond => Ok(Extent { end: at + values, last_bytes: None }),
        (_, true) => Err(past(sub_offset, (beyond, "values"))),
        (bytes, false) if beyond > 0 => Ok(Extent { end: at + 1, last_bytes: Some(bytes) }),
        (_, false) => Err(past(sub_offset, (0, "bytes of the append"))),
    }
}

/// Copies of those of the records, read from `from` on, that lie within the extent.
fn copies(read: Vec<OffsetRecord>, from: u64, extent: Extent) -> Result<Vec<Record>, StreamError> {
    let within = read.into_iter().filter(|one| (from..extent.end).contains(&one.offset.0));
    let mut records = Vec::new();
    for (expected, OffsetRecord { offset, record }) in (from..).zip(within) {
        if offset.0 != expected {
            return Err(StreamError::Hole { offset: expected });
        }
        let mut value = record.value.unwrap_or_default();
        if let Some(bytes) = extent.last_bytes.filter(|_| offset.0 + 1 == extent.end) {
            let length = value.len();
            let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= length);
            let bytes = bytes.ok_or_else(|| {
                let sub_offset = extent.last_bytes.unwrap_or_default();
                past(sub_offset, (length as u64, "bytes of the append"))
            })?;
            value.truncate(bytes);
        }
        let (timestamp_ms, headers) = (record.timestamp_ms, Vec::new());
        records.push(Record { timestamp_ms, key: None, value: Some(value), headers });
    }
    match records.is_empty() {
        // Nothing is left where there should be something.
        true => Err(StreamError::Hole { offset: from }),
        false => Ok(records),
    }
}

fn record_bytes(record: &Record) -> usize {
    record.value.as_ref().map_or(0, Bytes::len) + RECORD_BYTES
}

fn past(sub_offset: u64, (limit, what): (u64, &str)) -> StreamError {
    let expected = format!("at most the {limit} {what} that follow");
    StreamError::field("stream-fork-sub-offset", expected, sub_offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(values: &[(u64, &'static str)]) -> Vec<OffsetRecord> {
        let record = |(offset, value): &(u64, &'static str)| OffsetRecord {
            offset: Offset(*offset),
            record: Record {
                timestamp_ms: 1,
                key: None,
                value: Some((*value).into()),
                headers: Vec::new(),
            },
        };
        values.iter().map(record).collect()
    }

    #[test]
    fn a_sub_offset_reaches_into_what_follows_and_never_past_it() {
        let some = |end, last_bytes| Some(Extent { end, last_bytes });
        for (at, sub_offset, is_json, expected) in [
            (1, 0, false, some(1, None)),
            (3, 0, true, some(3, None)),
            (4, 0, true, None),
            (1, 3, false, some(2, Some(3))),
            (3, 1, false, None),
            (1, 2, true, some(3, None)),
            (1, 3, true, None),
            (0, u64::MAX, true, None),
        ] {
            let found = extent((at, sub_offset), 3, is_json).ok();
            assert_eq!(found, expected, "{at} {sub_offset} {is_json}");
        }
    }

    #[test]
    fn a_copy_has_the_bytes_of_its_extent_or_is_refused() {
        let all = [(4, "ab"), (5, "hello"), (6, "x")];
        let copied = |read: &[(u64, &'static str)], from, end, last_bytes| {
            let copied = copies(records(read), from, Extent { end, last_bytes }).ok()?;
            let text = |record: Record| String::from_utf8(record.value?.to_vec()).ok();
            copied.into_iter().map(text).collect::<Option<Vec<_>>>()
        };
        let some = |values: &[&str]| Some(values.iter().map(|one| (*one).to_owned()).collect());
        assert_eq!(copied(&all, 4, 7, None), some(&["ab", "hello", "x"]));
        assert_eq!(copied(&all, 5, 6, None), some(&["hello"]), "a read begins with a whole batch");
        assert_eq!(copied(&all, 4, 6, Some(3)), some(&["ab", "hel"]));
        assert_eq!(copied(&all, 4, 6, Some(5)), some(&["ab", "hello"]));
        assert_eq!(copied(&all, 4, 6, Some(6)), None);
        assert_eq!(copied(&all, 4, 9, Some(1)), some(&["ab", "hello", "x"]), "more is to come");
        assert_eq!(copied(&[(4, "ab"), (6, "x")], 4, 7, None), None, "a record is gone");
        assert_eq!(copied(&[], 4, 7, None), None);
    }
}

//! Forks: a new stream that begins with a copy of another's records up to a position.
//!
//! The copy is the fork's own, offset for offset the same, so that every door reads it as any topic and nothing of the
//! source is needed for it. It is made as a whole before the fork is there, and so it is bounded.

use std::time::Duration;

use bytes::Bytes;
use riverrun_proto::{LeaderEpoch, Offset, Record, batch::OffsetRecord};

use super::{Found, Position, StreamError, StreamService};
use crate::{
    quota::{Room, Share},
    service::fetch::FetchPartitionError,
    stream::{Origin, StreamFacts},
};

/// Most bytes of the records of a fork when it is made.
pub const FORK_BYTES_MAX: usize = 64 << 20;
/// Bytes of a record beside its value, about.
pub(super) const RECORD_BYTES: usize = 64;
/// Bytes that are read at once.
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
    pub(super) records: Vec<Record>,
    pub(super) origin: Origin,
    pub(super) source: StreamFacts,
    /// Given back when the records are in the log.
    pub(super) _shares: Vec<Share>,
}

impl StreamService {
    /// Reads what a fork begins with.
    pub(super) async fn inherited(
        &self,
        fork: &ForkRequest,
        room: &Room,
    ) -> Result<Inherited, StreamError> {
        let found = match self.find(&fork.source, 0).await {
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
        if at > tail {
            let expected = format!("at most the end of the source, {tail}");
            return Err(StreamError::field("stream-fork-offset", expected, at));
        }
        let end = at.saturating_add(fork.sub_offset).min(tail);
        let end = if facts.is_json() || fork.sub_offset == 0 { end } else { tail.min(at + 1) };
        let (mut records, shares) = self.copy(&found, end, room).await?;
        cut(&mut records, (at, fork.sub_offset), facts.is_json())?;
        let topic = found.topic.name.to_string();
        let origin =
            Origin { topic_id: found.topic.id, topic, offset: at, sub_offset: fork.sub_offset };
        Ok(Inherited { records, origin, source: facts, _shares: shares })
    }

    /// The records before `end`, without what they say of their writers.
    async fn copy(
        &self,
        found: &Found,
        end: u64,
        room: &Room,
    ) -> Result<(Vec<Record>, Vec<Share>), StreamError> {
        let (mut records, mut shares, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut from = Position::default();
        while from.offset < end {
            let read = self.read_log(found, from, (Duration::ZERO, STEP_BYTES), room).await?;
            shares.extend(read.shares);
            from.offset = read.records.next_offset.0;
            for OffsetRecord { offset, record } in read.records.records {
                if offset.0 >= end {
                    break;
                }
                let value = record.value.unwrap_or_default();
                bytes += value.len() + RECORD_BYTES;
                if bytes > FORK_BYTES_MAX {
                    return Err(StreamError::ForkTooLarge);
                }
                let headers = Vec::new();
                let timestamp_ms = record.timestamp_ms;
                records.push(Record { timestamp_ms, key: None, value: Some(value), headers });
            }
        }
        Ok((records, shares))
    }
}

/// Cuts what was copied beyond `at` to the sub-offset; refuses one that reaches past it.
fn cut(
    records: &mut [Record],
    (at, sub_offset): (u64, u64),
    is_json: bool,
) -> Result<(), StreamError> {
    if sub_offset == 0 {
        return Ok(());
    }
    let beyond = (records.len() as u64).saturating_sub(at);
    let past = |limit: u64, what: &str| {
        let expected = format!("at most the {limit} {what} that follow");
        StreamError::field("stream-fork-sub-offset", expected, sub_offset)
    };
    if is_json {
        return if sub_offset <= beyond { Ok(()) } else { Err(past(beyond, "values")) };
    }
    let last = records.last_mut().filter(|_| beyond > 0).and_then(|last| last.value.as_mut());
    let length = last.as_deref().map_or(0, |value| value.len() as u64);
    match (last, usize::try_from(sub_offset)) {
        (Some(value), Ok(bytes)) if sub_offset <= length => {
            *value = Bytes::copy_from_slice(&value[..bytes]);
            Ok(())
        }
        _ => Err(past(length, "bytes of the append")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(values: &[&'static str]) -> Vec<Record> {
        let record = |value: &&'static str| Record {
            timestamp_ms: 1,
            key: None,
            value: Some((*value).into()),
            headers: Vec::new(),
        };
        values.iter().map(record).collect()
    }

    #[test]
    fn a_sub_offset_takes_bytes_of_the_next_append_or_values_and_never_more() {
        let cut_at = |values: &[&'static str], at, sub_offset, is_json| {
            let mut records = records(values);
            cut(&mut records, (at, sub_offset), is_json).ok()?;
            let text = |record: &Record| String::from_utf8(record.value.clone()?.to_vec()).ok();
            records.iter().map(text).collect::<Option<Vec<_>>>()
        };
        let some = |values: &[&str]| Some(values.iter().map(|one| (*one).to_owned()).collect());
        assert_eq!(cut_at(&["ab", "hello"], 1, 3, false), some(&["ab", "hel"]));
        assert_eq!(cut_at(&["ab", "hello"], 1, 5, false), some(&["ab", "hello"]));
        assert_eq!(cut_at(&["ab", "hello"], 1, 6, false), None);
        assert_eq!(cut_at(&["ab"], 1, 1, false), None, "nothing follows");
        assert_eq!(cut_at(&[], 0, 1, false), None);
        assert_eq!(cut_at(&["1", "2"], 0, 2, true), some(&["1", "2"]));
        assert_eq!(cut_at(&["1", "2"], 0, 3, true), None);
        assert_eq!(cut_at(&["ab"], 1, 0, false), some(&["ab"]));
    }
}

//! Commit: stores offsets. Confirmed means durable; each partition succeeds or fails alone.
//!
//! An offset past the visible end is refused: it would skip records that nobody can see yet.

use riverrun_proto::{LeaderEpoch, Offset, limits::OFFSET_METADATA_BYTES_MAX};

use super::group::{
    GroupCallError, GroupPartitionError, GroupService, check_count, check_group, out_of_bounds,
};
use crate::{
    group::{
        assignor::Assignor,
        coordinator::{Caller, CommitOutcome},
    },
    offset::{StartPolicy, store::OffsetWrite},
};

/// Most offsets of one request.
pub const OFFSETS_MAX: usize = 10_000;
/// Epoch of somebody outside the group.
pub const EPOCH_OUTSIDER: i32 = -1;
/// Offsets that are stored at once have about this many bytes.
const WRITE_BYTES: usize = 1 << 20;

/// Who commits or asks.
#[derive(Clone, Debug, Default)]
pub struct GroupCaller {
    /// Name of the group.
    pub group: String,
    /// The member; empty for somebody outside the group.
    pub member_id: String,
    /// Its epoch; -1 for somebody outside the group.
    pub member_epoch: i32,
}

/// One offset to store.
#[derive(Clone, Debug)]
pub struct OffsetToCommit {
    /// Name of the topic.
    pub topic: String,
    /// Partition number.
    pub partition: u32,
    /// The next offset to read.
    pub offset: u64,
    /// Leader epoch of the last record read.
    pub leader_epoch: Option<u32>,
    /// The reader's note.
    pub metadata: String,
    /// Store only if this is the stored offset now.
    pub expected_offset: Option<u64>,
}

impl GroupService {
    /// Stores offsets; one result for each, in order.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn commit(
        &self,
        caller: &GroupCaller,
        offsets: Vec<OffsetToCommit>,
    ) -> Result<Vec<Result<(), GroupPartitionError>>, GroupCallError> {
        check_count("offsets", offsets.len(), OFFSETS_MAX)?;
        let caller = self.check_caller(caller)?;
        if caller.member.is_none() {
            let (start, assignor) = (StartPolicy::default(), Assignor::default());
            self.groups.create(&caller.group, start, assignor).await?;
        }
        let mut results: Vec<Result<(), GroupPartitionError>> = Vec::with_capacity(offsets.len());
        let mut writes: Vec<(usize, OffsetWrite)> = Vec::with_capacity(offsets.len());
        for (place, one) in offsets.into_iter().enumerate() {
            let checked = self.check_offset(one);
            results.push(checked.map(|write| writes.push((place, write))));
        }
        while !writes.is_empty() {
            let some = next_writes(&mut writes);
            let (places, some): (Vec<usize>, Vec<OffsetWrite>) = some.into_iter().unzip();
            let expected: Vec<Option<Offset>> = some.iter().map(|write| write.expected).collect();
            let outcomes = self.groups.commit(&caller, some).await?;
            for ((place, expected), outcome) in places.into_iter().zip(expected).zip(outcomes) {
                results[place] = result(outcome, expected);
            }
        }
        Ok(results)
    }

    /// Who calls, if the fields fit together.
    pub(super) fn check_caller(&self, caller: &GroupCaller) -> Result<Caller, GroupCallError> {
        let group = check_group(&caller.group)?;
        let member = match (caller.member_id.as_str(), caller.member_epoch) {
            ("", EPOCH_OUTSIDER) => None,
            ("", epoch) => {
                let expected = "-1 without a `member_id`";
                return Err(out_of_bounds("member_epoch", expected, epoch.to_string()).into());
            }
            (_, epoch) if epoch <= 0 => {
                let expected = "the epoch of the last heartbeat";
                return Err(out_of_bounds("member_epoch", expected, epoch.to_string()).into());
            }
            (member_id, epoch) => Some((member_id.into(), epoch)),
        };
        Ok(Caller { group, member })
    }

    fn check_offset(&self, one: OffsetToCommit) -> Result<OffsetWrite, GroupPartitionError> {
        if one.metadata.len() > OFFSET_METADATA_BYTES_MAX {
            let expected = format!("at most {OFFSET_METADATA_BYTES_MAX} bytes");
            let found = format!("{} bytes", one.metadata.len());
            return Err(out_of_bounds("metadata", &expected, found).into());
        }
        let (key, partition) = self.find(&one.topic, one.partition)?;
        let visible = partition.visible();
        if one.offset > visible.high_watermark.0 {
            return Err(GroupPartitionError::PastVisibleEnd {
                offset: one.offset,
                log_start: visible.log_start.0,
                high_watermark: visible.high_watermark.0,
            });
        }
        // Who reads on from here is then told when the log before it is another one.
        let read = one.offset.checked_sub(1).map(|last| partition.epoch_at(Offset(last)));
        Ok(OffsetWrite {
            key,
            offset: Offset(one.offset),
            leader_epoch: one.leader_epoch.map(LeaderEpoch).or(read),
            metadata: one.metadata,
            expected: one.expected_offset.map(Offset),
        })
    }
}

/// Takes as many writes off the front as are stored at once.
fn next_writes(writes: &mut Vec<(usize, OffsetWrite)>) -> Vec<(usize, OffsetWrite)> {
    let mut bytes = 0;
    let fit = writes
        .iter()
        .take_while(|(_, write)| {
            bytes += write.metadata.len() + 64;
            bytes <= WRITE_BYTES
        })
        .count();
    let rest = writes.split_off(fit.max(1));
    std::mem::replace(writes, rest)
}

fn result(outcome: CommitOutcome, expected: Option<Offset>) -> Result<(), GroupPartitionError> {
    match outcome {
        CommitOutcome::Stored => Ok(()),
        CommitOutcome::Refused(refusal) => Err(refusal.into()),
        CommitOutcome::Conflict(stored) => Err(GroupPartitionError::Conflict {
            expected: expected.map_or(0, |offset| offset.0),
            stored: stored.map(|offset| offset.0),
        }),
    }
}

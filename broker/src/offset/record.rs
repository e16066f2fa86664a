//! Entries of the groups' log, written and read.
//!
//! An entry with a higher version or a change of an unknown kind is refused by name: skipping it would forget
//! what a newer broker confirmed.

use bytes::Bytes;
use prost::Message;
use riverrun_proto::{
    TopicId,
    grpc::state::v1::{GroupChange, GroupLogEntry, PartitionRun, group_change::Change},
};

use super::PartitionKey;

/// Version of the entries written here.
const VERSION: u32 = 1;

/// An entry that cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not an entry of the groups' log.
    #[error("an entry of the groups' log is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer broker.
    #[error(
        "an entry of the groups' log has version `{found}`; this broker reads up to `{VERSION}`"
    )]
    Version {
        /// The version that came.
        found: u32,
    },
    /// Written by a newer broker.
    #[error("a change of kind `{kind}` in the groups' log is not known to this broker")]
    UnknownKind {
        /// The name that came.
        kind: String,
    },
    /// A topic id that is not one.
    #[error("a topic id in the groups' log has `{found}` bytes instead of 16")]
    TopicId {
        /// Bytes that came.
        found: usize,
    },
    /// A change of a group that was never created.
    #[error(
        "a change of kind `{kind}` is about group `{group}`, which does not exist at that point"
    )]
    UnknownGroup {
        /// Name of the group.
        group: String,
        /// Name of the kind.
        kind: &'static str,
    },
}

/// The bytes of one entry.
pub fn encode(changes: Vec<GroupChange>) -> Bytes {
    GroupLogEntry { version: VERSION, changes }.encode_to_vec().into()
}

/// The changes of one entry, each known to this broker.
///
/// # Errors
/// When the entry is malformed, of a higher version, or holds a change of an unknown kind.
pub fn decode(entry: &[u8]) -> Result<Vec<(String, Change)>, RecordError> {
    let malformed =
        |error: prost::DecodeError| RecordError::Malformed { reason: error.to_string() };
    let entry = GroupLogEntry::decode(entry).map_err(malformed)?;
    if entry.version == 0 || entry.version > VERSION {
        return Err(RecordError::Version { found: entry.version });
    }
    let known = |change: GroupChange| match change.change {
        Some(body) => Ok((change.group, body)),
        None => Err(RecordError::UnknownKind { kind: change.kind }),
    };
    entry.changes.into_iter().map(known).collect()
}

/// A change as it is written, under the name of its kind.
pub fn change(group: &str, change: Change) -> GroupChange {
    GroupChange { kind: kind(&change).to_owned(), group: group.to_owned(), change: Some(change) }
}

/// The name of a kind of change.
pub fn kind(change: &Change) -> &'static str {
    match change {
        Change::Created(_) => "group-created",
        Change::Deleted(_) => "group-deleted",
        Change::Membership(_) => "membership",
        Change::Offsets(_) => "offsets",
        Change::TopicPinned(_) => "topic-pinned",
        Change::TopicsForgotten(_) => "topics-forgotten",
        Change::SnapshotBegun(_) => "snapshot-begun",
    }
}

/// The topic id in `bytes`.
///
/// # Errors
/// When there are not 16 bytes.
pub fn topic_id(bytes: &[u8]) -> Result<TopicId, RecordError> {
    TopicId::from_slice(bytes).ok_or(RecordError::TopicId { found: bytes.len() })
}

/// The bytes of a topic id.
pub fn topic_id_bytes(id: TopicId) -> Bytes {
    Bytes::copy_from_slice(id.0.as_bytes())
}

/// Sorted partitions with their epochs, as runs.
pub fn runs(partitions: impl Iterator<Item = (PartitionKey, i32)>) -> Vec<PartitionRun> {
    let mut runs: Vec<PartitionRun> = Vec::new();
    let mut last: Option<(PartitionKey, i32)> = None;
    for (key, owner_epoch) in partitions {
        let follows = last.is_some_and(|(before, epoch)| {
            before.topic_id == key.topic_id
                && before.partition.checked_add(1) == Some(key.partition)
                && epoch == owner_epoch
        });
        match runs.last_mut() {
            Some(run) if follows => run.count += 1,
            Some(_) | None => runs.push(PartitionRun {
                topic_id: topic_id_bytes(key.topic_id),
                first: key.partition,
                count: 1,
                owner_epoch,
            }),
        }
        last = Some((key, owner_epoch));
    }
    runs
}

/// The partitions of `runs` with their epochs.
///
/// # Errors
/// When a topic id is malformed or a run leaves the range of partition numbers.
pub fn expand(runs: &[PartitionRun]) -> Result<Vec<(PartitionKey, i32)>, RecordError> {
    let mut partitions = Vec::new();
    for run in runs {
        let topic_id = topic_id(&run.topic_id)?;
        let end = run.first.checked_add(run.count).filter(|end| {
            // A topic has no more partitions than that, so a damaged count cannot ask for memory.
            *end <= riverrun_proto::limits::PARTITION_COUNT_MAX
        });
        let end = end.ok_or_else(|| RecordError::Malformed {
            reason: format!("a run of `{}` partitions from `{}`", run.count, run.first),
        })?;
        let keys = (run.first..end).map(|number| PartitionKey::new(topic_id, number));
        partitions.extend(keys.map(|key| (key, run.owner_epoch)));
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use riverrun_proto::grpc::state::v1::GroupDeleted;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_newer_kind_is_refused_by_its_name() {
        let mut newer = change("g", Change::Deleted(GroupDeleted {}));
        newer.kind = "acks".to_owned();
        newer.change = None;
        let entry = encode(vec![newer]);
        assert_eq!(decode(&entry), Err(RecordError::UnknownKind { kind: "acks".to_owned() }));
    }

    #[test]
    fn a_newer_version_is_refused() {
        let entry = GroupLogEntry { version: 2, changes: Vec::new() }.encode_to_vec();
        assert_eq!(decode(&entry), Err(RecordError::Version { found: 2 }));
        assert_eq!(decode(&[]), Err(RecordError::Version { found: 0 }));
        assert!(matches!(decode(b"\xff\xff"), Err(RecordError::Malformed { .. })));
    }

    #[test]
    fn partitions_come_back_from_their_runs() {
        let topic = |id| TopicId(Uuid::from_u128(id));
        let key = |id, partition| PartitionKey::new(topic(id), partition);
        let partitions =
            vec![(key(1, 0), 3), (key(1, 1), 3), (key(1, 2), 4), (key(1, 5), 4), (key(2, 6), 4)];
        let runs = runs(partitions.iter().copied());
        assert_eq!(runs.len(), 4);
        assert_eq!(expand(&runs), Ok(partitions));
    }

    #[test]
    fn a_damaged_run_asks_for_no_memory() {
        let mut run = runs([(PartitionKey::new(TopicId(Uuid::nil()), 1), 1)].into_iter());
        run[0].count = u32::MAX;
        assert!(matches!(expand(&run), Err(RecordError::Malformed { .. })));
        run[0].topic_id = Bytes::from_static(b"short");
        assert_eq!(expand(&run), Err(RecordError::TopicId { found: 5 }));
    }
}

//! Turns writes into changes, against the durable state.

use std::{collections::BTreeMap, sync::Arc};

use riverrun_proto::{
    Offset, TopicId,
    grpc::state::v1::{
        GroupChange, GroupCreated, GroupDeleted, PartitionOffset, TopicPinned, TopicsForgotten,
        group_change::Change,
    },
};

use super::{OffsetConflict, OffsetWrite, StoreError, Write, Written};
use crate::offset::{
    PartitionKey,
    image::{Groups, offsets_stored, start_to_wire},
    record::{change, topic_id_bytes},
};

/// What the open entry does to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    Created,
    Changed,
    Deleted,
}

impl Write {
    /// The group it is about.
    pub(super) fn group(&self) -> Option<&Arc<str>> {
        match self {
            Write::Create { group, .. }
            | Write::Pin { group, .. }
            | Write::Commit { group, .. }
            | Write::Members { group, .. }
            | Write::Delete { group } => Some(group),
            Write::Forget { .. } => None,
        }
    }

    /// Whether what it does depends on what is stored.
    fn is_conditional(&self) -> bool {
        match self {
            Write::Create { .. } | Write::Pin { .. } => true,
            Write::Commit { offsets, .. } => offsets.iter().any(|one| one.expected.is_some()),
            Write::Members { .. } | Write::Delete { .. } | Write::Forget { .. } => false,
        }
    }

    /// Whether it must wait for the next entry when the open one changes `touched` groups.
    pub(super) fn must_wait(&self, touched: &BTreeMap<Arc<str>, Touch>) -> bool {
        let counts = matches!(self, Write::Create { .. }) && !touched.is_empty();
        counts
            || self.group().and_then(|group| touched.get(group)).is_some_and(|touch| match touch {
                Touch::Created | Touch::Deleted => true,
                Touch::Changed => self.is_conditional(),
            })
    }

    /// What it does to its group.
    pub(super) fn touch(&self) -> Option<(Arc<str>, Touch)> {
        let touch = match self {
            Write::Create { .. } => Touch::Created,
            Write::Delete { .. } => Touch::Deleted,
            Write::Pin { .. } | Write::Commit { .. } | Write::Members { .. } => Touch::Changed,
            Write::Forget { .. } => return None,
        };
        self.group().map(|group| (group.clone(), touch))
    }

    /// The changes it makes of the state `groups`, and its answer.
    pub(super) fn plan(
        self,
        groups: &Groups,
        (now_ms, groups_max): (i64, usize),
    ) -> (Vec<GroupChange>, Written) {
        if let Some(group) = self.group()
            && groups.get(group).is_none()
            && !matches!(self, Write::Create { .. })
        {
            return (Vec::new(), Err(StoreError::UnknownGroup { group: group.clone() }));
        }
        match self {
            Write::Create { group, start, assignor } => {
                if groups.get(&group).is_some() {
                    return (Vec::new(), Ok(Vec::new()));
                }
                if groups.count() >= groups_max {
                    return (Vec::new(), Err(StoreError::TooManyGroups { max: groups_max }));
                }
                let (start, assignor) = (Some(start_to_wire(start)), assignor.to_owned());
                let created = GroupCreated { created_ms: now_ms, start, assignor };
                (vec![change(&group, Change::Created(created))], Ok(Vec::new()))
            }
            Write::Pin { group, topic, offsets } => {
                (plan_pin(groups, &group, topic, &offsets, now_ms), Ok(Vec::new()))
            }
            Write::Commit { group, member_id, offsets } => {
                let (fit, conflicts) = judge(groups, &group, offsets);
                let changes = plan_offsets(&group, &member_id, now_ms, fit);
                (changes.into_iter().collect(), Ok(conflicts))
            }
            Write::Members { group, change: membership, offsets } => {
                let mut changes = vec![change(&group, Change::Membership(membership))];
                changes.extend(plan_offsets(&group, "", now_ms, offsets));
                (changes, Ok(Vec::new()))
            }
            Write::Delete { group } => {
                (vec![change(&group, Change::Deleted(GroupDeleted {}))], Ok(Vec::new()))
            }
            Write::Forget { topics } => {
                let topic_ids = topics.into_iter().map(topic_id_bytes).collect();
                let forgotten = Change::TopicsForgotten(TopicsForgotten { topic_ids });
                (vec![change("", forgotten)], Ok(Vec::new()))
            }
        }
    }
}

fn plan_pin(
    groups: &Groups,
    group: &str,
    (topic_id, partitions): (TopicId, u32),
    offsets: &[(PartitionKey, Offset)],
    now_ms: i64,
) -> Vec<GroupChange> {
    let Some(image) = groups.get(group) else { return Vec::new() };
    let mut changes = Vec::new();
    if !image.pinned.contains_key(&topic_id) {
        let pinned = TopicPinned { topic_id: topic_id_bytes(topic_id), partitions };
        changes.push(change(group, Change::TopicPinned(pinned)));
    }
    let missing: Vec<OffsetWrite> = offsets
        .iter()
        .filter(|(key, _)| !image.offsets.contains_key(key))
        .map(|(key, offset)| OffsetWrite {
            key: *key,
            offset: *offset,
            leader_epoch: None,
            metadata: String::new(),
            expected: None,
        })
        .collect();
    changes.extend(plan_offsets(group, "", now_ms, missing));
    changes
}

/// Parts offsets whose condition holds from those whose does not.
fn judge(
    groups: &Groups,
    group: &str,
    offsets: Vec<OffsetWrite>,
) -> (Vec<OffsetWrite>, Vec<OffsetConflict>) {
    let image = groups.get(group);
    let mut conflicts = Vec::new();
    let mut fit = Vec::with_capacity(offsets.len());
    for (index, one) in offsets.into_iter().enumerate() {
        let stored =
            image.and_then(|image| image.offsets.get(&one.key)).map(|stored| stored.offset);
        if one.expected.is_some() && one.expected != stored {
            conflicts.push(OffsetConflict { index, stored });
        } else {
            fit.push(one);
        }
    }
    (fit, conflicts)
}

fn plan_offsets(
    group: &str,
    member_id: &str,
    now_ms: i64,
    offsets: Vec<OffsetWrite>,
) -> Option<GroupChange> {
    if offsets.is_empty() {
        return None;
    }
    let values = offsets.into_iter().map(|one| {
        let value = PartitionOffset {
            partition: one.key.partition,
            offset: one.offset.0,
            leader_epoch: one.leader_epoch.map(|epoch| epoch.0),
            metadata: one.metadata,
        };
        (one.key, value)
    });
    let stored = offsets_stored(member_id, now_ms, values);
    Some(change(group, Change::Offsets(stored)))
}

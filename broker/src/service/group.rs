//! Heartbeat: joins, stays in and leaves a group; makes the group and fixes where it begins.
//!
//! Before a member may learn of a partition, the group's position on it is fixed: on topics that are new to the
//! group by its start policy, on topics and partitions that came to be while it was subscribed at the first
//! record. So no record is skipped because nobody had committed yet.
//!
//! The other verbs about groups stand beside: `commit.rs`, `offsets.rs`, `reset.rs`, `group_admin.rs`.

mod fence;
mod open;
mod request;
mod start;

use std::sync::Arc;

use thiserror::Error;

pub use self::{open::OpenGroupsError, request::HeartbeatRequest};
use crate::{
    clock::Clock,
    group::{
        coordinator::{Answer, Coordinator, CoordinatorError},
        error::GroupError,
        event::EPOCH_JOIN,
        topics::{AllTopics, TopicView},
    },
    offset::PartitionKey,
    partition::{Partition, ReadError, StateLog},
    topic::{
        Registry,
        error::{FindError, InvalidField},
        name::is_plain_name,
    },
};

/// How often a join is tried while somebody deletes the group.
const JOIN_TRIES: usize = 3;
/// Partitions whose records are looked at at once.
pub(super) const LOOKUPS_AT_ONCE: usize = 16;

/// A call about a group that failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GroupCallError {
    /// A field is out of bounds.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// The group refused, or it could not be stored.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
}

/// Why one partition of a call about a group failed.
#[derive(Clone, Debug, Error)]
pub enum GroupPartitionError {
    /// It cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its records cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The member may not touch it.
    #[error(transparent)]
    Refused(#[from] GroupError),
    /// A field of it is out of bounds.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// Another offset is stored than expected.
    #[error("`expected_offset` is {expected}, but {} is stored", Stored(*.stored))]
    Conflict {
        /// What was expected.
        expected: u64,
        /// What is stored.
        stored: Option<u64>,
    },
    /// The offset is not visible.
    #[error("`offset` must be at most the high watermark {high_watermark}, found {offset}")]
    PastVisibleEnd {
        /// What came.
        offset: u64,
        /// First offset kept.
        log_start: u64,
        /// First offset not visible.
        high_watermark: u64,
    },
    /// There is no stored offset to go by.
    #[error("group `{group}` has no stored offset for this partition")]
    NoOffset {
        /// The group asked.
        group: String,
    },
}

/// Shows a stored offset or its absence.
struct Stored(Option<u64>);

impl std::fmt::Display for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(offset) => offset.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Everything about groups.
#[derive(Clone, Debug)]
pub struct GroupService {
    pub(super) groups: Coordinator,
    pub(super) registry: Arc<Registry>,
    pub(super) clock: Clock,
    /// The log below the groups, to be closed with them.
    log: Arc<StateLog>,
}

impl GroupService {
    /// The groups below.
    pub fn coordinator(&self) -> &Coordinator {
        &self.groups
    }

    /// Takes a sign of life.
    ///
    /// # Errors
    /// When a field is out of bounds, the group refuses the member, or it could not be stored.
    pub async fn heartbeat(&self, request: HeartbeatRequest) -> Result<Answer, GroupCallError> {
        let (start, assignor, max_wait) = (request.start, request.assignor()?, request.max_wait());
        let (group, heartbeat) = request.check()?;
        let joins = heartbeat.epoch == EPOCH_JOIN;
        let mut tries = if joins { JOIN_TRIES } else { 1 };
        loop {
            tries -= 1;
            if joins && heartbeat.profile.subscription.is_some() {
                self.groups.create(&group, start, assignor).await?;
            }
            if let Some(wanted) = &heartbeat.profile.subscription {
                self.pin_topics(&group, wanted).await?;
            }
            match self.groups.heartbeat(&group, &heartbeat, max_wait).await {
                Err(CoordinatorError::UnknownGroup { .. }) if tries > 0 => {}
                answer => return Ok(answer?),
            }
        }
    }

    /// Follows the topics: groups learn of every change. Ends when the groups can store nothing more.
    pub async fn follow_topics(self) {
        let mut changes = self.registry.changes();
        loop {
            changes.mark_unchanged();
            if self.groups.set_topics(all_topics(&self.registry)).await.is_err() {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// A partition by name, and its key.
    pub(super) fn find(
        &self,
        topic: &str,
        partition: u32,
    ) -> Result<(PartitionKey, Arc<Partition>), FindError> {
        let topic = self.registry.topic(topic)?;
        let found = topic.partition(partition)?;
        Ok((PartitionKey::new(topic.id, partition), found))
    }
}

/// All live topics, as groups see them.
pub fn all_topics(registry: &Registry) -> AllTopics {
    let view = |topic: Arc<crate::topic::Topic>| {
        (topic.name.clone(), TopicView { id: topic.id, partitions: topic.partition_count() })
    };
    registry.topics().into_iter().map(view).collect()
}

/// Checks the name of a group.
pub(super) fn check_group(name: &str) -> Result<Arc<str>, InvalidField> {
    if is_plain_name(name) {
        return Ok(name.into());
    }
    Err(out_of_bounds("group", "1 to 249 characters of [A-Za-z0-9._-]", shown(name)))
}

/// Checks the length of a list.
pub(super) fn check_count(
    field: &'static str,
    count: usize,
    max: usize,
) -> Result<(), InvalidField> {
    if count <= max {
        return Ok(());
    }
    Err(out_of_bounds(field, &format!("a list of at most {max}"), count.to_string()))
}

pub(super) fn out_of_bounds(field: &'static str, expected: &str, found: String) -> InvalidField {
    InvalidField { field, expected: expected.to_owned(), found }
}

/// The beginning of a text, fit for a message.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(300).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;

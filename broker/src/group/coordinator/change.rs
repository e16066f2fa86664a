//! What operators and topics do to groups: offsets set, groups deleted, topics followed and forgotten.

use std::sync::Arc;

use riverrun_proto::{Offset, TopicId};

use super::{Caller, Coordinator, CoordinatorError, MEMBERSHIP_BYTES};
use crate::{
    group::topics::AllTopics,
    offset::{
        PartitionKey,
        store::{OffsetWrite, Write},
    },
};

impl Coordinator {
    /// Sets stored offsets, also while the group has members: they learn it with their next heartbeat.
    ///
    /// # Errors
    /// When the group does not exist or it could not be stored.
    pub async fn reset(
        &self,
        name: &Arc<str>,
        offsets: Vec<(PartitionKey, Offset)>,
    ) -> Result<(), CoordinatorError> {
        let group = self.get(name)?;
        let permit = self.shared.store.reserve(offsets.len() * 32 + MEMBERSHIP_BYTES).await?;
        let ticket = {
            let mut live = group.live.lock();
            let keys: Vec<PartitionKey> = offsets.iter().map(|(key, _)| *key).collect();
            live.state.reset(&keys);
            self.store_effects(&group, &mut live, permit, offsets.into_iter().map(set).collect())
        };
        match ticket {
            Some(ticket) => ticket.wait().await.map(drop).map_err(CoordinatorError::from),
            None => Ok(()),
        }
    }

    /// Deletes a group without members, and its stored offsets.
    ///
    /// # Errors
    /// When it does not exist, has members, or the deletion could not be stored.
    pub async fn delete(&self, name: &Arc<str>) -> Result<(), CoordinatorError> {
        let group = self.get(name)?;
        let permit = self.shared.store.reserve(0).await?;
        let ticket = {
            let mut live = group.live.lock();
            if live.gone {
                return Err(CoordinatorError::UnknownGroup { group: name.clone() });
            }
            let outsider = Caller { group: name.clone(), member: None };
            live.check_outsider(name, &outsider)?;
            live.gone = true;
            permit.send(Write::Delete { group: name.clone() })
        };
        ticket.wait().await?;
        let mut groups = self.shared.groups.write();
        if groups.get(name).is_some_and(|found| Arc::ptr_eq(found, &group)) {
            groups.remove(name);
        }
        Ok(())
    }

    /// Takes over the topics as they are now: groups follow what was created, grown and deleted, and
    /// what is stored for topics deleted since the last call is forgotten.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn set_topics(&self, topics: AllTopics) -> Result<(), CoordinatorError> {
        let topics = Arc::new(topics);
        let before = std::mem::replace(&mut *self.shared.topics.write(), topics.clone());
        for name in self.names() {
            let Some(group) = self.find(&name) else { continue };
            let permit = self.shared.store.reserve(MEMBERSHIP_BYTES).await?;
            let mut live = group.live.lock();
            live.state.topics_changed(&*topics);
            self.finish(&group, &mut live, permit);
        }
        // A topic that is unknown here may have been created a moment ago: only known ones were deleted.
        self.forget(|id| topics.contains(id) || !before.contains(id)).await
    }

    /// Forgets what is stored for topics that are no more, for the start: before anybody is served.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn forget_deleted_topics(&self) -> Result<(), CoordinatorError> {
        let topics = self.shared.topics.read().clone();
        if topics.is_empty() {
            // Rather keep too much than conclude from metadata that somebody moved away.
            return Ok(());
        }
        self.forget(|id| topics.contains(id)).await
    }

    async fn forget(&self, keep: impl Fn(TopicId) -> bool) -> Result<(), CoordinatorError> {
        let gone = self.shared.store.read(|groups| groups.topics_without(keep));
        if !gone.is_empty() {
            tracing::info!(topics = gone.len(), "stored offsets of deleted topics are forgotten");
            let bytes = gone.len() * 16;
            self.shared.store.write(Write::Forget { topics: gone }, bytes).await?;
        }
        Ok(())
    }
}

pub(super) fn set((key, offset): (PartitionKey, Offset)) -> OffsetWrite {
    OffsetWrite { key, offset, leader_epoch: None, metadata: String::new(), expected: None }
}

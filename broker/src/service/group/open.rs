//! Opens the groups at the start and closes them at the end.

use std::sync::Arc;

use thiserror::Error;

use super::{GroupService, all_topics};
use crate::{
    clock::Clock,
    config::GroupsConfig,
    group::coordinator::Coordinator,
    offset::{OffsetStore, disk_log::entries, record::RecordError},
    partition::{
        StateLog,
        state_log::{Replay, StateLogError},
    },
    topic::Registry,
};

/// Groups that cannot be opened. Nothing on disk was changed.
#[derive(Debug, Error)]
pub enum OpenGroupsError {
    /// The log cannot be read.
    #[error("groups: {0}")]
    Log(#[from] StateLogError),
    /// An entry cannot be taken in.
    #[error("groups: {0}")]
    Record(#[from] RecordError),
}

impl GroupService {
    /// Brings every group back from what the groups' log holds. Blocks. The future that comes with the service does all its
    /// work in the background; it must run for anything to be stored, and ends after [`GroupService::close`].
    ///
    /// # Errors
    /// When the log is damaged, or was written by a newer broker.
    pub fn open(
        (log, replay): (StateLog, Replay),
        registry: Arc<Registry>,
        (clock, limits): (&Clock, &GroupsConfig),
    ) -> Result<(GroupService, impl Future<Output = ()> + Send + 'static), OpenGroupsError> {
        let clock = clock.clone();
        let groups_max = limits.groups_max as usize;
        let members_max = limits.members_per_group_max as usize;
        let log = Arc::new(log);
        let stored = OffsetStore::replay(entries(replay))?;
        let (store, writer) = OffsetStore::new(stored, log.clone(), clock.clone(), groups_max);
        if let Some(read_only) = log.partition().read_only() {
            store.refuse(read_only.clone().into());
        }
        let groups = Coordinator::new(store, all_topics(&registry), clock.clone(), members_max)?;
        let service = GroupService { groups: groups.clone(), registry, clock, log };
        let follower = service.clone();
        let background = async move {
            let watch = async {
                if let Err(error) = groups.forget_deleted_topics().await {
                    tracing::warn!(%error, "offsets of deleted topics are kept for now");
                }
                tokio::join!(groups.clone().run(), follower.follow_topics());
            };
            tokio::select! {
                () = writer => {}
                () = async { watch.await; std::future::pending().await } => {}
            }
        };
        Ok((service, background))
    }

    /// Answers held heartbeats at once. For the beginning of a shutdown.
    pub fn release(&self) {
        self.groups.release();
    }

    /// Takes nothing more, writes what waits, and closes the log.
    pub async fn close(&self) {
        self.groups.release();
        self.groups.store().close();
        self.groups.store().finished().await;
        if let Err(error) = self.log.partition().close().await {
            tracing::warn!(%error, "log of groups not closed cleanly");
        }
    }
}

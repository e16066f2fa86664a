//! When `--no-follow` ends: nothing more can be delivered now, also because the subscription is paused.
//!
//! What waits for its next try, for its key or for its time is left to later; so is what other consumers
//! hold. Records written meanwhile are not waited for either.

use std::time::Duration;

use riverrun_client::{Admin, Client, Error, SubscriptionPartition};

/// How often it is asked.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);

/// Finds out when nothing is left.
#[derive(Debug)]
pub(super) struct End {
    admin: Admin,
    subscription: String,
    session_id: String,
}

impl End {
    pub(super) fn new(client: &Client, subscription: &str, session_id: &str) -> End {
        let (subscription, session_id) = (subscription.to_owned(), session_id.to_owned());
        End { admin: client.admin(), subscription, session_id }
    }

    /// Whether nothing more can be delivered now and this session holds nothing.
    pub(super) async fn is_reached(&self) -> Result<bool, Error> {
        let described = self.admin.describe_subscription(&self.subscription).await?;
        let mine = described.sessions.iter().find(|one| one.session_id == self.session_id);
        let holds_nothing = mine.is_none_or(|one| one.in_flight == 0);
        if holds_nothing && described.is_paused {
            let name = &self.subscription;
            eprintln!(
                "riverrun: subscription `{name}` is paused; `riverrun subscription resume {name}` \
                 continues it"
            );
            return Ok(true);
        }
        Ok(holds_nothing && described.partitions.iter().all(is_used_up))
    }

    /// Waits until the end is reached.
    pub(super) async fn reached(&self) -> Result<(), Error> {
        while !self.is_reached().await? {
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(())
    }
}

/// Whether every record not settled waits for something.
fn is_used_up(partition: &SubscriptionPartition) -> bool {
    let waits = partition.in_flight
        + partition.retrying
        + partition.blocked
        + partition.scheduled
        + partition.dead_pending;
    partition.ready == 0 && partition.lag <= waits
}

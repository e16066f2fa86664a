//! When `--no-follow` ends: nothing more can be delivered now, also because the subscription is paused.
//!
//! What waits for its next try, for its key or for its time is left to later; so is what other consumers
//! hold. Records written meanwhile are not waited for either. Dead letters on their way are, so that they stand
//! in their topic afterwards; but not for ever, since they may not find room there.
//!
//! A partition that cannot be read is no end: records lie behind, and the command fails with the reason.

use std::time::{Duration, Instant};

use riverrun_client::{Admin, Client, Explanation, IdleReason, SubscriptionPartition};

use crate::{
    clock,
    failure::{Class, Failure},
};

/// How often it is asked.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);
/// Longest wait for dead letters after everything else came to its end.
const LETTERS_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for a partition that cannot be read: the broker tries again.
const FAULT_WAIT: Duration = Duration::from_secs(2);

/// Finds out when nothing is left.
#[derive(Debug)]
pub(super) struct End {
    admin: Admin,
    subscription: String,
    session_id: String,
    letters: Letters,
    /// Since when all that is left cannot be read.
    faulty_since: Option<Instant>,
}

impl End {
    pub(super) fn new(client: &Client, subscription: &str, session_id: &str) -> End {
        let (subscription, session_id) = (subscription.to_owned(), session_id.to_owned());
        let letters = Letters::default();
        End { admin: client.admin(), subscription, session_id, letters, faulty_since: None }
    }

    /// Whether nothing more can be delivered now and this session holds nothing.
    ///
    /// # Errors
    /// When what is left cannot be read.
    pub(super) async fn is_reached(&mut self) -> Result<bool, Failure> {
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
        let left: Vec<&SubscriptionPartition> =
            described.partitions.iter().filter(|partition| !is_used_up(partition)).collect();
        if !holds_nothing {
            return Ok(false);
        }
        if !left.is_empty() {
            self.check_readable(&left).await?;
            return Ok(false);
        }
        let pending: u64 =
            described.partitions.iter().map(|partition| partition.dead_pending).sum();
        Ok(pending == 0 || self.letters.are_late(&self.subscription, clock::instant()))
    }

    /// Waits until the end is reached.
    pub(super) async fn reached(&mut self) -> Result<(), Failure> {
        while !self.is_reached().await? {
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(())
    }
}

impl End {
    /// An error when none of the partitions that have records left could be read for a while.
    async fn check_readable(&mut self, left: &[&SubscriptionPartition]) -> Result<(), Failure> {
        let explained = self.admin.explain_subscription(&self.subscription).await?;
        let faults: Option<Vec<&Explanation>> =
            left.iter().map(|partition| fault_of(partition, &explained)).collect();
        let Some(faults) = faults else {
            self.faulty_since = None;
            return Ok(());
        };
        let now = clock::instant();
        if now.duration_since(*self.faulty_since.get_or_insert(now)) < FAULT_WAIT {
            return Ok(());
        }
        let told = faults.iter().map(|fault| format!("{}: {}", fault.partition, fault.message));
        let told = told.collect::<Vec<_>>().join("; ");
        let name = &self.subscription;
        let message = format!("subscription `{name}` cannot go on: {told}");
        Err(Failure::new(Class::Corrupt, message))
    }
}

/// Why a partition cannot be read, if that is what keeps its records back.
fn fault_of<'a>(
    partition: &SubscriptionPartition,
    explained: &'a [Explanation],
) -> Option<&'a Explanation> {
    let reason = explained.iter().find(|one| one.partition == partition.partition)?;
    (reason.reason == Some(IdleReason::PartitionError)).then_some(reason)
}

/// Dead letters on their way, when nothing else is left.
#[derive(Debug, Default)]
struct Letters {
    /// When they were first all that was left.
    since: Option<Instant>,
}

impl Letters {
    /// Whether they were waited for long enough; says so.
    fn are_late(&mut self, subscription: &str, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let is_late = now.duration_since(since) >= LETTERS_WAIT;
        if is_late {
            eprintln!(
                "riverrun: dead letters of `{subscription}` are not written yet; \
                 `riverrun subscription explain {subscription}` says why"
            );
        }
        is_late
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_on_their_way_are_waited_for_but_not_for_ever() {
        let mut letters = Letters::default();
        let start = clock::instant();
        assert!(!letters.are_late("s", start));
        assert!(!letters.are_late("s", start + LETTERS_WAIT / 2));
        assert!(letters.are_late("s", start + LETTERS_WAIT));
    }
}

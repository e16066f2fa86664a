//! Bounds of memory that callers share: bytes in flight and readers that wait.
//!
//! Past a bound a caller first waits for a moment (its stream is not read meanwhile, so the sender slows
//! down) and is then refused with a time to come back after. Nothing here knows what the bytes are.

mod room;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

pub use self::room::Room;

/// Time a refused caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// A bound that is used up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("quota `{quota}` of {limit} is used up")]
pub struct QuotaExceeded {
    /// Name of the setting that bounds it.
    pub quota: &'static str,
    /// Its value.
    pub limit: usize,
    /// Come back after this.
    pub retry_after: Duration,
}

/// A number of something that callers take shares of.
#[derive(Clone, Debug)]
pub struct Quota {
    /// Name of the setting.
    name: &'static str,
    limit: usize,
    /// Longest time to wait for a share.
    wait: Duration,
    free: Arc<Semaphore>,
    /// Callers that wait for a share now.
    waiting: Arc<AtomicUsize>,
}

/// Counts one who waits, also when the wait is cut short.
struct Waiting<'a>(&'a AtomicUsize);

/// A share of one quota, or of two; given back when dropped.
#[derive(Debug, Default)]
pub struct Share {
    one: Option<OwnedSemaphorePermit>,
    other: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// This share and another quota's, as one.
    pub fn with(self, other: Share) -> Share {
        Share { one: self.one, other: other.one.or(other.other) }
    }

    /// Gives back all but `count`.
    pub fn shrink(&mut self, count: usize) {
        for permit in [&mut self.one, &mut self.other].into_iter().flatten() {
            drop(permit.split(permit.num_permits().saturating_sub(count)));
        }
    }
}

impl Quota {
    /// A quota of `limit`, named after the setting that bounds it.
    pub fn new(name: &'static str, limit: usize, wait: Duration) -> Quota {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Quota { name, limit, wait, free: Arc::new(Semaphore::new(limit)), waiting: Arc::default() }
    }

    /// Takes `count`, waiting a moment for it. More than the whole quota counts as all of it, so that one
    /// large request is slow, not impossible.
    ///
    /// # Errors
    /// When it is not free in time.
    pub async fn take(&self, count: usize) -> Result<Share, QuotaExceeded> {
        if let Ok(share) = self.try_take(count) {
            return Ok(share);
        }
        let _waiting = Waiting::new(&self.waiting);
        let permit =
            time::timeout(self.wait, self.free.clone().acquire_many_owned(self.whole(count)));
        match permit.await {
            Ok(Ok(permit)) => Ok(Share { one: Some(permit), other: None }),
            Ok(Err(_)) | Err(_) => Err(self.exceeded()),
        }
    }

    /// Takes `count` if it is free now.
    ///
    /// # Errors
    /// When it is not.
    pub fn try_take(&self, count: usize) -> Result<Share, QuotaExceeded> {
        let permit = self.free.clone().try_acquire_many_owned(self.whole(count));
        permit.map(|permit| Share { one: Some(permit), other: None }).map_err(|_| self.exceeded())
    }

    /// Name of the setting that bounds it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its value.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What is taken now.
    pub fn used(&self) -> usize {
        self.limit - self.free.available_permits()
    }

    /// Longest time to wait for a share.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// True while somebody waits for a share.
    pub fn is_short(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    fn free(&self) -> usize {
        self.free.available_permits()
    }

    fn whole(&self, count: usize) -> u32 {
        u32::try_from(count.min(self.limit)).unwrap_or(u32::MAX)
    }

    /// The refusal that names it.
    pub fn exceeded(&self) -> QuotaExceeded {
        QuotaExceeded { quota: self.name, limit: self.limit, retry_after: RETRY_AFTER }
    }
}

impl Waiting<'_> {
    fn new(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shares_are_taken_waited_for_and_given_back() {
        let quota = Quota::new("limits.test", 10, Duration::from_millis(100));
        let first = quota.take(7).await.unwrap();
        assert_eq!(quota.used(), 7);
        let refused = quota.take(4).await.unwrap_err();
        assert_eq!(refused.to_string(), "quota `limits.test` of 10 is used up");
        assert!(refused.retry_after > Duration::ZERO);
        let waiting = tokio::spawn({
            let quota = quota.clone();
            async move { quota.take(4).await.map(|_| ()) }
        });
        drop(first);
        waiting.await.unwrap().expect("free in time");
        assert_eq!(quota.used(), 0);
        let all = quota.take(1_000_000).await.expect("counts as all of it");
        assert_eq!(quota.used(), 10);
        assert!(quota.try_take(1).is_err());
        drop(all);
    }
}

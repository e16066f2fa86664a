//! Memory that one connection may take: a part of its own, and beyond it a share of what all have in common.
//!
//! ```text
//! take -> own part, if all of it fits there
//!      -> else the connection's limit and the common quota, both
//! ```
//!
//! Whatever others hold, the own part is there: a connection that keeps to it is never refused because of
//! them. The price is that memory is bounded by the common quota *plus* connections times own part.

use super::{Quota, QuotaExceeded, Share};

/// Room of one connection for bytes of one kind.
#[derive(Clone, Debug)]
pub struct Room {
    /// Absent for callers in the same process.
    connection: Option<Own>,
    common: Quota,
}

#[derive(Clone, Debug)]
struct Own {
    part: Quota,
    /// Most of the common quota that this connection may hold.
    limit: Quota,
}

impl Room {
    /// Room of a connection with a part of its own, and at most `limit` of what is common.
    pub fn of_connection(part: Quota, limit: Quota, common: Quota) -> Room {
        Room { connection: Some(Own { part, limit }), common }
    }

    /// Room of a caller in the same process.
    pub fn common(common: Quota) -> Room {
        Room { connection: None, common }
    }

    /// Takes `count` if it is free now.
    ///
    /// # Errors
    /// When it is not.
    pub fn try_take(&self, count: usize) -> Result<Share, QuotaExceeded> {
        let Some(Own { part, limit }) = &self.connection else {
            return self.common.try_take(count);
        };
        if count <= part.free()
            && let Ok(share) = part.try_take(count)
        {
            return Ok(share);
        }
        Ok(limit.try_take(count)?.with(self.common.try_take(count)?))
    }

    /// Takes `count`, or less when only the own part is left, but not less than `least`.
    pub fn try_take_some(&self, count: usize, least: usize) -> Option<(usize, Share)> {
        if let Ok(share) = self.try_take(count) {
            return Some((count, share));
        }
        let part = &self.connection.as_ref()?.part;
        let count = part.free().min(count);
        let share = part.try_take(count).ok().filter(|_| count >= least)?;
        Some((count, share))
    }

    /// Takes `count`, waiting a moment for it.
    ///
    /// # Errors
    /// When it is not free in time.
    pub async fn take(&self, count: usize) -> Result<Share, QuotaExceeded> {
        if let Ok(share) = self.try_take(count) {
            return Ok(share);
        }
        let Some(Own { limit, .. }) = &self.connection else {
            return self.common.take(count).await;
        };
        Ok(limit.take(count).await?.with(self.common.take(count).await?))
    }

    /// The quota that all have in common.
    pub fn shared(&self) -> &Quota {
        &self.common
    }
}

impl Share {
    /// True when some of it is common, so that others may be waiting for it.
    pub fn is_common(&self) -> bool {
        self.other.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn quota(name: &'static str, limit: usize) -> Quota {
        Quota::new(name, limit, Duration::from_millis(10))
    }

    #[tokio::test(start_paused = true)]
    async fn the_own_part_is_there_whatever_others_hold() {
        let common = quota("common", 100);
        let room = || Room::of_connection(quota("part", 10), quota("limit", 60), common.clone());
        let (greedy, modest) = (room(), room());
        let own = greedy.try_take(10).unwrap();
        assert_eq!((own.is_common(), common.used()), (false, 0));
        let shared = greedy.try_take(60).unwrap();
        assert_eq!((shared.is_common(), common.used()), (true, 60));
        let refused = greedy.try_take(1).unwrap_err();
        assert_eq!(refused.to_string(), "quota `limit` of 60 is used up");
        let mut rest = room().try_take(40).unwrap();
        let refused = modest.take(11).await.unwrap_err();
        assert_eq!(refused.to_string(), "quota `common` of 100 is used up");
        let (count, _own) = modest.try_take_some(50, 5).expect("its own part");
        assert_eq!(count, 10);
        assert!(modest.try_take_some(50, 5).is_none());
        rest.shrink(15);
        assert_eq!(common.used(), 75);
        let waiting = tokio::spawn(async move { modest.take(25).await.map(drop) });
        tokio::task::yield_now().await;
        assert!(!common.is_short());
        waiting.await.unwrap().unwrap();
        let waiter = room();
        let waiting = tokio::spawn(async move { waiter.take(50).await.map(drop) });
        tokio::task::yield_now().await;
        assert!(common.is_short());
        drop(shared);
        waiting.await.unwrap().unwrap();
        assert!(!common.is_short());
    }
}

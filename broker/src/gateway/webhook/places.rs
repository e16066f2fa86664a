//! What a request takes of what is bounded over all endpoints: a place among the requests, and memory.
//!
//! Every endpoint has one place of its own, and memory of its own as a connection has. So one that others crowd out goes on,
//! a request at a time. The other places are shared fairly: see [`super::common`].

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::common::{Common, CommonPlace};
use crate::quota::{Room, Share};

/// Longest wait for both.
const WAIT: Duration = Duration::from_secs(5);

/// Places of one endpoint, and those it shares.
#[derive(Clone, Debug)]
pub(super) struct Places {
    own: Arc<Semaphore>,
    common: Arc<Common>,
    /// Who it is to the others.
    endpoint: u64,
    room: Room,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _held: Held,
    _share: Share,
}

/// Which of the places.
#[derive(Debug)]
enum Held {
    /// Its own.
    Own { _permit: OwnedSemaphorePermit },
    /// One of all.
    Common { _place: CommonPlace },
}

impl Places {
    /// Those of an endpoint that has `room`, with what all have in common.
    pub(super) fn new(common: Arc<Common>, room: Room) -> Places {
        Places { own: Arc::new(Semaphore::new(1)), endpoint: common.endpoint(), common, room }
    }

    /// A place for a request that takes `bytes`; `None` when none is free in time.
    pub(super) async fn take(&self, bytes: usize) -> Option<Place> {
        timeout(WAIT, self.wait(bytes)).await.ok().flatten()
    }

    async fn wait(&self, bytes: usize) -> Option<Place> {
        let held = tokio::select! {
            biased;
            own = self.own.clone().acquire_owned() => Held::Own { _permit: own.ok()? },
            place = self.common.take(self.endpoint) => Held::Common { _place: place },
        };
        let share = self.room.take(bytes).await.ok()?;
        Some(Place { _held: held, _share: share })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Quota;

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_has_a_place_of_its_own_and_shares_the_others() {
        let quota = Quota::new("limits.test", 100, Duration::from_millis(10));
        let common = Common::new(2);
        let places = || Places::new(common.clone(), Room::common(quota.clone()));
        let (greedy, modest) = (places(), places());
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(greedy.take(1).await.expect("its own, and the two"));
        }
        assert!(greedy.take(1).await.is_none());
        let own = modest.take(1).await.expect("its own");
        assert!(modest.take(1).await.is_none());
        drop(own);
        modest.take(1).await.expect("again");
        held.clear();
        assert!(modest.take(100).await.is_some() && common.free() == 2);
        let all = modest.take(100).await.unwrap();
        assert!(greedy.take(1).await.is_none(), "no memory");
        drop(all);
        assert_eq!((common.free(), quota.used()), (2, 0));
    }
}

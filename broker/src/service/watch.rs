//! Watch: tells when there is something to read, without sending it.
//!
//! The first answer describes every partition; further ones name those that moved. Moves that happen
//! while an answer is on its way come together in the next one, so a slow reader gets fewer answers, never
//! a backlog. A topic that is made while it is watched, or made again, is told of from then on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_core::Stream;
use futures_util::stream;
use thiserror::Error;
use tokio::sync::watch;

use super::fetch::FetchPartitionError;
use crate::{
    partition::{Partition, TailWaiter, VisibleRange},
    quota::{Quota, QuotaExceeded, Share},
    topic::{
        Registry,
        error::{FindError, InvalidField},
    },
};

/// Most partitions of one watch.
pub const PARTITIONS_MAX: usize = 10_000;

/// What to watch.
#[derive(Clone, Debug)]
pub struct WatchTarget {
    /// Name of the topic.
    pub topic: String,
    /// Partition number; `None` for all, also those added later.
    pub partition: Option<u32>,
}

/// State of one partition.
#[derive(Clone, Debug)]
pub struct WatchState {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: u32,
    /// What may be read, or why it cannot be watched any more.
    pub state: Result<VisibleRange, FetchPartitionError>,
}

/// A watch that was refused.
#[derive(Clone, Debug, Error)]
pub enum WatchError {
    /// A field is out of bounds.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// Too many wait.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
}

/// Tells readers what moved.
#[derive(Debug)]
pub struct WatchService {
    registry: Arc<Registry>,
    waiters: Quota,
}

/// One live watch.
#[derive(Debug)]
struct Watch {
    registry: Arc<Registry>,
    targets: Vec<WatchTarget>,
    /// Counts changes of topics.
    changes: watch::Receiver<u64>,
    waiter: TailWaiter,
    /// What is watched, by key of the waiter.
    watched: Vec<Watched>,
    /// Key by name and number, so that a partition is watched once.
    keys: BTreeMap<(Arc<str>, u32), usize>,
    /// Keys whose first state was not told yet.
    untold: Vec<u32>,
    /// Keys of partitions that took the place of others, on which the waiter does not stand yet.
    replaced: Vec<u32>,
    _share: Share,
}

#[derive(Debug)]
struct Watched {
    topic: Arc<str>,
    partition: u32,
    found: Result<Arc<Partition>, FindError>,
    /// An error was told; nothing more will come unless another partition takes its place.
    ended: bool,
}

impl WatchService {
    /// A service over `registry`.
    pub fn new(registry: Arc<Registry>, waiters: Quota) -> WatchService {
        WatchService { registry, waiters }
    }

    /// Watches `targets` until the stream is dropped.
    ///
    /// # Errors
    /// When there are too many targets or too many watches.
    pub fn watch(
        &self,
        targets: Vec<WatchTarget>,
    ) -> Result<impl Stream<Item = Vec<WatchState>> + Send + use<>, WatchError> {
        check_count(targets.len())?;
        let share = self.waiters.try_take(1)?;
        let mut watch = Watch {
            registry: self.registry.clone(),
            targets: distinct(targets),
            changes: self.registry.changes(),
            waiter: TailWaiter::for_moves(),
            watched: Vec::new(),
            keys: BTreeMap::new(),
            untold: Vec::new(),
            replaced: Vec::new(),
            _share: share,
        };
        watch.stand();
        check_count(watch.watched.len())?;
        Ok(stream::unfold(watch, |mut watch| async move {
            let states = watch.next().await;
            Some((states, watch))
        }))
    }
}

impl Watch {
    /// Stands on every partition of the targets that it does not stand on yet.
    fn stand(&mut self) {
        for target in self.targets.clone() {
            match (self.registry.topic(&target.topic), target.partition) {
                (Ok(topic), None) => {
                    for number in 0..topic.partition_count() {
                        self.stand_on(&topic.name, number, topic.partition(number));
                    }
                }
                (Ok(topic), Some(number)) => {
                    self.stand_on(&topic.name, number, topic.partition(number));
                }
                (Err(error), number) => {
                    let name: Arc<str> = target.topic.as_str().into();
                    self.stand_on(&name, number.unwrap_or(0), Err(error.into()));
                }
            }
        }
        self.stand_anew();
    }

    fn stand_on(
        &mut self,
        topic: &Arc<str>,
        number: u32,
        found: Result<Arc<Partition>, FindError>,
    ) {
        let name = (topic.clone(), number);
        if let Some(index) = self.keys.get(&name) {
            let watched = &mut self.watched[*index];
            if let Ok(partition) = found
                && !watched.is(&partition)
            {
                (watched.found, watched.ended) = (Ok(partition), false);
                self.replaced.push(u32::try_from(*index).unwrap_or(u32::MAX));
            }
            return;
        }
        if self.watched.len() > PARTITIONS_MAX {
            return;
        }
        let key = u32::try_from(self.watched.len()).unwrap_or(u32::MAX);
        if let Ok(partition) = &found {
            self.waiter.register(partition.tail(), key);
        }
        self.keys.insert(name, self.watched.len());
        self.untold.push(key);
        self.watched.push(Watched { topic: topic.clone(), partition: number, found, ended: false });
    }

    /// Stands on partitions that have come to be where none were, or where some were that are gone: a topic was made (again).
    fn stand_anew(&mut self) {
        if self.replaced.is_empty() {
            return;
        }
        let mut waiter = TailWaiter::for_moves();
        for (key, watched) in (0..).zip(&self.watched) {
            if let (Ok(partition), false) = (&watched.found, watched.ended) {
                waiter.register(partition.tail(), key);
            }
        }
        // What moved until now; what moves from now on goes to the new one.
        self.untold.extend(std::mem::replace(&mut self.waiter, waiter).take_moved());
        self.untold.append(&mut self.replaced);
    }

    /// Waits until something is to be told, and tells it.
    async fn next(&mut self) -> Vec<WatchState> {
        loop {
            let mut keys = std::mem::take(&mut self.untold);
            keys.extend(self.waiter.take_moved());
            keys.sort_unstable();
            keys.dedup();
            let states: Vec<_> =
                keys.iter().filter_map(|key| self.watched[*key as usize].tell()).collect();
            if !states.is_empty() {
                return states;
            }
            tokio::select! {
                () = self.waiter.wait() => {}
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.stand();
                }
            }
        }
    }
}

impl Watched {
    fn is(&self, partition: &Arc<Partition>) -> bool {
        self.found.as_ref().is_ok_and(|found| Arc::ptr_eq(found, partition))
    }

    fn tell(&mut self) -> Option<WatchState> {
        if self.ended {
            return None;
        }
        let state = match &self.found {
            Err(error) => Err(error.clone().into()),
            Ok(partition) => match partition.failure() {
                Some(failure) => Err(FindError::from(failure.clone()).into()),
                None if partition.is_closed() => Err(crate::partition::ReadError::Closed.into()),
                None => Ok(partition.visible()),
            },
        };
        self.ended = state.is_err();
        Some(WatchState { topic: self.topic.clone(), partition: self.partition, state })
    }
}

/// The targets without repetitions, each of which would be expanded to all partitions of its topic.
fn distinct(mut targets: Vec<WatchTarget>) -> Vec<WatchTarget> {
    let mut seen = BTreeSet::new();
    targets.retain(|target| seen.insert((target.topic.clone(), target.partition)));
    targets
}

fn check_count(count: usize) -> Result<(), InvalidField> {
    if (1..=PARTITIONS_MAX).contains(&count) {
        return Ok(());
    }
    let expected = format!("a list of 1 to {PARTITIONS_MAX}");
    Err(InvalidField { field: "partitions", expected, found: count.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_expanded_once_however_often_it_is_named() {
        let named = [("a", None), ("a", Some(1)), ("b", None)];
        let target =
            |&(topic, partition): &(&str, _)| WatchTarget { topic: topic.into(), partition };
        let repeated: Vec<_> = named.iter().cycle().take(9_999).map(target).collect();
        let kept = distinct(repeated);
        let kept: Vec<_> = kept.iter().map(|kept| (kept.topic.as_str(), kept.partition)).collect();
        assert_eq!(kept, named);
    }
}

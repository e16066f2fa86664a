//! The topics of a consumer that is no member of a group: which partitions they have, and whether they are
//! still the same topics.
//!
//! A topic is known by its id. When it is deleted, also when it is created again under its name at once, the
//! consumer is told so and reads nothing of the new one. Partitions that are added are read from their
//! first record on, unless the partitions were named one by one.

use std::{collections::BTreeSet, sync::Arc};

use riverrun_proto::{PartitionId, TopicId, TopicPartition};
use tokio::time::sleep;

use super::{
    book::Added,
    fetcher::deleted,
    shared::{Rebalance, Shared},
};
use crate::{
    client::Client,
    error::{Error, ErrorCode, Result},
};

/// A topic that is read.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    topic: Arc<str>,
    id: TopicId,
    /// Partitions known.
    count: u32,
    /// Whether partitions that are added are read too.
    grows: bool,
}

/// Finds the topics and what is to be read of them: `assigned`, or all of `topics`.
///
/// # Errors
/// When a topic is not there, or the broker.
pub(super) async fn find(
    client: &Client,
    topics: &[String],
    assigned: Option<&[TopicPartition]>,
) -> Result<(Vec<Followed>, Vec<Added>)> {
    let names: BTreeSet<Arc<str>> = match assigned {
        Some(assigned) => assigned.iter().map(|partition| partition.topic.clone()).collect(),
        None => topics.iter().map(|topic| topic.as_str().into()).collect(),
    };
    let mut followed = Vec::with_capacity(names.len());
    for topic in names {
        let info = client.admin().topic(&topic).await?;
        let count = u32::try_from(info.partitions.len()).unwrap_or(u32::MAX);
        followed.push(Followed { topic, id: info.topic_id, count, grows: assigned.is_none() });
    }
    let added = match assigned {
        Some(assigned) => assigned.iter().map(|one| identify(&followed, one)).collect(),
        None => followed.iter().flat_map(|one| one.partitions(0..one.count, false)).collect(),
    };
    Ok((followed, added))
}

/// A partition as it was named, with the id of its topic if it has such a partition.
fn identify(followed: &[Followed], partition: &TopicPartition) -> Added {
    let number = partition.partition.0;
    let topic = followed.iter().find(|one| one.topic == partition.topic && number < one.count);
    Added { topic_id: topic.map(|topic| topic.id), ..Added::from(partition.clone()) }
}

impl Followed {
    fn partitions(&self, numbers: std::ops::Range<u32>, late: bool) -> Vec<Added> {
        let topic_id = Some(self.id);
        let named =
            |number| TopicPartition { topic: self.topic.clone(), partition: PartitionId(number) };
        numbers.map(|number| Added { partition: named(number), topic_id, late }).collect()
    }

    /// Looks at the topic; says whether it is still there.
    async fn look(&mut self, shared: &Shared) -> bool {
        let gone = match shared.client.admin().topic(&self.topic).await {
            Ok(info) if info.topic_id == self.id => {
                self.grow(shared, u32::try_from(info.partitions.len()).unwrap_or(u32::MAX));
                return true;
            }
            Ok(_) => Error::new(ErrorCode::TopicIdMismatch, ""),
            Err(error) if error.code() == ErrorCode::UnknownTopicOrPartition => error,
            Err(error) => {
                tracing::debug!(topic = %self.topic, %error, "could not look at the topic");
                return true;
            }
        };
        shared.book.lock().topic_deleted(&self.topic, deleted(&self.topic, &gone));
        shared.fetcher.notify_one();
        false
    }

    fn grow(&mut self, shared: &Shared, count: u32) {
        if !self.grows || count <= self.count {
            return;
        }
        let added = self.partitions(self.count..count, true);
        self.count = count;
        let names = added.iter().map(|one| one.partition.clone()).collect();
        shared.book.lock().assign(added);
        shared.announce(Rebalance::Assigned, &names);
        shared.fetcher.notify_one();
    }
}

/// Follows the topics until the consumer is closed.
pub(super) async fn follow(shared: &Shared, mut topics: Vec<Followed>) {
    let look = async {
        while !topics.is_empty() {
            sleep(shared.settings.topics_interval).await;
            let mut there = Vec::with_capacity(topics.len());
            for mut topic in topics {
                if topic.look(shared).await {
                    there.push(topic);
                }
            }
            topics = there;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = look => {}
        () = shared.closing.cancelled() => {}
    }
}

//! Entries of the subscriptions' log, written and read.
//!
//! An entry with a higher version or a change of an unknown kind is refused by name: skipping it would forget what a
//! newer broker confirmed.

mod error;
mod lane;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use prost::Message;
use riverrun_proto::{
    TopicId,
    grpc::state::v1::{
        LaneBegun, ScheduledCancelled, SubscribedTopicsForgotten, SubscriptionAltered,
        SubscriptionChange, SubscriptionCreated, SubscriptionDeleted, SubscriptionLogEntry,
        SubscriptionSnapshotBegun, TopicStart, subscription_change::Change,
    },
};

pub use self::{
    error::RecordError,
    lane::{dead_cause, failure_cause},
};
use super::{
    image::Subscription,
    lane::LanePart,
    offsets::{self, OffsetsWriter},
    settings::SubscriptionSettings,
};
use crate::{
    delivery::{LaneKey, Piece},
    offset::PartitionKey,
};

/// Version of the entries written here.
const VERSION: u32 = 1;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A subscription came to be.
    Created {
        /// As it is.
        subscription: Subscription,
        /// Where its partitions begin, by topic and from partition 0; others begin at offset 0.
        starts: Vec<(TopicId, Vec<u64>)>,
    },
    /// As it is after the change.
    Altered(Subscription),
    /// The subscription was deleted.
    Deleted,
    /// The state of a lane begins.
    LaneBegun {
        /// Lane.
        key: LaneKey,
        /// Everything below is settled.
        floor: u64,
        /// Dead letters written before.
        dead_count: u64,
    },
    /// What happened on a lane.
    Lane {
        /// Lane.
        key: LaneKey,
        /// In order.
        parts: Vec<LanePart>,
    },
    /// Topics were deleted.
    TopicsForgotten(Vec<TopicId>),
    /// Scheduled records were cancelled.
    Cancelled {
        /// Partition.
        key: PartitionKey,
        /// What was cancelled below may be forgotten.
        forget_below: u64,
        /// Offsets.
        pieces: Vec<Piece>,
    },
    /// A snapshot begins.
    SnapshotBegun {
        /// Number of the next subscription.
        next_number: u64,
    },
}

impl Body {
    /// The name of the kind of change.
    pub fn kind(&self) -> &'static str {
        match self {
            Body::Created { .. } => "subscription-created",
            Body::Altered(_) => "subscription-altered",
            Body::Deleted => "subscription-deleted",
            Body::LaneBegun { .. } => "lane-begun",
            Body::Lane { .. } => "lane-changed",
            Body::TopicsForgotten(_) => "topics-forgotten",
            Body::Cancelled { .. } => "scheduled-cancelled",
            Body::SnapshotBegun { .. } => "snapshot-begun",
        }
    }
}

/// Entries being written, each of about the same size.
#[derive(Debug)]
pub struct EntryWriter {
    entries: Vec<Bytes>,
    open: Vec<SubscriptionChange>,
    open_bytes: usize,
    entry_bytes: usize,
}

impl EntryWriter {
    /// Writes entries of about `entry_bytes`; a single change may be larger.
    pub fn new(entry_bytes: usize) -> EntryWriter {
        EntryWriter { entries: Vec::new(), open: Vec::new(), open_bytes: 0, entry_bytes }
    }

    /// Adds a change of the subscription `number`. What happened on a lane may be parted over several entries.
    pub fn push(&mut self, number: u64, body: &Body) {
        let change = match body {
            Body::Created { subscription, starts } => {
                Change::Created(created(subscription, starts))
            }
            Body::Altered(subscription) => Change::Altered(altered(subscription)),
            Body::Deleted => Change::Deleted(SubscriptionDeleted {}),
            Body::LaneBegun { key, floor, dead_count } => Change::LaneBegun(LaneBegun {
                topic_id: topic_id_bytes(key.topic_id),
                partition: key.partition,
                floor: *floor,
                dead_count: *dead_count,
            }),
            Body::Lane { key, parts } => {
                for changed in lane::encode(*key, parts, self.entry_bytes) {
                    self.push_change(number, body.kind(), Change::LaneChanged(changed));
                }
                return;
            }
            Body::TopicsForgotten(topics) => Change::TopicsForgotten(SubscribedTopicsForgotten {
                topic_ids: topics.iter().copied().map(topic_id_bytes).collect(),
            }),
            Body::Cancelled { key, forget_below, pieces } => {
                Change::Cancelled(cancelled(*key, *forget_below, pieces))
            }
            Body::SnapshotBegun { next_number } => {
                Change::SnapshotBegun(SubscriptionSnapshotBegun { next_number: *next_number })
            }
        };
        self.push_change(number, body.kind(), change);
    }

    fn push_change(&mut self, subscription: u64, kind: &str, change: Change) {
        let change = Some(change);
        let change = SubscriptionChange { kind: kind.to_owned(), subscription, change };
        let bytes = change.encoded_len();
        if self.open_bytes + bytes > self.entry_bytes {
            self.close_entry();
        }
        self.open_bytes += bytes;
        self.open.push(change);
    }

    fn close_entry(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.open);
        let entry = SubscriptionLogEntry { version: VERSION, changes };
        self.entries.push(entry.encode_to_vec().into());
        self.open_bytes = 0;
    }

    /// The entries.
    pub fn finish(mut self) -> Vec<Bytes> {
        self.close_entry();
        self.entries
    }
}

/// The changes of one entry, each known to this broker, with the number of its subscription.
///
/// # Errors
/// When the entry is malformed, of a higher version, or holds a change of an unknown kind.
pub fn decode(entry: &[u8]) -> Result<Vec<(u64, Body)>, RecordError> {
    let entry = SubscriptionLogEntry::decode(entry)
        .map_err(|error| RecordError::Malformed { reason: error.to_string() })?;
    if entry.version == 0 || entry.version > VERSION {
        return Err(RecordError::Version { found: entry.version, known: VERSION });
    }
    let known = |change: SubscriptionChange| match change.change {
        Some(body) => Ok((change.subscription, body_of(change.subscription, body)?)),
        None => Err(RecordError::UnknownKind { what: "change", kind: change.kind }),
    };
    entry.changes.into_iter().map(known).collect()
}

fn body_of(number: u64, change: Change) -> Result<Body, RecordError> {
    Ok(match change {
        Change::Created(created) => {
            let starts = created.starts.iter();
            let starts = starts.map(|start| {
                let floors = start.floors.iter().map(|floor| offset(*floor));
                Ok((topic_id(&start.topic_id)?, floors.collect::<Result<_, RecordError>>()?))
            });
            let subscription = Subscription {
                number,
                name: created.subscription.into(),
                created_ms: created.created_ms,
                topic_ids: topic_ids(&created.topic_ids)?,
                settings: SubscriptionSettings::from_stored(&created.settings.unwrap_or_default())?,
                paused: created.paused,
            };
            Body::Created { subscription, starts: starts.collect::<Result<_, RecordError>>()? }
        }
        Change::Altered(altered) => Body::Altered(Subscription {
            number,
            // Neither ever changes: the fold keeps what was created.
            name: "".into(),
            created_ms: 0,
            topic_ids: topic_ids(&altered.topic_ids)?,
            settings: SubscriptionSettings::from_stored(&altered.settings.unwrap_or_default())?,
            paused: altered.paused,
        }),
        Change::Deleted(_) => Body::Deleted,
        Change::LaneBegun(begun) => Body::LaneBegun {
            key: PartitionKey::new(topic_id(&begun.topic_id)?, begun.partition),
            floor: offset(begun.floor)?,
            dead_count: begun.dead_count,
        },
        Change::LaneChanged(changed) => {
            let (key, parts) = lane::decode(changed)?;
            Body::Lane { key, parts }
        }
        Change::TopicsForgotten(forgotten) => {
            Body::TopicsForgotten(topic_ids(&forgotten.topic_ids)?)
        }
        Change::Cancelled(cancelled) => Body::Cancelled {
            key: PartitionKey::new(topic_id(&cancelled.topic_id)?, cancelled.partition),
            forget_below: offset(cancelled.forget_below)?,
            pieces: offsets::read(&cancelled.offsets, &cancelled.bits)?,
        },
        Change::SnapshotBegun(begun) => Body::SnapshotBegun { next_number: begun.next_number },
    })
}

fn created(subscription: &Subscription, starts: &[(TopicId, Vec<u64>)]) -> SubscriptionCreated {
    let start = |(topic_id, floors): &(TopicId, Vec<u64>)| TopicStart {
        topic_id: topic_id_bytes(*topic_id),
        floors: floors.clone(),
    };
    SubscriptionCreated {
        subscription: subscription.name.to_string(),
        created_ms: subscription.created_ms,
        topic_ids: subscription.topic_ids.iter().copied().map(topic_id_bytes).collect(),
        settings: Some(subscription.settings.to_message()),
        paused: subscription.paused,
        starts: starts.iter().map(start).collect(),
    }
}

fn altered(subscription: &Subscription) -> SubscriptionAltered {
    SubscriptionAltered {
        topic_ids: subscription.topic_ids.iter().copied().map(topic_id_bytes).collect(),
        settings: Some(subscription.settings.to_message()),
        paused: subscription.paused,
    }
}

fn cancelled(key: PartitionKey, forget_below: u64, pieces: &[Piece]) -> ScheduledCancelled {
    let mut writer = OffsetsWriter::default();
    pieces.iter().for_each(|piece| writer.push(piece));
    ScheduledCancelled {
        topic_id: topic_id_bytes(key.topic_id),
        partition: key.partition,
        forget_below,
        offsets: writer.ranges,
        bits: writer.bits,
    }
}

fn topic_ids(bytes: &[Bytes]) -> Result<Vec<TopicId>, RecordError> {
    bytes.iter().map(|bytes| topic_id(bytes)).collect()
}

fn topic_id(bytes: &[u8]) -> Result<TopicId, RecordError> {
    TopicId::from_slice(bytes).ok_or(RecordError::TopicId { found: bytes.len() })
}

fn topic_id_bytes(id: TopicId) -> Bytes {
    Bytes::copy_from_slice(id.0.as_bytes())
}

/// Checks that an offset is one.
fn offset(offset: u64) -> Result<u64, RecordError> {
    if offset <= riverrun_proto::Offset::MAX.0 {
        return Ok(offset);
    }
    Err(RecordError::Malformed { reason: format!("offset `{offset}`") })
}

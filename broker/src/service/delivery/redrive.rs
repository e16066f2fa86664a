//! Brings dead letters back to where they came from, or to another topic.
//!
//! What was brought back is remembered as the done offsets of a subscription of its own on the dead-letter topic, whose
//! name no client can use; nobody consumes it. So a second call repeats nothing.
//!
//! ```text
//! intent (durable): where, and its end before ──▶ append (durable) ──▶ done
//! ```
//!
//! A letter whose intent was stored before may have been brought back before the broker ended, or by an append of which nobody could
//! say what became: what it becomes names the letter, and is looked for from that end on, as a dead letter is.

use std::{num::NonZeroU32, sync::Arc};

use bytes::Bytes;
use riverrun_proto::{Record, batch::OffsetRecord, partitioner::partition_for_key};
use tokio::task;

use super::{
    DeliveryService, Shared,
    bury::{append, batch_of, is_written},
    error::PushError,
    letter::{PARTITION, SUBSCRIPTION, TIME, TOPIC, is_from, number_of, revived, value_of},
};
use crate::{
    delivery::{Change, DeadCause, LaneKey, Run},
    partition::{AppendError, Partition},
    subscription::{DeadIntent, RememberedLane, SubscriptionSettings, store::NewSubscription},
    topic::Topic,
};

/// Names of the subscriptions that remember what was brought back begin so.
const PREFIX: &str = "$redrive.";
/// Bytes looked at at once.
const LOOK_BYTES: u64 = 1 << 20;

/// True for a subscription of the broker's own.
pub(super) fn is_internal(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Which dead letters to bring back. Conditions that are set must all hold.
#[derive(Clone, Debug, Default)]
pub struct RedriveRequest {
    /// Subscription whose dead letters are meant.
    pub subscription: String,
    /// Only those with this key.
    pub key: Option<Bytes>,
    /// Only those that died at or after this time.
    pub from_ms: Option<i64>,
    /// Only those that died before this time.
    pub until_ms: Option<i64>,
    /// Topic to bring them to; empty is the one each came from.
    pub to_topic: String,
    /// Most records; 0 is no limit.
    pub records_max: u64,
    /// Only count.
    pub dry_run: bool,
}

/// What was brought back.
#[derive(Clone, Debug, Default)]
pub struct Redriven {
    /// Letters that fulfilled the conditions.
    pub matched: u64,
    /// Of them brought back now.
    pub redriven: u64,
    /// Of them not brought back.
    pub failed: u64,
    /// The first failure.
    pub error: Option<PushError>,
}

impl DeliveryService {
    /// Brings dead letters back; answers when they are durable and remembered as brought back. One call at a time, so that none repeats
    /// what another brings back. Once begun it goes on when the caller goes away; one that waits for its turn is forgotten then.
    ///
    /// # Errors
    /// When the call as a whole is not allowed, or the dead letters cannot be read.
    pub async fn redrive(&self, request: RedriveRequest) -> Result<Redriven, PushError> {
        let live = self.find(&request.subscription)?;
        if !request.to_topic.is_empty() {
            self.shared.registry.topic(&request.to_topic)?;
        }
        let name = live.look(|state| state.settings.dead_letter_topic_of(&live.name));
        // Nothing ever died when there is no such topic.
        let Ok(graves) = self.shared.registry.topic(&name) else { return Ok(Redriven::default()) };
        let shared = self.shared.clone();
        let alone = shared.redriving.clone().lock_owned().await;
        let redriven = task::spawn(async move {
            let _alone = alone;
            shared.redrive(&graves, &request).await
        });
        redriven.await.unwrap_or(Err(PushError::Interrupted))
    }
}

impl Shared {
    async fn redrive(
        self: &Arc<Self>,
        graves: &Topic,
        request: &RedriveRequest,
    ) -> Result<Redriven, PushError> {
        let number = self.memory_of(graves).await?;
        let mut redriven = Redriven::default();
        let walked = async {
            for partition in graves.open_partitions() {
                let walk = Walk { shared: self, number, request };
                walk.partition(partition, &mut redriven).await?;
            }
            Ok(())
        };
        let walked = walked.await;
        // Also when the walk broke off: the next call sees what is durable.
        let sequence = self.store.record(number, []);
        self.store.settled(sequence).await?;
        walked.map(|()| redriven)
    }

    /// The number under which it is remembered what of a topic was brought back.
    async fn memory_of(&self, graves: &Topic) -> Result<u64, PushError> {
        let new = NewSubscription {
            name: format!("{PREFIX}{}", graves.name).into(),
            topic_ids: vec![graves.id],
            settings: SubscriptionSettings::default(),
            starts: Vec::new(),
        };
        if let Some(known) = self.store.subscription(&new.name)
            && known.topic_ids == new.topic_ids
        {
            return Ok(known.number);
        }
        if self.store.subscription(&new.name).is_some() {
            // It was about an earlier topic of this name.
            self.store.delete(&new.name).await?;
        }
        let created = self.store.create(new).await?;
        created.subscription.map(|one| one.number).ok_or(PushError::Interrupted)
    }
}

/// One walk over dead letters.
struct Walk<'a> {
    shared: &'a Arc<Shared>,
    number: u64,
    request: &'a RedriveRequest,
}

impl Walk<'_> {
    async fn partition(
        &self,
        partition: &Arc<Partition>,
        redriven: &mut Redriven,
    ) -> Result<(), PushError> {
        let lane = LaneKey::new(partition.topic_id(), partition.partition_id().0);
        let remembered = self.shared.store.lane(self.number, &lane).unwrap_or_default();
        let visible = partition.visible();
        let (mut at, end) = (visible.log_start.0, visible.high_watermark.0);
        at = at.max(remembered.image.floor);
        while at < end && !self.is_enough(redriven) {
            for batch in self.shared.cache.read(partition, (at, end), LOOK_BYTES).await? {
                let mut letters = batch.records_in(Run::new(at, end))?;
                letters.retain(|letter| self.is_meant(letter, &remembered));
                if !self.all((lane, &remembered), &letters, redriven).await {
                    return Ok(());
                }
                at = batch.covers().end.max(at + 1);
            }
        }
        Ok(())
    }

    fn is_enough(&self, redriven: &Redriven) -> bool {
        self.request.records_max > 0 && redriven.matched >= self.request.records_max
    }

    fn is_meant(&self, letter: &OffsetRecord, remembered: &RememberedLane) -> bool {
        let RedriveRequest { subscription, key, from_ms, until_ms, .. } = self.request;
        let record = &letter.record;
        let time_ms = number_of::<i64>(record, TIME);
        let image = &remembered.image;
        letter.offset.0 >= image.floor
            && !image.done.contains(letter.offset.0)
            && value_of(record, SUBSCRIPTION).is_some_and(|name| name == subscription.as_bytes())
            && key.as_ref().is_none_or(|key| record.key.as_ref() == Some(key))
            && from_ms.is_none_or(|from| time_ms.is_some_and(|time| time >= from))
            && until_ms.is_none_or(|until| time_ms.is_some_and(|time| time < until))
    }

    /// Brings letters back, as far as they are wanted; false when no others would fare better.
    async fn all(
        &self,
        place: (LaneKey, &RememberedLane),
        letters: &[OffsetRecord],
        redriven: &mut Redriven,
    ) -> bool {
        for letter in letters {
            if !self.one(place, letter, redriven).await {
                return false;
            }
        }
        true
    }

    /// Brings one letter back; false when no other would fare better.
    async fn one(
        &self,
        (lane, remembered): (LaneKey, &RememberedLane),
        letter: &OffsetRecord,
        redriven: &mut Redriven,
    ) -> bool {
        if self.is_enough(redriven) {
            return false;
        }
        redriven.matched += 1;
        if self.request.dry_run {
            return true;
        }
        let earlier = remembered.intents.get(&letter.offset.0);
        match self.bring_back((lane, earlier), letter).await {
            Ok(()) => {
                redriven.redriven += 1;
                let run = Run::one(letter.offset.0);
                self.shared.store.record(self.number, [Change::Done { lane, run }]);
                true
            }
            Err(error) => {
                let goes_on = !matches!(error, PushError::Append(AppendError::DiskFull(_)));
                redriven.failed += 1;
                redriven.error.get_or_insert(error);
                goes_on
            }
        }
    }

    /// Brings a letter back unless that was done by an `earlier` call that did not come to its end.
    async fn bring_back(
        &self,
        (lane, earlier): (LaneKey, Option<&DeadIntent>),
        letter: &OffsetRecord,
    ) -> Result<(), PushError> {
        let place = format!("{lane}/{}", letter.offset);
        if let Some(intent) = earlier
            && is_written(self.shared, intent, |record| is_from(record, &place)).await?
        {
            return Ok(());
        }
        let partition = self.destination(&letter.record)?;
        // What is refused by itself leaves no intent behind.
        let batch = batch_of(&partition, &revived(&letter.record, place))?;
        self.intend(lane, letter.offset.0, &partition).await?;
        append(&partition, batch).await
    }

    /// Where the record of a letter goes.
    fn destination(&self, letter: &Record) -> Result<Arc<Partition>, PushError> {
        let origin = value_of(letter, TOPIC).map(|name| String::from_utf8_lossy(name).into_owned());
        let is_home = self.request.to_topic.is_empty();
        let name = if is_home { origin.unwrap_or_default() } else { self.request.to_topic.clone() };
        let topic = self.shared.registry.topic(&name)?;
        let count = NonZeroU32::new(topic.partition_count()).unwrap_or(NonZeroU32::MIN);
        let before: u32 = number_of(letter, PARTITION).unwrap_or(0);
        let number = match &letter.key {
            // Where it came from, so that it stands behind what came before it.
            _ if is_home && before < count.get() => before,
            Some(key) => partition_for_key(key, count).0,
            None => before % count,
        };
        Ok(topic.partition(number)?)
    }

    /// Stores that the letter at `offset` is about to be brought back to `partition`.
    async fn intend(
        &self,
        lane: LaneKey,
        offset: u64,
        partition: &Partition,
    ) -> Result<(), PushError> {
        let (topic_id, number) = (partition.topic_id(), partition.partition_id().0);
        let end_before = partition.log_end().0;
        let intent = DeadIntent { topic_id, partition: number, end_before };
        let store = &self.shared.store;
        // An intent is remembered of what is on its way out only.
        let (cause, failures, attempt) = (DeadCause::Rejected, 0, None);
        store.record(self.number, [Change::DeadPending { lane, offset, cause, failures, attempt }]);
        let sequence = store.intend(self.number, lane, offset, intent);
        Ok(store.settled(sequence).await?)
    }
}

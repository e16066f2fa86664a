//! Cancels a record that waits for its time, in every subscription.
//!
//! Invariant: a cancelled record is on the disk, whatever the durability of its topic. A power loss that took it would give its offset to
//! another record, which would then count as cancelled.

use riverrun_proto::Offset;

use super::{DeliveryService, error::PushError, peek::record_at, scan::deliver_at_of};
use crate::{
    delivery::LaneKey,
    partition::{Durability, ReadError},
};

impl DeliveryService {
    /// Cancels the record, and answers when that is durable: true when no subscription will deliver it any more; false when one
    /// may have delivered it.
    ///
    /// # Errors
    /// When there is no such record, it has no time, or it or the cancellation cannot be stored.
    pub async fn cancel_scheduled(
        &self,
        (topic, number): (&str, u32),
        offset: u64,
    ) -> Result<bool, PushError> {
        let Some(next) = offset.checked_add(1) else {
            return Err(PushError::field("offset", "the offset of a record", offset));
        };
        let partition = self.shared.registry.partition(topic, &[], number)?;
        let visible = partition.visible();
        let record = record_at(&self.shared.cache, &partition, offset).await?;
        let Some(record) = record else {
            let (log_start, high_watermark) = (visible.log_start, visible.high_watermark);
            let requested = Offset(offset);
            return Err(ReadError::OutOfRange { requested, log_start, high_watermark }.into());
        };
        let Some(time_ms) = deliver_at_of(&record.record) else {
            let expected = "the offset of a record with a `riverrun-deliver-at` header";
            return Err(PushError::field("offset", expected, offset));
        };
        partition.wait_durable(Offset(next), Durability::Fsync).await?;
        let lane = LaneKey::new(partition.topic_id(), number);
        let store = &self.shared.store;
        let sequence = store.cancel_scheduled(lane, offset, visible.log_start.0)?;
        store.settled(sequence).await?;
        // From here on no subscription finds the record any more. One that found it before its cancellation was durable may have
        // delivered it, if its time came meanwhile.
        let mut cancelled = true;
        for live in self.shared.all_live() {
            let has_lane = live.look(|state| state.sources.contains_key(&lane));
            if has_lane {
                cancelled &= live.event(|state, now| {
                    state.delivery.cancel(&lane, offset, now) || now.wall_ms < time_ms
                });
            }
        }
        Ok(cancelled)
    }
}

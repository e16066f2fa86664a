//! Identities of idempotent producers: ids are reserved in blocks, epochs are raised one by one.

use std::{ops::Range, sync::atomic::Ordering::SeqCst};

use riverrun_proto::{
    ProducerEpoch, ProducerId,
    grpc::state::v1::{ProducerEpochRaised, ProducerIdsReserved, metadata_command::Command},
};

use super::{
    Registry,
    error::{InitProducerError, InvalidField, TopicError},
};

/// Ids reserved by one command. A restart skips the rest of a block.
const BLOCK: i64 = 1_000;

/// A producer's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
}

impl Registry {
    /// Gives out a producer id that was never given out before.
    ///
    /// # Errors
    /// When a reservation could not be stored.
    pub async fn new_producer(&self) -> Result<ProducerIdentity, InitProducerError> {
        let mut reserved = self.change.lock().await;
        if reserved.next == reserved.end {
            let Range { start, end } = reserved.end..reserved.end + BLOCK;
            let command = ProducerIdsReserved { next_producer_id: end };
            self.commit(Command::ProducerIdsReserved(command)).await.map_err(store_error)?;
            (reserved.next, reserved.end) = (start, end);
        }
        let id = ProducerId(reserved.next);
        reserved.next += 1;
        self.producer_ids_end().store(reserved.next, SeqCst);
        Ok(ProducerIdentity { id, epoch: ProducerEpoch(0) })
    }

    /// Raises the epoch of `producer_id` above `held`, the last one its holder had, and so fences whoever
    /// holds an older one. A producer at the highest epoch gets a new id.
    ///
    /// # Errors
    /// When the id was never given out, or its epoch is higher already.
    pub async fn raise_producer(
        &self,
        producer_id: i64,
        held: i32,
    ) -> Result<ProducerIdentity, InitProducerError> {
        let held_epoch =
            i16::try_from(held).ok().filter(|epoch| *epoch >= 0).ok_or_else(|| InvalidField {
                field: "producer_epoch",
                expected: "0 to 32767".into(),
                found: held.to_string(),
            })?;
        let reserved = self.change.lock().await;
        if !(0..reserved.next).contains(&producer_id) {
            return Err(InitProducerError::Unknown { producer_id });
        }
        let current = self.with_catalog(|catalog| catalog.producer_epoch(producer_id));
        if let Some(current) = current.filter(|current| *current > held_epoch) {
            return Err(InitProducerError::Fenced { producer_id, current, found: held });
        }
        if held_epoch == i16::MAX {
            drop(reserved);
            return self.new_producer().await;
        }
        let producer_epoch = held + 1;
        let command = ProducerEpochRaised { producer_id, producer_epoch };
        self.commit(Command::ProducerEpochRaised(command)).await.map_err(store_error)?;
        self.any_producer_epoch().store(true, SeqCst);
        Ok(ProducerIdentity { id: ProducerId(producer_id), epoch: ProducerEpoch(held_epoch + 1) })
    }

    /// False for an id that is still to be given out: whoever wrote under it before would pass for the producer that gets it, whose
    /// records would then be taken for repetitions. Ids below 0 stand for no producer.
    pub fn is_given(&self, id: ProducerId) -> bool {
        id.0 < self.producer_ids_end().load(SeqCst)
    }

    /// The epoch that fences `found`, when the producer's epoch was raised past it.
    pub fn fencing_epoch(&self, id: ProducerId, found: ProducerEpoch) -> Option<ProducerEpoch> {
        if id.0 < 0 || !self.any_producer_epoch().load(SeqCst) {
            return None;
        }
        let current = self.with_catalog(|catalog| catalog.producer_epoch(id.0))?;
        (current > found.0).then_some(ProducerEpoch(current))
    }
}

fn store_error(error: TopicError) -> InitProducerError {
    match error {
        TopicError::Store(error) => InitProducerError::Store(error),
        TopicError::Catalog(error) => InitProducerError::Catalog(error),
        TopicError::Name(_)
        | TopicError::Setting(_)
        | TopicError::UnknownSetting(_)
        | TopicError::Field(_)
        | TopicError::Stream(_)
        | TopicError::Content(_)
        | TopicError::Exists { .. }
        | TopicError::Unknown(_)
        | TopicError::IdMismatch(_)
        | TopicError::Quota(_)
        | TopicError::Open(_)
        | TopicError::Interrupted => unreachable!("a commit stores and applies"),
    }
}

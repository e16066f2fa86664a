//! Looks at records that are not settled, without taking them.

use std::sync::Arc;

use riverrun_proto::{
    Record,
    batch::{BatchBuilder, BuilderOptions, Compression, OffsetRecord},
};

use super::{
    DeliveryService, error::PushError, frame::next_frame, scan_cache::ScanCache, session::Place,
};
use crate::{
    delivery::{LaneKey, Peeked, RecordState, Run},
    partition::Partition,
    service::fetch::Format,
    subscription::filter::Filter,
};

/// Records shown when the caller does not say.
const RECORDS_DEFAULT: usize = 10;
/// Most records shown.
const RECORDS_MAX: usize = 1_000;
/// Most bytes shown; one record always is.
const BYTES_MAX: usize = 4 << 20;

/// A record that is not settled.
#[derive(Clone, Debug)]
pub struct PeekedRecord {
    /// Where it is from.
    pub place: Place,
    /// The record.
    pub record: OffsetRecord,
    /// Where it stands.
    pub peeked: Peeked,
}

impl DeliveryService {
    /// The oldest records that are not settled, by partition; `count` 0 is the default.
    ///
    /// # Errors
    /// When it does not exist, or too many are asked for.
    pub async fn peek(&self, name: &str, count: usize) -> Result<Vec<PeekedRecord>, PushError> {
        if count > RECORDS_MAX {
            let expected = format!("at most {RECORDS_MAX}");
            return Err(PushError::field("max_records", expected, count));
        }
        let count = if count == 0 { RECORDS_DEFAULT } else { count };
        let live = self.find(name)?;
        live.look_at_ends();
        let now = self.shared.now();
        let settings = live.look(|state| state.settings.clone());
        let lanes: Vec<LaneKey> = live.look(|state| state.sources.keys().copied().collect());
        let (mut shown, mut bytes) = (Vec::new(), 0);
        for lane in lanes {
            let Some((place, Some(partition))) = live.source(&lane) else { continue };
            for peeked in live.look(|state| state.delivery.peek(&lane, count, now)) {
                if shown.len() == count || bytes >= BYTES_MAX {
                    return Ok(shown);
                }
                let record = record_at(&self.shared.cache, &partition, peeked.offset).await;
                let Ok(Some(record)) = record else { continue };
                // What was not looked at yet may be none of the subscription's.
                let is_new = peeked.state == RecordState::Unread;
                if is_new && !wants(&settings.filter, &record.record) {
                    continue;
                }
                bytes += record.record.value.as_ref().map_or(0, bytes::Bytes::len);
                shown.push(PeekedRecord { place: place.clone(), record, peeked });
            }
        }
        Ok(shown)
    }
}

/// The record at `offset`, if there is one.
pub(super) async fn record_at(
    cache: &ScanCache,
    partition: &Arc<Partition>,
    offset: u64,
) -> Result<Option<OffsetRecord>, PushError> {
    let mut run = [Run::one(offset)].into();
    let frame = next_frame(cache, partition, &mut run, Format::Structured).await?;
    Ok(frame.records.into_iter().next())
}

/// The filter wants the record.
fn wants(filter: &Filter, record: &Record) -> bool {
    if filter.is_empty() {
        return true;
    }
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    let Ok(batch) = builder.push(record).and_then(|()| builder.build()) else { return true };
    let Ok(records) = batch.records(usize::MAX) else { return true };
    records.views().flatten().all(|view| filter.wants(&view))
}

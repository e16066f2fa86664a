//! Seek and advance: moves the position of a subscription.

use std::sync::Arc;

use super::{DeliveryService, create::Start, error::PushError, live::Live, session::Place};
use crate::{delivery::LaneKey, partition::Partition};

/// Most partitions named in one request.
const PARTITIONS_MAX: usize = 10_000;

/// Where to move.
#[derive(Clone, Debug)]
pub struct SeekRequest {
    /// Name of the subscription.
    pub subscription: String,
    /// Topics and partitions; empty is all.
    pub partitions: Vec<(String, u32)>,
    /// Where to.
    pub to: Start,
    /// Only tell.
    pub dry_run: bool,
    /// Only forwards, and only what nobody holds.
    pub advance: bool,
}

/// One partition's position.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Which.
    pub place: Place,
    /// Floor before.
    pub from: u64,
    /// Floor now, or as it would be.
    pub to: u64,
    /// Why it was not moved.
    pub error: Option<PushError>,
}

impl DeliveryService {
    /// Moves the position, and answers when that is durable.
    ///
    /// # Errors
    /// When the call as a whole is not allowed; partitions fail one by one.
    pub async fn seek(&self, request: SeekRequest) -> Result<Vec<Moved>, PushError> {
        let live = self.find(&request.subscription)?;
        if request.partitions.len() > PARTITIONS_MAX {
            let expected = format!("a list of at most {PARTITIONS_MAX}");
            return Err(PushError::field("partitions", expected, request.partitions.len()));
        }
        let lanes = live.lanes(&request.partitions)?;
        live.look_at_ends();
        let mut moved = Vec::with_capacity(lanes.len());
        for (lane, place, partition) in lanes {
            moved.push(self.seek_one(&live, (lane, place, partition), &request).await);
        }
        if !request.dry_run {
            let sequence = self.shared.store.record(live.number, []);
            self.shared.store.settled(sequence).await?;
        }
        Ok(moved)
    }

    async fn seek_one(
        &self,
        live: &Live,
        (lane, place, partition): Lane,
        request: &SeekRequest,
    ) -> Moved {
        let floor = || live.look(|state| state.delivery.counts(&lane).map_or(0, |one| one.floor));
        let from = floor();
        let failed = |error| Moved { place: place.clone(), from, to: from, error: Some(error) };
        let target = match self.target(&place, &partition, &request.to).await {
            Ok(target) => target,
            Err(error) => return failed(error),
        };
        let to = match (request.dry_run, request.advance) {
            (true, true) => from.max(target),
            (true, false) => target,
            (false, true) => {
                live.event(|state, now| state.delivery.advance(&lane, target, now)).unwrap_or(from)
            }
            (false, false) => {
                live.event(|state, now| state.delivery.seek(&lane, target, now));
                floor()
            }
        };
        let Place { topic, partition } = place.clone();
        let held = request.advance && to < target;
        let error = held.then_some(PushError::Held { topic, partition, offset: target });
        Moved { place, from, to, error }
    }

    async fn target(
        &self,
        place: &Place,
        partition: &Arc<Partition>,
        to: &Start,
    ) -> Result<u64, PushError> {
        let visible = partition.visible();
        let (log_start, high_watermark) = (visible.log_start.0, visible.high_watermark.0);
        match to {
            Start::Offset(offset) if *offset > high_watermark => {
                let Place { topic, partition } = place.clone();
                let offset = *offset;
                Err(PushError::PastEnd { topic, partition, offset, log_start, high_watermark })
            }
            Start::Earliest
            | Start::Latest
            | Start::TimestampMs(_)
            | Start::Offset(_)
            | Start::Group(_) => self.shared.floor(partition, to).await,
        }
    }
}

/// A lane with its names.
type Lane = (LaneKey, Place, Arc<Partition>);

impl Live {
    /// The named lanes, or all of them.
    fn lanes(&self, named: &[(String, u32)]) -> Result<Vec<Lane>, PushError> {
        self.look(|state| {
            let whole = |lane: LaneKey| {
                let source = state.sources.get(&lane)?;
                let place = Place { topic: source.topic.clone(), partition: lane.partition };
                Some((lane, place, source.partition.clone()?))
            };
            if named.is_empty() {
                return Ok(state.sources.keys().copied().filter_map(whole).collect());
            }
            let find = |(topic, partition): &(String, u32)| {
                let lane = state.lane(topic, *partition).and_then(whole);
                lane.ok_or_else(|| {
                    let found = format!("{}/{partition}", topic.escape_debug());
                    PushError::field("partitions", "partitions of the subscription", found)
                })
            };
            named.iter().map(find).collect()
        })
    }
}

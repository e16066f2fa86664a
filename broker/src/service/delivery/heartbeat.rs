//! How a subscription stands, for its sessions' signs of life and for operators.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use riverrun_proto::Offset;

use super::{
    live::{Live, Source, State},
    session::{Heartbeat, Place},
};
use crate::{
    delivery::{LaneKey, Reason, SessionRef},
    partition::Partition,
};

/// The age of the oldest record is looked up at most so often.
const AGE_KEPT: Duration = Duration::from_secs(1);
/// Partitions whose oldest record is looked at, for one sign of life.
const LANES_LOOKED_AT: usize = 16;
/// Of them at once.
const LOOKUPS_AT_ONCE: usize = 4;

/// The age of the oldest record as it was looked up last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OldestKnown {
    /// When it was looked up.
    at: Option<Duration>,
    /// When the record was appended, in milliseconds since 1970-01-01 UTC.
    time_ms: Option<i64>,
}

impl Live {
    /// How it stands now; what credit was used for is the stream's to know.
    pub(super) async fn heartbeat(&self, session: SessionRef) -> Heartbeat {
        let now = self.shared.now();
        let (lag, idle) =
            self.look(|state| (state.lag(), state.delivery.idle_reason(session, now)));
        let idle = Some(idle).filter(|reason| *reason != Reason::Nothing);
        let oldest_unsettled_ms = self.oldest_ms(lag).await;
        Heartbeat { lag, oldest_unsettled_ms, idle, ..Heartbeat::default() }
    }

    async fn oldest_ms(&self, lag: u64) -> u64 {
        if lag == 0 {
            return 0;
        }
        let now = self.shared.now();
        let known = self.look(|state| state.oldest);
        let is_fresh = known.at.is_some_and(|at| now.elapsed < at + AGE_KEPT);
        let time_ms = if is_fresh {
            known.time_ms
        } else {
            let floors = self.look(|state| state.floors());
            let times = stream::iter(floors.into_iter().take(LANES_LOOKED_AT));
            let times = times.map(|(partition, floor)| oldest_of(partition, floor));
            let times: Vec<_> = times.buffered(LOOKUPS_AT_ONCE).collect().await;
            let time_ms = times.into_iter().flatten().min();
            self.state.lock().oldest = OldestKnown { at: Some(now.elapsed), time_ms };
            time_ms
        };
        time_ms.map_or(0, |time_ms| u64::try_from(now.wall_ms - time_ms).unwrap_or(0))
    }

    /// A lane in names.
    pub(super) fn source(&self, lane: &LaneKey) -> Option<(Place, Option<Arc<Partition>>)> {
        self.look(|state| {
            let source = state.sources.get(lane)?;
            let place = Place { topic: source.topic.clone(), partition: lane.partition };
            Some((place, source.partition.clone()))
        })
    }
}

impl State {
    /// Records not settled, over all lanes.
    pub(super) fn lag(&self) -> u64 {
        let lag = |lane| self.delivery.counts(lane).map_or(0, |counts| counts.lag);
        self.sources.keys().map(lag).sum()
    }

    /// Partitions with something that is not settled, and their floor.
    fn floors(&self) -> Vec<(Arc<Partition>, u64)> {
        let floor = |(lane, source): (&LaneKey, &Source)| {
            let counts = self.delivery.counts(lane)?;
            let partition = source.partition.clone().filter(|_| counts.lag > 0)?;
            Some((partition, counts.floor))
        };
        self.sources.iter().filter_map(floor).collect()
    }
}

/// When the first record at or past `floor` was appended.
pub(super) async fn oldest_of(partition: Arc<Partition>, floor: u64) -> Option<i64> {
    let from = Offset(floor).max(partition.visible().log_start);
    partition.append_time_ms(from).await.ok().flatten()
}

//! The numbers of every subscription, for metrics.

use std::sync::Arc;

use riverrun_proto::Offset;
use tokio::task::yield_now;

use super::{DeliveryService, live::Live, webhook::WebhookStanding};
use crate::{
    delivery::{Counts, Tally},
    partition::Partition,
    quota::Quota,
};

/// One subscription in numbers.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Its name.
    pub name: Arc<str>,
    /// Delivery is stopped.
    pub paused: bool,
    /// Sessions that are there, or may come back.
    pub sessions: usize,
    /// What stands where, over all partitions. Its offsets mean nothing.
    pub counts: Counts,
    /// What happened since the broker started.
    pub tally: Tally,
    /// How its webhook stands, when it has or had one.
    pub webhook: Option<WebhookStanding>,
    /// Where the oldest record that is not settled lies, by partition that has one.
    pub unsettled: Vec<(Arc<Partition>, Offset)>,
}

impl DeliveryService {
    /// Every subscription, by name.
    pub async fn measure(&self) -> Vec<Measured> {
        let mut measured = Vec::new();
        for live in self.shared.all_live() {
            measured.push(live.measure());
            // With many, other work goes on between two.
            yield_now().await;
        }
        measured
    }

    /// The bound of open sessions, and how far it is used.
    pub fn sessions(&self) -> &Quota {
        &self.shared.sessions
    }
}

impl Live {
    fn measure(&self) -> Measured {
        self.look_at_ends();
        self.look(|state| {
            let lanes = state.counted();
            let mut counts = Counts::default();
            lanes.iter().for_each(|(_, one, _)| counts.add(one));
            let unsettled = lanes.into_iter().filter_map(|(_, one, partition)| {
                let partition = partition.filter(|_| one.lag > 0)?;
                let from = Offset(one.floor).max(partition.visible().log_start);
                Some((partition, from))
            });
            Measured {
                name: self.name.clone(),
                paused: state.paused,
                sessions: state.open_sessions(),
                counts,
                tally: state.delivery.tally(),
                webhook: Some(&state.webhook)
                    .filter(|standing| **standing != WebhookStanding::default())
                    .cloned(),
                unsettled: unsettled.collect(),
            }
        })
    }
}

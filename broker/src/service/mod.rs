//! The services: one verb per file. A service checks a request, finds the partition and calls one room.
//! Push is the exception: `delivery` also holds the sessions that are open and the subscriptions they work on, with their locks, and
//! takes changes of settings as the public API spells them.

pub mod admin;
pub mod commit;
pub mod delivery;
pub mod fetch;
pub mod group;
pub mod group_admin;
pub mod lookup;
pub mod metrics;
pub mod offsets;
pub mod produce;
pub mod reset;
pub mod stream;
pub mod watch;

use std::sync::Arc;

pub use self::{
    admin::AdminService,
    delivery::DeliveryService,
    fetch::{FetchFence, FetchService},
    group::GroupService,
    lookup::LookupService,
    metrics::MetricsService,
    produce::ProduceService,
    stream::StreamService,
    watch::WatchService,
};

/// Every service of the house, as its doors share them.
#[derive(Clone, Debug)]
pub struct Services {
    /// Appends records.
    pub produce: Arc<ProduceService>,
    /// Reads records.
    pub fetch: Arc<FetchService>,
    /// Tells when there is something to read.
    pub watch: Arc<WatchService>,
    /// Finds offsets.
    pub lookup: Arc<LookupService>,
    /// Streams of bytes and of JSON.
    pub streams: Arc<StreamService>,
    /// Describes and changes topics.
    pub admin: Arc<AdminService>,
    /// Groups and stored offsets.
    pub groups: Arc<GroupService>,
    /// Push subscriptions.
    pub delivery: Arc<DeliveryService>,
    /// What all of them measure.
    pub metrics: Arc<MetricsService>,
}

//! Metrics: gathers what the rooms know and what the meters counted, and tells it as OpenMetrics text.
//!
//! ```text
//! a door asks -> topics, groups, subscriptions are looked at -> ages of oldest records are looked up -> text
//! ```
//!
//! Nothing is gathered between two askings. One text is made at a time. Other work of the thread goes on between
//! two topics, groups or subscriptions, and the text is written away from it. Ages are looked up in the logs, so their number is bounded; those that were left
//! out are counted.

mod gather;
mod text;

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::{
    blocking,
    clock::Clock,
    config::MetricsConfig,
    metrics::{DoorMeter, Exposition, Refusals, ScrubMeter, WebMeter, WriteMeter},
    partition::DiskGauge,
    quota::Quota,
    service::{DeliveryService, GroupService},
    topic::Registry,
    traces::Traces,
};

/// What is measured.
#[derive(Debug)]
pub struct MeasuredRooms {
    /// Topics and partitions.
    pub registry: Arc<Registry>,
    /// Consumer groups.
    pub groups: Arc<GroupService>,
    /// Push subscriptions.
    pub delivery: Arc<DeliveryService>,
    /// Room on the disk.
    pub gauge: Arc<DiskGauge>,
    /// How long writing takes.
    pub writing: Arc<WriteMeter>,
}

/// Tells what the broker does in numbers.
#[derive(Debug)]
pub struct MetricsService {
    rooms: MeasuredRooms,
    options: MetricsConfig,
    clock: Clock,
    /// When the broker started, in milliseconds since 1970-01-01 UTC.
    started_ms: i64,
    refusals: Arc<Refusals>,
    scrubbing: Arc<ScrubMeter>,
    /// The meters of the doors. Only ever added to, when the broker starts.
    doors: Mutex<Vec<Arc<DoorMeter>>>,
    /// The requests of the web door, where there is one.
    web: OnceLock<Arc<WebMeter>>,
    /// Where doors begin spans. Set when the broker starts.
    traces: OnceLock<Traces>,
    /// Bounds to tell of. Only ever added to, when the broker starts.
    quotas: Mutex<Vec<Quota>>,
    /// Held while a text is made.
    rendering: tokio::sync::Mutex<()>,
}

impl MetricsService {
    /// A service over `rooms`.
    pub fn new(rooms: MeasuredRooms, options: MetricsConfig, clock: Clock) -> MetricsService {
        let sessions = rooms.delivery.sessions().clone();
        MetricsService {
            rooms,
            options,
            started_ms: clock.wall_ms(),
            clock,
            refusals: Arc::default(),
            scrubbing: Arc::default(),
            doors: Mutex::default(),
            web: OnceLock::new(),
            traces: OnceLock::new(),
            quotas: Mutex::new(vec![sessions]),
            rendering: tokio::sync::Mutex::default(),
        }
    }

    /// Where doors count what they refuse.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Where the scrubber counts what it reads.
    pub fn scrubbing(&self) -> &Arc<ScrubMeter> {
        &self.scrubbing
    }

    /// Tells of a door, too. `apis` are the names of its calls.
    pub fn add_door(&self, name: &'static str, apis: &'static [&'static str]) -> Arc<DoorMeter> {
        let door = Arc::new(DoorMeter::new(name, apis));
        self.doors.lock().push(door.clone());
        door
    }

    /// Tells of the requests of the web door, too. `names` are those of its calls.
    pub fn web_meter(&self, names: impl FnOnce() -> Vec<String>) -> Arc<WebMeter> {
        self.web.get_or_init(|| Arc::new(WebMeter::new(names()))).clone()
    }

    /// Spans begin here from now on, and are told of. Once, when the broker starts.
    pub fn set_traces(&self, traces: Traces) {
        let was_set = self.traces.set(traces).is_err();
        debug_assert!(!was_set, "set once, when the broker starts");
    }

    /// Where doors begin spans.
    pub fn traces(&self) -> Traces {
        self.traces.get().cloned().unwrap_or_default()
    }

    /// Tells of a bound, too.
    pub fn add_quota(&self, quota: &Quota) {
        self.quotas.lock().push(quota.clone());
    }

    /// Everything, as OpenMetrics text of the type [`crate::metrics::CONTENT_TYPE`].
    pub async fn render(self: &Arc<Self>) -> String {
        let _rendering = self.rendering.lock().await;
        let began = self.clock.elapsed();
        let seen = self.gather().await;
        let took = self.clock.elapsed().saturating_sub(began);
        let service = self.clone();
        let text = blocking::run(move || service.text(&seen, took)).await;
        // Only a broker that ends gives no thread for it.
        text.unwrap_or_else(|_| Exposition::default().finish())
    }
}

//! A broker without threads and doors: a simulation takes its steps and calls its services.

use std::sync::Arc;

use riverrun_storage::recycle::{RecycleLimits, RecyclePool};

use super::{Ground, Rooms, StartError, Work};
use crate::{
    blocking,
    config::Config,
    partition::{DiskGauge, Hands, Workers},
    service::Services,
    shutdown::Shutdown,
    topic::Registry,
};

/// The broker of a simulation.
#[derive(Debug)]
pub struct Simulated {
    rooms: Rooms,
    /// Steps of the workers.
    pub hands: Hands,
    shutdown: Shutdown,
}

impl Simulated {
    /// Numbers the ids that this thread gives from `first` on, so that a run can be repeated.
    pub fn number_ids(first: u64) {
        blocking::number_ids(first);
    }

    /// Opens everything on `ground` that a broker opens but threads, doors and housekeeping.
    ///
    /// # Errors
    /// As [`super::Broker::start`].
    pub fn open(config: Config, ground: &Ground) -> Result<Simulated, StartError> {
        let (workers, hands) = Workers::manual(2, &ground.clock);
        let gauge = Arc::new(DiskGauge::new(config.disk.free_bytes_min));
        let pool = RecyclePool::open(ground.disk.clone(), RecycleLimits::default())
            .map_err(|source| StartError::Io { op: "empty the recycled files", source })?;
        let shutdown = Shutdown::new();
        let resources = (gauge, Arc::new(pool), None);
        let rooms = Rooms::open((&Arc::new(config), ground), workers, resources, &shutdown)?;
        Ok(Simulated { rooms, hands, shutdown })
    }

    /// Work that runs beside the calls, once.
    pub fn background(&self) -> Vec<Work> {
        let works = [&self.rooms.groups, &self.rooms.subscriptions];
        works.into_iter().filter_map(|work| work.0.lock().take()).collect()
    }

    /// The services.
    pub fn services(&self) -> &Services {
        &self.rooms.services
    }

    /// The topics.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.rooms.registry
    }

    /// Tells those who wait that the end has come.
    pub fn begin_end(&self) {
        self.shutdown.begin();
    }
}

//! The composition root: opens every room, serves, and shuts down in order.
//!
//! ```text
//! start: disk -> threads -> metadata log -> partitions -> services -> serving threads -> listener
//! stop:  listener closed, waiting calls answered, calls in flight finished or cut -> partitions flushed
//!        and closed with a clean mark -> threads end -> directory unlocked
//! ```

mod rounds;
mod serving;
#[cfg(feature = "sim")]
pub mod simulated;

use std::{
    fmt, future::Future, io, net::SocketAddr, path::Path, pin::Pin, sync::Arc, time::Duration,
};

use parking_lot::Mutex;
use riverrun_proto::Offset;
use riverrun_storage::{
    data_dir::{DataDir, Meta, OpenDataDirError},
    disk::{Disk, RealDiskOptions},
    own_logs::{METADATA_LOG, SUBSCRIPTIONS_LOG},
    recycle::{RecycleLimits, RecyclePool},
};
use thiserror::Error;
use uuid::Uuid;

use self::serving::{Listeners, Serving};
use crate::{
    clock::Clock,
    config::{Config, ConfigError},
    gateway::webhook,
    metrics::WriteMeter,
    offset::disk_log::groups_log_id,
    partition::{
        DiskGauge, Partition, PartitionOpener, ReadOnly, StateLog, Workers,
        files::{OpenFiles, TooFewFiles},
        housekeeping::Housekeeper,
        state_log::{Replay, StateLogError},
    },
    quota::Quota,
    service::{
        AdminService, DeliveryService, FetchFence, FetchService, GroupService, LookupService,
        MetricsService, ProduceService, Services, StreamService, WatchService, admin::ClusterInfo,
        delivery::Surroundings, fetch::FetchLimits, group::OpenGroupsError, metrics::MeasuredRooms,
    },
    shutdown::{Shutdown, ShutdownWatch},
    subscription::{
        SubscriptionStore,
        disk_log::{
            Known, OpenSubscriptionsError, Opened, SubscriptionsLog, TakeIntoUse, open_log,
        },
    },
    topic::{
        Registry,
        registry::{RegistryError, RegistryLimits, is_log_in_use},
    },
    traces::Traces,
};

/// Time that calls in flight have to finish when the broker stops.
const GRACE: Duration = Duration::from_secs(4);

/// A broker that does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory is refused.
    #[error(transparent)]
    DataDir(#[from] OpenDataDirError),
    /// The address cannot be listened on.
    #[error("cannot listen on `{listen}`: {source}")]
    Listen {
        /// The setting it comes from.
        key: &'static str,
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The operating system gave no thread or file.
    #[error("cannot {op}: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The metadata log cannot be read.
    #[error("metadata: {0}")]
    Metadata(#[from] StateLogError),
    /// The subscriptions' log cannot be read.
    #[error(transparent)]
    Subscriptions(#[from] OpenSubscriptionsError),
    /// The groups' log cannot be read.
    #[error(transparent)]
    Groups(#[from] OpenGroupsError),
    /// The metadata log contradicts itself.
    #[error(transparent)]
    Registry(RegistryError),
    /// There are more partitions than this process can open.
    #[error(transparent)]
    OpenFiles(TooFewFiles),
}

impl From<RegistryError> for StartError {
    fn from(error: RegistryError) -> StartError {
        match error {
            RegistryError::OpenFiles(error) => StartError::OpenFiles(error),
            RegistryError::Malformed { .. } | RegistryError::Contradiction { .. } => {
                StartError::Registry(error)
            }
        }
    }
}

/// What the broker stands on. Tests bring their own.
#[derive(Debug)]
pub struct Ground {
    /// The data directory.
    pub disk: Arc<dyn Disk>,
    /// Its identity.
    pub meta: Meta,
    /// Time.
    pub clock: Clock,
    /// The held data directory, when it is a real one.
    pub data_dir: Option<DataDir>,
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    rooms: Rooms,
    serving: Option<Serving>,
    shutdown: Arc<Shutdown>,
    /// Why nothing can be written, when that is so.
    read_only: Option<ReadOnly>,
    /// Held until the end.
    data_dir: Option<DataDir>,
}

/// Work that runs beside the calls; taken by whoever runs it.
#[derive(Clone)]
struct Background(Arc<Mutex<Option<Work>>>);

/// Work for a serving thread.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").finish_non_exhaustive()
    }
}

/// What stands behind the doors.
#[derive(Clone, Debug)]
struct Rooms {
    registry: Arc<Registry>,
    services: Services,
    workers: Arc<Workers>,
    gauge: Arc<DiskGauge>,
    /// The broker's own logs, as far as they are there.
    own_logs: Vec<Arc<Partition>>,
    /// The groups' work in the background; taken when serving starts.
    groups: Background,
    /// The subscriptions' work in the background; taken when serving starts.
    subscriptions: Background,
}

impl Broker {
    /// Opens the data directory, everything in it, and the doors. Blocks; not for async code.
    ///
    /// A data directory that cannot be written to is served for reading: every write is refused, and nothing
    /// in it is changed.
    ///
    /// # Errors
    /// When something is not as it should be; nothing was changed then.
    pub fn start(config: Config) -> Result<Broker, StartError> {
        if !config.traces.otlp_endpoint.is_empty() {
            let (key, feature) = ("traces.otlp_endpoint", "otlp");
            return Err(ConfigError::NotBuilt { key, feature }.into());
        }
        Broker::start_traced(config, Traces::default())
    }

    /// As [`Broker::start`], with somebody who exports the spans of calls to the collector that the settings name.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn start_traced(config: Config, traces: Traces) -> Result<Broker, StartError> {
        config.check()?;
        let (data_dir, read_only) = open_data_dir(&config.data_dir)?;
        let (disk, meta, clock) = (data_dir.disk(), data_dir.meta(), Clock::real());
        let ground = Ground { disk, meta, clock, data_dir: Some(data_dir) };
        Broker::start_with(config, ground, (read_only, traces))
    }

    /// As [`Broker::start`], on the given ground.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn start_on(config: Config, ground: Ground) -> Result<Broker, StartError> {
        Broker::start_with(config, ground, (None, Traces::default()))
    }

    fn start_with(
        config: Config,
        ground: Ground,
        (read_only, traces): (Option<ReadOnly>, Traces),
    ) -> Result<Broker, StartError> {
        config.check()?;
        let tls = webhook::tls(&config.webhooks)?;
        let config = Arc::new(config);
        let web = config.http.enabled.then(|| listen("http.listen", config.http.listen));
        let listeners =
            Listeners { grpc: listen("grpc.listen", config.grpc.listen)?, web: web.transpose()? };
        let gauge =
            DiskGauge::new(config.disk.free_bytes_min).named(name_of_disk(&config, &ground));
        let is_real = ground.data_dir.is_some();
        let files = if is_real { OpenFiles::of_process() } else { OpenFiles::unbounded() };
        let gauge = Arc::new(gauge.with_files(files));
        let (pool, housekeeper) = match read_only {
            Some(_) => (Arc::new(RecyclePool::unused(ground.disk.clone())), None),
            None => {
                let (pool, housekeeper) = open_house(&config, &ground, &gauge)?;
                (pool, Some(housekeeper))
            }
        };
        let shutdown = Arc::new(Shutdown::new());
        let resources = (gauge, pool, read_only.clone());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = &config.threads;
        let workers = Workers::start(threads.writer_count(cores), threads.flushers, &ground.clock)
            .map_err(|source| StartError::Io { op: "start threads", source })?;
        let rooms = Rooms::open((&config, &ground), workers, resources, &shutdown)?;
        rooms.services.metrics.set_traces(traces);
        let serving = Serving::start(&config, &rooms, (listeners, housekeeper, tls), &shutdown)
            .map_err(|source| StartError::Io { op: "start serving", source })?;
        let data_dir = ground.data_dir;
        Ok(Broker { rooms, serving: Some(serving), shutdown, read_only, data_dir })
    }

    /// Why nothing can be written, when that is so.
    pub fn read_only(&self) -> Option<&ReadOnly> {
        self.read_only.as_ref()
    }

    /// What the file system of the data directory does not keep over a power cut, as a sentence.
    pub fn durability_caveat(&self) -> Option<String> {
        self.data_dir.as_ref().and_then(|data_dir| data_dir.file_system().caveat())
    }

    /// True when logs are only read because there was no room to recover them.
    pub fn waits_for_room(&self) -> bool {
        self.rooms.gauge.is_waited_for()
    }

    /// True when logs wait for room and it has come: a broker that is started in the place of this one will
    /// recover them.
    pub fn has_room_to_recover(&self) -> bool {
        self.rooms.gauge.is_worth_a_try()
    }

    /// Address of the gRPC door.
    pub fn address(&self) -> SocketAddr {
        self.serving.as_ref().expect("served until it is stopped").address()
    }

    /// Address of the web door, when there is one.
    pub fn web_address(&self) -> Option<SocketAddr> {
        self.serving.as_ref().expect("served until it is stopped").web_address()
    }

    /// The services, for callers in the same process.
    pub fn services(&self) -> &Services {
        &self.rooms.services
    }

    /// The topics, for callers in the same process.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.rooms.registry
    }

    /// Refuses new calls, gives those in flight a few seconds to finish, flushes, and leaves clean marks.
    /// Blocks; not for async code.
    pub fn stop(mut self) {
        self.end(GRACE);
    }

    fn end(&mut self, grace: Duration) {
        let Some(serving) = self.serving.take() else { return };
        self.shutdown.begin();
        serving.stop(&self.rooms, grace);
        self.rooms.workers.stop();
        tracing::info!("stopped");
    }
}

impl Drop for Broker {
    /// As [`Broker::stop`], but calls in flight are cut.
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

impl Rooms {
    fn open(
        (config, ground): (&Arc<Config>, &Ground),
        workers: Workers,
        (gauge, pool, read_only): (Arc<DiskGauge>, Arc<RecyclePool>, Option<ReadOnly>),
        shutdown: &Shutdown,
    ) -> Result<Rooms, StartError> {
        let workers = Arc::new(workers);
        let opener = PartitionOpener {
            disk: ground.disk.clone(),
            clock: ground.clock.clone(),
            gauge: gauge.clone(),
            pool,
            workers: workers.clone(),
            read_only,
            starts: Arc::default(),
        };
        let (metadata, groups_log, subscriptions_log) = open_state_logs(&opener)?;
        let own_logs = [metadata.0.partition(), groups_log.0.partition()].into_iter();
        let own_logs = own_logs.chain(subscriptions_log.partition()).cloned().collect();
        let limits = RegistryLimits {
            topics_max: config.limits.topics_max,
            partitions_max: config.limits.partitions_max,
        };
        let registry = Arc::new(Registry::open(metadata, opener.clone(), limits)?);
        let (groups, background) =
            GroupService::open(groups_log, registry.clone(), (&ground.clock, &config.groups))?;
        let stored = open_subscriptions(subscriptions_log, &registry, (config, ground))?;
        let measured = (gauge.clone(), workers.meter().clone());
        let stored = (Arc::new(groups), stored);
        let (services, subscriptions) =
            services((config, ground), &registry, stored, measured, shutdown.watch());
        opener.starts.tell();
        Ok(Rooms {
            registry,
            services,
            workers,
            gauge,
            own_logs,
            groups: Background::new(background),
            subscriptions,
        })
    }
}

impl Background {
    fn new(work: impl Future<Output = ()> + Send + 'static) -> Background {
        Background(Arc::new(Mutex::new(Some(Box::pin(work)))))
    }
}

/// The store of subscriptions, the log below it, and its writer.
type StoredSubscriptions = (SubscriptionStore, Arc<SubscriptionsLog>, Work);

/// Brings subscriptions back. Before the first entry of their log the metadata says that it is in use.
fn open_subscriptions(
    log: Opened,
    registry: &Arc<Registry>,
    (config, ground): (&Config, &Ground),
) -> Result<StoredSubscriptions, StartError> {
    let registry = registry.clone();
    let take_into_use: TakeIntoUse = Box::new(move || {
        let registry = registry.clone();
        Box::pin(async move { registry.take_log_into_use(SUBSCRIPTIONS_LOG).await })
    });
    let limits = (ground.clock.clone(), config.subscriptions.subscriptions_max as usize);
    let (store, log, writer) =
        SubscriptionsLog::open(log, take_into_use, limits).map_err(OpenSubscriptionsError::from)?;
    Ok((store, log, Box::pin(writer)))
}

/// What a start found in a state log, and the log.
type OpenedStateLog = (StateLog, Replay);

/// Opens the metadata log, the groups' log and the subscriptions' log, before the topics can take the room that
/// these may need on a full disk. They are made only while nothing can have been in them: from a missing one
/// nothing may be concluded, least of all that there are no topics.
fn open_state_logs(
    opener: &PartitionOpener,
) -> Result<(OpenedStateLog, OpenedStateLog, Opened), StartError> {
    let dirs = opener.topic_dirs().map_err(StateLogError::from)?;
    let is_first = dirs.iter().all(|topic_id| *topic_id == METADATA_LOG);
    let open = |exists| if exists { StateLog::open_existing } else { StateLog::open };
    let metadata = open(!is_first)(opener, METADATA_LOG)?;
    // The groups' log is made after this one and before its first record.
    let is_used = metadata.0.partition().facts().log_end > Offset::ZERO;
    let groups = open(is_used)(opener, groups_log_id(0)).map_err(OpenGroupsError::from)?;
    let is_in_use = is_log_in_use(&metadata.1, SUBSCRIPTIONS_LOG)?;
    let known = Known { is_in_use, read_only: metadata.0.partition().read_only().cloned() };
    let subscriptions = open_log(opener, known).map_err(OpenSubscriptionsError::from)?;
    Ok((metadata, groups, subscriptions))
}

fn services(
    (config, ground): (&Config, &Ground),
    registry: &Arc<Registry>,
    (groups, stored): (Arc<GroupService>, StoredSubscriptions),
    (gauge, writing): (Arc<DiskGauge>, Arc<WriteMeter>),
    shutdown: ShutdownWatch,
) -> (Services, Background) {
    let limits = &config.limits;
    let quota = |name, limit| Quota::new(name, limit, limits.quota_wait);
    let in_flight = quota("limits.in_flight_bytes_max", limits.in_flight_bytes_max);
    let waiters = quota("limits.waiters_max", limits.waiters_max);
    let reading = quota("limits.read_bytes_max", limits.read_bytes_max);
    let surroundings = Surroundings {
        clock: ground.clock.clone(),
        config: &config.subscriptions,
        reading: reading.clone(),
        shutdown: shutdown.clone(),
        quota_wait: limits.quota_wait,
    };
    let coordinator = groups.coordinator().clone();
    let (delivery, subscriptions) =
        DeliveryService::new(stored, registry.clone(), coordinator, surroundings);
    let fetch_limits = FetchLimits {
        waiters: waiters.clone(),
        reading: reading.clone(),
        bytes_max: limits.fetch_bytes_max,
    };
    let Meta { cluster_id, node_id } = ground.meta;
    let cluster = ClusterInfo { cluster_id, node_id };
    let produce = ProduceService::new(registry.clone(), ground.clock.clone(), in_flight.clone());
    let fence: Option<Arc<dyn FetchFence>> = Some(groups.clone());
    let fetch = FetchService::new(registry.clone(), fetch_limits, fence, shutdown);
    let delivery = Arc::new(delivery);
    let measured = MeasuredRooms {
        registry: registry.clone(),
        groups: groups.clone(),
        delivery: delivery.clone(),
        gauge,
        writing,
    };
    let metrics = MetricsService::new(measured, config.metrics.clone(), ground.clock.clone());
    [&in_flight, &reading, &waiters].into_iter().for_each(|quota| metrics.add_quota(quota));
    let (produce, fetch) = (Arc::new(produce), Arc::new(fetch));
    let clock = ground.clock.clone();
    let streams = StreamService::new(registry.clone(), produce.clone(), fetch.clone(), clock);
    let services = Services {
        produce,
        fetch,
        streams: Arc::new(streams),
        watch: Arc::new(WatchService::new(registry.clone(), waiters.clone())),
        lookup: Arc::new(LookupService::new(registry.clone())),
        admin: Arc::new(AdminService::new(registry.clone(), cluster)),
        groups,
        delivery,
        metrics: Arc::new(metrics),
    };
    (services, Background::new(subscriptions))
}

/// Opens the data directory; for reading only when it cannot be written to, and then says why.
fn open_data_dir(path: &Path) -> Result<(DataDir, Option<ReadOnly>), OpenDataDirError> {
    let new = Meta { cluster_id: Uuid::new_v4(), node_id: 0 };
    let options = RealDiskOptions::default();
    match DataDir::open(path, new, options) {
        Err(OpenDataDirError::ReadOnly { source, .. }) => {
            let data_dir = DataDir::open_read_only(path, options)?;
            let (dir, cause) = (path.into(), source.to_string().into());
            let read_only = ReadOnly::Directory { dir, cause };
            tracing::warn!("{read_only}");
            Ok((data_dir, Some(read_only)))
        }
        opened => Ok((opened?, None)),
    }
}

/// What people call the disk that everything lies on.
fn name_of_disk(config: &Config, ground: &Ground) -> String {
    let path = config.data_dir.display();
    match &ground.data_dir {
        Some(data_dir) => {
            let (file_system, device) = (data_dir.file_system().name(), data_dir.device());
            format!("data directory `{path}` (device {device}, {file_system})")
        }
        None => format!("data directory `{path}`"),
    }
}

/// What keeps files for others to use, and what looks after free room.
fn open_house(
    config: &Config,
    ground: &Ground,
    gauge: &Arc<DiskGauge>,
) -> Result<(Arc<RecyclePool>, Housekeeper), StartError> {
    let limits = RecycleLimits {
        count_max: config.disk.recycle_files_max,
        bytes_max: config.disk.recycle_bytes_max,
        ..RecycleLimits::default()
    };
    let pool = RecyclePool::open(ground.disk.clone(), limits)
        .map_err(|source| StartError::Io { op: "empty the recycled files", source })?;
    let pool = Arc::new(pool);
    let housekeeper = Housekeeper::open(
        ground.disk.clone(),
        ground.clock.clone(),
        (gauge.clone(), pool.clone()),
        config.disk.free_bytes_min,
    );
    let housekeeper =
        housekeeper.map_err(|source| StartError::Io { op: "open the ballast file", source })?;
    Ok((pool, housekeeper))
}

fn listen(key: &'static str, address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let listening = std::net::TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listening.map_err(|source| StartError::Listen { key, listen: address, source })
}

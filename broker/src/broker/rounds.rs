//! What the house does by itself, again and again, until its end is announced.
//!
//! ```text
//! keep_house       room on the disk, retention, files of deleted topics   every `disk.housekeeping_interval`
//! remove_streams   streams whose time is over                             as often, one at a time
//! compact          keys of compacted topics                               every fifteenth time
//! scrub            sealed segments are read again                         at a pace of its own
//! ```
//!
//! Each goes its own way, so that none of them holds up another.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    task::yield_now,
    time::{Interval, MissedTickBehavior, interval, sleep},
};
use tonic_health::server::HealthReporter;

use super::Rooms;
use crate::{
    clock::Clock,
    config::Config,
    gateway::grpc::{Health, set_health},
    partition::{
        Partition,
        housekeeping::{self, Housekeeper},
        scrub::{ScrubPace, Scrubber},
    },
    shutdown::{Shutdown, ShutdownWatch},
    topic::Registry,
};

/// Rounds of housekeeping between two of compaction.
const COMPACTION_ROUNDS: u32 = 15;

/// Tells that the broker serves and does the rounds until the end is announced.
pub(super) fn look_after(
    registry: Arc<Registry>,
    config: &Config,
    (housekeeper, health): (Option<Housekeeper>, HealthReporter),
    shutdown: &Shutdown,
) -> impl Future<Output = ()> + Send + 'static {
    let (end, clock) = (shutdown.watch(), Clock::real());
    let rounds = config.disk.housekeeping_interval;
    async move {
        set_health(&health, Health::Serving).await;
        match housekeeper {
            Some(housekeeper) => {
                tokio::join!(
                    keep_house((housekeeper, &health), &registry, rounds, end.clone()),
                    remove_streams(&registry, rounds, end.clone()),
                    compact(&registry, (clock, rounds * COMPACTION_ROUNDS), end),
                );
            }
            // Nothing can be written, so there is nothing to look after.
            None => end.begun().await,
        }
        set_health(&health, Health::Ended).await;
    }
}

/// Does the rounds until the end is announced.
async fn keep_house(
    (mut housekeeper, health): (Housekeeper, &HealthReporter),
    registry: &Registry,
    rounds: Duration,
    shutdown: ShutdownWatch,
) {
    let mut told = Health::Serving;
    let mut rounds = Rounds::new(rounds, shutdown);
    while rounds.next().await {
        housekeeper.look_at_space();
        let found = match registry.failure() {
            None => Health::Serving,
            Some(_) if housekeeper.has_disk_failed() => Health::OnlyReads,
            Some(_) => Health::NoChanges,
        };
        if std::mem::replace(&mut told, found) != found {
            set_health(health, found).await;
        }
        housekeeper.round(&registry.open_partitions()).await;
        registry.remove_doomed().await;
    }
}

/// Removes streams whose time is over until the end is announced. Thousands may be over at one moment, and the room on the
/// disk is to be looked at meanwhile.
async fn remove_streams(registry: &Registry, rounds: Duration, shutdown: ShutdownWatch) {
    let mut rounds = Rounds::new(rounds, shutdown.clone());
    while rounds.next().await {
        for topic_id in registry.streams_over() {
            if shutdown.has_begun() {
                return;
            }
            if let Err(error) = registry.remove_stream(topic_id).await {
                tracing::warn!(%topic_id, %error, "an expired stream is still there");
                break;
            }
        }
    }
}

/// Compacts keys until the end is announced; one partition at a time.
async fn compact(registry: &Registry, (clock, rounds): (Clock, Duration), shutdown: ShutdownWatch) {
    let mut rounds = Rounds::new(rounds, shutdown.clone());
    while rounds.next().await {
        let partitions = registry.open_partitions();
        tokio::select! {
            () = housekeeping::compact(&partitions, &clock) => {}
            () = shutdown.begun() => return,
        }
    }
}

/// Turns at a steady pace until the end is announced. A turn that takes long delays those after it.
struct Rounds {
    tick: Interval,
    end: ShutdownWatch,
}

impl Rounds {
    fn new(pace: Duration, end: ShutdownWatch) -> Rounds {
        let mut tick = interval(pace);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Rounds { tick, end }
    }

    /// Waits for the next turn. False at the end.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.tick.tick() => true,
            () = self.end.begun() => false,
        }
    }
}

/// What re-reads sealed segments, unless the settings say that nothing does.
pub(super) fn scrubber(config: &Config, rooms: &Rooms) -> Option<Scrubber> {
    let pace = ScrubPace {
        bytes_per_second: config.disk.scrub_bytes_per_second,
        interval: config.disk.scrub_interval,
    };
    Scrubber::new(pace, Clock::real(), rooms.services.metrics.scrubbing().clone())
}

/// Re-reads sealed segments until the end is announced.
pub(super) async fn scrub(mut scrubber: Scrubber, rooms: Rooms, shutdown: ShutdownWatch) {
    let all = || -> Vec<Arc<Partition>> {
        let topics = rooms.registry.open_partitions();
        topics.into_iter().chain(rooms.own_logs.iter().cloned()).collect()
    };
    let pass = async {
        loop {
            let wait = scrubber.turn(all).await;
            sleep(wait).await;
            yield_now().await;
        }
    };
    tokio::select! {
        () = pass => {}
        () = shutdown.begun() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use riverrun_proto::TopicId;
    use riverrun_storage::{
        disk::{Disk, sim::SimDisk},
        recycle::{RecycleLimits, RecyclePool},
    };
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;
    use crate::{
        partition::{DiskGauge, PartitionOpener, StateLog, Workers},
        stream::StreamFacts,
        topic::registry::{NewStream, RegistryLimits},
    };

    /// Longest time that anything may take.
    const SOON: Duration = Duration::from_secs(20);

    /// Lets the rounds go on until something is so.
    async fn until(is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                yield_now().await;
            }
        };
        timeout(SOON, waiting).await.expect("in time");
    }

    #[tokio::test]
    async fn the_room_on_the_disk_is_looked_at_while_streams_wait_to_be_removed() {
        let (clock, hand) = Clock::manual(1_800_000_000_000);
        let sim = SimDisk::new(1);
        sim.create_dir(Path::new("logs")).unwrap();
        sim.sync_dir(Path::new("")).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let gauge = Arc::new(DiskGauge::new(1 << 20));
        let pool = Arc::new(RecyclePool::open(disk.clone(), RecycleLimits::default()).unwrap());
        let opener = PartitionOpener {
            disk: disk.clone(),
            clock: clock.clone(),
            gauge: gauge.clone(),
            pool: pool.clone(),
            workers: Arc::new(Workers::start(1, 1, &clock).unwrap()),
            read_only: None,
            starts: Arc::default(),
        };
        let metadata = StateLog::open(&opener, TopicId(Uuid::from_u128(1))).unwrap();
        let limits = RegistryLimits { topics_max: 10, partitions_max: 10 };
        let registry = Arc::new(Registry::open(metadata, opener, limits).unwrap());
        let facts = StreamFacts { ttl_s: Some(10), ..StreamFacts::bytes() };
        let (message_bytes_max, content) = (None, Vec::new());
        let stream = NewStream { name: "s".into(), facts, message_bytes_max, content };
        registry.create_stream(stream).await.unwrap();
        hand.advance(Duration::from_secs(10));
        assert_eq!(registry.streams_over().len(), 1);

        // A change that takes its time.
        let other = registry.hold_changes().await;

        let housekeeper = Housekeeper::open(disk, clock, (gauge.clone(), pool), 1 << 20).unwrap();
        let mut config = Config::default();
        config.disk.housekeeping_interval = Duration::from_millis(1);
        let (health, _) = tonic_health::server::health_reporter();
        let shutdown = Shutdown::new();
        let rounds = look_after(registry.clone(), &config, (Some(housekeeper), health), &shutdown);
        let rounds = tokio::spawn(rounds);
        for capacity in [Some(1), None, Some(1)] {
            sim.set_capacity(capacity);
            until(|| gauge.check().is_err() == capacity.is_some()).await;
        }
        sim.set_capacity(None);
        drop(other);
        until(|| registry.topic("s").is_err()).await;
        shutdown.begin();
        timeout(SOON, rounds).await.expect("in time").unwrap();
    }
}

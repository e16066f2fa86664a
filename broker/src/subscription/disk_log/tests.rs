//! The log on a simulated disk: when it may be made, when it must be there, and power loss at every step.

use std::path::Path;

use riverrun_storage::{
    disk::{
        Disk,
        sim::{CrashPolicy, SimDisk},
    },
    own_logs::METADATA_LOG,
    recycle::{RecycleLimits, RecyclePool},
};

use super::*;
use crate::{
    delivery::{Attempt, Change, FailureCause, Run},
    partition::{DiskGauge, Workers},
    subscription::{
        SubscriptionSettings,
        model::{key, topic},
        store::NewSubscription,
    },
    test_random::Random,
    topic::{
        Registry,
        registry::{NewTopic, RegistryLimits, is_log_in_use},
    },
};

/// As much of a broker as subscriptions need.
struct House {
    opener: PartitionOpener,
    registry: Arc<Registry>,
    store: SubscriptionStore,
    log: Arc<SubscriptionsLog>,
}

fn empty_disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("logs")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk
}

fn opener(disk: &SimDisk, read_only: Option<ReadOnly>) -> PartitionOpener {
    let clock = Clock::manual(1_000).0;
    let workers = Arc::new(Workers::start(1, 1, &clock).unwrap());
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let pool = Arc::new(RecyclePool::open(disk.clone(), RecycleLimits::default()).unwrap());
    let gauge = Arc::new(DiskGauge::new(1 << 20));
    PartitionOpener { disk, clock, gauge, pool, workers, read_only, starts: Arc::default() }
}

impl House {
    /// What a start of the broker does, and whether the log is in use.
    fn start(opener: PartitionOpener) -> Result<(House, bool), OpenLogError> {
        let metadata = DiskLog::open(&opener, METADATA_LOG)?;
        let is_in_use = is_log_in_use(&metadata.1, SUBSCRIPTIONS_LOG).unwrap();
        let read_only = metadata.0.partition().read_only().cloned();
        let opened = open_log(&opener, Known { is_in_use, read_only })?;
        let limits = RegistryLimits { topics_max: 10, partitions_max: 10 };
        let registry = Arc::new(Registry::open(metadata, opener.clone(), limits).unwrap());
        let taking = registry.clone();
        let take_into_use: TakeIntoUse = Box::new(move || {
            let registry = taking.clone();
            Box::pin(async move { registry.take_log_into_use(SUBSCRIPTIONS_LOG).await })
        });
        let limits = (opener.clock.clone(), 10);
        let (store, log, writer) = SubscriptionsLog::open(opened, take_into_use, limits).unwrap();
        tokio::spawn(writer);
        Ok((House { opener, registry, store, log }, is_in_use))
    }

    fn on(disk: &SimDisk) -> (House, bool) {
        House::start(opener(disk, None)).unwrap()
    }

    async fn stop(self) {
        self.log.close(&self.store).await;
        self.registry.log().partition().close().await.unwrap();
    }
}

fn new(name: &str) -> NewSubscription {
    NewSubscription {
        name: name.into(),
        topic_ids: vec![topic(3)],
        settings: SubscriptionSettings::default(),
        starts: Vec::new(),
    }
}

fn done(start: u64, end: u64) -> Change {
    Change::Done { lane: key(3, 0), run: Run::new(start, end) }
}

fn failed(offset: u64, failures: u32) -> Change {
    let (session, reason) = ("s".into(), "r".into());
    let attempt = Attempt { time_ms: 1, cause: FailureCause::Expired, session, reason };
    Change::Failed { lane: key(3, 0), offset, failures, not_before_ms: 2, attempt }
}

/// Earlier versions left a metadata log with topics and no log of subscriptions.
#[tokio::test]
async fn a_data_directory_of_an_earlier_version_gets_the_log() {
    let disk = empty_disk();
    {
        let opener = opener(&disk, None);
        let metadata = DiskLog::open(&opener, METADATA_LOG).unwrap();
        let limits = RegistryLimits { topics_max: 10, partitions_max: 10 };
        let registry = Registry::open(metadata, opener, limits).unwrap();
        let given = Default::default();
        let new = NewTopic { name: "t".into(), partition_count: 1, given, validate_only: false };
        registry.create(new).await.unwrap();
    }
    let disk = disk.crash(CrashPolicy::lose_all());
    let (house, was_in_use) = House::on(&disk);
    assert!(!was_in_use && house.registry.topic("t").is_ok());
    house.stop().await;
    let (house, was_in_use) = House::on(&disk);
    assert!(!was_in_use, "nothing was stored in it, so an earlier version may come back");
    house.store.create(new("s")).await.unwrap();
    house.stop().await;
    let (house, was_in_use) = House::on(&disk);
    assert!(was_in_use && house.store.subscription("s").is_some());
}

#[tokio::test]
async fn a_lost_log_is_refused_once_it_was_in_use() {
    let disk = empty_disk();
    let (house, _) = House::on(&disk);
    let opener = house.opener.clone();
    house.stop().await;
    opener.remove_topic(SUBSCRIPTIONS_LOG).unwrap();
    let (house, _) = House::on(&disk);
    house.store.create(new("s")).await.unwrap();
    // The fact outlives a snapshot of the metadata.
    house.registry.snapshot().await.unwrap();
    let opener = house.opener.clone();
    house.stop().await;
    opener.remove_topic(SUBSCRIPTIONS_LOG).unwrap();
    let refused = House::start(opener).err().expect("refused").to_string();
    assert!(refused.contains("00000000-0000-0000-0000-000000000200"), "{refused}");
    assert!(refused.contains("are lost"), "{refused}");
}

#[tokio::test]
async fn what_can_only_be_read_is_served_and_refuses_every_change() {
    let disk = empty_disk();
    let read_only = || ReadOnly::Directory { dir: Path::new("d").into(), cause: "ro".into() };
    let refused = crate::subscription::StoreError::ReadOnly(read_only());
    let (house, _) = House::on(&disk);
    let writable = house.opener.clone();
    house.stop().await;
    writable.remove_topic(SUBSCRIPTIONS_LOG).unwrap();
    let (house, _) = House::start(opener(&disk, Some(read_only()))).unwrap();
    assert_eq!(house.store.create(new("s")).await, Err(refused.clone()));
    assert!(!writable.topic_dirs().unwrap().contains(&SUBSCRIPTIONS_LOG), "nothing is made");
    let (house, _) = House::on(&disk);
    house.store.create(new("s")).await.unwrap();
    house.stop().await;
    let (house, _) = House::start(opener(&disk, Some(read_only()))).unwrap();
    let number = house.store.subscription("s").expect("readable").number;
    let sequence = house.store.record(number, [done(0, 1)]);
    assert_eq!(house.store.settled(sequence).await, Err(refused));
}

/// What became durable of the story below before the power was cut.
#[derive(Debug, Default)]
struct Confirmed {
    created: bool,
    floor: u64,
    failures: u32,
}

/// Creates a subscription and settles records one after another, until the power is cut.
async fn story(house: &House) -> Confirmed {
    let mut confirmed = Confirmed::default();
    let Ok(created) = house.store.create(new("s")).await else { return confirmed };
    confirmed.created = true;
    let number = created.subscription.unwrap().number;
    for round in 1..=4_u32 {
        let next = u64::from(round) * 3;
        let changes = [done(next - 3, next), failed(50, round)];
        let sequence = house.store.record(number, changes);
        if house.store.settled(sequence).await.is_err() {
            break;
        }
        (confirmed.floor, confirmed.failures) = (next, round);
    }
    confirmed
}

/// Power loss at every call that changes the disk, from the first start on.
#[test]
fn a_power_loss_at_any_step_takes_back_nothing_confirmed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let steps = runtime.block_on(async {
        let disk = empty_disk();
        let opener = opener(&disk, None);
        let before = disk.step_count();
        let (house, _) = House::start(opener).unwrap();
        let confirmed = story(&house).await;
        assert_eq!((confirmed.floor, confirmed.failures), (12, 4));
        disk.step_count() - before
    });
    assert!(steps > 20, "{steps} steps");
    let mut random = Random::new(std::env::var("SEED").map_or(7, |seed| seed.parse().unwrap()));
    for step in 1..=steps {
        runtime.block_on(async {
            let disk = empty_disk();
            let opener = opener(&disk, None);
            let end = disk.step_count() + step;
            disk.cut_power_at(step);
            let confirmed = match House::start(opener) {
                Err(_) => Confirmed::default(),
                Ok((house, _)) => {
                    tokio::select! {
                        confirmed = story(&house) => confirmed,
                        never = out_of_power(&disk, end, &house) => never,
                    }
                }
            };
            check_after(&disk, &confirmed, random.next(), step).await;
        });
    }
}

/// Closes the store once the power is cut, so that it waits for no room.
async fn out_of_power(disk: &SimDisk, end: u64, house: &House) -> Confirmed {
    while disk.step_count() < end {
        tokio::task::yield_now().await;
    }
    house.store.close();
    std::future::pending().await
}

async fn check_after(disk: &SimDisk, confirmed: &Confirmed, fate: u64, step: u64) {
    for policy in [CrashPolicy::lose_all(), CrashPolicy::random(fate), CrashPolicy::keep_all()] {
        let disk = disk.copy().crash(policy);
        let (house, _) = House::on(&disk);
        let found = house.store.subscription("s");
        assert!(found.is_some() || !confirmed.created, "step {step}: the subscription is lost");
        let Some(found) = found else { continue };
        let lane = house.store.lane(found.number, &key(3, 0)).unwrap_or_default().image;
        let failures = lane.failures.get(&50).map_or(0, |failed| failed.failures);
        assert!(lane.floor >= confirmed.floor, "step {step}: {} < {confirmed:?}", lane.floor);
        assert!(failures >= confirmed.failures, "step {step}: {failures} < {confirmed:?}");
        // What was not confirmed is there as a whole or not at all.
        assert!(lane.floor <= confirmed.floor + 3 && lane.done.is_empty(), "step {step}");
        assert_eq!(lane.floor, u64::from(failures) * 3, "step {step}");
    }
}

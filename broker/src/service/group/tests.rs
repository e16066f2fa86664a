//! The verbs about groups over a simulated disk: bounds, positions, resets, lag, and power loss.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use riverrun_proto::{
    Offset, Record, TopicPartition,
    batch::{BatchBuilder, BuilderOptions, Compression},
};
use riverrun_storage::{
    disk::{
        Disk,
        sim::{CrashPolicy, SimDisk},
    },
    recycle::{RecycleLimits, RecyclePool},
};

use super::*;
use crate::{
    clock::ClockHand,
    group::event::EPOCH_LEAVE,
    offset::{StartPolicy, disk_log::groups_log_id},
    partition::{DiskGauge, Durability, PartitionOpener, WaitFor, Workers},
    service::{
        commit::{GroupCaller, OffsetToCommit},
        group_admin::{Lag, PartitionDescription},
        reset::{OffsetMoved, ResetRequest, ResetTarget},
    },
    test_random::Random,
    topic::registry::{NewTopic, RegistryLimits, TopicChange},
};

struct House {
    disk: SimDisk,
    hand: ClockHand,
    clock: Clock,
    groups: GroupService,
    registry: Arc<Registry>,
}

const START_MS: i64 = 1_000_000;

impl House {
    async fn new() -> House {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new("logs")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        let (clock, hand) = Clock::manual(START_MS);
        let house = House::on(disk, clock, hand).await;
        house.create("t", 3).await;
        house
    }

    async fn on(disk: SimDisk, clock: Clock, hand: ClockHand) -> House {
        let workers = Arc::new(Workers::start(1, 1, &clock).unwrap());
        let gauge = Arc::new(DiskGauge::new(1 << 20));
        let pool =
            Arc::new(RecyclePool::open(Arc::new(disk.clone()), RecycleLimits::default()).unwrap());
        let opener = PartitionOpener {
            disk: Arc::new(disk.clone()),
            clock: clock.clone(),
            gauge,
            pool,
            workers: workers.clone(),
            read_only: None,
            starts: Arc::default(),
        };
        let metadata =
            StateLog::open(&opener, riverrun_proto::TopicId(uuid::Uuid::from_u128(1))).unwrap();
        let limits = RegistryLimits { topics_max: 100, partitions_max: 1_000 };
        let registry = Arc::new(Registry::open(metadata, opener.clone(), limits).unwrap());
        let limits = crate::config::GroupsConfig { groups_max: 100, members_per_group_max: 100 };
        let log = StateLog::open(&opener, groups_log_id(0)).unwrap();
        let (groups, background) =
            GroupService::open(log, registry.clone(), (&clock, &limits)).unwrap();
        tokio::spawn(background);
        House { disk, hand, clock, groups, registry }
    }

    /// The house as the next start finds it after a power loss.
    async fn after_power_loss(self, policy: CrashPolicy) -> House {
        let House { disk, hand, clock, .. } = self;
        let disk = disk.crash(policy);
        House::on(disk, clock, hand).await
    }

    async fn create(&self, name: &str, partition_count: u32) {
        let new = NewTopic {
            name: name.into(),
            partition_count,
            given: Default::default(),
            validate_only: false,
        };
        self.registry.create(new).await.unwrap();
        self.follow().await;
    }

    async fn grow(&self, name: &str, partition_count: u32) {
        let change = TopicChange {
            name: name.into(),
            partition_count,
            given: Default::default(),
            reset: Vec::new(),
            validate_only: false,
        };
        self.registry.alter(change).await.unwrap();
        self.follow().await;
    }

    /// What the background does a moment later.
    async fn follow(&self) {
        self.groups.groups.set_topics(all_topics(&self.registry)).await.unwrap();
    }

    /// Appends `count` records with timestamps from `time_ms` on.
    async fn produce(&self, topic: &str, number: u32, (count, time_ms): (i64, i64)) {
        let partition = self.registry.partition(topic, &[], number).unwrap();
        for index in 0..count {
            let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
            let value = Some(Bytes::from_static(b"v"));
            let record = Record { timestamp_ms: time_ms + index, value, ..Record::default() };
            builder.push(&record).unwrap();
            let wait = WaitFor::AtLeast(Durability::Fsync);
            partition.append_and_wait(builder.build().unwrap(), wait).await.unwrap();
        }
    }

    async fn join(&self, group: &str, member: &str, start: StartPolicy) -> Answer {
        self.groups.heartbeat(join(group, member, start, &["t"])).await.unwrap()
    }

    async fn leave(&self, group: &str, member: &str) {
        let member_epoch = EPOCH_LEAVE;
        let request = HeartbeatRequest { member_epoch, ..plain(group, member) };
        self.groups.heartbeat(request).await.unwrap();
    }

    async fn commit(
        &self,
        who: &GroupCaller,
        offset: OffsetToCommit,
    ) -> Result<(), GroupPartitionError> {
        self.groups.commit(who, vec![offset]).await.unwrap().remove(0)
    }

    /// Stored offsets of `t`, as the member sees them; `-` for none, `!` for an error.
    async fn offsets(&self, who: &GroupCaller) -> String {
        let count = self.registry.topic("t").unwrap().partition_count();
        let wanted = (0..count).map(|number| ("t".to_owned(), number)).collect();
        let member = (!who.member_id.is_empty()).then_some(who);
        let found = self.groups.offsets(&who.group, wanted, member).await.unwrap();
        let text = |stored: Result<Option<crate::offset::StoredOffset>, _>| match stored {
            Ok(Some(stored)) => stored.offset.to_string(),
            Ok(None) => "-".to_owned(),
            Err::<_, GroupPartitionError>(_) => "!".to_owned(),
        };
        let found: Vec<String> = found.into_iter().map(|one| text(one.stored)).collect();
        found.join(" ")
    }

    async fn reset(&self, target: ResetTarget, dry_run: bool) -> Vec<OffsetMoved> {
        let partitions = (0..3).map(|number| ("t".to_owned(), number)).collect();
        let (group, topics) = ("g".to_owned(), Vec::new());
        let request = ResetRequest { group, partitions, topics, target, dry_run };
        self.groups.reset(request).await.unwrap()
    }
}

fn plain(group: &str, member: &str) -> HeartbeatRequest {
    let (group, member_id) = (group.to_owned(), member.to_owned());
    HeartbeatRequest { group, member_id, ..HeartbeatRequest::default() }
}

fn join(group: &str, member: &str, start: StartPolicy, topics: &[&str]) -> HeartbeatRequest {
    let subscription = Some(topics.iter().map(ToString::to_string).collect());
    HeartbeatRequest { subscription, start, ..plain(group, member) }
}

fn who(group: &str, member: &str, member_epoch: i32) -> GroupCaller {
    GroupCaller { group: group.into(), member_id: member.into(), member_epoch }
}

fn outsider(group: &str) -> GroupCaller {
    who(group, "", -1)
}

fn at(partition: u32, offset: u64) -> OffsetToCommit {
    OffsetToCommit {
        topic: "t".into(),
        partition,
        offset,
        leader_epoch: None,
        metadata: String::new(),
        expected_offset: None,
    }
}

fn targets(moved: &[OffsetMoved]) -> String {
    let text = |one: &OffsetMoved| match &one.to {
        Ok((to, lag)) => {
            let from = one.from.map_or_else(|| "-".to_owned(), |from| from.to_string());
            format!("{from}>{to} lag {lag}")
        }
        Err(error) => error.to_string(),
    };
    moved.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn a_group_begins_where_its_start_policy_says_and_stays_there() {
    let house = House::new().await;
    house.produce("t", 0, (4, 100)).await;
    house.produce("t", 1, (2, 200)).await;
    let policies = [
        ("earliest", StartPolicy::Earliest, "0 0 0"),
        ("latest", StartPolicy::Latest, "4 2 0"),
        ("time", StartPolicy::TimestampMs(102), "2 0 0"),
        ("fail", StartPolicy::Fail, "- - -"),
    ];
    for (group, start, expected) in policies {
        let answer = house.join(group, "m", start).await;
        assert_eq!(house.offsets(&who(group, "m", answer.member_epoch)).await, expected, "{group}");
        house.leave(group, "m").await;
    }
    house.produce("t", 0, (3, 300)).await;
    // What was fixed stays, whatever a later member asks for.
    for (group, _, expected) in policies {
        let answer = house.join(group, "n", StartPolicy::Latest).await;
        assert_eq!(house.offsets(&who(group, "n", answer.member_epoch)).await, expected, "{group}");
    }
}

#[tokio::test]
async fn nothing_is_skipped_of_partitions_that_come_later() {
    let house = House::new().await;
    let topics = &["t", "later"];
    let request = join("g", "m", StartPolicy::Latest, topics);
    let first = house.groups.heartbeat(request.clone()).await.unwrap();
    house.grow("t", 4).await;
    house.create("later", 1).await;
    house.produce("t", 3, (2, 1)).await;
    house.produce("later", 0, (2, 1)).await;
    // Another member asks for the same, after the records were written.
    house.groups.heartbeat(join("g", "n", StartPolicy::Latest, topics)).await.unwrap();
    house.leave("g", "n").await;
    let beat = HeartbeatRequest { member_epoch: first.member_epoch, ..plain("g", "m") };
    let told = house.groups.heartbeat(beat).await.unwrap();
    let member = who("g", "m", told.member_epoch);
    assert_eq!(house.offsets(&member).await, "0 0 0 0");
    let later = vec![("later".to_owned(), 0)];
    let found = house.groups.offsets("g", later, Some(&member)).await.unwrap().remove(0);
    assert_eq!(found.stored.unwrap().unwrap().offset, Offset(0));
}

#[tokio::test]
async fn nothing_is_skipped_of_what_is_created_while_the_group_is_empty() {
    for (restarts, snapshots) in [(false, false), (true, false), (true, true)] {
        let mut house = House::new().await;
        let topics = &["t", "later"];
        house.groups.heartbeat(join("g", "m", StartPolicy::Latest, topics)).await.unwrap();
        house.leave("g", "m").await;
        house.grow("t", 4).await;
        house.create("later", 1).await;
        house.create("other", 1).await;
        for (topic, partition) in [("t", 3), ("later", 0), ("other", 0)] {
            house.produce(topic, partition, (2, 1)).await;
        }
        if snapshots {
            // Far more than a snapshot is made after.
            let note = "n".repeat(4_000);
            for offset in 0..1_500 {
                let noted = OffsetToCommit { metadata: note.clone(), ..at(3, offset % 2) };
                house.commit(&outsider("noise"), noted).await.unwrap();
            }
        }
        if restarts {
            house = house.after_power_loss(CrashPolicy::lose_all()).await;
        }
        let topics = &["t", "later", "other"];
        let again = house.groups.heartbeat(join("g", "n", StartPolicy::Latest, topics)).await;
        let member = who("g", "n", again.unwrap().member_epoch);
        assert_eq!(house.offsets(&member).await, "0 0 0 0");
        let rest = vec![("later".to_owned(), 0), ("other".to_owned(), 0)];
        let found = house.groups.offsets("g", rest, Some(&member)).await.unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|one| one.stored.as_ref().unwrap().as_ref().unwrap().offset.0)
            .collect();
        assert_eq!(found, [0, 2], "`other` was never wanted before, so the latest counts");
    }
}

#[tokio::test]
async fn commits_are_checked_one_by_one() {
    let house = House::new().await;
    house.produce("t", 0, (4, 100)).await;
    let answer = house.join("g", "m", StartPolicy::Earliest).await;
    let member = who("g", "m", answer.member_epoch);
    let long = OffsetToCommit { metadata: "n".repeat(4097), ..at(0, 1) };
    let nowhere = OffsetToCommit { topic: "nowhere".into(), ..at(0, 1) };
    let expects = OffsetToCommit { expected_offset: Some(3), ..at(0, 1) };
    let all = vec![at(0, 5), at(0, 4), expects, long, nowhere, at(3, 0), at(1, 0)];
    let results = house.groups.commit(&member, all).await.unwrap();
    let texts: Vec<String> = results
        .iter()
        .map(|one| one.as_ref().map_or_else(ToString::to_string, |()| "ok".into()))
        .collect();
    assert_eq!(
        texts,
        [
            "`offset` must be at most the high watermark 4, found 5",
            "ok",
            "`expected_offset` is 3, but 0 is stored",
            "`metadata` must be at most 4096 bytes, found `4097 bytes`",
            "topic `nowhere` does not exist",
            "topic `t` has partitions 0 to 2, found 3",
            "ok",
        ]
    );
    assert_eq!(house.offsets(&member).await, "4 0 0");
    let refused = house.groups.commit(&who("g", "m", 0), Vec::new()).await.unwrap_err();
    assert!(matches!(refused, GroupCallError::Field(_)));
    let refused = house.groups.commit(&member, vec![at(0, 0); 10_001]).await.unwrap_err();
    assert!(matches!(refused, GroupCallError::Field(_)));
    let zombie = house.commit(&who("g", "z", 1), at(0, 0)).await.unwrap_err();
    assert!(matches!(zombie, GroupPartitionError::Refused(GroupError::UnknownMember { .. })));
}

#[tokio::test]
async fn large_commits_are_stored_in_parts() {
    let house = House::new().await;
    house.produce("t", 0, (1, 1)).await;
    let note = |number| OffsetToCommit {
        metadata: "n".repeat(4096),
        ..at(number % 3, u64::from(number == 597_u32))
    };
    let results = house.groups.commit(&outsider("g"), (0..600).map(note).collect()).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
    let house = house.after_power_loss(CrashPolicy::lose_all()).await;
    assert_eq!(house.offsets(&outsider("g")).await, "1 0 0");
}

#[tokio::test]
async fn an_error_is_never_no_offset() {
    let house = House::new().await;
    let unknown = house.groups.offsets("g", Vec::new(), None).await.unwrap_err();
    let named = CoordinatorError::UnknownGroup { group: "g".into() };
    assert_eq!(unknown, GroupCallError::Coordinator(named));
    house.commit(&outsider("g"), at(1, 0)).await.unwrap();
    assert_eq!(house.offsets(&outsider("g")).await, "- 0 -");
    let a = house.join("g", "a", StartPolicy::Earliest).await;
    house.join("g", "b", StartPolicy::Earliest).await;
    let beat = HeartbeatRequest { member_epoch: a.member_epoch, ..plain("g", "a") };
    let a = house.groups.heartbeat(beat).await.unwrap();
    let owned = Some(vec![TopicPartition::new("t", 0), TopicPartition::new("t", 1)]);
    let beat = HeartbeatRequest { member_epoch: a.member_epoch, owned, ..plain("g", "a") };
    let a = house.groups.heartbeat(beat).await.unwrap();
    assert_eq!(house.offsets(&who("g", "a", a.member_epoch)).await, "0 0 !");
    assert_eq!(house.offsets(&who("g", "a", a.member_epoch - 1)).await, "0 0 !");
    assert_eq!(house.offsets(&who("g", "z", 1)).await, "! ! !");
}

#[tokio::test]
async fn offsets_are_moved_wherever_an_operator_says() {
    let house = House::new().await;
    house.produce("t", 0, (10, START_MS)).await;
    house.produce("t", 1, (2, START_MS + 100)).await;
    house.commit(&outsider("other"), at(0, 7)).await.unwrap();
    house.commit(&outsider("g"), at(0, 4)).await.unwrap();
    house.commit(&outsider("g"), at(1, 1)).await.unwrap();
    house.hand.advance(Duration::from_millis(5));
    let none = "group `g` has no stored offset for this partition";
    let other = "group `other` has no stored offset for this partition";
    let table = [
        (ResetTarget::Earliest, "4>0 lag 10, 1>0 lag 2, ->0 lag 0".to_owned()),
        (ResetTarget::Latest, "4>10 lag 0, 1>2 lag 0, ->0 lag 0".to_owned()),
        (ResetTarget::TimestampMs(START_MS + 3), "4>3 lag 7, 1>0 lag 2, ->0 lag 0".to_owned()),
        (ResetTarget::DurationMs(0), "4>5 lag 5, 1>0 lag 2, ->0 lag 0".to_owned()),
        (ResetTarget::DurationMs(u64::MAX), "4>0 lag 10, 1>0 lag 2, ->0 lag 0".to_owned()),
        (ResetTarget::ShiftBy(3), format!("4>7 lag 3, 1>2 lag 0, {none}")),
        (ResetTarget::ShiftBy(-2), format!("4>2 lag 8, 1>0 lag 2, {none}")),
        (ResetTarget::ShiftBy(i64::MIN), format!("4>0 lag 10, 1>0 lag 2, {none}")),
        (ResetTarget::Offset(u64::MAX), "4>10 lag 0, 1>2 lag 0, ->0 lag 0".to_owned()),
        (ResetTarget::FromGroup("other".into()), format!("4>7 lag 3, {other}, {other}")),
    ];
    for (target, expected) in table {
        assert_eq!(targets(&house.reset(target.clone(), true).await), expected, "{target:?}");
        assert_eq!(house.offsets(&outsider("g")).await, "4 1 -", "a dry run changes nothing");
    }
    house.reset(ResetTarget::ShiftBy(1), false).await;
    assert_eq!(house.offsets(&outsider("g")).await, "5 2 -");
    let request = ResetRequest {
        group: "g".into(),
        partitions: Vec::new(),
        topics: vec!["t".into(), "nowhere".into()],
        target: ResetTarget::Earliest,
        dry_run: false,
    };
    let moved = house.groups.reset(request).await.unwrap();
    let expected = "topic `nowhere` does not exist, 5>0 lag 10, 2>0 lag 2, ->0 lag 0";
    assert_eq!(targets(&moved), expected);
    assert_eq!(house.offsets(&outsider("g")).await, "0 0 0");
}

#[tokio::test]
async fn a_description_tells_lag_in_records_and_in_time() {
    let house = House::new().await;
    house.produce("t", 0, (2, 1)).await;
    house.hand.advance(Duration::from_secs(60));
    house.produce("t", 0, (3, 1)).await;
    house.hand.advance(Duration::from_secs(5));
    let a = house.join("g", "a", StartPolicy::Earliest).await;
    let member = who("g", "a", a.member_epoch);
    let expected = [(0, 5, 65_000), (1, 4, 65_000), (2, 3, 5_000), (5, 0, 0)];
    for (offset, records, age_ms) in expected {
        house.commit(&member, at(0, offset)).await.unwrap();
        let described = house.groups.describe("g").await.unwrap();
        let first: &PartitionDescription = &described.partitions[0];
        let lag = Lag { log_start: Offset(0), high_watermark: Offset(5), records, age_ms };
        assert_eq!(*first.lag.as_ref().unwrap(), lag);
        assert_eq!(first.owner.as_deref(), Some("a"));
        assert_eq!(house.groups.list()[0].lag, records);
    }
    let described = house.groups.describe("g").await.unwrap();
    assert_eq!((described.partitions.len(), described.members[0].owned.len()), (3, 3));
    assert_eq!(described.epoch, a.group_epoch);
    assert!(house.groups.delete("g").await.is_err(), "it has a member");
    house.leave("g", "a").await;
    house.groups.delete("g").await.unwrap();
    assert!(house.groups.describe("g").await.is_err());
    assert_eq!(house.groups.list(), []);
}

#[tokio::test]
async fn a_topic_created_anew_inherits_nothing() {
    let house = House::new().await;
    house.produce("t", 0, (4, 1)).await;
    house.commit(&outsider("g"), at(0, 3)).await.unwrap();
    house.registry.delete("t", &[]).await.unwrap();
    house.follow().await;
    house.create("t", 3).await;
    assert_eq!(house.offsets(&outsider("g")).await, "- - -");
}

/// Commits, joins and power losses at random moments: what was confirmed is there, with members and epochs.
#[test]
fn what_was_confirmed_survives_a_power_loss() {
    Random::each(8, |random| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut house = House::new().await;
            house.produce("t", 0, (50, 1)).await;
            let mut confirmed = None;
            let mut epoch = 0;
            for _ in 0..4 {
                for _ in 0..random.below(12) {
                    let offset = random.below(51);
                    house.commit(&outsider("loner"), at(0, offset)).await.unwrap();
                    confirmed = Some(offset);
                    let member = format!("m{}", random.below(3));
                    epoch = house.join("g", &member, StartPolicy::Earliest).await.group_epoch;
                }
                // One more is on its way when the power goes.
                let (groups, loner) = (house.groups.clone(), outsider("loner"));
                let late = random.below(51);
                let lost =
                    tokio::spawn(async move { groups.commit(&loner, vec![at(0, late)]).await });
                for _ in 0..random.below(4) {
                    tokio::task::yield_now().await;
                }
                lost.abort();
                house = house.after_power_loss(CrashPolicy::random(random.next())).await;
                let stored = house.groups.groups.store().read(|groups| {
                    let image = groups.get("loner")?;
                    image.offsets.values().next().map(|stored| stored.offset.0)
                });
                assert!(stored == confirmed || stored == Some(late), "{stored:?} {confirmed:?}");
                confirmed = stored;
                if epoch > 0 {
                    let now = house.groups.groups.look(&"g".into(), |state| state.epoch());
                    assert_eq!(now, Ok(epoch));
                }
            }
        });
    });
}

//! Consumer groups over real sockets: sharing, fencing, static members, resets, restarts, lag.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use riverrun_proto::grpc::v1::{self, group_client::GroupClient};
use tonic::{Status, transport::Channel};

use crate::support::{
    broker::{Stubs, TestBroker},
    records::{append, code, values},
};

/// Longest time that anything may take.
const SOON: Duration = Duration::from_secs(30);

/// One member that does what a client library does, on its own connection.
struct Member {
    group: GroupClient<Channel>,
    stubs: Stubs,
    id: String,
    instance_id: Option<String>,
    epoch: i32,
    session_timeout_ms: u32,
    /// Partitions of `t`, with the next offset to read.
    positions: BTreeMap<u32, u64>,
}

impl Member {
    async fn new(broker: &TestBroker, id: &str) -> Member {
        let channel = broker.channel().await;
        Member {
            group: GroupClient::new(channel.clone()),
            stubs: Stubs::new(channel),
            id: id.to_owned(),
            instance_id: None,
            epoch: 0,
            session_timeout_ms: 0,
            positions: BTreeMap::new(),
        }
    }

    async fn joined(broker: &TestBroker, id: &str) -> Member {
        let mut member = Member::new(broker, id).await;
        member.beat(0).await.unwrap();
        member
    }

    fn request(&self, max_wait_ms: u32) -> v1::HeartbeatRequest {
        let topics = vec!["t".to_owned()];
        let owned = self.positions.keys().map(|number| tp(*number)).collect();
        v1::HeartbeatRequest {
            group: "g".into(),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            instance_id: self.instance_id.clone(),
            client_id: "test".into(),
            subscription: (self.epoch == 0).then_some(v1::TopicList { topics }),
            owned: Some(v1::PartitionList { partitions: owned }),
            session_timeout_ms: self.session_timeout_ms,
            max_wait_ms,
            ..v1::HeartbeatRequest::default()
        }
    }

    /// A sign of life; gives up and takes what the answer says, from stored offsets.
    async fn beat(&mut self, max_wait_ms: u32) -> Result<v1::HeartbeatResponse, Status> {
        let request = self.request(max_wait_ms);
        let reply = self.group.heartbeat(request).await?.into_inner();
        self.epoch = reply.member_epoch;
        if let Some(assignment) = &reply.assignment {
            let assigned: BTreeSet<u32> =
                assignment.partitions.iter().map(|one| one.partition).collect();
            let reset = reply.reset.clone().unwrap_or_default().partitions;
            self.positions.retain(|number, _| {
                assigned.contains(number) && !reset.iter().any(|one| one.partition == *number)
            });
            for number in assigned {
                if !self.positions.contains_key(&number) {
                    let offset = self.stored(number).await;
                    self.positions.insert(number, offset);
                }
            }
        }
        Ok(reply)
    }

    /// Leaves for good (-1) or for a while (-2).
    async fn leave(&mut self, epoch: i32) {
        let request = v1::HeartbeatRequest { member_epoch: epoch, ..self.request(0) };
        self.group.heartbeat(request).await.unwrap();
    }

    async fn stored(&mut self, partition: u32) -> u64 {
        let request = v1::GetOffsetsRequest {
            group: "g".into(),
            partitions: vec![tp(partition)],
            member: Some(self.name()),
        };
        let stored = self.group.get_offsets(request).await.unwrap().into_inner().offsets.remove(0);
        assert_eq!(stored.error, None);
        stored.offset.expect("pinned before it is told")
    }

    fn name(&self) -> v1::GroupMember {
        let (group, member_id) = ("g".to_owned(), self.id.clone());
        v1::GroupMember { group, member_id, member_epoch: self.epoch }
    }

    async fn commit(&mut self, partition: u32, offset: u64) -> Option<v1::ErrorCode> {
        let member = Some(self.name());
        let one = v1::OffsetCommit {
            topic: "t".into(),
            partition,
            offset,
            metadata: "here".into(),
            ..v1::OffsetCommit::default()
        };
        let request = v1::CommitOffsetsRequest { member, offsets: vec![one] };
        let response = self.group.commit_offsets(request).await.unwrap().into_inner();
        response.results[0].error.as_ref().map(v1::Error::code)
    }

    async fn fetch(&mut self, partition: u32, offset: u64) -> Result<v1::FetchedPartition, Status> {
        let one = v1::FetchPartition { topic: "t".into(), partition, offset, ..Default::default() };
        let request = v1::FetchRequest {
            partitions: vec![one],
            format: v1::RecordFormat::Structured as i32,
            member: Some(self.name()),
            ..v1::FetchRequest::default()
        };
        Ok(self.stubs.fetch.fetch(request).await?.into_inner().partitions.remove(0))
    }

    /// Reads and commits whatever is there on every partition it holds; returns what it read.
    async fn work(&mut self) -> Vec<String> {
        let mut read = Vec::new();
        for (partition, offset) in self.positions.clone() {
            let fetched = self.fetch(partition, offset).await.unwrap();
            if fetched.next_offset > offset {
                let refused = self.commit(partition, fetched.next_offset).await;
                assert_eq!(refused, None, "it holds what it reads");
                self.positions.insert(partition, fetched.next_offset);
                read.extend(values(&fetched));
            }
        }
        read
    }

    fn held(&self) -> Vec<u32> {
        self.positions.keys().copied().collect()
    }
}

fn tp(partition: u32) -> v1::TopicPartition {
    v1::TopicPartition { topic: "t".into(), partition }
}

/// A broker with the topic `t` of so many partitions.
async fn broker_with(partitions: u32) -> (TestBroker, Stubs) {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", partitions, v1::TopicConfig::default()).await;
    (broker, stubs)
}

async fn describe(stubs: &mut Stubs) -> v1::DescribeGroupResponse {
    let request = v1::DescribeGroupRequest { group: "g".into() };
    stubs.admin.describe_group(request).await.unwrap().into_inner()
}

/// Lets members heartbeat in turn until each has what it shall have.
async fn settle(stubs: &mut Stubs, members: &mut [&mut Member]) {
    let stable = async {
        loop {
            for member in members.iter_mut() {
                member.beat(0).await.unwrap();
            }
            if describe(stubs).await.state() == v1::GroupState::Stable {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, stable).await.expect("comes to rest");
}

#[tokio::test]
async fn members_come_and_go_under_load_without_gap_or_repeat() {
    let (broker, mut stubs) = broker_with(4).await;
    let mut producer = broker.stubs().await;
    let produces = tokio::spawn(async move {
        for index in 0..400_u32 {
            let value = index.to_string();
            let request = v1::AppendRequest { partition: index % 4, ..append("t", &[&value]) };
            producer.produce.append(request).await.unwrap();
        }
    });
    let mut members = vec![Member::joined(&broker, "a").await];
    let mut read = Vec::new();
    let rounds = async {
        for round in 0.. {
            match round {
                5 => members.push(Member::joined(&broker, "b").await),
                10 => members.push(Member::joined(&broker, "c").await),
                20 => members.remove(0).leave(-1).await,
                30 => members.push(Member::joined(&broker, "d").await),
                _ => {}
            }
            for member in &mut members {
                read.extend(member.work().await);
                member.beat(0).await.unwrap();
            }
            if round > 40 && read.len() >= 400 {
                return;
            }
        }
    };
    tokio::time::timeout(SOON * 2, rounds).await.expect("everything is read");
    produces.await.unwrap();
    let mut numbers: Vec<u32> = read.iter().map(|value| value.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..400).collect::<Vec<u32>>());
    let mut refs: Vec<&mut Member> = members.iter_mut().collect();
    settle(&mut stubs, &mut refs).await;
    let held: Vec<usize> = members.iter().map(|member| member.held().len()).collect();
    assert_eq!(held.iter().sum::<usize>(), 4);
    assert!(held.iter().all(|count| (1..=2).contains(count)), "{held:?}");
    let described = describe(&mut stubs).await;
    assert!(described.partitions.iter().all(|one| one.lag == 0));
}

#[tokio::test]
async fn a_zombie_neither_commits_nor_fetches() {
    let (broker, mut stubs) = broker_with(2).await;
    stubs.append("t", &["x", "y"]).await;
    let mut zombie = Member::new(&broker, "zombie").await;
    zombie.session_timeout_ms = 1_000;
    zombie.beat(0).await.unwrap();
    assert_eq!(zombie.held(), [0, 1]);
    assert_eq!(zombie.commit(0, 1).await, None);
    let mut heir = Member::joined(&broker, "heir").await;
    // Held until the zombie's session is over.
    tokio::time::timeout(SOON, async {
        while heir.held().len() < 2 {
            heir.beat(5_000).await.unwrap();
        }
    })
    .await
    .expect("inherits");
    assert_eq!(heir.positions, BTreeMap::from([(0, 1), (1, 0)]));
    assert_eq!(heir.commit(0, 2).await, None);
    assert_eq!(zombie.commit(0, 1).await, Some(v1::ErrorCode::UnknownMember));
    let refused = zombie.fetch(0, 1).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::UnknownMember);
    let refused = zombie.beat(0).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::UnknownMember);
    assert_eq!(heir.stored(0).await, 2);
    // It comes back as a new member and waits for its share.
    zombie.epoch = 0;
    zombie.positions.clear();
    zombie.beat(0).await.unwrap();
    settle(&mut stubs, &mut [&mut zombie, &mut heir]).await;
    assert_eq!(zombie.held().len() + heir.held().len(), 2);
}

#[tokio::test]
async fn a_member_reads_its_partition_beside_one_that_is_not_its_own() {
    let (broker, mut stubs) = broker_with(2).await;
    for partition in [0, 1] {
        stubs.produce.append(v1::AppendRequest { partition, ..append("t", &["x"]) }).await.unwrap();
    }
    let mut one = Member::joined(&broker, "one").await;
    let mut other = Member::joined(&broker, "other").await;
    settle(&mut stubs, &mut [&mut one, &mut other]).await;
    let own = one.held()[0];
    let part =
        |partition| v1::FetchPartition { topic: "t".into(), partition, ..Default::default() };
    let request = v1::FetchRequest {
        partitions: vec![part(0), part(1)],
        format: v1::RecordFormat::Structured as i32,
        member: Some(one.name()),
        ..v1::FetchRequest::default()
    };
    let answer = one.stubs.fetch.fetch(request).await.unwrap().into_inner().partitions;
    for fetched in answer {
        let error = fetched.error.as_ref().map(v1::Error::code);
        if fetched.partition == own {
            assert_eq!((error, values(&fetched)), (None, vec!["x".to_owned()]));
        } else {
            assert_eq!(error, Some(v1::ErrorCode::PartitionNotOwned));
            assert!(fetched.records.is_empty());
        }
    }
}

#[tokio::test]
async fn a_static_member_restarts_without_moving_anything() {
    let (broker, mut stubs) = broker_with(4).await;
    let mut first = Member::new(&broker, "first-life").await;
    first.instance_id = Some("one".into());
    first.beat(0).await.unwrap();
    let mut other = Member::joined(&broker, "other").await;
    settle(&mut stubs, &mut [&mut first, &mut other]).await;
    let (mine, others) = (first.held(), other.held());
    let epoch = other.epoch;
    let mut second = Member::new(&broker, "second-life").await;
    second.instance_id = Some("one".into());
    let refused = second.beat(0).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::InstanceIdInUse);
    first.leave(-2).await;
    second.beat(0).await.unwrap();
    assert_eq!(second.held(), mine);
    let told = other.beat(0).await.unwrap();
    assert_eq!((told.member_epoch, told.assignment), (epoch, None));
    assert_eq!(other.held(), others);
    assert_eq!(first.commit(mine[0], 0).await, Some(v1::ErrorCode::UnknownMember));
}

#[tokio::test]
async fn offsets_are_reset_under_a_living_member() {
    let (broker, mut stubs) = broker_with(2).await;
    stubs.append("t", &["a", "b", "c"]).await;
    let mut member = Member::joined(&broker, "m").await;
    assert_eq!(member.work().await, ["a", "b", "c"]);
    let mut reset = v1::ResetOffsetsRequest {
        group: "g".into(),
        partitions: vec![tp(0)],
        topics: Vec::new(),
        target: Some(v1::reset_offsets_request::Target::Offset(1)),
        dry_run: true,
    };
    let planned = stubs.admin.reset_offsets(reset.clone()).await.unwrap().into_inner().resets;
    let expected = v1::OffsetReset {
        topic: "t".into(),
        partition: 0,
        from_offset: Some(3),
        to_offset: 1,
        lag: 2,
        error: None,
    };
    assert_eq!(planned, [expected]);
    assert_eq!(member.commit(0, 3).await, None, "a dry run changes nothing");
    reset.dry_run = false;
    let moved = stubs.admin.reset_offsets(reset).await.unwrap().into_inner().resets;
    assert_eq!(moved, planned);
    assert_eq!(member.commit(0, 3).await, Some(v1::ErrorCode::StaleMemberEpoch));
    let told = member.beat(0).await.unwrap();
    assert_eq!(told.reset.unwrap().partitions, [tp(0)]);
    assert_eq!(member.positions[&0], 1);
    assert_eq!(member.work().await, ["b", "c"]);
}

#[tokio::test]
async fn members_go_on_after_a_restart_of_the_broker() {
    let (broker, mut stubs) = broker_with(3).await;
    stubs.append("t", &["a", "b"]).await;
    let mut a = Member::joined(&broker, "a").await;
    let mut b = Member::joined(&broker, "b").await;
    settle(&mut stubs, &mut [&mut a, &mut b]).await;
    a.work().await;
    b.work().await;
    let before = describe(&mut stubs).await;
    let dir = broker.stop().await.unwrap();
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = broker.stubs().await;
    let mut after = describe(&mut stubs).await;
    // Where they connect from is told again by their next heartbeat.
    assert_eq!(before.group_epoch, after.group_epoch);
    assert_eq!(before.partitions, std::mem::take(&mut after.partitions));
    for member in [&mut a, &mut b] {
        let channel = broker.channel().await;
        member.group = GroupClient::new(channel.clone());
        member.stubs = Stubs::new(channel);
        let told = member.beat(0).await.unwrap();
        assert_eq!(told.assignment, None, "it holds what it held");
    }
    stubs.append("t", &["c"]).await;
    let mut read = a.work().await;
    read.extend(b.work().await);
    assert_eq!(read, ["c"]);
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted() {
    let (broker, mut stubs) = broker_with(2).await;
    stubs.append("t", &["a", "b", "c"]).await;
    let mut member = Member::joined(&broker, "m").await;
    assert_eq!(member.commit(0, 1).await, None);
    let described = describe(&mut stubs).await;
    assert_eq!(described.state(), v1::GroupState::Stable);
    assert_eq!((described.assignor.as_str(), described.members.len()), ("uniform", 1));
    assert_eq!(described.members[0].host, "127.0.0.1");
    assert_eq!(described.members[0].assignment, [tp(0), tp(1)]);
    let first = &described.partitions[0];
    assert_eq!((first.committed_offset, first.high_watermark, first.lag), (Some(1), 3, 2));
    assert_eq!((first.member_id.as_str(), first.metadata.as_str()), ("m", "here"));
    assert!(first.lag_ms > 0 && first.lag_ms < 60_000, "{}", first.lag_ms);
    let second = &described.partitions[1];
    assert_eq!((second.committed_offset, second.lag, second.lag_ms), (Some(0), 0, 0));
    let listed = stubs.admin.list_groups(v1::ListGroupsRequest {}).await.unwrap().into_inner();
    assert_eq!((listed.groups[0].member_count, listed.groups[0].lag), (1, 2));
    assert_eq!(member.commit(0, 4).await, Some(v1::ErrorCode::OffsetOutOfRange));

    let delete = v1::DeleteGroupRequest { group: "g".into() };
    let refused = stubs.admin.delete_group(delete.clone()).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::GroupNotEmpty);
    member.leave(-1).await;
    stubs.admin.delete_group(delete.clone()).await.unwrap();
    let refused = stubs.admin.delete_group(delete).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::UnknownGroup);
    let bad = v1::HeartbeatRequest { group: "a b".into(), ..member.request(0) };
    let refused = member.group.heartbeat(bad).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::InvalidArgument);
}

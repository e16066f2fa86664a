//! Entries of the broker's own logs.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use riverrun_broker::{
    delivery::{Attempt, DeadCause, FailureCause, LaneKey, Piece, Run},
    offset::record::{change, encode},
    subscription::{
        SubscriptionSettings,
        image::Subscription,
        lane::{DeadIntent, LanePart},
        record::{Body, EntryWriter},
    },
};
use riverrun_proto::{
    TopicId,
    grpc::{
        state::v1::{
            GroupCreated, MemberAssignment, MemberImage, MemberProfile, MembershipChanged,
            MetadataCommand, OffsetsStored, PartitionOffset, PartitionRun, ProducerEpochRaised,
            ProducerIdsReserved, StreamDeleted, StreamFacts, StreamOrigin, TopicAltered,
            TopicCreated, TopicDeleted, TopicOffsets, TopicPinned, TopicPrepared, TopicsForgotten,
            group_change::Change, metadata_command::Command,
        },
        v1,
    },
};
use uuid::Uuid;

use crate::pieces;

/// One topic.
const TOPIC: u128 = 0x1111_2222_3333_4444_5555_6666_7777_8888;

/// Its id as messages carry it.
fn id() -> Bytes {
    Bytes::copy_from_slice(Uuid::from_u128(TOPIC).as_bytes())
}

/// Entries as the parts of one input.
fn parts(entries: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut input = Vec::new();
    entries.into_iter().for_each(|entry| pieces::push(&mut input, 0, &entry));
    input
}

pub(super) fn metadata() -> Vec<Vec<u8>> {
    let config = v1::TopicConfig { segment_ms: Some(60_000), ..v1::TopicConfig::default() };
    let origin = StreamOrigin { topic_id: id(), topic: "s".into(), offset: 1, sub_offset: 2 };
    let facts = StreamFacts {
        content_type: "text/plain".into(),
        ttl_s: Some(60),
        expires_at_ms: Some(1),
        origin: Some(origin),
        is_deleted: false,
    };
    let created = TopicCreated {
        topic_id: id(),
        topic: "orders".into(),
        partitions: 3,
        overrides: Some(config),
        stream: Some(facts),
    };
    let altered = TopicAltered { topic_id: id(), partitions: 4, overrides: None };
    let raised = ProducerEpochRaised { producer_id: 4, producer_epoch: 1 };
    let commands = [
        Command::TopicPrepared(TopicPrepared { topic_id: id() }),
        Command::TopicCreated(created),
        Command::TopicAltered(altered),
        Command::StreamDeleted(StreamDeleted { topic_id: id() }),
        Command::ProducerIdsReserved(ProducerIdsReserved { next_producer_id: 1_000 }),
        Command::ProducerEpochRaised(raised),
        Command::TopicDeleted(TopicDeleted { topic_id: id() }),
    ];
    let written = |command: &Command| {
        MetadataCommand { time_ms: 1, command: Some(command.clone()) }.encode_to_vec()
    };
    let all: Vec<_> = commands.iter().map(written).collect();
    let mut catalog = riverrun_broker::topic::catalog::Catalog::default();
    for command in &all[..6] {
        let command = MetadataCommand::decode(&command[..]).expect("written here");
        catalog.apply(&command).expect("a history that can be");
    }
    let snapshot = written(&Command::Snapshot(catalog.to_snapshot()));
    vec![parts(all.clone()), parts([snapshot]), parts(all.into_iter().take(2))]
}

pub(super) fn groups() -> Vec<Vec<u8>> {
    let run = PartitionRun { topic_id: id(), first: 0, count: 3, owner_epoch: 2 };
    let profile = MemberProfile {
        client_id: "c".into(),
        subscription: vec!["orders".into()],
        session_timeout_ms: 45_000,
        ..MemberProfile::default()
    };
    let assignment = MemberAssignment { epoch: 2, held: vec![run], ..MemberAssignment::default() };
    let member =
        MemberImage { member_id: "m".into(), profile: Some(profile), assignment: Some(assignment) };
    let membership =
        MembershipChanged { group_epoch: 2, members: vec![member], ..MembershipChanged::default() };
    let offset =
        PartitionOffset { partition: 1, offset: 42, metadata: "note".into(), ..Default::default() };
    let stored = OffsetsStored {
        member_id: "m".into(),
        commit_time_ms: 9,
        topics: vec![TopicOffsets { topic_id: id(), partitions: vec![offset] }],
    };
    let created = GroupCreated { created_ms: 1, start: None, assignor: "uniform".into() };
    let gone = MembershipChanged { removed: vec!["m".into()], ..MembershipChanged::default() };
    let changes = [
        Change::Created(created),
        Change::Membership(membership),
        Change::TopicPinned(TopicPinned { topic_id: id(), partitions: 3 }),
        Change::Offsets(stored),
        Change::Membership(gone),
        Change::TopicsForgotten(TopicsForgotten { topic_ids: vec![id()] }),
    ];
    let changes = changes.map(|one| change("g", one));
    let one_by_one = parts(changes.iter().map(|one| encode(vec![one.clone()]).to_vec()));
    vec![one_by_one, parts([encode(changes[..4].to_vec()).to_vec()])]
}

pub(super) fn subscriptions() -> Vec<Vec<u8>> {
    let topic_id = TopicId(Uuid::from_u128(TOPIC));
    let key = LaneKey::new(topic_id, 1);
    let subscription = Subscription {
        number: 1,
        name: "s".into(),
        created_ms: 5,
        topic_ids: vec![topic_id],
        settings: SubscriptionSettings::default(),
        paused: false,
    };
    let paused = Subscription { paused: true, ..subscription.clone() };
    let cancelled = Body::Cancelled { key, forget_below: 2, pieces: vec![Piece::Run(7..9)] };
    let bodies = [
        (0, Body::SnapshotBegun { next_number: 1 }),
        (1, Body::Created { subscription, starts: vec![(topic_id, vec![0, 5])] }),
        (1, Body::LaneBegun { key, floor: 3, dead_count: 1 }),
        (1, Body::Lane { key, parts: lane_parts(topic_id) }),
        (1, Body::Altered(paused)),
        (0, cancelled),
        (0, Body::TopicsForgotten(vec![topic_id])),
        (1, Body::Deleted),
    ];
    let written = |bytes: usize, bodies: &[(u64, Body)]| {
        let mut writer = EntryWriter::new(bytes);
        bodies.iter().for_each(|(number, body)| writer.push(*number, body));
        parts(writer.finish().into_iter().map(Vec::from))
    };
    vec![written(1, &bodies), written(1 << 20, &bodies[..6])]
}

fn lane_parts(topic_id: TopicId) -> Vec<LanePart> {
    let reason: Arc<str> = "why".into();
    let attempt = Attempt { time_ms: 7, cause: FailureCause::Nack, session: "one".into(), reason };
    let (failures, attempts) = (1, vec![attempt]);
    let intent = DeadIntent { topic_id, partition: 0, end_before: 12 };
    vec![
        LanePart::HourCame(-1),
        LanePart::Scheduled { hour: 3, run: Run::new(20, 25) },
        LanePart::Failed { offset: 5, failures, not_before_ms: 9, attempts: attempts.clone() },
        LanePart::WornOut { offset: 6, cause: DeadCause::FailuresMax, failures, attempts },
        LanePart::Intended { offset: 6, intent },
        LanePart::Dead(8),
        LanePart::Done(Piece::Bits(512, [0x5555_5555_5555_5555; 8])),
        LanePart::Done(Piece::Run(2_000..3_000)),
    ]
}

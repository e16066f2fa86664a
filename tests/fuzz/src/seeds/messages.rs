//! Request messages, one of each kind that is translated.

use prost::Message;
use riverrun_proto::{
    batch::Compression,
    grpc::v1::{self, append_request::Payload, session_request::Frame, settle_item::Outcome},
};

/// A message behind its kind, as `gateway/grpc/fuzz.rs` numbers them.
fn of(kind: u8, message: &impl Message) -> Vec<u8> {
    [&[kind], &message.encode_to_vec()[..]].concat()
}

pub(super) fn all() -> Vec<Vec<u8>> {
    let mut seeds = produce();
    seeds.extend(read());
    seeds.extend(push());
    seeds.extend(administer());
    seeds
}

fn produce() -> Vec<Vec<u8>> {
    let record = v1::Record {
        timestamp_ms: 5,
        key: Some("k".into()),
        value: Some("v".into()),
        headers: vec![v1::Header { key: "h".into(), value: None }],
        ..v1::Record::default()
    };
    let payloads = [
        Payload::Records(v1::Records { records: vec![record.clone(), record] }),
        Payload::Batch(super::batch_of(Compression::None, 2).into()),
    ];
    let request = |payload| v1::AppendRequest {
        request_id: 1,
        topic: "t".into(),
        acks: v1::Acks::All as i32,
        payload: Some(payload),
        ..v1::AppendRequest::default()
    };
    let appends = payloads.map(|payload| of(0, &request(payload)));
    let init = of(0, &v1::InitProducerRequest::default());
    appends.into_iter().chain([[&[15], &init[..]].concat()]).collect()
}

fn read() -> Vec<Vec<u8>> {
    let part = v1::FetchPartition { topic: "t".into(), max_bytes: 1 << 20, ..Default::default() };
    let member = v1::GroupMember { group: "g".into(), member_id: "m".into(), member_epoch: 3 };
    let fetch = v1::FetchRequest {
        partitions: vec![part],
        max_wait_ms: 500,
        member: Some(member.clone()),
        ..v1::FetchRequest::default()
    };
    let one = v1::TopicPartition { topic: "t".into(), partition: 1 };
    let heartbeat = v1::HeartbeatRequest {
        group: "g".into(),
        member_id: "m".into(),
        subscription: Some(v1::TopicList { topics: vec!["t".into()] }),
        owned: Some(v1::PartitionList { partitions: vec![one] }),
        session_timeout_ms: 45_000,
        ..v1::HeartbeatRequest::default()
    };
    let offset = v1::OffsetCommit { topic: "t".into(), offset: 7, ..Default::default() };
    let commit = v1::CommitOffsetsRequest { member: Some(member), offsets: vec![offset] };
    let query = v1::OffsetQuery {
        topic: "t".into(),
        position: Some(v1::offset_query::Position::TimestampMs(9)),
        ..v1::OffsetQuery::default()
    };
    let watched = v1::WatchPartition { topic: "t".into(), partition: 2, ..Default::default() };
    vec![
        of(1, &fetch),
        of(2, &heartbeat),
        of(12, &commit),
        of(13, &v1::LookupOffsetsRequest { queries: vec![query] }),
        of(14, &v1::WatchRequest { partitions: vec![watched] }),
    ]
}

fn spec() -> v1::SubscriptionSpec {
    let header = v1::HeaderFilter {
        name: "h".into(),
        condition: Some(v1::header_filter::Condition::Prefix("eu-".into())),
    };
    let filter = v1::SubscriptionFilter { headers: vec![header], ..Default::default() };
    let settings = v1::SubscriptionSettings {
        ack_wait_ms: Some(5_000),
        max_open: Some(10),
        filter: Some(filter),
        dead_letter_topic: Some("graves".into()),
        ..v1::SubscriptionSettings::default()
    };
    let start = v1::subscription_start::Position::Offset(3);
    v1::SubscriptionSpec {
        topics: vec!["t".into()],
        start: Some(v1::SubscriptionStart { position: Some(start) }),
        settings: Some(settings),
    }
}

fn push() -> Vec<Vec<u8>> {
    let item = |outcome| v1::SettleItem {
        topic: "t".into(),
        start_offset: 3,
        end_offset: 5,
        delivery_seq: 2,
        outcome: Some(outcome),
        ..v1::SettleItem::default()
    };
    let items = vec![
        item(Outcome::Nack(v1::Nack { delay_ms: Some(100), reason: "not now".into() })),
        item(Outcome::Extend(v1::Extend { lease_ms: 1_000 })),
    ];
    let open = v1::OpenSession {
        subscription: "s".into(),
        session_id: "one".into(),
        create: Some(spec()),
        ..v1::OpenSession::default()
    };
    let settle = v1::SettleFrame { settle_id: 1, items: items.clone(), sync: true };
    let frames = [
        Frame::Open(open),
        Frame::Credit(v1::Credit { messages_total: 10, bytes_total: 1 << 20 }),
        Frame::Settle(settle),
    ];
    let session = frames.map(|frame| of(3, &v1::SessionRequest { frame: Some(frame) }));
    let settle = v1::SettleRequest { subscription: "s".into(), items, ..Default::default() };
    let receive = v1::ReceiveRequest {
        subscription: "s".into(),
        max_records: 5,
        create: Some(spec()),
        ..v1::ReceiveRequest::default()
    };
    session.into_iter().chain([of(4, &settle), of(5, &receive)]).collect()
}

fn administer() -> Vec<Vec<u8>> {
    let config = v1::TopicConfig {
        retention_ms: Some(-1),
        segment_bytes: Some(8 << 20),
        durability: Some(v1::Durability::Os as i32),
        ..v1::TopicConfig::default()
    };
    let create =
        v1::CreateTopicRequest { topic: "t".into(), config: Some(config), ..Default::default() };
    let alter = v1::AlterTopicRequest {
        topic: "t".into(),
        config: Some(config),
        reset: vec!["segment_ms".into()],
        ..v1::AlterTopicRequest::default()
    };
    let name = "s".to_owned();
    let made = v1::CreateSubscriptionRequest { subscription: name.clone(), spec: Some(spec()) };
    let altered = v1::AlterSubscriptionRequest {
        subscription: name.clone(),
        settings: spec().settings,
        ..v1::AlterSubscriptionRequest::default()
    };
    let seek = v1::SeekSubscriptionRequest {
        subscription: name,
        to: Some(v1::seek_subscription_request::To::TimestampMs(1)),
        ..v1::SeekSubscriptionRequest::default()
    };
    let reset = v1::ResetOffsetsRequest {
        group: "g".into(),
        target: Some(v1::reset_offsets_request::Target::ShiftBy(-3)),
        ..v1::ResetOffsetsRequest::default()
    };
    vec![
        of(6, &create),
        of(7, &alter),
        of(8, &made),
        of(9, &altered),
        of(10, &seek),
        of(11, &reset),
    ]
}

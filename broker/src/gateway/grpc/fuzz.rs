//! The door for the fuzz targets: every request message from its bytes through translation and the checks that need no state.
//!
//! With feature `fuzz` only. What is found wrong is a panic; nothing of the gateway's own becomes public for it.

use bytes::Bytes;
use prost::Message;
use riverrun_proto::{
    batch::RecordBatch,
    grpc::v1::{self, session_request::Frame},
};

use super::{
    convert::{
        fetch_request, new_topic, offset_query, produce_request, topic_change, watch_targets,
    },
    group::{caller, heartbeat_request, offset_to_commit},
    group_admin::reset_request,
    push::receive_request,
    push_convert::{credit, settle_frame, settle_item, spec},
    session::open_request,
    status::{Describe, status},
    subscription_admin::seek_request,
};
use crate::{
    delivery::{Outcome, change::REASON_BYTES_MAX},
    service::{
        delivery::settle::{ITEMS_MAX, SettleItem},
        produce::Payload,
    },
    subscription::SubscriptionSettings,
    topic::{TopicConfig, config, name::check_topic_name},
};

/// Kinds of messages that [`take`] knows.
pub const KINDS: u8 = 16;

/// Takes the message of kind `kind` in `bytes` as the gateway does; true when it came through.
///
/// # Panics
/// When a promise about it is broken.
pub fn take(kind: u8, bytes: Bytes) -> bool {
    match kind % KINDS {
        0 => decoded(bytes).is_some_and(append),
        1 => decoded(bytes).is_some_and(fetch),
        2 => decoded(bytes).is_some_and(heartbeat),
        3 => decoded(bytes).is_some_and(session),
        4 => decoded(bytes).is_some_and(settle),
        5 => decoded(bytes).is_some_and(receive),
        6 => decoded(bytes).is_some_and(create_topic),
        7 => decoded(bytes).is_some_and(alter_topic),
        8 => decoded(bytes).is_some_and(create_subscription),
        9 => decoded(bytes).is_some_and(alter_subscription),
        10 => decoded(bytes).is_some_and(|wire| taken(seek_request(wire)).is_some()),
        11 => decoded(bytes).is_some_and(|wire| taken(reset_request(wire)).is_some()),
        12 => decoded(bytes).is_some_and(commit),
        13 => decoded(bytes).is_some_and(lookup),
        14 => decoded(bytes).is_some_and(|wire| {
            watch_targets(wire);
            true
        }),
        _ => plain(bytes),
    }
}

/// The message in `bytes`; written again it is the same.
fn decoded<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: Bytes) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let again = M::decode(&*message.encode_to_vec()).expect("written here");
    // A number that is none differs from itself, and no message has one of those.
    assert!(again == message, "{message:?}");
    Some(message)
}

/// What came through, or `None` after an error was told as a client is told it.
fn taken<T, E: Describe>(result: Result<T, E>) -> Option<T> {
    result.map_err(|error| assert!(!status(&error).message().is_empty())).ok()
}

fn append(wire: v1::AppendRequest) -> bool {
    let Some(request) = taken(produce_request(wire)) else { return false };
    match request.payload {
        Payload::Batch(bytes) => RecordBatch::decode(bytes).is_ok(),
        Payload::Records(_) => true,
    }
}

fn fetch(wire: v1::FetchRequest) -> bool {
    let Some(request) = taken(fetch_request(wire)) else { return false };
    assert!(request.partitions.iter().all(|part| part.leader_epoch != Some(0)));
    true
}

fn heartbeat(wire: v1::HeartbeatRequest) -> bool {
    taken(heartbeat_request(wire, "here".into()).check()).is_some()
}

fn session(wire: v1::SessionRequest) -> bool {
    match wire.frame {
        Some(Frame::Open(open)) => taken(open_request(open, "here".into())).is_some(),
        Some(Frame::Credit(wire)) => taken(credit(wire)).is_some(),
        Some(Frame::Settle(wire)) => {
            let Some((id, items, sync)) = taken(settle_frame(wire)) else { return false };
            assert!(items.len() <= ITEMS_MAX && (id > 0 || !sync));
            items.iter().for_each(check_item);
            true
        }
        Some(Frame::Pause(_) | Frame::Resume(_) | Frame::Drain(_) | Frame::Heartbeat(_)) => true,
        None => false,
    }
}

fn settle(wire: v1::SettleRequest) -> bool {
    wire.items.into_iter().map(settle_item).for_each(|item| check_item(&item));
    true
}

fn check_item(item: &SettleItem) {
    if let Some(Outcome::Nack { reason, .. } | Outcome::Reject { reason }) = &item.outcome {
        assert!(reason.len() <= REASON_BYTES_MAX);
    }
}

fn receive(wire: v1::ReceiveRequest) -> bool {
    taken(receive_request(wire, "here".into())).is_some()
}

fn create_topic(wire: v1::CreateTopicRequest) -> bool {
    let new = new_topic(wire);
    check_topic_name(&new.name).is_ok() && check_config(&new.given)
}

fn alter_topic(wire: v1::AlterTopicRequest) -> bool {
    let change = topic_change(wire);
    let base = TopicConfig::default().to_message();
    let mut given = config::overlaid(&base, &change.given);
    for name in &change.reset {
        if let Err(error) = config::forget(&mut given, name) {
            assert!(error.to_string().len() < 1_000, "{error}");
        }
    }
    check_config(&given)
}

/// Settings that are accepted come back from what they are shown as.
fn check_config(given: &v1::TopicConfig) -> bool {
    let Ok(config) = TopicConfig::from_given(given) else { return false };
    assert_eq!(TopicConfig::from_given(&config.to_message()).as_ref(), Ok(&config));
    true
}

fn create_subscription(wire: v1::CreateSubscriptionRequest) -> bool {
    let Some(spec) = taken(spec(wire.spec.unwrap_or_default())) else { return false };
    check_settings(&spec.settings);
    let (name, topics) = (&wire.subscription, &spec.topics);
    if let Err(error) = spec.settings.check_dead_letter_topic_of(name, topics) {
        assert!(!error.to_string().is_empty());
    }
    true
}

fn alter_subscription(wire: v1::AlterSubscriptionRequest) -> bool {
    let settings = wire.settings.unwrap_or_default();
    let Ok(settings) = SubscriptionSettings::default().overlaid(&settings) else { return false };
    check_settings(&settings);
    true
}

fn check_settings(settings: &SubscriptionSettings) {
    assert_eq!(SubscriptionSettings::from_given(&settings.to_message()).as_ref(), Ok(settings));
}

fn commit(wire: v1::CommitOffsetsRequest) -> bool {
    caller(wire.member.unwrap_or_default());
    wire.offsets.into_iter().map(offset_to_commit).for_each(drop);
    true
}

fn lookup(wire: v1::LookupOffsetsRequest) -> bool {
    wire.queries.iter().all(|query| taken(offset_query(query)).is_some())
}

/// Messages that are taken as they come; the first byte says which.
fn plain(mut bytes: Bytes) -> bool {
    if bytes.is_empty() {
        return false;
    }
    let kind = bytes.split_to(1)[0];
    match kind % 8 {
        0 => decoded::<v1::InitProducerRequest>(bytes).is_some(),
        1 => decoded::<v1::GetMetadataRequest>(bytes).is_some(),
        2 => decoded::<v1::GetOffsetsRequest>(bytes).is_some(),
        3 => decoded::<v1::DeleteRecordsRequest>(bytes).is_some(),
        4 => decoded::<v1::RedriveRequest>(bytes).is_some(),
        5 => decoded::<v1::CancelScheduledRequest>(bytes).is_some(),
        6 => decoded::<v1::PeekSubscriptionRequest>(bytes).is_some(),
        _ => decoded::<v1::DeleteTopicRequest>(bytes).is_some(),
    }
}

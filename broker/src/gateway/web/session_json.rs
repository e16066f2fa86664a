//! What the client of a push session is told, as JSON: what WebSockets and server-sent events have in common.

use riverrun_proto::grpc::v1;
use serde_json::{Value, json};

use super::subscription_json::enum_name;
use crate::{
    delivery::{RevokeReason, Run},
    gateway::grpc::push_convert,
    service::delivery::session::{Opened, Place},
};

/// The session of this id is open.
pub(super) fn opened(session_id: &str, told: &Opened) -> Value {
    let told = push_convert::opened(told);
    json!({
        "session_id": session_id,
        "session_epoch": told.session_epoch,
        "resumed": told.resumed,
        "ack_wait_ms": told.ack_wait_ms,
        "max_lease_ms": told.max_lease_ms,
        "max_in_flight": told.max_in_flight,
        "order": enum_name(told.order().as_str_name(), "DELIVERY_ORDER_"),
    })
}

/// Records that the session no longer holds.
pub(super) fn revoked(place: &Place, runs: &[Run], reason: RevokeReason) -> Value {
    let told = push_convert::revoked(place, runs, reason);
    json!({
        "topic": told.topic,
        "partition": told.partition,
        "ranges": ranges(&told.ranges),
        "reason": enum_name(told.reason().as_str_name(), "REVOKE_REASON_"),
    })
}

/// Records that retention removed.
pub(super) fn lost(place: &Place, runs: &[Run]) -> Value {
    let v1::Lost { topic, partition, ranges: lost } = push_convert::lost(place, runs);
    json!({"topic": topic, "partition": partition, "ranges": ranges(&lost)})
}

/// First offsets and those after the last.
fn ranges(ranges: &[v1::OffsetRange]) -> Vec<[u64; 2]> {
    ranges.iter().map(|range| [range.start_offset, range.end_offset]).collect()
}

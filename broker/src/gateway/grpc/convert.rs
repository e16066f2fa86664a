//! Wire messages to domain values and back. Bytes are sliced, not copied.

use std::time::Duration;

use riverrun_proto::{
    Header, Record,
    batch::OffsetRecord,
    grpc::{gather, v1},
};

use super::status::Describe;
use crate::{
    partition::{AppendReceipt, Durability, PartitionFailed, damages::DamagedPlace},
    service::{
        fetch::{FetchPartition, FetchRequest, Fetched, Format, Member},
        lookup::{OffsetQuery, Position},
        produce::{Acks, Payload, ProduceRequest},
        watch::{WatchState, WatchTarget},
    },
    topic::{
        Slot, Topic,
        config::durability_message,
        error::InvalidField,
        registry::{NewTopic, TopicChange},
    },
};

fn invalid(field: &'static str, expected: &str, found: impl ToString) -> InvalidField {
    InvalidField { field, expected: expected.into(), found: found.to_string() }
}

pub(super) fn produce_request(wire: v1::AppendRequest) -> Result<ProduceRequest, InvalidField> {
    let acks = match v1::Acks::try_from(wire.acks) {
        Ok(v1::Acks::None) => Acks::None,
        Ok(v1::Acks::Leader) => Acks::Leader,
        Ok(v1::Acks::All | v1::Acks::Unspecified) => Acks::All,
        Err(_) => return Err(invalid("acks", "NONE, LEADER or ALL", wire.acks)),
    };
    let durability_min = match v1::Durability::try_from(wire.durability_min) {
        Ok(v1::Durability::Unspecified | v1::Durability::Os) => Durability::Os,
        Ok(v1::Durability::Interval) => Durability::Interval,
        Ok(v1::Durability::Fsync) => Durability::Fsync,
        Err(_) => {
            return Err(invalid("durability_min", "OS, INTERVAL or FSYNC", wire.durability_min));
        }
    };
    let payload = match wire.payload {
        Some(v1::append_request::Payload::Batch(bytes)) => Payload::Batch(bytes),
        Some(v1::append_request::Payload::Records(records)) => {
            Payload::Records(records.records.into_iter().map(record).collect())
        }
        None => return Err(invalid("payload", "a batch or records", "nothing")),
    };
    let v1::AppendRequest { topic, topic_id, partition, .. } = wire;
    Ok(ProduceRequest { topic, topic_id, partition, acks, durability_min, payload })
}

pub(crate) fn record(wire: v1::Record) -> Record {
    let header = |header: v1::Header| Header { key: header.key.into(), value: header.value };
    let headers = wire.headers.into_iter().map(header).collect();
    Record { timestamp_ms: wire.timestamp_ms, key: wire.key, value: wire.value, headers }
}

pub(crate) fn wire_record(record: OffsetRecord) -> v1::Record {
    let OffsetRecord { offset, record } = record;
    let header = |header: Header| v1::Header {
        // Checked when it was produced; a foreign log may hold something else.
        key: String::from_utf8_lossy(&header.key).into_owned(),
        value: header.value,
    };
    v1::Record {
        offset: offset.0,
        timestamp_ms: record.timestamp_ms,
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(header).collect(),
    }
}

/// The receipt of a batch; `None` is that of a batch nobody waited for.
pub(super) fn append_response(
    request_id: u64,
    receipt: Option<AppendReceipt>,
) -> v1::AppendResponse {
    let Some(receipt) = receipt else {
        return v1::AppendResponse { request_id, ..v1::AppendResponse::default() };
    };
    v1::AppendResponse {
        request_id,
        base_offset: receipt.base_offset.0,
        end_offset: receipt.end_offset.0,
        reached: durability_message(receipt.reached) as i32,
        duplicate: receipt.duplicate,
        error: None,
    }
}

/// The receipt of a batch that failed.
pub(super) fn failed_response(request_id: u64, error: &impl Describe) -> v1::AppendResponse {
    let error = Some(error.describe());
    v1::AppendResponse { request_id, error, ..v1::AppendResponse::default() }
}

pub(super) fn fetch_request(wire: v1::FetchRequest) -> Result<FetchRequest, InvalidField> {
    let format = match v1::RecordFormat::try_from(wire.format) {
        Ok(v1::RecordFormat::Unspecified | v1::RecordFormat::Encoded) => Format::Encoded,
        Ok(v1::RecordFormat::Structured) => Format::Structured,
        Err(_) => return Err(invalid("format", "ENCODED or STRUCTURED", wire.format)),
    };
    let partition = |part: v1::FetchPartition| FetchPartition {
        topic: part.topic,
        topic_id: part.topic_id,
        partition: part.partition,
        offset: part.offset,
        bytes_max: part.max_bytes,
        // 0 is what an answer without records says.
        leader_epoch: part.leader_epoch.filter(|epoch| *epoch > 0),
    };
    let member = |member: v1::GroupMember| Member {
        group: member.group,
        member_id: member.member_id,
        member_epoch: member.member_epoch,
    };
    Ok(FetchRequest {
        partitions: wire.partitions.into_iter().map(partition).collect(),
        wait: Duration::from_millis(u64::from(wire.max_wait_ms)),
        bytes_min: wire.min_bytes,
        bytes_max: wire.max_bytes,
        records_max: wire.max_records,
        format,
        member: wire.member.map(member),
    })
}

pub(super) fn fetched_partition(fetched: Fetched) -> v1::FetchedPartition {
    let Fetched { topic, partition, visible, records } = fetched;
    let mut wire = v1::FetchedPartition { topic, partition, ..v1::FetchedPartition::default() };
    if let Some(visible) = visible {
        wire.log_start_offset = visible.log_start.0;
        wire.high_watermark = visible.high_watermark.0;
    }
    match records {
        Ok(records) => {
            wire.next_offset = records.next_offset.0;
            wire.leader_epoch = records.leader_epoch.0;
            wire.batches = records.batches;
            wire.records = records.records.into_iter().map(lone_record).collect();
        }
        Err(error) => wire.error = Some(error.describe()),
    }
    wire
}

/// A record whose large fields do not keep the batch that they were inflated from.
fn lone_record(record: OffsetRecord) -> v1::Record {
    let mut wire = wire_record(record);
    wire.key = wire.key.map(gather::alone);
    wire.value = wire.value.map(gather::alone);
    for header in &mut wire.headers {
        header.value = header.value.take().map(gather::alone);
    }
    wire
}

pub(super) fn watch_targets(wire: v1::WatchRequest) -> Vec<WatchTarget> {
    let target = |part: v1::WatchPartition| WatchTarget {
        topic: part.topic,
        partition: (!part.all_partitions).then_some(part.partition),
    };
    wire.partitions.into_iter().map(target).collect()
}

pub(super) fn partition_state(state: WatchState) -> v1::PartitionState {
    let WatchState { topic, partition, state } = state;
    let topic = topic.to_string();
    let wire = v1::PartitionState { topic, partition, ..v1::PartitionState::default() };
    match state {
        Ok(visible) => v1::PartitionState {
            log_start_offset: visible.log_start.0,
            high_watermark: visible.high_watermark.0,
            ..wire
        },
        Err(error) => v1::PartitionState { error: Some(error.describe()), ..wire },
    }
}

pub(super) fn offset_query(wire: &v1::OffsetQuery) -> Result<OffsetQuery, InvalidField> {
    let position = match wire.position {
        Some(v1::offset_query::Position::Earliest(_)) => Position::Earliest,
        Some(v1::offset_query::Position::Latest(_)) => Position::Latest,
        Some(v1::offset_query::Position::TimestampMs(time)) => Position::Timestamp(time),
        None => {
            return Err(invalid("position", "earliest, latest or timestamp_ms", "nothing"));
        }
    };
    Ok(OffsetQuery { topic: wire.topic.clone(), partition: wire.partition, position })
}

pub(super) fn new_topic(wire: v1::CreateTopicRequest) -> NewTopic {
    NewTopic {
        name: wire.topic,
        partition_count: wire.partitions,
        given: wire.config.unwrap_or_default(),
        validate_only: wire.validate_only,
    }
}

pub(super) fn topic_change(wire: v1::AlterTopicRequest) -> TopicChange {
    TopicChange {
        name: wire.topic,
        partition_count: wire.partitions,
        given: wire.config.unwrap_or_default(),
        reset: wire.reset,
        validate_only: wire.validate_only,
    }
}

pub(super) fn topic_metadata(topic: &Topic, node_id: u32) -> v1::TopicMetadata {
    let partition = |(number, slot): (u32, &Slot)| v1::PartitionMetadata {
        partition: number,
        leader_node_id: node_id,
        leader_epoch: match slot {
            Slot::Open(partition) => partition.leader_epoch().0,
            Slot::Failed(_) => 0,
        },
    };
    v1::TopicMetadata {
        topic: topic.name.to_string(),
        error: None,
        topic_id: crate::topic::catalog::id_bytes(topic.id),
        partitions: (0..).zip(&topic.partitions).map(partition).collect(),
        config: Some(topic.config.to_message()),
        overrides: Some(topic.given),
    }
}

pub(super) fn partition_description(number: u32, slot: &Slot) -> v1::PartitionDescription {
    let failed = |failure: &PartitionFailed| Some(failure.describe());
    let partition = match slot {
        Slot::Open(partition) => partition,
        Slot::Failed(failure) => {
            let failure = failed(failure);
            return v1::PartitionDescription { partition: number, failure, ..Default::default() };
        }
    };
    let (facts, damages) = (partition.facts(), partition.damages());
    v1::PartitionDescription {
        partition: number,
        log_start_offset: facts.visible.log_start.0,
        flushed_offset: facts.flushed.0,
        high_watermark: facts.visible.high_watermark.0,
        log_end_offset: facts.log_end.0,
        size_bytes: facts.size_bytes,
        segment_count: u32::try_from(facts.segment_count).unwrap_or(u32::MAX),
        failure: partition.failure().and_then(failed),
        damaged_places: damages.count,
        damaged: damages.named.into_iter().map(damaged_offsets).collect(),
    }
}

fn damaged_offsets(DamagedPlace { range, reason }: DamagedPlace) -> v1::DamagedOffsets {
    v1::DamagedOffsets {
        start_offset: range.start.0,
        end_offset: range.end.0,
        reason: reason.to_string(),
    }
}

//! A short load: one sender and reader a topic, commits, and a topic that comes and goes; everything is written down.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use riverrun_proto::{
    Record,
    batch::{BatchBuilder, BuilderOptions, Compression},
    grpc::v1::{
        self, admin_client::AdminClient, fetch_client::FetchClient, group_client::GroupClient,
        produce_client::ProduceClient,
    },
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// Topics with a load of their own.
pub(super) const TOPICS: [&str; 2] = ["a", "b"];
/// Bytes of a value: a few of them fill a segment.
const VALUE_BYTES: usize = 150 << 10;
/// Longest time that one call may take.
const CALL: Duration = Duration::from_secs(15);

/// What is known of one topic.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Every value ever sent.
    pub(super) sent: u64,
    /// Value by offset of what was acknowledged.
    pub(super) acked: BTreeMap<u64, u64>,
    /// Value by offset of what a reader saw.
    pub(super) read: BTreeMap<u64, u64>,
    /// Values that were refused.
    pub(super) refused: Vec<u64>,
    /// One was acknowledged when another had been refused before.
    pub(super) acked_after_refusal: bool,
    /// Highest offset whose commit was confirmed.
    pub(super) committed: u64,
}

/// Clients of one broker.
#[derive(Clone)]
pub(super) struct Clients {
    produce: ProduceClient<Channel>,
    fetch: FetchClient<Channel>,
    admin: AdminClient<Channel>,
    groups: GroupClient<Channel>,
}

/// Awaits an answer; one that does not come in time is a hang.
async fn answer<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<Result<T, Status>, String> {
    match tokio::time::timeout(CALL, call).await {
        Ok(answer) => Ok(answer.map(tonic::Response::into_inner)),
        Err(_) => Err("a call was not answered: the broker hangs".to_owned()),
    }
}

impl Clients {
    pub(super) async fn connect(address: &str) -> Result<Clients, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
        Ok(Clients {
            produce: ProduceClient::new(channel.clone()),
            fetch: FetchClient::new(channel.clone()).max_decoding_message_size(128 << 20),
            admin: AdminClient::new(channel.clone()),
            groups: GroupClient::new(channel),
        })
    }

    /// Creates a topic with the smallest segments.
    pub(super) async fn create(&mut self, topic: &str) -> Result<Result<(), Status>, String> {
        let config = Some(v1::TopicConfig {
            segment_bytes: Some(1 << 20),
            message_bytes_max: Some(512 << 10),
            ..Default::default()
        });
        let request = v1::CreateTopicRequest {
            topic: topic.into(),
            partitions: 1,
            config,
            ..Default::default()
        };
        Ok(answer(self.admin.create_topic(request)).await?.map(|_| ()))
    }

    async fn delete(&mut self, topic: &str) -> Result<Result<(), Status>, String> {
        let request = v1::DeleteTopicRequest { topic: topic.into(), ..Default::default() };
        Ok(answer(self.admin.delete_topic(request)).await?.map(|_| ()))
    }

    /// Sends the next value of a topic. `Ok(Err(..))` is a refusal.
    pub(super) async fn send(
        &mut self,
        topic: &str,
        seen: &mut Seen,
    ) -> Result<Result<(), Status>, String> {
        let value = seen.sent;
        seen.sent += 1;
        let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
        let record = Record {
            timestamp_ms: 1_700_000_000_000,
            value: Some(bytes_of(value)),
            ..Record::default()
        };
        builder.push(&record).map_err(|error| error.to_string())?;
        let batch = builder.build().map_err(|error| error.to_string())?;
        let request = v1::AppendRequest {
            request_id: 1,
            topic: topic.into(),
            payload: Some(v1::append_request::Payload::Batch(batch.into_bytes())),
            ..Default::default()
        };
        let answered = answer(self.produce.append(request)).await?;
        match answered {
            Ok(receipt) => {
                seen.acked_after_refusal |= !seen.refused.is_empty();
                seen.acked.insert(receipt.base_offset, value);
                Ok(Ok(()))
            }
            Err(status) => {
                seen.refused.push(value);
                Ok(Err(status))
            }
        }
    }

    /// Reads from an offset on what there is: offset and value, in order. Bytes that are not of any value are an error.
    pub(super) async fn read(
        &mut self,
        topic: &str,
        mut from: u64,
    ) -> Result<Result<Vec<(u64, u64)>, String>, String> {
        let mut found = Vec::new();
        loop {
            let partition =
                v1::FetchPartition { topic: topic.into(), offset: from, ..Default::default() };
            let request = v1::FetchRequest {
                partitions: vec![partition],
                format: v1::RecordFormat::Structured as i32,
                ..Default::default()
            };
            let fetched = match answer(self.fetch.fetch(request)).await? {
                Ok(fetched) => fetched,
                Err(status) => return Ok(Err(status.to_string())),
            };
            let Some(one) = fetched.partitions.first() else { return Ok(Ok(found)) };
            if let Some(error) = &one.error {
                return Ok(Err(format!("{error:?}")));
            }
            if one.records.is_empty() {
                return Ok(Ok(found));
            }
            for record in &one.records {
                let bytes = record.value.clone().unwrap_or_default();
                let value = value_of(&bytes)
                    .ok_or_else(|| format!("`{topic}` {}: wrong bytes", record.offset))?;
                if record.offset != from {
                    return Err(format!("`{topic}`: {} where {from} belongs", record.offset));
                }
                found.push((from, value));
                from += 1;
            }
        }
    }

    /// Commits an offset. False when it was refused.
    async fn commit(&mut self, topic: &str, offset: u64) -> Result<bool, String> {
        let member = v1::GroupMember { group: "g".into(), member_epoch: -1, ..Default::default() };
        let one = v1::OffsetCommit { topic: topic.into(), offset, ..Default::default() };
        let request = v1::CommitOffsetsRequest { member: Some(member), offsets: vec![one] };
        let answered = answer(self.groups.commit_offsets(request)).await?;
        Ok(answered.is_ok_and(|told| told.results.iter().all(|one| one.error.is_none())))
    }

    /// The stored offset.
    pub(super) async fn committed(&mut self, topic: &str) -> Result<u64, String> {
        let asked = vec![v1::TopicPartition { topic: topic.into(), partition: 0 }];
        let request = v1::GetOffsetsRequest { group: "g".into(), partitions: asked, member: None };
        match answer(self.groups.get_offsets(request)).await? {
            Ok(stored) => Ok(stored.offsets.first().and_then(|one| one.offset).unwrap_or(0)),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(0),
            Err(status) => Err(format!("no stored offset: {status}")),
        }
    }
}

/// So many values of each topic, each read when it was acknowledged; a commit now and then; topics made and removed.
pub(super) async fn run(
    clients: &mut Clients,
    seen: &mut [Seen; 2],
    count: usize,
) -> Result<(), String> {
    for round in 0..count {
        for (topic, seen) in TOPICS.iter().zip(seen.iter_mut()) {
            let taken = clients.send(topic, seen).await?;
            let from = seen.read.last_key_value().map_or(0, |(offset, _)| offset + 1);
            if let Ok(found) = clients.read(topic, from).await? {
                seen.read.extend(found);
            }
            let end = seen.read.last_key_value().map_or(0, |(offset, _)| offset + 1);
            if round % 4 == 1 && taken.is_ok() && clients.commit(topic, end).await? {
                seen.committed = end;
            }
        }
        // Whether they are refused is judged by what is there afterwards: the load's own topics.
        match round % 6 {
            2 => drop(clients.create("passing").await?),
            4 => drop(clients.delete("passing").await?),
            _ => {}
        }
    }
    Ok(())
}

/// A value: its number, and bytes that follow from it.
fn bytes_of(value: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(VALUE_BYTES);
    let mut next = value;
    while bytes.len() < VALUE_BYTES {
        bytes.extend_from_slice(&next.to_le_bytes());
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    }
    bytes.into()
}

/// The number of a value whose bytes are right.
fn value_of(bytes: &Bytes) -> Option<u64> {
    let value = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    (bytes_of(value) == bytes).then_some(value)
}

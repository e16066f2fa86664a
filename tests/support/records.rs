//! Small requests and the answers to them, in few words.

use bytes::Bytes;
use prost::Message;
use riverrun_proto::{
    Record, RecordBatch,
    batch::{BatchBuilder, BuilderOptions, Compression, HEADER_BYTES},
    grpc::v1,
};
use tonic::Status;

use super::{broker::Stubs, frames::be32};

/// A batch of these values.
pub(crate) fn batch(values: &[&str], options: BuilderOptions) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None, options);
    for value in values {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        let record = Record { timestamp_ms: 1_700_000_000_000, value, ..Record::default() };
        builder.push(&record).expect("allowed");
    }
    builder.build().expect("not empty")
}

/// A batch whose records are the given compressed bytes, with lengths and checksum that hold.
pub(crate) fn batch_around(codec: Compression, records: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(codec, BuilderOptions::default());
    builder.push(&Record { value: Some("x".into()), ..Record::default() }).expect("allowed");
    let honest = builder.build().expect("not empty").into_bytes();
    let mut bytes = [&honest[..HEADER_BYTES], records].concat();
    let length = u32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&be32(length));
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&be32(crc));
    bytes.into()
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}

/// A request to append these values to partition 0.
pub(crate) fn append(topic: &str, values: &[&str]) -> v1::AppendRequest {
    let batch = batch(values, BuilderOptions::default());
    v1::AppendRequest {
        request_id: 1,
        topic: topic.into(),
        payload: Some(v1::append_request::Payload::Batch(batch.into_bytes())),
        ..v1::AppendRequest::default()
    }
}

/// A request to read partition 0 from `offset` on, without waiting.
pub(crate) fn fetch(topic: &str, offset: u64) -> v1::FetchRequest {
    v1::FetchRequest {
        partitions: vec![v1::FetchPartition {
            topic: topic.into(),
            offset,
            ..v1::FetchPartition::default()
        }],
        format: v1::RecordFormat::Structured as i32,
        ..v1::FetchRequest::default()
    }
}

/// The values of structured records.
pub(crate) fn values(partition: &v1::FetchedPartition) -> Vec<String> {
    assert_eq!(partition.error, None);
    let value = |record: &v1::Record| record.value.clone().expect("has a value");
    partition
        .records
        .iter()
        .map(|record| String::from_utf8(value(record).to_vec()).expect("text"))
        .collect()
}

/// The error that a failed call carries in its trailer.
pub(crate) fn error(status: &Status) -> v1::Error {
    let bytes = status.metadata().get_bin("riverrun-error-bin").expect("the trailer is set");
    v1::Error::decode(bytes.to_bytes().expect("is base64")).expect("is an error")
}

/// Its code.
pub(crate) fn code(status: &Status) -> v1::ErrorCode {
    error(status).code()
}

impl Stubs {
    /// Creates a topic.
    pub(crate) async fn create(&mut self, topic: &str, partitions: u32, config: v1::TopicConfig) {
        let config = Some(config);
        let request = v1::CreateTopicRequest {
            topic: topic.into(),
            partitions,
            config,
            validate_only: false,
        };
        self.admin.create_topic(request).await.expect("created");
    }

    /// Appends values and returns the receipt.
    pub(crate) async fn append(&mut self, topic: &str, values: &[&str]) -> v1::AppendResponse {
        self.produce.append(append(topic, values)).await.expect("appended").into_inner()
    }

    /// Reads everything visible of partition 0.
    pub(crate) async fn read(&mut self, topic: &str) -> Vec<String> {
        let response = self.fetch.fetch(fetch(topic, 0)).await.expect("read").into_inner();
        values(&response.partitions[0])
    }
}

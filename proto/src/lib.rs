//! The words: what every other crate says to each other.
//!
//! - [`ids`]: names and numbers of topics, partitions and producers.
//! - [`name`]: what a name of a topic or group may be.
//! - [`offset`]: logical positions in a partition.
//! - [`batch`]: the record batch codec (Kafka v2), the unit of write, checksum and compression.
//! - [`record`]: one record, owned or borrowed from a batch.
//! - [`partitioner`]: from a key to a partition.
//! - [`limits`]: every number that bounds input.
//! - `grpc` (feature `grpc`): types and services generated from `proto/riverrun/v1`.
//!
//! No I/O, no clock, no randomness, no async: input goes in as bytes, results come out as values.

pub mod batch;
pub mod ids;
pub mod limits;
pub mod name;
pub mod offset;
pub mod partitioner;
pub mod record;

#[cfg(feature = "grpc")]
pub mod grpc;

pub use batch::{BatchBuilder, BatchHeader, BuilderOptions, Compression, RecordBatch};
pub use ids::{LeaderEpoch, PartitionId, ProducerEpoch, ProducerId, TopicId, TopicPartition};
pub use name::{NameError, NameKind, check_name};
pub use offset::Offset;
pub use record::{Header, Record};

//! What a caller wants to read.

use std::time::Duration;

use bytes::Bytes;

use super::Answer;

/// How records come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Stored batches.
    Encoded,
    /// Decoded records.
    Structured,
}

/// A member of a group, as it names itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name of the group.
    pub group: String,
    /// Its id.
    pub member_id: String,
    /// Its epoch.
    pub member_epoch: i32,
}

/// One partition to read.
#[derive(Clone, Debug)]
pub struct FetchPartition {
    /// Name of the topic.
    pub topic: String,
    /// Id the topic must have; empty for any.
    pub topic_id: Bytes,
    /// Partition number.
    pub partition: u32,
    /// First offset wanted.
    pub offset: u64,
    /// Most bytes of it; 0 for the default.
    pub bytes_max: u32,
    /// Epoch of the record before `offset`, when known.
    pub leader_epoch: Option<u32>,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// From where.
    pub partitions: Vec<FetchPartition>,
    /// How long to wait for `bytes_min`.
    pub wait: Duration,
    /// Answer once so many bytes are there.
    pub bytes_min: u32,
    /// Most bytes of the answer; 0 for the default. The first batch comes even when it is larger.
    pub bytes_max: u32,
    /// Most records of the answer; 0 for no limit.
    pub records_max: u32,
    /// Form of the records.
    pub format: Format,
    /// Set when reading as a member of a group.
    pub member: Option<Member>,
}

impl FetchRequest {
    /// The request that goes on where `answer` ended; `None` after an error of a partition, which is the caller's to deal with.
    pub fn continued(mut self, answer: &Answer) -> Option<FetchRequest> {
        // Both are in the order of the request.
        let mut parts = self.partitions.iter_mut();
        for fetched in &answer.partitions {
            let records = fetched.records.as_ref().ok()?;
            let same = |part: &&mut FetchPartition| {
                part.partition == fetched.partition && part.topic == fetched.topic
            };
            let part = parts.find(same)?;
            part.offset = records.next_offset.0;
            // 0 is what an answer without records says.
            if records.leader_epoch.0 > 0 {
                part.leader_epoch = Some(records.leader_epoch.0);
            }
        }
        Some(self)
    }
}

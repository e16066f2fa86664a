//! A topic of large records that fills the disk, and from which room is made: its oldest records are deleted.
//!
//! It keeps its own book: every offset that was acknowledged names its value for good, a value that was refused is never seen, and
//! what is deleted is what was asked for.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use riverrun_client::{
    Client, Error, ErrorCode, Limit, Offset, Producer, Record, TopicChange, TopicConfig,
    TopicPartition, TopicSpec,
};
use riverrun_tests::random::Random;

/// The topic.
pub(super) const HOARD: &str = "hoard";
/// Bytes of a value: ten of them fill a segment.
const VALUE_BYTES: usize = 100 << 10;
/// Longest time that a record may wait for its receipt: a refused one is tried again until then.
const PATIENCE: Duration = Duration::from_millis(700);
/// Records that are kept when others are deleted.
const KEPT: usize = 2;
/// What retention leaves of the topic.
const RETAINED_BYTES: u64 = 1 << 20;
/// More records than fit on the disk.
const RECORDS_MAX: u64 = 1_000;

/// What became of a record.
#[derive(Debug)]
pub(super) enum Sent {
    Acked,
    /// The disk is full.
    Refused,
    /// Nobody knows: it was on its way once more when its time was over.
    Doubtful,
    /// Another reason than a full disk.
    Unknown(Error),
}

/// The topic and its book.
pub(super) struct Hoard {
    mq: Client,
    producer: Producer,
    /// Values so far.
    count: u64,
    /// Value by offset of what was acknowledged.
    acked: BTreeMap<u64, u64>,
    refused: HashSet<u64>,
    /// Records before it were asked to be deleted, or may be by retention.
    doomed: u64,
}

impl Hoard {
    /// Makes the topic.
    pub(super) async fn make(mq: &Client) -> Result<Hoard, String> {
        let config = TopicConfig {
            segment_bytes: Some(1 << 20),
            message_bytes_max: Some(512 << 10),
            ..TopicConfig::default()
        };
        let spec = TopicSpec::new(HOARD).partitions(1).config(config);
        mq.admin().create_topic(spec).await.map_err(text)?;
        let producer = mq.producer(HOARD).delivery_timeout(PATIENCE);
        let producer = producer.build().await.map_err(text)?;
        let (acked, refused) = (BTreeMap::new(), HashSet::new());
        Ok(Hoard { mq: mq.clone(), producer, count: 0, acked, refused, doomed: 0 })
    }

    /// Sends the next record.
    pub(super) async fn send(&mut self) -> Sent {
        let value = self.count;
        self.count += 1;
        let sent = self.producer.send(Record::new(bytes_of(value)).partition(0)).await;
        let outcome = match sent {
            Ok(delivery) => delivery.await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(receipt) => {
                self.acked.insert(receipt.offset.0, value);
                Sent::Acked
            }
            Err(error) if error.code() == ErrorCode::DiskFull => {
                self.refused.insert(value);
                Sent::Refused
            }
            Err(error) if error.code() == ErrorCode::Indeterminate => Sent::Doubtful,
            Err(error) => Sent::Unknown(error),
        }
    }

    /// Sends until one is refused.
    pub(super) async fn fill(&mut self) -> Result<(), String> {
        for _ in 0..RECORDS_MAX {
            match self.send().await {
                Sent::Acked | Sent::Doubtful => {}
                Sent::Refused => return Ok(()),
                Sent::Unknown(error) => return Err(format!("while the disk fills: {error:?}")),
            }
        }
        // More was acknowledged than there is room for.
        self.check().await?;
        Err("the disk does not get full".into())
    }

    /// Records that were acknowledged.
    pub(super) fn len(&self) -> usize {
        self.acked.len()
    }

    /// Has all but the youngest records deleted.
    pub(super) async fn delete(&mut self) -> Result<(), Error> {
        let Some(before) = self.acked.keys().rev().nth(KEPT).copied() else { return Ok(()) };
        self.doomed = self.doomed.max(before);
        let from = TopicPartition::new(HOARD, 0);
        self.mq.admin().delete_records(&from, Offset(before)).await.map(drop)
    }

    /// Has retention keep little, or everything.
    pub(super) async fn retain(&mut self, little: bool) -> Result<(), Error> {
        let limit = if little { Limit::At(RETAINED_BYTES) } else { Limit::Unlimited };
        if little {
            // More than what is kept may never go.
            let kept = usize::try_from(RETAINED_BYTES).unwrap_or(0) / (VALUE_BYTES + 4096);
            let before = self.acked.keys().rev().nth(kept).copied().unwrap_or(0);
            self.doomed = self.doomed.max(before);
        }
        let config = TopicConfig { retention_bytes: Some(limit), ..TopicConfig::default() };
        let change = TopicChange::new().config(config);
        self.mq.admin().alter_topic(HOARD, change).await.map(drop)
    }

    /// Reads what is there, with an end to the wait, and holds it against the book.
    pub(super) async fn check(&self) -> Result<u64, String> {
        let found = tokio::time::timeout(Duration::from_secs(20), self.read()).await;
        let (start, end, records) = found.map_err(|_| "reading does not end")?.map_err(text)?;
        if start > self.doomed {
            return Err(format!("deleted up to {start}, at most {} was asked for", self.doomed));
        }
        for (offset, value) in &records {
            let known = self.acked.get(offset);
            let is_refused = value.is_some_and(|value| self.refused.contains(&value));
            let is_right = value.is_some() && known.is_none_or(|known| Some(*known) == *value);
            if is_refused || !is_right {
                return Err(format!(
                    "offset {offset}: {value:?}, acknowledged {known:?}, refused {is_refused}"
                ));
            }
        }
        let lost = self.acked.range(start..).find(|(offset, _)| !records.contains_key(offset));
        match lost {
            Some((offset, value)) => Err(format!("{value} at {offset} is gone, {start}..{end}")),
            None => Ok(records.len() as u64),
        }
    }

    /// Where the partition begins and ends, and its values by offset; `None` for one whose bytes are wrong.
    async fn read(&self) -> Result<(u64, u64, BTreeMap<u64, Option<u64>>), Error> {
        let told = self.mq.admin().describe_topic(HOARD).await?;
        let one = told.partitions.first();
        let (start, end) = one.map_or((0, 0), |one| (one.log_start.0, one.high_watermark.0));
        let mut records = BTreeMap::new();
        if start == end {
            return Ok((start, end, records));
        }
        let from = TopicPartition::new(HOARD, 0);
        let mut consumer = self.mq.consumer(HOARD).assign([from]).build().await?;
        let mut next = 0;
        while next < end {
            let batch = consumer.next_batch().await?;
            for record in &batch {
                let value = value_of(record.value.as_deref().unwrap_or_default());
                records.insert(record.offset.0, value);
            }
            next = batch.next_offset().0;
        }
        // Retention may have dropped some meanwhile.
        let told = self.mq.admin().describe_topic(HOARD).await?;
        let start = told.partitions.first().map_or(start, |one| one.log_start.0);
        Ok((start, end, records))
    }
}

fn text(error: Error) -> String {
    format!("`{HOARD}`: {error:?}")
}

/// A value: its number, and bytes that follow from it.
fn bytes_of(value: u64) -> Vec<u8> {
    let mut random = Random::new(value);
    let mut bytes = value.to_le_bytes().to_vec();
    while bytes.len() < VALUE_BYTES {
        bytes.extend_from_slice(&random.draw().to_le_bytes());
    }
    bytes
}

/// The number of a value whose bytes are right.
fn value_of(bytes: &[u8]) -> Option<u64> {
    let value = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    (bytes_of(value) == bytes).then_some(value)
}

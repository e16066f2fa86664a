//! Whole looks at everything, once all is healed.

use std::{sync::Arc, time::Duration};

use riverrun_client::{Client, Error, TopicPartition};
use tokio::time::timeout;

use super::{GROUP, PARTITIONS, payload::value_of, topic};
use crate::{
    history::{Operation, Part, Value},
    recorder::Recorder,
};

/// Longest time that reading everything may take.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// A fresh client reads everything from the beginning, and what the group has stored.
///
/// # Errors
/// When something cannot be read.
pub fn look(
    address: &str,
    view: &str,
    topics: u16,
    recorder: &Arc<Recorder>,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let looked = async { timeout(LOOK_MAX, look_at(address, view, topics, recorder)).await };
    match runtime.block_on(looked) {
        Ok(done) => done.map_err(|error| format!("the look `{view}`: {error:?}")),
        Err(_) => Err(format!("the look `{view}` did not end")),
    }
}

async fn look_at(
    address: &str,
    view: &str,
    topics: u16,
    recorder: &Arc<Recorder>,
) -> Result<(), Error> {
    let mq = Client::connect(address).await?;
    for number in 0..topics {
        let described = mq.admin().describe_topic(&topic(number)).await?;
        for partition in 0..PARTITIONS {
            let at = TopicPartition::new(topic(number), partition);
            let told = described.partitions.iter().find(|one| one.partition.0 == partition);
            let (start, end) = told.map_or((0, 0), |one| (one.log_start.0, one.high_watermark.0));
            let records = read_all(&mq, &at, (start, end)).await?;
            let at = Part(number, partition);
            let view = view.to_owned();
            recorder.ok(0, Operation::Final { view, at, log_start: start, end, records });
        }
    }
    stored_offsets(&mq, recorder).await
}

/// Every record of a partition.
async fn read_all(
    mq: &Client,
    at: &TopicPartition,
    (start, end): (u64, u64),
) -> Result<Vec<(u64, Value)>, Error> {
    let mut records = Vec::new();
    if start == end {
        return Ok(records);
    }
    let mut consumer = mq.consumer(at.topic.to_string()).assign([at.clone()]).build().await?;
    let mut next = start;
    while next < end {
        let batch = consumer.next_batch().await?;
        for record in &batch {
            let value = value_of(record.value.as_deref().unwrap_or_default());
            records.push((record.offset.0, value));
        }
        next = batch.next_offset().0;
    }
    Ok(records)
}

/// What the group has stored, as one who asks afresh is told.
async fn stored_offsets(mq: &Client, recorder: &Arc<Recorder>) -> Result<(), Error> {
    let groups = mq.admin().list_groups().await?;
    if !groups.iter().any(|group| &*group.group == "g") {
        return Ok(());
    }
    let proc = recorder.proc();
    let group = mq.admin().describe_group("g").await?;
    for stored in &group.partitions {
        let at = Part(0, stored.partition.partition.0);
        let asked = Operation::FetchOffset { group: GROUP, at, offset: None };
        recorder.invoke(proc, asked);
        let offset = stored.committed.map(|offset| offset.0);
        recorder.ok(proc, Operation::FetchOffset { group: GROUP, at, offset });
    }
    Ok(())
}

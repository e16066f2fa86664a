//! Partitions that could not be read on: told of once each, and together decide the exit code.

use std::collections::BTreeMap;

use riverrun_client::{Error, ErrorCode, TopicPartition};

use crate::failure::Failure;

/// The partitions that stopped, and why.
#[derive(Debug)]
pub(super) struct Trouble {
    /// The group, when reading as a member.
    group: Option<String>,
    stopped: BTreeMap<TopicPartition, Error>,
    /// Something was written to standard error.
    told: bool,
}

impl Trouble {
    pub(super) fn new(group: Option<String>) -> Trouble {
        Trouble { group, stopped: BTreeMap::new(), told: false }
    }

    /// Takes the error of a partition, and tells of it unless it is all that the command ends with.
    pub(super) fn note(&mut self, partition: &TopicPartition, error: Error, goes_on: bool) {
        if goes_on || self.told {
            let end = if goes_on { "; going on without it" } else { "" };
            match error.partition() {
                Some(_) => eprintln!("riverrun: {error}{end}"),
                None => eprintln!("riverrun: {partition}: {error}{end}"),
            }
            // Said now where nothing ends the command, else with its end.
            if goes_on && let Some(advice) = self.advice_where_lost(partition, &error) {
                eprintln!("riverrun: {advice}");
            }
            self.told = true;
        }
        self.stopped.insert(partition.clone(), error);
    }

    /// Records of the partition came again: somebody moved its offset.
    pub(super) fn healed(&mut self, partition: &TopicPartition) {
        self.stopped.remove(partition);
    }

    /// Whether the partition stopped.
    pub(super) fn has(&self, partition: &TopicPartition) -> bool {
        self.stopped.contains_key(partition)
    }

    /// Whether there are partitions and all of them stopped.
    pub(super) fn has_all(&self, partitions: &[TopicPartition]) -> bool {
        !partitions.is_empty() && partitions.iter().all(|partition| self.has(partition))
    }

    /// The failure to end with, if any partition was not read to its end.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let Some((partition, first)) = self.stopped.first_key_value() else { return Ok(()) };
        let mut failure = Failure::from(first.clone());
        if self.told {
            let names: Vec<String> = self.stopped.keys().map(|name| format!("`{name}`")).collect();
            failure.message = format!("not read to the end: {}", names.join(", "));
        }
        if let Some(advice) = self.advice(partition, first) {
            failure.message = format!("{}; {advice}", failure.message);
        }
        Err(failure)
    }

    /// How a member reads on whose offset is not kept any more, or comes from another history.
    fn advice_where_lost(&self, partition: &TopicPartition, error: &Error) -> Option<String> {
        let group = self.group.as_ref()?;
        let to = match (error.code(), error.epoch_end()) {
            (ErrorCode::OffsetOutOfRange, _) => "--to-earliest".to_owned(),
            (ErrorCode::OffsetTruncated, Some((_, end))) => format!("--to-offset {end}"),
            _ => return None,
        };
        let TopicPartition { topic, partition: number } = partition;
        Some(format!("to read it on: `riverrun group reset {group} --topic {topic}:{number} {to}`"))
    }

    /// How to read on behind damage.
    fn advice(&self, partition: &TopicPartition, error: &Error) -> Option<String> {
        let end = error.range().filter(|_| error.code() == ErrorCode::DataCorrupt)?.end;
        let TopicPartition { topic, partition: number } = partition;
        Some(match &self.group {
            None => format!(
                "to read on behind the damage: `riverrun consume {topic} --partition {number} --from offset:{end}`"
            ),
            Some(group) => format!(
                "to read on behind the damage: `riverrun group reset {group} --topic {topic}:{number} --to-offset {end}`"
            ),
        })
    }
}

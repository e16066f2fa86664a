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

    /// Takes the error of a partition, and tells of it unless it ends the command anyway.
    pub(super) fn note(&mut self, partition: &TopicPartition, error: Error, goes_on: bool) {
        if goes_on {
            match error.partition() {
                Some(_) => eprintln!("riverrun: {error}; going on without it"),
                None => eprintln!("riverrun: {partition}: {error}; going on without it"),
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

//! Where a reader of several partitions stands, as one word that fits a header and a line.
//!
//! ```text
//! TOPIC-ID;PARTITION:OFFSET:EPOCH,...      next offset of each partition, and the epoch of the record before it
//! ```
//!
//! The topic's id and the epochs make the word exact: it never resumes in another topic of the same name, nor past
//! an end that the log lost.

use std::{collections::BTreeMap, fmt};

use riverrun_proto::TopicId;
use uuid::Uuid;

/// Position in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(in super::super) struct Position {
    /// Next offset to read.
    pub(super) offset: u64,
    /// Epoch of the record before it; 0 when it is not known.
    pub(super) epoch: u32,
}

/// Positions in the partitions of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Cursor {
    pub(super) topic_id: TopicId,
    pub(super) positions: BTreeMap<u32, Position>,
}

impl Cursor {
    /// Reads what [`Cursor`]'s `Display` writes.
    pub(super) fn parse(text: &str) -> Option<Cursor> {
        let (id, parts) = text.split_once(';')?;
        let topic_id = TopicId(Uuid::parse_str(id).ok()?);
        let mut positions = BTreeMap::new();
        for part in parts.split(',').filter(|part| !part.is_empty()) {
            let mut numbers = part.split(':');
            let partition = numbers.next()?.parse().ok()?;
            let offset = numbers.next()?.parse().ok()?;
            let epoch = numbers.next()?.parse().ok()?;
            let is_new = positions.insert(partition, Position { offset, epoch }).is_none();
            if numbers.next().is_some() || !is_new {
                return None;
            }
        }
        Some(Cursor { topic_id, positions })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};", self.topic_id.0.simple())?;
        for (index, (partition, position)) in self.positions.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{partition}:{}:{}", position.offset, position.epoch)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        let text = "00000000000040008000000000000009;0:12:1,7:0:0";
        let cursor = Cursor::parse(text).unwrap();
        assert_eq!(cursor.positions[&0], Position { offset: 12, epoch: 1 });
        assert_eq!(cursor.to_string(), text);
        for broken in [
            "",
            "x",
            ";",
            "9;0:1:1",
            &format!("{text},0:1:1"),
            &format!("{text}:1"),
            &format!("{text},8:-1:0"),
            &format!("{text},8:1"),
        ] {
            assert_eq!(Cursor::parse(broken), None, "{broken}");
        }
    }
}

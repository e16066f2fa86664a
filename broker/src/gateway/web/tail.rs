//! A reader of a topic over all its partitions, with a filter: what server-sent events and WebSockets have in common.
//!
//! ```text
//! Wanted (topic, where from, which partitions, which records) -> Tail -> step -> Form: records and gaps, as the door writes them
//! ```
//!
//! A tail has no state here: its [`Cursor`] is all of it, so a resume is exact, also after the broker's restart. One read at a
//! time, made when the connection can take more.

mod cursor;
mod filter;
mod reader;

use riverrun_proto::{Offset, batch::OffsetRecord};
use serde_json::Value;

pub(super) use self::{
    cursor::{Cursor, Position},
    filter::Filter,
    reader::Tail,
};
use super::problem::Problem;
use crate::topic::{Slot, Topic};

/// Most partitions of one tail: its cursor names all of them.
const PARTITIONS_MAX: usize = 128;

/// What a reader asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) topic: String,
    /// The cursor to go on from, and the field it came in.
    pub(super) cursor: Option<(&'static str, String)>,
    /// Without a cursor: from the start instead of the end.
    pub(super) from_start: bool,
    /// Only these partitions.
    pub(super) partitions: Option<Vec<u32>>,
    pub(super) filter: Filter,
}

/// How a door writes what a tail finds. Everything is written with the cursor after it.
pub(super) trait Form {
    /// A record that is wanted.
    fn record(&mut self, cursor: &Cursor, partition: u32, record: &OffsetRecord);

    /// Records that the reader will not get, with the reason.
    fn gap(&mut self, cursor: &Cursor, told: &Value);
}

/// The partitions to read.
fn partitions(topic: &Topic, chosen: Option<&[u32]>) -> Result<Vec<u32>, Problem> {
    let count = topic.partition_count();
    let partitions = chosen.map_or_else(|| (0..count).collect(), <[u32]>::to_vec);
    if !(1..=PARTITIONS_MAX).contains(&partitions.len()) {
        let expected = format!("1 to {PARTITIONS_MAX} of the topic's {count}");
        return Err(Problem::field("partitions", &expected, partitions.len()));
    }
    for partition in &partitions {
        // An unknown one is told as everywhere.
        topic.partition(*partition)?;
    }
    Ok(partitions)
}

/// The cursor to go on from.
fn resumed(field: &str, text: &str, topic: &Topic) -> Result<Cursor, Problem> {
    let cursor = Cursor::parse(text);
    let cursor = cursor.ok_or_else(|| Problem::field(field, "the id of an event", text))?;
    let count = topic.partition_count();
    let is_same = cursor.topic_id == topic.id;
    match cursor.positions.keys().find(|partition| is_same && **partition >= count) {
        Some(partition) => {
            let expected = format!("the id of an event of a topic with {count} partitions");
            Err(Problem::field(field, &expected, partition))
        }
        None => Ok(cursor),
    }
}

/// The start and the end of what may be read.
fn visible(topic: &Topic, partition: u32) -> (Position, Position) {
    match topic.partitions.get(partition as usize) {
        Some(Slot::Open(open)) => {
            let visible = open.visible();
            let position = |offset: Offset| Position {
                offset: offset.0,
                epoch: match offset.0.checked_sub(1) {
                    Some(before) => open.epoch_at(Offset(before)).0,
                    None => 0,
                },
            };
            let start = Position { offset: visible.log_start.0, epoch: 0 };
            (start, position(visible.high_watermark))
        }
        Some(Slot::Failed(_)) | None => Default::default(),
    }
}

//! A reader of a topic over all its partitions, with a filter: what server-sent events and WebSockets have in common.
//!
//! ```text
//! Wanted (topic, where from, which partitions, which records) -> Tail -> step -> Form: records and gaps, as the door writes them
//! ```
//!
//! A tail has no state here: its [`Cursor`] is all of it, so a resume is exact, also after the broker's restart. One read at a
//! time, made when the connection can take more. Readers that stand at the same cursor near the end of the topic take one step
//! together ([`Shared`]): it is read and written once, however many they are.

mod cursor;
mod filter;
mod reader;
mod shared;

use std::collections::{BTreeMap, BTreeSet};

use riverrun_proto::{LeaderEpoch, Offset, batch::OffsetRecord};
use serde_json::Value;

pub(super) use self::{
    cursor::{Cursor, Position},
    filter::Filter,
    reader::Tail,
    shared::Shared,
};
use super::problem::Problem;
use crate::{
    config::Config,
    topic::{Slot, Topic},
};

/// Most partitions of one tail: its cursor names all of them, and comes back in a header.
const PARTITIONS_MAX: usize = 128;
/// Most bytes of one of them in a cursor.
const POSITION_BYTES: usize = "9999:18446744073709551615:4294967295,".len();

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
pub(super) trait Form: Send + Sync + 'static {
    /// What is written so far takes no fewer bytes; 0 when there is nothing.
    fn bytes(&self) -> usize;

    /// A record that is wanted.
    fn record(&mut self, cursor: &Cursor, partition: u32, record: &OffsetRecord);

    /// Records that the reader will not get, with the reason.
    fn gap(&mut self, cursor: &Cursor, told: &Value);
}

/// Most partitions of one tail here: its cursor fills at most half of the headers.
fn partitions_max(config: &Config) -> usize {
    (config.http.header_bytes_max / 2 / POSITION_BYTES).clamp(1, PARTITIONS_MAX)
}

/// The partitions to read: those that are chosen, or all. Whoever comes back with a cursor is not refused because the topic grew.
fn partitions(
    topic: &Topic,
    (chosen, given): (Option<&[u32]>, Option<&Cursor>),
    most: usize,
) -> Result<BTreeSet<u32>, Problem> {
    let count = topic.partition_count();
    let partitions = match (chosen, given) {
        (Some(chosen), _) => chosen.iter().copied().collect(),
        (None, None) => (0..count).collect(),
        (None, Some(given)) => {
            let named = given.positions.range(..count).map(|(partition, at)| (*partition, *at));
            let mut positions = named.collect();
            fill(&mut positions, count, most);
            positions.into_keys().collect::<BTreeSet<u32>>()
        }
    };
    if !(1..=most).contains(&partitions.len()) {
        let expected = format!("1 to {most} of the topic's {count}");
        return Err(Problem::field("partitions", &expected, partitions.len()));
    }
    for partition in &partitions {
        // An unknown one is told as everywhere.
        topic.partition(*partition)?;
    }
    Ok(partitions)
}

/// Takes up the first of the topic's `count` partitions that are not there, from their start, as long as there are fewer than `most`.
fn fill(positions: &mut BTreeMap<u32, Position>, count: u32, most: usize) {
    for partition in 0..count {
        if positions.len() >= most {
            return;
        }
        positions.entry(partition).or_default();
    }
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

/// Records between the cursor and the end of the topic; `None` where it cannot be told, or not all of them can be read.
fn behind(topic: &Topic, cursor: &Cursor) -> Option<u64> {
    if topic.id != cursor.topic_id {
        return None;
    }
    let mut behind = 0u64;
    for (partition, position) in &cursor.positions {
        let Some(Slot::Open(open)) = topic.partitions.get(*partition as usize) else {
            return None;
        };
        let visible = open.visible();
        if position.offset < visible.log_start.0 {
            return None;
        }
        let here = visible.high_watermark.0.checked_sub(position.offset)?;
        behind = behind.saturating_add(here);
    }
    Some(behind)
}

/// What leads from one cursor to the other can be read still, so that a copy of it may be given out.
fn is_readable(topic: &Topic, from: &Cursor, to: &Cursor) -> bool {
    let mut moved = from.positions.iter().filter_map(|(partition, at)| {
        let to = to.positions.get(partition)?;
        (to != at).then_some((*partition, *at, *to))
    });
    topic.id == from.topic_id
        && moved.all(|(partition, at, to)| {
            let Some(Slot::Open(open)) = topic.partitions.get(partition as usize) else {
                return false;
            };
            let is_there = |position: Position| {
                let epoch = Some(LeaderEpoch(position.epoch)).filter(|epoch| epoch.0 > 0);
                open.check_position(Offset(position.offset), epoch)
            };
            is_there(at).is_ok()
                && is_there(to).is_ok_and(|visible| visible.high_watermark.0 >= to.offset)
        })
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

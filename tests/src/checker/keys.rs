//! Orders of subscriptions: a record goes out when every earlier one of its key is settled.
//!
//! Two rules are seen from outside. A record that goes out for the first time lies behind all that went out of its key before. And
//! while a record is given to somebody, no earlier one of its key is open, unless the same session has it in hands (a pipeline), or
//! it is dead; that is known at the end only, so those are doubts until then.

use std::collections::HashMap;

use super::{hands::Piece, rules::Order};
use crate::history::{Delivered, Part, Value};

/// Records of one key, or of the whole partition.
#[derive(Debug, Default)]
struct Line {
    /// Power cuts up to now; records may take offsets again after each.
    cuts: u32,
    /// The highest that went out, and whose it was.
    highest: Option<(u64, Value)>,
    /// Went out and was not settled. Few.
    open: Vec<(u64, Value)>,
}

/// A subscription, a partition, and a key (`None` when the whole partition is in order).
type Place = (u32, Part, Option<u32>);

/// A record on its way into hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) subscription: u32,
    pub(super) at: Part,
    pub(super) record: Delivered,
    /// It goes out for the first time.
    pub(super) is_new: bool,
    pub(super) order: Order,
}

impl Step {
    /// Where it has its order; `None` when it has none.
    fn place(&self) -> Option<Place> {
        match self.order {
            Order::Unordered => None,
            Order::Key => self.record.key.map(|key| (self.subscription, self.at, Some(key))),
            Order::Partition | Order::Exclusive => Some((self.subscription, self.at, None)),
        }
    }
}

/// All orders of all subscriptions.
#[derive(Debug, Default)]
pub(super) struct Keys {
    lines: HashMap<Place, Line>,
    /// Where an open record stands.
    places: HashMap<Piece, Place>,
    /// Records that were open while a later one went out.
    doubts: HashMap<Piece, String>,
}

impl Keys {
    /// Takes a step down. Tells what is wrong when a record goes out for the first time after a later one did.
    pub(super) fn ahead(&mut self, step: Step, cuts: u32) -> Option<String> {
        let place = step.place()?;
        let Delivered { offset, value, .. } = step.record;
        let line = self.lines.entry(place).or_default();
        if line.cuts != cuts {
            *line = Line { cuts, ..Line::default() };
        }
        let before = line.highest.filter(|(highest, _)| step.is_new && *highest > offset);
        if line.highest.is_none_or(|(highest, _)| highest < offset) {
            line.highest = Some((offset, value));
        }
        if !line.open.iter().any(|(_, open)| *open == value) {
            line.open.push((offset, value));
        }
        self.places.insert((step.subscription, value), place);
        before.map(|(highest, other)| {
            let at = step.at;
            format!("{value:?} at {offset} of {at:?} went out after {other:?} at {highest}")
        })
    }

    /// Other records of the line that are open.
    pub(super) fn others(&self, step: Step) -> Vec<Value> {
        let line = step.place().and_then(|place| self.lines.get(&place));
        let is_other =
            |value: &Value| *value != step.record.value && step.order != Order::Exclusive;
        line.map(|line| line.open.iter().map(|(_, value)| *value).filter(is_other).collect())
            .unwrap_or_default()
    }

    /// `other` was open when a later record went out: an anomaly, unless it is dead. It is out of the line either way.
    pub(super) fn doubt(&mut self, step: Step, other: Value, witness: String) {
        self.settled(step.subscription, other);
        self.doubts.entry((step.subscription, other)).or_insert(witness);
    }

    /// A record is done, or about to be.
    pub(super) fn settled(&mut self, subscription: u32, value: Value) {
        let Some(place) = self.places.remove(&(subscription, value)) else { return };
        if let Some(line) = self.lines.get_mut(&place) {
            line.open.retain(|(_, open)| *open != value);
        }
    }

    /// The doubts, at the end.
    pub(super) fn doubts(&mut self) -> impl Iterator<Item = (Piece, String)> {
        std::mem::take(&mut self.doubts).into_iter()
    }
}

//! What is left of subscriptions at the end: every record settled by somebody, dead, or open.

use std::collections::{HashMap, HashSet};

use super::{
    Anomaly, Findings, Rules,
    hands::{Hands, Piece},
    item::Item,
    verdict::Views,
};
use crate::history::{Part, Value};

/// What a subscription did not settle.
#[derive(Clone, Debug, Default)]
struct Open {
    start: u64,
    end: u64,
    offsets: HashSet<u64>,
}

/// What the final looks at subscriptions found.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Dead letters of a subscription, with how often each is there. A subscription without an entry was not looked at.
    letters: HashMap<u32, HashMap<(Part, u64, Value), u32>>,
    open: HashMap<(u32, Part), Open>,
}

impl Leftovers {
    pub(super) fn dead(&mut self, subscription: u32, letters: &[(Part, u64, Value)]) {
        let known = self.letters.entry(subscription).or_default();
        known.clear();
        for letter in letters {
            *known.entry(*letter).or_default() += 1;
        }
    }

    pub(super) fn open(&mut self, place: (u32, Part), span: std::ops::Range<u64>, open: &[u64]) {
        let offsets = open.iter().copied().collect();
        self.open.insert(place, Open { start: span.start, end: span.end, offsets });
    }

    /// Judges all subscriptions.
    pub(super) fn judge(
        &self,
        hands: &mut Hands,
        views: &Views,
        rules: &Rules,
        findings: &mut Findings,
    ) {
        let dead = self.letters(findings);
        hands.finish(|piece| dead.contains(&piece), findings);
        let mut end = End { hands, views, dead, missing: HashMap::new() };
        for (place, open) in &self.open {
            end.settled(*place, open, findings);
        }
        self.worn_out(&mut end, rules);
        for ((subscription, value), place) in end.missing {
            let anomaly = if place.failed { Anomaly::DlqLost } else { Anomaly::LostInflight };
            findings.add(anomaly, || {
                let Place { at, offset, .. } = place;
                format!("subscription {subscription}: {value:?} at {offset} of {at:?}")
            });
        }
    }

    /// The records that have a letter, each once.
    fn letters(&self, findings: &mut Findings) -> HashSet<Piece> {
        let mut dead = HashSet::new();
        for (subscription, letters) in &self.letters {
            dead.extend(letters.keys().map(|(_, _, value)| (*subscription, *value)));
            for ((at, offset, value), count) in letters.iter().filter(|(_, count)| **count > 1) {
                findings.add(Anomaly::DlqDup, || {
                    format!("{value:?} at {offset} of {at:?} has {count} letters")
                });
            }
        }
        dead
    }

    /// What was rejected, or failed too often, has a letter.
    fn worn_out(&self, end: &mut End<'_>, rules: &Rules) {
        for (piece, item) in &end.hands.items {
            let open = self.open.get(&(piece.0, item.at));
            let is_open = open.is_some_and(|open| open.offsets.contains(&item.offset));
            let wants = item.is_dead(rules.subscription(piece.0).max_failures);
            let is_looked_at = self.letters.contains_key(&piece.0);
            if wants
                && is_looked_at
                && !is_open
                && !end.dead.contains(piece)
                && end.has(item, piece.1)
            {
                let place = Place { at: item.at, offset: item.offset, failed: true };
                end.missing.insert(*piece, place);
            }
        }
    }
}

/// Everything at the end.
struct End<'a> {
    hands: &'a Hands,
    views: &'a Views,
    /// Records that have a letter.
    dead: HashSet<Piece>,
    /// Records that are settled and have no cause.
    missing: HashMap<Piece, Place>,
}

impl End<'_> {
    /// Everything that counts as settled was settled by somebody, and what was settled for sure is not open.
    fn settled(&mut self, place: (u32, Part), open: &Open, findings: &mut Findings) {
        let (subscription, at) = place;
        let records = self.views.log(at).map_or(&[][..], |log| &log.records);
        for (offset, value) in records {
            let piece = (subscription, *value);
            let item = self.hands.items.get(&piece);
            let is_open = open.offsets.contains(offset);
            let is_meant = (open.start..open.end).contains(offset) && !is_open;
            if is_open && item.is_some_and(|item| item.confirmed.is_some()) {
                findings.add(Anomaly::AckResurrect, || {
                    format!("{value:?} at {offset} of {at:?} is open at the end")
                });
            }
            if is_meant && !item.is_some_and(Item::is_acked) && !self.dead.contains(&piece) {
                let failed = item.is_some_and(|item| item.failed);
                self.missing.insert(piece, Place { at, offset: *offset, failed });
            }
        }
    }

    /// Whether the final log, if there was a look at it, has the record where it was handed out.
    fn has(&self, item: &Item, value: Value) -> bool {
        self.views.log(item.at).is_none_or(|log| {
            let index = log.records.binary_search_by_key(&item.offset, |(offset, _)| *offset);
            index.is_ok_and(|index| log.records[index].1 == value)
        })
    }
}

/// Where a record is that is settled and has no cause.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: Part,
    offset: u64,
    /// Somebody failed it or rejected it.
    failed: bool,
}

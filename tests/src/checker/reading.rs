//! Readers: each sees every offset once and in order, and what was acknowledged before it asked.

use std::{cmp::Ordering, collections::HashMap};

use super::{
    Anomaly,
    book::{Book, Sight, Source, UNKNOWN},
    scene::Scene,
};
use crate::history::{Operation, Part, Phase, Value};

/// What a poll began with.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// Where acknowledgements reached.
    acked_end: u64,
    cuts: u32,
    t_ns: u64,
}

/// All readers.
#[derive(Debug, Default)]
pub(super) struct Reading {
    begun: HashMap<(u32, Part), Begun>,
    /// Where a reader's next record must be.
    positions: HashMap<(u32, Part), u64>,
}

impl Reading {
    pub(super) fn poll(&mut self, book: &mut Book, scene: &mut Scene<'_>) {
        let event = scene.event;
        let Operation::Poll { at, from, records, end } = &event.operation else { return };
        let place = (event.proc, *at);
        if event.phase == Phase::Invoke {
            let acked_end = book.acked_end(*at);
            let begun = Begun { acked_end, cuts: scene.life.cuts, t_ns: event.t_ns };
            self.begun.insert(place, begun);
            return;
        }
        let begun = self.begun.remove(&place);
        if event.phase != Phase::Ok {
            return;
        }
        self.order(*at, *from, records, scene);
        let Some(begun) = begun.filter(|begun| scene.life.is_sure(begun.cuts)) else { return };
        for (offset, value) in records {
            let seen = Sight { at: *at, offset: *offset, value: *value, source: Source::Poll };
            book.observe(seen, scene);
        }
        let is_stale = match end {
            Some(end) => *end < begun.acked_end,
            None => records.is_empty() && *from < begun.acked_end,
        };
        if is_stale {
            let acked = begun.acked_end;
            scene.add(Anomaly::StaleEnd, || {
                format!("{at:?} was acknowledged up to {acked}, shown up to {end:?}")
            });
        }
        let next = records.last().map_or(*from, |(offset, _)| offset.saturating_add(1));
        if next < begun.acked_end {
            let lag = book.acked_for(*at, next, begun.t_ns);
            scene.findings.lag_max_ns = scene.findings.lag_max_ns.max(lag);
        }
    }

    /// Whether the records follow each other and the ones before.
    fn order(&mut self, at: Part, from: u64, records: &[(u64, Value)], scene: &mut Scene<'_>) {
        let proc = scene.event.proc;
        let mut expected = self.positions.get(&(proc, at)).copied().unwrap_or(from);
        for (offset, _) in records {
            let anomaly = match offset.cmp(&expected) {
                Ordering::Equal => None,
                Ordering::Less => Some(Anomaly::NonmonotonicPoll),
                Ordering::Greater => Some(Anomaly::PollSkip),
            };
            if let Some(anomaly) = anomaly {
                scene.add(anomaly, || format!("reader {proc} of {at:?}: {offset} for {expected}"));
            }
            expected = offset.saturating_add(1);
        }
        if !records.is_empty() {
            self.positions.insert((proc, at), expected);
        }
    }

    /// A reader goes elsewhere, or gets a partition anew.
    pub(super) fn forget(&mut self, proc: u32, at: Part) {
        self.positions.remove(&(proc, at));
    }
}

impl Book {
    /// For how long the record at `offset` was acknowledged at `t_ns`; 0 when it was not.
    fn acked_for(&self, at: Part, offset: u64, t_ns: u64) -> u64 {
        let sent = self.named_at(at, offset).and_then(|value| {
            let fact = self.facts.get(&value)?;
            self.sends.get(fact.send)
        });
        match sent {
            Some(sent) if sent.done != UNKNOWN => t_ns.saturating_sub(sent.done_ns),
            _ => 0,
        }
    }
}

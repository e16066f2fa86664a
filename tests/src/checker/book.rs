//! What was sent, and what was seen of it: every send, every value, and what each offset named.

use std::collections::{HashMap, HashSet};

use super::{Anomaly, Life, Rules, scene::Scene};
use crate::history::{Event, Level, Operation, Part, Phase, Value};

/// An offset or index that is not known.
pub(super) const UNKNOWN: u64 = u64::MAX;

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// No answer, or one that does not count: it may be there.
    Open,
    Acked,
    Failed,
}

/// One send.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) proc: u32,
    pub(super) at: Part,
    /// Its values, in `Book::values`.
    pub(super) first: usize,
    pub(super) len: usize,
    pub(super) invoke: u64,
    pub(super) invoke_ns: u64,
    /// Index of the answer, when it was acknowledged; `UNKNOWN` otherwise.
    pub(super) done: u64,
    pub(super) done_ns: u64,
    /// Power cuts before it began; when it was acknowledged, before that too.
    pub(super) cuts: u32,
    pub(super) fate: Fate,
    /// Level that was reached, when acknowledged.
    pub(super) reached: Level,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fact {
    pub(super) send: usize,
    /// Which of the batch.
    pub(super) slot: usize,
    /// Where it was acknowledged or seen last; `UNKNOWN` until then.
    pub(super) offset: u64,
    /// Power cuts before the last time it was acknowledged or seen.
    pub(super) alive: u32,
    /// Some reader or session got it.
    pub(super) seen: bool,
    /// A reader got it by a poll.
    pub(super) polled: bool,
    /// Where the final log has it first; `UNKNOWN` when it has not.
    pub(super) settled: u64,
    doubled: bool,
}

/// What an offset named when it was looked at last.
#[derive(Clone, Copy, Debug)]
struct Named {
    value: Value,
    cuts: u32,
}

/// How a value became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Receipt,
    Poll,
    Delivery,
    Final,
}

/// Ends up to where acknowledgements reach, by partition.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    acked: u64,
    /// Only what was flushed.
    flushed: u64,
}

/// Everything that was sent and seen.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) sends: Vec<Sent>,
    pub(super) values: Vec<Value>,
    pub(super) facts: HashMap<Value, Fact>,
    named: HashMap<(Part, u64), Named>,
    ends: HashMap<Part, Ends>,
    unexpected: HashSet<Value>,
}

impl Book {
    pub(super) fn send(&mut self, scene: &mut Scene<'_>) {
        let event = scene.event;
        let Operation::Send { at, values, .. } = &event.operation else { return };
        if event.phase == Phase::Invoke {
            self.begin(event, *at, values, scene.life);
            return;
        }
        let Some(fact) = values.first().and_then(|value| self.facts.get(value)) else { return };
        match event.phase {
            Phase::Fail => self.sends[fact.send].fate = Fate::Failed,
            Phase::Ok => self.receipt(fact.send, scene),
            Phase::Invoke | Phase::Info => {}
        }
    }

    /// A send is acknowledged.
    fn receipt(&mut self, number: usize, scene: &mut Scene<'_>) {
        let event = scene.event;
        let Operation::Send { at, values, level, offset, reached, .. } = &event.operation else {
            return;
        };
        let sent = &mut self.sends[number];
        sent.done = event.index;
        sent.done_ns = event.t_ns;
        sent.reached = reached.unwrap_or(*level);
        if sent.reached < *level {
            scene.add(Anomaly::WrongLevel, || format!("asked for {level:?}, got {reached:?}"));
        }
        for (name, at) in scene.life.served(sent.invoke_ns) {
            let gap = scene.findings.gaps_max_ns.entry(name).or_default();
            *gap = event.t_ns.saturating_sub(at).max(*gap);
        }
        let is_sure = scene.life.is_sure(sent.cuts) && sent.reached != Level::None;
        let (Some(offset), true) = (*offset, is_sure) else { return };
        sent.fate = Fate::Acked;
        self.acknowledge(number, offset);
        for (value, offset) in values.iter().zip(offset..) {
            self.observe(Sight { at: *at, offset, value: *value, source: Source::Receipt }, scene);
        }
    }

    fn begin(&mut self, event: &Event, at: Part, values: &[Value], life: &Life) {
        let send = self.sends.len();
        self.sends.push(Sent {
            proc: event.proc,
            at,
            first: self.values.len(),
            len: values.len(),
            invoke: event.index,
            invoke_ns: event.t_ns,
            done: UNKNOWN,
            done_ns: 0,
            cuts: life.cuts,
            fate: Fate::Open,
            reached: Level::None,
        });
        self.values.extend(values);
        for (slot, value) in values.iter().enumerate() {
            let fact = Fact {
                send,
                slot,
                offset: UNKNOWN,
                alive: 0,
                seen: false,
                polled: false,
                settled: UNKNOWN,
                doubled: false,
            };
            self.facts.insert(*value, fact);
        }
    }

    fn acknowledge(&mut self, number: usize, offset: u64) {
        let sent = &self.sends[number];
        let end = offset + sent.len as u64;
        let ends = self.ends.entry(sent.at).or_default();
        ends.acked = ends.acked.max(end);
        if sent.reached == Level::Fsync {
            ends.flushed = ends.flushed.max(end);
        }
    }

    /// Where acknowledgements of a partition reach.
    pub(super) fn acked_end(&self, at: Part) -> u64 {
        self.ends.get(&at).map_or(0, |ends| ends.acked)
    }

    /// What was not flushed may be gone now.
    pub(super) fn power_cut(&mut self, rules: &Rules) {
        for (at, ends) in &mut self.ends {
            if rules.level(at.0) != Level::Fsync {
                ends.acked = ends.flushed;
            }
        }
    }

    /// What an offset named last.
    pub(super) fn named_at(&self, at: Part, offset: u64) -> Option<Value> {
        self.named.get(&(at, offset)).map(|named| named.value)
    }

    /// The values of a send.
    pub(super) fn values_of(&self, sent: &Sent) -> &[Value] {
        &self.values[sent.first..sent.first + sent.len]
    }

    /// Takes down that `seen.offset` names `seen.value`.
    pub(super) fn observe(&mut self, seen: Sight, scene: &mut Scene<'_>) {
        let Sight { at, offset, value, source } = seen;
        if value == Value::WRONG {
            scene.add(Anomaly::WrongBytes, || format!("offset {offset} of {at:?}"));
            return;
        }
        let cuts = scene.life.cuts;
        let known = self.facts.get_mut(&value).filter(|fact| self.sends[fact.send].at == at);
        let Some(fact) = known else {
            self.stranger(seen, scene);
            return;
        };
        let is_flushed = scene.rules.level(at.0) == Level::Fsync;
        // What was acknowledged is not sent again, so it keeps its place as long as it is there.
        let sent = &self.sends[fact.send];
        let is_firm = is_flushed || sent.reached == Level::Fsync || sent.fate == Fate::Acked;
        let is_elsewhere = fact.offset != UNKNOWN && fact.offset != offset;
        if is_elsewhere && (is_firm || fact.alive == cuts) && !fact.doubled {
            fact.doubled = true;
            scene.findings.counts.duplicated += 1;
            if scene.rules.idempotent {
                let other = fact.offset;
                scene.add(Anomaly::Duplicate, || {
                    format!("{value:?} at {other} and {offset} of {at:?}")
                });
            }
        }
        if fact.offset == UNKNOWN || fact.alive != cuts {
            fact.offset = offset;
        }
        fact.alive = cuts;
        fact.seen |= source != Source::Receipt;
        fact.polled |= source == Source::Poll;
        let Some(before) = self.named.insert((at, offset), Named { value, cuts }) else { return };
        if before.value != value && (is_flushed || before.cuts == cuts) {
            scene.add(Anomaly::InconsistentOffset, || {
                format!("offset {offset} of {at:?} was {:?}, is {value:?}", before.value)
            });
        }
    }

    /// A value that nobody sent to this partition.
    fn stranger(&mut self, seen: Sight, scene: &mut Scene<'_>) {
        let Sight { at, offset, value, .. } = seen;
        if self.unexpected.insert(value) {
            scene.findings.counts.unexpected += 1;
            scene.add(Anomaly::Unexpected, || format!("{value:?} at {offset} of {at:?}"));
        }
    }
}

/// A value in its place, as seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) at: Part,
    pub(super) offset: u64,
    pub(super) value: Value,
    pub(super) source: Source,
}

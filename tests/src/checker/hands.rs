//! Push sessions: who holds which record.
//!
//! A record is told by its value, so one that takes the offset of a lost one is another. What a session holds is what it was given,
//! did not settle, was not told to have lost, and whose lease surely still runs: it began at most [`Rules::lag`] before it was recorded.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
};

use super::{
    Anomaly, Findings, Rules,
    item::Item,
    keys::{Keys, Step},
    scene::Scene,
    suspects::{Suspect, Suspects},
};
use crate::history::{Delivered, Operation, Outcome, Part, Phase, Value};

/// A record of a subscription.
pub(super) type Piece = (u32, Value);

/// A session.
#[derive(Debug, Default)]
struct Session {
    window: u32,
    ack_wait_ns: u64,
    /// What it holds, by place, with the number of the hand-out.
    held: HashMap<(Part, u64), u64>,
    /// Ends of leases in their order: when, of which place, of which hand-out.
    leases: VecDeque<(u64, (Part, u64), u64)>,
    /// Hand-outs so far.
    given: u64,
    /// After how many starts it was opened.
    starts: u32,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(super) struct Hands {
    pub(super) items: HashMap<Piece, Item>,
    /// What a subscription was given last at an offset.
    places: HashMap<(u32, Part, u64), Value>,
    sessions: HashMap<(u32, u32), Session>,
    /// Settlements on their way, by their first offset, with the power cuts before them.
    settling: HashMap<(u32, u32, Part, u64), u32>,
    suspects: Suspects,
    keys: Keys,
    resurrected: HashSet<Piece>,
}

impl Hands {
    pub(super) fn open(&mut self, scene: &Scene<'_>) {
        let Operation::Open { subscription, window, ack_wait_ms } = scene.event.operation else {
            return;
        };
        if scene.event.phase != Phase::Ok {
            return;
        }
        let session = self.sessions.entry((subscription, scene.event.proc)).or_default();
        session.window = window;
        session.ack_wait_ns = ack_wait_ms.saturating_mul(1_000_000);
        session.starts = scene.life.starts;
    }

    pub(super) fn close(&mut self, scene: &Scene<'_>) {
        let Operation::Close { subscription } = scene.event.operation else { return };
        let key = (subscription, scene.event.proc);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.leases.clear();
        for (at, offset) in mem::take(&mut session.held).into_keys() {
            self.give_back(key, at, offset);
        }
        self.suspects.explain_all(Some(key), scene.event.t_ns, scene.rules);
    }

    pub(super) fn revoke(&mut self, scene: &Scene<'_>) {
        let Operation::Revoke { subscription, at, offsets } = &scene.event.operation else {
            return;
        };
        let key = (*subscription, scene.event.proc);
        for offset in offsets {
            self.give_back(key, *at, *offset);
            let hold = (key.0, key.1, *at, *offset);
            self.suspects.explain(hold, scene.event.t_ns, scene.rules);
        }
    }

    /// A fault explains whatever looks odd within the lag before it.
    pub(super) fn fault(&mut self, t_ns: u64, rules: &Rules) {
        self.suspects.explain_all(None, t_ns, rules);
    }

    /// A session does not hold a record any more. Tells which one that is.
    fn give_back(&mut self, key: (u32, u32), at: Part, offset: u64) -> Option<&mut Item> {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.held.remove(&(at, offset));
        }
        let value = *self.places.get(&(key.0, at, offset))?;
        let item = self.items.get_mut(&(key.0, value))?;
        if item.last.proc == key.1 {
            item.held = false;
        }
        Some(item)
    }

    pub(super) fn deliver(&mut self, scene: &mut Scene<'_>) {
        let Operation::Deliver { subscription, at, records } = &scene.event.operation else {
            return;
        };
        for record in records {
            let piece = (*subscription, record.value);
            self.places.insert((*subscription, *at, record.offset), record.value);
            let is_new = !self.items.contains_key(&piece);
            self.again(piece, *record, scene);
            let order = scene.rules.subscription(*subscription).order;
            let step =
                Step { subscription: *subscription, at: *at, record: *record, is_new, order };
            self.key_order(step, scene);
            self.take(step, scene);
        }
        self.window(*subscription, scene);
    }

    /// A record that was handed out before is handed out again.
    fn again(&mut self, piece: Piece, record: Delivered, scene: &mut Scene<'_>) {
        let Some(before) = self.items.get(&piece) else { return };
        before.compare(record, scene);
        if let Some((confirmed_ns, starts)) = before.confirmed {
            let session = self.sessions.get(&(piece.0, scene.event.proc));
            let is_new = session.is_some_and(|session| session.starts > starts);
            if (scene.is_long_after(confirmed_ns) || is_new) && self.resurrected.insert(piece) {
                let (offset, at) = (before.offset, before.at);
                scene.add(Anomaly::AckResurrect, || {
                    format!("{:?} at {offset} of {at:?} came again", piece.1)
                });
            }
        }
        if record.attempts > before.last.attempts && self.is_held(piece.0, before, scene) {
            let witness = format!(
                "{:?} at {} of {:?} was in the hands of {} (event {})",
                piece.1, before.offset, before.at, before.last.proc, scene.event.index
            );
            let hold = (piece.0, before.last.proc, before.at, before.offset);
            let (anomaly, t_ns) = (Anomaly::EarlyRedeliver, scene.event.t_ns);
            self.suspects.add(hold, Suspect { anomaly, t_ns, witness });
        }
    }

    /// Whether the last holder of a record surely still has it.
    fn is_held(&self, subscription: u32, item: &Item, scene: &Scene<'_>) -> bool {
        let session = self.sessions.get(&(subscription, item.last.proc));
        session.is_some_and(|session| {
            item.is_held(session.ack_wait_ns, scene.event.t_ns, scene.life, scene.rules)
        })
    }

    fn key_order(&mut self, step: Step, scene: &mut Scene<'_>) {
        // Right after a start, what the broker before it handed out may still come.
        let is_sure = scene.is_of_this_start();
        let ahead = self.keys.ahead(step, scene.life.cuts);
        if let Some(witness) = ahead.filter(|_| is_sure) {
            scene.add(Anomaly::KeyOrder, || witness);
        }
        let others = if is_sure { self.keys.others(step) } else { Vec::new() };
        for other in others {
            let Some(item) = self.items.get(&(step.subscription, other)) else { continue };
            let record = step.record;
            let witness = format!(
                "{:?} at {} of {:?} was handed out beside {other:?} at {} (event {})",
                record.value, record.offset, step.at, item.offset, scene.event.index
            );
            let is_same_session = item.last.proc == scene.event.proc;
            if !is_same_session && self.is_held(step.subscription, item, scene) {
                let hold = (step.subscription, item.last.proc, item.at, item.offset);
                let (anomaly, t_ns) = (Anomaly::KeyOrder, scene.event.t_ns);
                self.suspects.add(hold, Suspect { anomaly, t_ns, witness });
            } else if item.offset < record.offset && !(is_same_session && item.held) {
                self.keys.doubt(step, other, witness);
            }
        }
    }

    /// Takes down who has the record now.
    fn take(&mut self, step: Step, scene: &Scene<'_>) {
        let Step { subscription, at, record, .. } = step;
        self.items
            .entry((subscription, record.value))
            .and_modify(|item| item.again(record, scene))
            .or_insert_with(|| Item::new(at, record, scene));
        let key = (subscription, scene.event.proc);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.given += 1;
        session.held.insert((at, record.offset), session.given);
        let lease_end = scene.event.t_ns + session.ack_wait_ns;
        let lease_end = lease_end.saturating_sub(scene.rules.lag_ns());
        session.leases.push_back((lease_end, (at, record.offset), session.given));
    }

    /// Whether the session holds more than it may.
    fn window(&mut self, subscription: u32, scene: &mut Scene<'_>) {
        let proc = scene.event.proc;
        let Some(session) = self.sessions.get_mut(&(subscription, proc)) else { return };
        while let Some((end, place, given)) = session.leases.front().copied() {
            if end > scene.event.t_ns {
                break;
            }
            session.leases.pop_front();
            if session.held.get(&place) == Some(&given) {
                session.held.remove(&place);
            }
        }
        let (held, window) = (session.held.len(), session.window);
        if held > window as usize && window > 0 {
            scene.add(Anomaly::OverWindow, || format!("session {proc} holds {held} of {window}"));
        }
    }

    pub(super) fn settle(&mut self, scene: &Scene<'_>) {
        let Operation::Settle { subscription, at, offsets, outcome, confirmed } =
            &scene.event.operation
        else {
            return;
        };
        let Some(first) = offsets.first() else { return };
        let proc = scene.event.proc;
        let hold = (*subscription, proc, *at, *first);
        if scene.event.phase == Phase::Invoke {
            self.settling.insert(hold, scene.life.cuts);
            for offset in offsets.iter().filter(|_| *outcome != Outcome::Extend) {
                self.say((*subscription, proc), *at, *offset, *outcome);
            }
            return;
        }
        let is_sure = self.settling.remove(&hold).is_some_and(|cuts| scene.life.is_sure(cuts));
        if scene.event.phase != Phase::Ok || !confirmed || !is_sure {
            return;
        }
        for offset in offsets {
            let value = self.places.get(&(*subscription, *at, *offset));
            let item = value.and_then(|value| self.items.get_mut(&(*subscription, *value)));
            if let Some(item) = item {
                item.confirm(*outcome, proc, (scene.event.t_ns, scene.life.starts));
            }
        }
    }

    /// A session begins to tell an outcome: from here on the record may be anybody's.
    fn say(&mut self, key: (u32, u32), at: Part, offset: u64, outcome: Outcome) {
        let Some(item) = self.give_back(key, at, offset) else { return };
        item.say(outcome);
        if matches!(outcome, Outcome::Ack | Outcome::Reject)
            && let Some(value) = self.places.get(&(key.0, at, offset))
        {
            self.keys.settled(key.0, *value);
        }
    }

    /// What nothing explained is an anomaly. `is_dead` tells whether a record became a dead letter.
    pub(super) fn finish(&mut self, is_dead: impl Fn(Piece) -> bool, findings: &mut Findings) {
        self.suspects.finish(findings);
        for (piece, witness) in self.keys.doubts() {
            if !is_dead(piece) {
                findings.add(Anomaly::KeyOrder, || witness);
            }
        }
    }
}

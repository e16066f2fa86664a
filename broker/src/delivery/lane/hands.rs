//! Records of a lane go into hands and come back.

use super::Lane;
use crate::delivery::{
    entry::{Entry, NONE, State},
    run::Run,
    settings::{Order, Settings},
};

/// Records that were in hands and are open no more.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    /// Which.
    pub(crate) runs: Vec<Run>,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Those that were handed out alone.
    pub(crate) alone: Vec<u64>,
}

impl Lane {
    /// A record that is open and in nobody's hands may be handed out, as soon as its key allows.
    pub(crate) fn offer(&mut self, offset: u64, settings: &Settings) {
        self.open.update(offset, |entry| entry.set_state(State::Blocked));
        let Some(entry) = self.open.get(offset) else { return };
        if entry.key == NONE {
            self.make_ready(offset);
        } else {
            self.advance_key(entry.key, settings);
        }
    }

    /// A record goes into the hands of `session`, under the lease of `grant`.
    pub(crate) fn take(&mut self, offset: u64, hand: (u32, u32), settings: &Settings) {
        let (session, grant) = hand;
        let before = self.open.update(offset, |entry| hand_out(entry, grant));
        let Some(before) = before else { return };
        if before.isolated() {
            self.isolated.remove(&offset);
        }
        if before.key != NONE {
            self.keys.hold(before.key, session);
            self.advance_key(before.key, settings);
        }
    }

    /// Records that come back as well when `offset`, which is in hands, is not settled: those of its key behind it.
    /// The last first.
    pub(crate) fn held_behind(&self, offset: u64) -> Vec<u64> {
        match self.open.get(offset) {
            Some(entry) if entry.key != NONE => self.keys.held_behind(entry.key, offset),
            Some(_) | None => Vec::new(),
        }
    }

    /// A record leaves its holder's hands without being settled; it is blocked then. No record of its key behind it is in
    /// hands any more.
    pub(crate) fn put_back(&mut self, offset: u64) {
        let before = self.open.update(offset, |entry| {
            entry.set_state(State::Blocked);
            entry.set_started(false);
        });
        if let Some(before) = before
            && before.key != NONE
        {
            self.keys.let_go(before.key);
        }
    }

    /// Records without keys that are in hands by `grant` are open no more. Returns them.
    pub(crate) fn close_granted(&mut self, grant: u32, runs: &[Run]) -> Closed {
        let (mut closed, mut failed) = (Closed::default(), Vec::new());
        let mut close = |offset: u64, entry: &Entry| {
            if entry.state() != State::InFlight || entry.grant != grant {
                return false;
            }
            Run::push(&mut closed.runs, Run::one(offset));
            closed.bytes += u64::from(entry.bytes);
            if entry.failures > 0 {
                failed.push(offset);
            }
            if entry.isolated() {
                closed.alone.push(offset);
            }
            true
        };
        for run in runs {
            self.open.remove_where(*run, &mut close);
        }
        for offset in failed {
            self.forget_failures(offset);
        }
        closed
    }

    /// Looks what of a key may be handed out next.
    pub(crate) fn advance_key(&mut self, slot: u32, settings: &Settings) {
        let held = self.keys.held(slot);
        let Some(offset) = self.keys.nth(slot, held) else { return };
        let Some(entry) = self.open.get(offset) else { return };
        if entry.state() != State::Blocked {
            return;
        }
        match self.keys.holder(slot) {
            None => self.make_ready(offset),
            Some(holder) if held < pipeline(settings) && !entry.isolated() => {
                self.offers.push((holder, offset));
            }
            Some(_) => {}
        }
    }

    /// Looks at every key, after the settings changed.
    pub(crate) fn advance_keys(&mut self, settings: &Settings) {
        for slot in self.keys.slots() {
            self.advance_key(slot, settings);
        }
    }

    /// A blocked record that only `session` may have next still is that.
    pub(crate) fn is_offered_to(&self, offset: u64, session: u32, settings: &Settings) -> bool {
        let Some(entry) = self.open.get(offset) else { return false };
        if entry.key == NONE || entry.state() != State::Blocked || entry.isolated() {
            return false;
        }
        let held = self.keys.held(entry.key);
        self.keys.holder(entry.key) == Some(session)
            && held < pipeline(settings)
            && self.keys.nth(entry.key, held) == Some(offset)
    }

    /// A ready record has to wait again, because an earlier one of its key came up.
    pub(crate) fn make_blocked(&mut self, offset: u64) {
        self.isolated.remove(&offset);
        self.open.update(offset, |entry| entry.set_state(State::Blocked));
    }

    fn make_ready(&mut self, offset: u64) {
        let mut isolated = false;
        self.open.update(offset, |entry| {
            entry.set_state(State::Ready);
            isolated = entry.isolated();
        });
        if isolated {
            self.isolated.insert(offset);
        }
    }
}

/// Marks a record as handed out.
pub(crate) fn hand_out(entry: &mut Entry, grant: u32) {
    entry.set_state(State::InFlight);
    entry.set_started(false);
    entry.grant = grant;
    entry.attempts = entry.attempts.saturating_add(1);
}

/// Records of one key in one session's hands.
fn pipeline(settings: &Settings) -> usize {
    match settings.order {
        Order::Exclusive => usize::MAX,
        Order::Unordered | Order::KeyFifo | Order::PartitionFifo => {
            settings.key_pipeline.max(1) as usize
        }
    }
}

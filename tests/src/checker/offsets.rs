//! Stored offsets of groups: a confirmed one is there, the newest wins, and only the owner of a partition stores.
//!
//! A stored offset is a register. What is asked for must be a write that no other write followed for sure: one that began after it
//! ended, and ended before the question began.

use std::collections::HashMap;

use super::{Anomaly, scene::Scene};
use crate::history::{Event, Operation, Part, Phase};

/// A group and a partition.
type Place = (u32, Part);

/// Writes of one value to one register.
#[derive(Clone, Copy, Debug, Default)]
struct Writes {
    /// Begun and not ended, or nobody knows how they ended: may take effect at any time.
    open: u32,
    /// When the last one was confirmed; 0 when none is.
    done: u64,
}

/// One stored offset.
#[derive(Debug, Default)]
struct Register {
    values: HashMap<u64, Writes>,
    /// When the last to begin of the confirmed writes began; 0 when none is confirmed.
    floor: u64,
}

/// What a question or a write began with.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// Its event, counted from 1.
    moment: u64,
    cuts: u32,
    floor: u64,
    is_zombie: bool,
}

/// Who owns a partition in a group.
#[derive(Clone, Copy, Debug)]
struct Owner {
    proc: u32,
    epoch: i64,
}

/// All stored offsets and owners.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    registers: HashMap<Place, Register>,
    begun: HashMap<(u32, Place), Begun>,
    owners: HashMap<Place, Owner>,
    /// The epoch with which a member owned a partition last.
    epochs: HashMap<(u32, Place), i64>,
}

impl Offsets {
    pub(super) fn own(&mut self, event: &Event) {
        let Operation::Own { group, at, epoch } = event.operation else { return };
        let place = (group, at);
        self.epochs.insert((event.proc, place), epoch);
        let owner = self.owners.entry(place).or_insert(Owner { proc: event.proc, epoch });
        if epoch >= owner.epoch {
            *owner = Owner { proc: event.proc, epoch };
        }
    }

    pub(super) fn commit(&mut self, scene: &mut Scene<'_>) {
        let event = scene.event;
        let Operation::Commit { group, at, offset, .. } = event.operation else { return };
        let place = (group, at);
        let key = (event.proc, place);
        if event.phase == Phase::Invoke {
            let begun = Begun {
                moment: event.index + 1,
                cuts: scene.life.cuts,
                floor: 0,
                is_zombie: self.is_zombie(event.proc, place),
            };
            self.begun.insert(key, begun);
            self.registers.entry(place).or_default().values.entry(offset).or_default().open += 1;
            return;
        }
        let Some(begun) = self.begun.remove(&key) else { return };
        let register = self.registers.entry(place).or_default();
        let writes = register.values.entry(offset).or_default();
        match event.phase {
            Phase::Fail => writes.open -= 1,
            Phase::Ok if scene.life.is_sure(begun.cuts) => {
                writes.open -= 1;
                writes.done = event.index + 1;
                register.floor = register.floor.max(begun.moment);
            }
            // Nobody knows: it may take effect at any time.
            Phase::Invoke | Phase::Info | Phase::Ok => {}
        }
        if event.phase == Phase::Ok && begun.is_zombie {
            scene.add(Anomaly::ZombieWrite, || {
                format!("member {} stored {offset} of {at:?}, owned by another", event.proc)
            });
        }
    }

    /// Whether another member owned the partition later than this one did.
    fn is_zombie(&self, proc: u32, place: Place) -> bool {
        let Some(own) = self.epochs.get(&(proc, place)) else { return false };
        self.owners.get(&place).is_some_and(|owner| owner.proc != proc && owner.epoch > *own)
    }

    pub(super) fn fetch(&mut self, scene: &mut Scene<'_>) {
        let event = scene.event;
        let Operation::FetchOffset { group, at, offset } = event.operation else { return };
        let place = (group, at);
        // Writes of the same process to the same place are not in flight while it asks.
        let key = (event.proc, place);
        let floor = self.registers.get(&place).map_or(0, |register| register.floor);
        if event.phase == Phase::Invoke {
            let begun =
                Begun { moment: event.index + 1, cuts: scene.life.cuts, floor, is_zombie: false };
            self.begun.insert(key, begun);
            return;
        }
        let Some(begun) = self.begun.remove(&key) else { return };
        if event.phase != Phase::Ok || !scene.life.is_sure(begun.cuts) {
            return;
        }
        let Some(offset) = offset else {
            if begun.floor > 0 {
                scene.add(Anomaly::CommitLost, || format!("group {group} has none for {at:?}"));
            }
            return;
        };
        let writes = self.registers.get(&place).and_then(|register| register.values.get(&offset));
        let is_right = writes.is_some_and(|writes| {
            writes.open > 0 || (writes.done > 0 && writes.done >= begun.floor)
        });
        if !is_right {
            scene.add(Anomaly::CommitRegress, || format!("group {group} has {offset} for {at:?}"));
        }
    }
}

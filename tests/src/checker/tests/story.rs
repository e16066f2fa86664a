//! Histories by hand. A value's sender is the process that sends it.

use crate::history::{Delivered, Event, Level, Operation, Outcome, Part, Phase, Value};

/// The partition of most stories.
pub(super) const AT: Part = Part(0, 0);

/// Events, and the clock that they have.
#[derive(Clone)]
pub(super) struct Story {
    pub(super) events: Vec<Event>,
    now_ns: u64,
    level: Level,
}

pub(super) fn value(counter: u64) -> Value {
    Value(counter)
}

/// Offsets with the values there.
fn records(pairs: &[(u64, u64)]) -> Vec<(u64, Value)> {
    pairs.iter().map(|(offset, counter)| (*offset, value(*counter))).collect()
}

/// A hand-out of the record at an offset, whose value is 1 higher.
pub(super) fn given(offset: u64, attempts: u32, failures: u32, key: Option<u32>) -> Delivered {
    Delivered { offset, value: value(offset + 1), attempts, failures, key }
}

impl Story {
    pub(super) fn new() -> Story {
        Story::of(Level::Fsync)
    }

    /// One whose sends ask for a level.
    pub(super) fn of(level: Level) -> Story {
        Story { events: Vec::new(), now_ns: 1_000_000_000, level }
    }

    pub(super) fn after_ms(&mut self, ms: u64) -> &mut Story {
        self.now_ns += ms * 1_000_000;
        self
    }

    pub(super) fn push(&mut self, proc: u32, phase: Phase, operation: Operation) {
        let index = self.events.len() as u64;
        self.events.push(Event { index, t_ns: self.now_ns, proc, phase, operation, err: None });
    }

    fn send(&self, values: &[u64], offset: Option<u64>) -> Operation {
        Operation::Send {
            at: AT,
            values: values.iter().copied().map(value).collect(),
            keys: Vec::new(),
            level: self.level,
            offset,
            reached: offset.map(|_| self.level),
        }
    }

    pub(super) fn send_begins(&mut self, proc: u32, values: &[u64]) {
        self.push(proc, Phase::Invoke, self.send(values, None));
    }

    pub(super) fn send_ok(&mut self, proc: u32, values: &[u64], offset: u64) {
        self.push(proc, Phase::Ok, self.send(values, Some(offset)));
    }

    pub(super) fn sent(&mut self, proc: u32, values: &[u64], offset: u64) {
        self.send_begins(proc, values);
        self.send_ok(proc, values, offset);
    }

    /// Nobody knows.
    pub(super) fn send_info(&mut self, proc: u32, values: &[u64]) {
        self.send_begins(proc, values);
        self.push(proc, Phase::Info, self.send(values, None));
    }

    pub(super) fn send_fails(&mut self, proc: u32, values: &[u64]) {
        self.send_begins(proc, values);
        self.push(proc, Phase::Fail, self.send(values, None));
    }

    pub(super) fn polled_to(
        &mut self,
        proc: u32,
        from: u64,
        pairs: &[(u64, u64)],
        end: Option<u64>,
    ) {
        let begun = Operation::Poll { at: AT, from, records: Vec::new(), end: None };
        self.push(proc, Phase::Invoke, begun);
        let done = Operation::Poll { at: AT, from, records: records(pairs), end };
        self.push(proc, Phase::Ok, done);
    }

    /// A poll that is told the end of what it got.
    pub(super) fn polled(&mut self, proc: u32, from: u64, pairs: &[(u64, u64)]) {
        let end = pairs.last().map(|(offset, _)| offset + 1);
        self.polled_to(proc, from, pairs, end);
    }

    pub(super) fn fault(&mut self, name: &str) {
        self.push(0, Phase::Ok, Operation::Fault { name: name.into() });
    }

    /// Power is cut, and the broker started again.
    pub(super) fn power_cycle(&mut self) {
        self.fault("power-cut");
        self.after_ms(50).fault("start");
        self.after_ms(5_000);
    }

    pub(super) fn view(&mut self, name: &str, log_start: u64, pairs: &[(u64, u64)]) {
        let records = records(pairs);
        let end = records.last().map_or(log_start, |(offset, _)| offset + 1);
        let view = name.to_owned();
        self.push(0, Phase::Ok, Operation::Final { view, at: AT, log_start, end, records });
    }

    /// All three looks, the same.
    pub(super) fn views(&mut self, pairs: &[(u64, u64)]) {
        for name in ["first", "second", "dump"] {
            self.view(name, 0, pairs);
        }
    }

    pub(super) fn own(&mut self, proc: u32, epoch: i64) {
        self.push(proc, Phase::Ok, Operation::Own { group: 1, at: AT, epoch });
    }

    pub(super) fn commit(&mut self, proc: u32, offset: u64, phase: Phase) {
        let commit = Operation::Commit { group: 1, at: AT, offset, epoch: -1 };
        self.push(proc, Phase::Invoke, commit.clone());
        self.push(proc, phase, commit);
    }

    pub(super) fn fetched(&mut self, proc: u32, offset: Option<u64>) {
        let begun = Operation::FetchOffset { group: 1, at: AT, offset: None };
        self.push(proc, Phase::Invoke, begun);
        self.push(proc, Phase::Ok, Operation::FetchOffset { group: 1, at: AT, offset });
    }

    /// A session of subscription 1 with leases of 30 s.
    pub(super) fn open(&mut self, proc: u32, window: u32) {
        let open = Operation::Open { subscription: 1, window, ack_wait_ms: 30_000 };
        self.push(proc, Phase::Invoke, open.clone());
        self.push(proc, Phase::Ok, open);
    }

    pub(super) fn close(&mut self, proc: u32) {
        self.push(proc, Phase::Ok, Operation::Close { subscription: 1 });
    }

    pub(super) fn deliver(&mut self, proc: u32, records: &[Delivered]) {
        let records = records.to_vec();
        self.push(proc, Phase::Ok, Operation::Deliver { subscription: 1, at: AT, records });
    }

    pub(super) fn revoke(&mut self, proc: u32, offset: u64) {
        let offsets = vec![offset];
        self.push(proc, Phase::Ok, Operation::Revoke { subscription: 1, at: AT, offsets });
    }

    pub(super) fn settle(&mut self, proc: u32, offset: u64, outcome: Outcome, confirmed: bool) {
        let settle = |confirmed| {
            let offsets = vec![offset];
            Operation::Settle { subscription: 1, at: AT, offsets, outcome, confirmed }
        };
        self.push(proc, Phase::Invoke, settle(false));
        self.push(proc, Phase::Ok, settle(confirmed));
    }

    pub(super) fn dead(&mut self, offsets: &[u64]) {
        let letters = offsets.iter().map(|offset| (AT, *offset, value(offset + 1))).collect();
        self.push(0, Phase::Ok, Operation::FinalDead { subscription: 1, letters });
    }

    pub(super) fn left(&mut self, end: u64, open: &[u64]) {
        let open = open.to_vec();
        self.push(
            0,
            Phase::Ok,
            Operation::FinalOpen { subscription: 1, at: AT, start: 0, end, open },
        );
    }
}

//! CHECKER: the checker itself, at the size of a soak: how long it takes for a sound history, and that it still sees one wrong record.
//!
//! ```text
//! round n, in partition n % 8:  send 2, poll 2, deliver 2, settle 2     4 operations, 2 records
//! end:                          two whole looks at every partition
//! ```
//!
//! The history is made as it is judged and never held. The time is a figure, not a verdict: what fails is a sound history that is
//! found fault with, or a fault that is not found.

use std::time::Instant;

use riverrun_tests::{
    checker::{Anomaly, Checker, Findings, Rules},
    history::{Delivered, Event, Level, Operation, Outcome, Part, Phase, Value},
};

use crate::harness::{Size, Verdict, Violation};

/// Operations of the sound history.
const OPERATIONS: u64 = 5_000_000;
/// Operations of each history with a fault.
const FAULTY: u64 = 100_000;
/// Operations of one round.
const ROUND: u64 = 4;
/// Records of one round.
const RECORDS: u64 = 2;
const PARTITIONS: u64 = 8;
/// Time from one event to the next: many of them are more than the lag that the checker allows for.
const EVENT_NS: u64 = 100_000;
const SENDER: u32 = 1;
const READER: u32 = 2;
const WORKER: u32 = 3;
const SUBSCRIPTION: u32 = 1;

/// What is wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The records of an acknowledged send are not there at the end.
    Lost,
    /// A record that was confirmed as settled is handed out again.
    Repeated,
}

pub(crate) fn run(size: &Size) -> Verdict {
    let operations = size.count.unwrap_or(OPERATIONS).max(ROUND * PARTITIONS);
    let started = Instant::now();
    let sound = judge(operations, None);
    let seconds = started.elapsed().as_secs_f64();
    if !sound.anomalies.is_empty() {
        return violation(format!("a sound history is found fault with: {}", sound.report()));
    }
    for (fault, anomaly, times) in
        [(Fault::Lost, Anomaly::LostWrite, RECORDS), (Fault::Repeated, Anomaly::AckResurrect, 1)]
    {
        let found = judge(FAULTY, Some(fault));
        if found.count(anomaly) != times {
            let what = format!(
                "{fault:?}: {} is not found {times} times: {}",
                anomaly.name(),
                found.report()
            );
            return violation(what);
        }
    }
    let counted = sound.counts.operations;
    Verdict::Green(format!("{counted} operations judged in {seconds:.1} s, 2 of 2 faults found"))
}

fn violation(what: String) -> Verdict {
    Verdict::Violation(Violation { what, again: "--count 100000".into() })
}

/// Makes a history and judges it.
fn judge(operations: u64, fault: Option<Fault>) -> Findings {
    let rules = Rules::default();
    let mut story = Story { checker: Checker::new(&rules), index: 0 };
    let window = u32::try_from(RECORDS).unwrap_or(u32::MAX);
    let open = Operation::Open { subscription: SUBSCRIPTION, window, ack_wait_ms: 60_000 };
    story.whole(WORKER, open.clone(), open);
    let rounds = operations / ROUND;
    for round in 0..rounds {
        story.round(round);
    }
    if fault == Some(Fault::Repeated) {
        story.deliver(part(0), 0..1, 2);
    }
    for view in ["first", "second"] {
        for partition in 0..PARTITIONS {
            let at = part(partition);
            let end = (rounds + PARTITIONS - 1 - partition) / PARTITIONS * RECORDS;
            let lost = fault == Some(Fault::Lost) && partition == 0;
            let records = (0..end).map(|offset| (offset, value(partition, offset)));
            let records = records
                .filter(|(offset, _)| !lost || offset / RECORDS != rounds / PARTITIONS / 2)
                .collect();
            let view = view.to_owned();
            story.one(0, Phase::Ok, Operation::Final { view, at, log_start: 0, end, records });
        }
    }
    story.checker.finish()
}

/// A history that is judged as it is told.
struct Story<'a> {
    checker: Checker<'a>,
    index: u64,
}

impl Story<'_> {
    /// Two records are sent, read, handed out and settled.
    fn round(&mut self, round: u64) {
        let partition = round % PARTITIONS;
        let (at, first) = (part(partition), round / PARTITIONS * RECORDS);
        let offsets = first..first + RECORDS;
        let values: Vec<Value> = offsets.clone().map(|offset| value(partition, offset)).collect();
        let send = |offset, reached| {
            let (values, level) = (values.clone(), Level::Fsync);
            Operation::Send { at, values, keys: Vec::new(), level, offset, reached }
        };
        self.whole(SENDER, send(None, None), send(Some(first), Some(Level::Fsync)));
        let records = offsets.clone().zip(values.iter().copied()).collect();
        let begun = Operation::Poll { at, from: first, records: Vec::new(), end: None };
        let end = Some(offsets.end);
        self.whole(READER, begun, Operation::Poll { at, from: first, records, end });
        self.deliver(at, offsets.clone(), 1);
        let settle = |confirmed| {
            let (offsets, outcome) = (offsets.clone().collect(), Outcome::Ack);
            Operation::Settle { subscription: SUBSCRIPTION, at, offsets, outcome, confirmed }
        };
        self.whole(WORKER, settle(false), settle(true));
    }

    fn deliver(&mut self, at: Part, offsets: std::ops::Range<u64>, attempts: u32) {
        let delivered = |offset| {
            let value = value(u64::from(at.1), offset);
            Delivered { offset, value, attempts, failures: 0, key: None }
        };
        let records = offsets.map(delivered).collect();
        let deliver = Operation::Deliver { subscription: SUBSCRIPTION, at, records };
        self.one(WORKER, Phase::Ok, deliver);
    }

    /// Begun and done.
    fn whole(&mut self, proc: u32, begun: Operation, done: Operation) {
        self.one(proc, Phase::Invoke, begun);
        self.one(proc, Phase::Ok, done);
    }

    fn one(&mut self, proc: u32, phase: Phase, operation: Operation) {
        let index = self.index;
        self.index += 1;
        self.checker.add(&Event {
            index,
            t_ns: index * EVENT_NS,
            proc,
            phase,
            operation,
            err: None,
        });
    }
}

fn part(partition: u64) -> Part {
    Part(0, u32::try_from(partition).unwrap_or(u32::MAX))
}

fn value(partition: u64, offset: u64) -> Value {
    Value((u64::from(SENDER) << 40) | (offset * PARTITIONS + partition))
}

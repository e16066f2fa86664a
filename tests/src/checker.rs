//! Judges a history: which promises of the broker does what its clients saw break?
//!
//! ```text
//! events ──▶ Checker::add, one after another ──▶ Checker::finish ──▶ Findings: anomalies with witnesses, counts
//!              sends ─▶ book       what was sent, and what each offset named
//!              polls ─▶ reading    every offset once and in order
//!              commits ─▶ offsets  stored offsets and who may store them
//!              push ─▶ hands       who holds which record, and what became of it; keys: orders
//!              final looks ─▶ verdict, at the end
//! ```
//!
//! It holds a history against what was promised, not against what the broker meant to do: only what was acknowledged, shown or
//! confirmed binds. What is answered between a power cut and the next start binds nothing, and neither does an answer to what began
//! before the cut: the disk may have been gone when it was given. Time between broker and recorder is taken into account as
//! [`Rules::lag`]; what can be explained by it is no anomaly.
//!
//! One pass and hash maps: the time grows with the events, and so does the memory.

mod book;
mod findings;
mod hands;
mod item;
mod keys;
mod leftovers;
mod life;
mod offsets;
mod reading;
mod rules;
mod scene;
mod suspects;
mod verdict;

use std::{
    io::{self, BufRead},
    mem,
};

use self::{
    book::{Book, Sight, Source},
    hands::Hands,
    leftovers::Leftovers,
    life::Life,
    offsets::Offsets,
    reading::Reading,
    scene::Scene,
    verdict::{View, Views},
};
pub use self::{
    findings::{Anomaly, Counts, Findings, Found},
    rules::{Order, Rules, SubscriptionRules},
};
use crate::history::{Event, Operation, Part, Phase, Value};

/// Judges a whole history.
pub fn check(events: &[Event], rules: &Rules) -> Findings {
    let mut checker = Checker::new(rules);
    for event in events {
        checker.add(event);
    }
    checker.finish()
}

/// Judges a history of JSON lines, without holding it in memory.
///
/// # Errors
/// When it cannot be read, or a line is no event. A last line that breaks off is left out: a killed recorder writes such.
pub fn check_lines(lines: impl BufRead, rules: &Rules) -> io::Result<Findings> {
    let mut checker = Checker::new(rules);
    let mut broken = None;
    for line in lines.lines() {
        if let Some(error) = broken {
            return Err(io::Error::from(error));
        }
        match serde_json::from_str(&line?) {
            Ok(event) => checker.add(&event),
            Err(error) => broken = Some(error),
        }
    }
    match broken {
        Some(error) if !error.is_eof() => Err(error.into()),
        _ => Ok(checker.finish()),
    }
}

/// Takes events one after another.
#[derive(Debug)]
pub struct Checker<'a> {
    rules: &'a Rules,
    findings: Findings,
    life: Life,
    book: Book,
    reading: Reading,
    offsets: Offsets,
    hands: Hands,
    leftovers: Leftovers,
    views: Views,
}

impl<'a> Checker<'a> {
    /// One that saw nothing yet.
    pub fn new(rules: &'a Rules) -> Checker<'a> {
        Checker {
            rules,
            findings: Findings::default(),
            life: Life::default(),
            book: Book::default(),
            reading: Reading::default(),
            offsets: Offsets::default(),
            hands: Hands::default(),
            leftovers: Leftovers::default(),
            views: Views::default(),
        }
    }

    /// Takes the next event of the history.
    pub fn add(&mut self, event: &Event) {
        let Checker { rules, findings, life, book, hands, offsets, reading, .. } = self;
        let mut scene = Scene { event, rules, life, findings };
        match &event.operation {
            Operation::Send { .. } => book.send(&mut scene),
            Operation::Poll { .. } => reading.poll(book, &mut scene),
            Operation::Seek { at, .. } | Operation::Disown { at, .. } => {
                reading.forget(event.proc, *at);
            }
            Operation::Commit { .. } => offsets.commit(&mut scene),
            Operation::FetchOffset { .. } => offsets.fetch(&mut scene),
            Operation::Own { at, .. } => {
                reading.forget(event.proc, *at);
                offsets.own(event);
            }
            Operation::Open { .. } => hands.open(&scene),
            Operation::Close { .. } => hands.close(&scene),
            Operation::Revoke { .. } => hands.revoke(&scene),
            Operation::Settle { .. } => hands.settle(&scene),
            Operation::Deliver { at, records, .. } => {
                let records = records.iter().map(|record| (record.offset, record.value));
                observe(book, *at, records, Source::Delivery, &mut scene);
                hands.deliver(&mut scene);
            }
            Operation::Fault { name } => self.fault(name, event),
            Operation::Final { view, at, log_start, end, records } => {
                observe(book, *at, records.iter().copied(), Source::Final, &mut scene);
                let (name, records) = (view.clone(), records.clone());
                let view = View { name, log_start: *log_start, end: *end, records };
                self.views.add(*at, view);
            }
            Operation::FinalDead { subscription, letters } => {
                self.leftovers.dead(*subscription, letters);
            }
            Operation::FinalOpen { subscription, at, start, end, open } => {
                self.leftovers.open((*subscription, *at), *start..*end, open);
            }
        }
        self.count(event);
    }

    fn count(&mut self, event: &Event) {
        let is_single = matches!(
            event.operation,
            Operation::Deliver { .. } | Operation::Own { .. } | Operation::Disown { .. }
        );
        let is_begun = event.phase == Phase::Invoke || is_single;
        self.findings.counts.operations += u64::from(is_begun);
    }

    fn fault(&mut self, name: &str, event: &Event) {
        self.life.fault(name, event);
        if name == "power-cut" {
            self.book.power_cut(self.rules);
        }
        self.hands.fault(event.t_ns, self.rules);
    }

    /// Judges what can only be judged at the end.
    pub fn finish(mut self) -> Findings {
        let mut findings = mem::take(&mut self.findings);
        self.leftovers.judge(&mut self.hands, &self.views, self.rules, &mut findings);
        verdict::judge(&mut self.book, &self.views, self.rules, &self.life, &mut findings);
        findings
    }
}

/// Records were seen in their places; between a power cut and the next start that says nothing.
fn observe(
    book: &mut Book,
    at: Part,
    records: impl Iterator<Item = (u64, Value)>,
    source: Source,
    scene: &mut Scene<'_>,
) {
    if scene.life.in_cut {
        return;
    }
    for (offset, value) in records {
        book.observe(Sight { at, offset, value, source }, scene);
    }
}

#[cfg(test)]
mod tests;

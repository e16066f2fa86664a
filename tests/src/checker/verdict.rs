//! The end: the final log of each partition against everything that was sent and seen.

use std::collections::{BTreeMap, HashMap};

use super::{
    Anomaly, Findings, Life, Rules,
    book::{Book, Fate, Sent, UNKNOWN},
};
use crate::history::{Level, Part, Value};

/// One whole look at a partition.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) log_start: u64,
    pub(super) end: u64,
    pub(super) records: Vec<(u64, Value)>,
}

/// The last looks at each partition.
#[derive(Debug, Default)]
pub(super) struct Views(BTreeMap<Part, Vec<View>>);

impl Views {
    /// Takes one down. A name that is there already begins the looks at this partition anew.
    pub(super) fn add(&mut self, at: Part, view: View) {
        let views = self.0.entry(at).or_default();
        if views.iter().any(|other| other.name == view.name) {
            views.clear();
        }
        views.push(view);
    }

    /// The log of a partition, as it was found first.
    pub(super) fn log(&self, at: Part) -> Option<&View> {
        self.0.get(&at)?.first()
    }

    /// All looks at a partition are the same.
    fn compare(&self, findings: &mut Findings) {
        for (at, views) in &self.0 {
            let Some((first, others)) = views.split_first() else { continue };
            for other in others {
                let Some(what) = difference(first, other) else { continue };
                findings.add(Anomaly::ViewsDiffer, || {
                    format!("{at:?} `{}` and `{}`: {what}", first.name, other.name)
                });
            }
        }
    }
}

/// Where two looks part.
fn difference(one: &View, other: &View) -> Option<String> {
    if (one.log_start, one.end) != (other.log_start, other.end) {
        let (a, b, c, d) = (one.log_start, one.end, other.log_start, other.end);
        return Some(format!("{a}..{b} against {c}..{d}"));
    }
    if one.records == other.records {
        return None;
    }
    let pairs = one.records.iter().zip(&other.records);
    let parted = pairs.clone().find(|(a, b)| a != b);
    Some(match parted {
        Some((a, b)) => format!("{a:?} against {b:?}"),
        None => format!("{} records against {}", one.records.len(), other.records.len()),
    })
}

/// Judges what can only be judged at the end.
pub(super) fn judge(
    book: &mut Book,
    views: &Views,
    rules: &Rules,
    life: &Life,
    findings: &mut Findings,
) {
    views.compare(findings);
    for (at, views) in &views.0 {
        let Some(log) = views.first() else { continue };
        walk(book, *at, log, rules, findings);
    }
    let spans = spans(book, views, life);
    for number in 0..book.sends.len() {
        count(book, number, views, findings);
        if let Some(span) = spans.get(&book.sends[number].at) {
            Absent { book, span, rules, life }.judge(number, findings);
        }
    }
    for (value, fact) in &book.facts {
        if fact.seen && book.sends[fact.send].fate == Fate::Failed {
            findings.add(Anomaly::AbortedRead, || format!("{value:?} at {}", fact.offset));
        }
        let at = book.sends[fact.send].at;
        let is_there =
            fact.settled != UNKNOWN || !views.0.contains_key(&at) && fact.offset != UNKNOWN;
        if rules.readers_drain && is_there && !fact.polled {
            findings.add(Anomaly::Unseen, || format!("{value:?} at {} of {at:?}", fact.offset));
        }
    }
}

fn count(book: &Book, number: usize, views: &Views, findings: &mut Findings) {
    let sent = &book.sends[number];
    findings.counts.attempts += sent.len as u64;
    if sent.fate == Fate::Acked {
        findings.counts.acked += sent.len as u64;
    }
    if sent.fate == Fate::Open && views.0.contains_key(&sent.at) {
        let there = |value: &&Value| book.facts[*value].settled != UNKNOWN;
        findings.counts.recovered += book.values_of(sent).iter().filter(there).count() as u64;
    }
}

/// Walks the final log: offsets without gaps, batches whole, every order kept.
fn walk(book: &mut Book, at: Part, log: &View, rules: &Rules, findings: &mut Findings) {
    let mut expected = log.log_start;
    // Sends in the order of the log, each once, with the offset of its first record.
    let mut order: Vec<(usize, u64)> = Vec::new();
    let mut bases: HashMap<usize, u64> = HashMap::new();
    for (offset, value) in &log.records {
        if *offset != expected {
            findings.add(Anomaly::PollSkip, || {
                format!("the final log of {at:?} has {offset} for {expected}")
            });
        }
        expected = offset.saturating_add(1);
        let Some(fact) = book.facts.get_mut(value) else { continue };
        if fact.settled != UNKNOWN || book.sends[fact.send].at != at {
            continue;
        }
        fact.settled = *offset;
        let base = offset.wrapping_sub(fact.slot as u64);
        let known = *bases.entry(fact.send).or_insert_with(|| {
            order.push((fact.send, base));
            base
        });
        if known != base {
            findings.add(Anomaly::IntSendSkip, || {
                format!("{value:?} at {offset} of {at:?}, its batch is at {known}")
            });
        }
    }
    senders(book, at, &order, rules, findings);
    real_time(book, at, &order, findings);
}

/// The sends of one sender stand in the order in which they were begun.
fn senders(book: &Book, at: Part, order: &[(usize, u64)], rules: &Rules, findings: &mut Findings) {
    let mut last: HashMap<u32, usize> = HashMap::new();
    for (number, base) in order {
        let sent = &book.sends[*number];
        let before = last.entry(sent.proc).or_insert(*number);
        // Without numbers on its batches a sender that tries again may overtake itself, but not what was acknowledged before.
        let is_over = sent.invoke < book.sends[*before].invoke
            && (rules.idempotent || sent.done < book.sends[*before].invoke);
        if is_over {
            let other = book.values[book.sends[*before].first];
            findings.add(Anomaly::NonmonotonicSend, || {
                let value = book.values[sent.first];
                format!("{value:?} at {base} of {at:?} stands behind {other:?}, sent later")
            });
        } else {
            *before = *number;
        }
    }
}

/// A send that was acknowledged before another one of anybody began stands before it.
fn real_time(book: &Book, at: Part, order: &[(usize, u64)], findings: &mut Findings) {
    // The earliest acknowledgement behind the place that is looked at, and the earliest of another sender than that one's.
    let mut earliest: [Option<&Sent>; 2] = [None, None];
    for (number, base) in order.iter().rev() {
        let sent = &book.sends[*number];
        let other = earliest.iter().flatten().find(|other| other.proc != sent.proc);
        if let Some(other) = other.filter(|other| other.done < sent.invoke) {
            findings.add(Anomaly::RealtimeOrder, || {
                let (value, behind) = (book.values[sent.first], book.values[other.first]);
                format!(
                    "{value:?} at {base} of {at:?} stands before {behind:?}, acknowledged first"
                )
            });
        }
        earliest = match earliest {
            [None, _] => [Some(sent), None],
            [Some(first), _] if sent.done < first.done && sent.proc != first.proc => {
                [Some(sent), Some(first)]
            }
            [Some(first), second] if sent.proc == first.proc => {
                [Some(if sent.done < first.done { sent } else { first }), second]
            }
            [Some(first), Some(second)] if second.done <= sent.done => [Some(first), Some(second)],
            [Some(first), _] => [Some(first), Some(sent)],
        };
    }
}

/// What is left of a partition.
struct Span {
    /// First and last record.
    first: u64,
    last: u64,
    /// By power cuts before: the highest record that was acknowledged by then and is there at the end. It was never taken: a sender
    /// does not send again what was acknowledged. One that was only seen may be there because it was sent again, behind what
    /// the cut took.
    kept: Vec<u64>,
}

/// What is left of each partition that was looked at.
fn spans(book: &Book, views: &Views, life: &Life) -> HashMap<Part, Span> {
    let mut spans: HashMap<Part, Span> = HashMap::new();
    for (at, views) in &views.0 {
        let Some(log) = views.first() else { continue };
        let mut kept = vec![0; life.cuts as usize + 1];
        for (offset, value) in &log.records {
            let Some(fact) = book.facts.get(value) else { continue };
            let sent = &book.sends[fact.send];
            if sent.fate == Fate::Acked {
                let kept = &mut kept[sent.cuts as usize];
                *kept = *offset.max(kept);
            }
        }
        for index in 1..kept.len() {
            kept[index] = kept[index].max(kept[index - 1]);
        }
        let first = log.records.first().map_or(UNKNOWN, |(offset, _)| *offset);
        let last = log.records.last().map_or(0, |(offset, _)| *offset);
        spans.insert(*at, Span { first, last, kept });
    }
    spans
}

/// Judges a send that the final log does not have.
struct Absent<'a> {
    book: &'a Book,
    span: &'a Span,
    rules: &'a Rules,
    life: &'a Life,
}

impl Absent<'_> {
    fn judge(&self, number: usize, findings: &mut Findings) {
        let sent = &self.book.sends[number];
        let values = self.book.values_of(sent);
        let missing = values.iter().filter(|value| self.book.facts[*value].settled == UNKNOWN);
        let missing = missing.copied().collect::<Vec<_>>();
        if missing.is_empty() {
            return;
        }
        if missing.len() < values.len() {
            findings.add(Anomaly::IntSendSkip, || {
                format!("{:?} is there in part, without {:?}", values[0], missing[0])
            });
            return;
        }
        for value in missing {
            self.value(sent, value, findings);
        }
    }

    fn value(&self, sent: &Sent, value: Value, findings: &mut Findings) {
        let fact = &self.book.facts[&value];
        let is_acked = sent.fate == Fate::Acked;
        if !(is_acked || fact.seen) || sent.fate == Fate::Failed {
            return;
        }
        findings.counts.lost += 1;
        if self.is_allowed(sent, value) {
            findings.counts.lost_allowed += 1;
            return;
        }
        let place = match fact.offset {
            offset if offset < self.span.first && self.span.first != UNKNOWN => 0,
            offset if offset <= self.span.last && self.span.first != UNKNOWN => 1,
            _ => 2,
        };
        findings.counts.lost_where[place] += 1;
        let anomaly = if is_acked { Anomaly::LostWrite } else { Anomaly::Vanish };
        findings.add(anomaly, || {
            let word = ["prefix", "middle", "postfix"][place];
            format!("{value:?} at {} of {:?} ({word})", fact.offset, sent.at)
        });
    }

    /// Whether a power cut may have taken it: an unflushed record of the end, with everything that followed it.
    fn is_allowed(&self, sent: &Sent, value: Value) -> bool {
        let fact = &self.book.facts[&value];
        let level = self.rules.level(sent.at.0);
        let is_cut = fact.alive < self.life.cuts;
        let is_flushed = level == Level::Fsync || sent.reached == Level::Fsync;
        if is_flushed || !is_cut {
            return false;
        }
        let is_end = self.span.kept[fact.alive as usize] <= fact.offset;
        let cut_ns = self.life.cut_ns[fact.alive as usize];
        let is_young = match self.rules.interval_max {
            Some(max) if level == Level::Interval && sent.fate == Fate::Acked => {
                u128::from(cut_ns.saturating_sub(sent.done_ns)) <= max.as_nanos()
            }
            _ => true,
        };
        is_end && is_young
    }
}

//! What the clients were told, and what must then be there at the end.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use riverrun_client::{Batch, Received, Record};
use riverrun_tests::proxy::Dice;

/// All records of each partition: offset and number, in the order of the log.
pub(crate) type View = BTreeMap<u32, Vec<(u64, u64)>>;

/// What the clients were told.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Partition and offset by number.
    acknowledged: HashMap<u64, (u32, u64)>,
    /// Receipts that said that the record was there already.
    pub(crate) repeats: u64,
    /// First offset that no member of the group received yet, by partition.
    received: HashMap<u32, u64>,
    /// Highest offset that was confirmed as committed, by partition.
    committed: HashMap<u32, u64>,
    /// Commits that were refused since the member was no longer one.
    pub(crate) fenced: u64,
    /// Numbers that a worker said were done.
    done: HashSet<u64>,
    /// Numbers whose end was confirmed.
    confirmed: HashSet<u64>,
    /// Numbers that a worker gave back as failed.
    nacked: HashSet<u64>,
    /// Records handed out once more since the lease before was over, or its session.
    pub(crate) expired: u64,
    /// Records handed to workers.
    pub(crate) handed: u64,
    /// Most that one session held.
    pub(crate) held_max: usize,
    /// Promises seen broken.
    pub(crate) broken: Vec<String>,
}

impl Ledger {
    /// Notes a broken promise; the first hundred are enough.
    pub(crate) fn accuse(&mut self, what: String) {
        if self.broken.len() < 100 {
            self.broken.push(what);
        }
    }

    pub(crate) fn acknowledge(&mut self, number: u64, receipt: &riverrun_client::Receipt) {
        self.repeats += u64::from(receipt.duplicate);
        self.acknowledged.insert(number, (receipt.partition.0, receipt.offset.0));
    }

    /// Records acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// A member of the group got a batch: nothing before it may be missing.
    pub(crate) fn receive(&mut self, batch: &Batch) {
        let partition = batch.partition().partition.0;
        for record in batch {
            let offset = record.offset.0;
            self.receive_range(partition, offset, offset + 1);
            if number_of(&record).is_none() {
                self.accuse(format!("wrong bytes at {offset} of partition {partition}"));
            }
        }
    }

    /// A member of the group got `[from, to)`.
    pub(crate) fn receive_range(&mut self, partition: u32, from: u64, to: u64) {
        let next = self.received.entry(partition).or_insert(0);
        let expected = std::mem::replace(next, to.max(*next));
        if from > expected {
            self.accuse(format!("the group skipped {expected}..{from} of partition {partition}"));
        }
    }

    /// What is surely committed before a commit begins.
    pub(crate) fn before_commit(&self, partition: u32) -> u64 {
        self.committed.get(&partition).copied().unwrap_or(0)
    }

    /// A commit was confirmed that began when everything below `before` was committed already. Only an owner that was replaced
    /// commits less.
    pub(crate) fn commit(&mut self, partition: u32, offset: u64, before: u64) {
        if offset < before {
            self.accuse(format!(
                "partition {partition} had two owners: {before} was committed, then {offset}"
            ));
        }
        let committed = self.committed.entry(partition).or_insert(0);
        *committed = (*committed).max(offset);
    }

    /// A worker holds so many.
    pub(crate) fn hold(&mut self, count: usize, window: usize) {
        self.held_max = self.held_max.max(count);
        if count > window {
            self.accuse(format!("a session with a window of {window} holds {count} records"));
        }
    }

    /// A worker got a record that failed so often.
    pub(crate) fn hand(&mut self, number: Option<u64>, failures: u32) {
        self.handed += 1;
        let blamed = number.is_some_and(|number| self.nacked.contains(&number));
        self.expired += u64::from(failures > 0 && !blamed);
    }

    pub(crate) fn nack(&mut self, number: u64) {
        self.nacked.insert(number);
    }

    pub(crate) fn done(&mut self, number: u64) {
        self.done.insert(number);
    }

    pub(crate) fn confirm(&mut self, number: u64) {
        self.confirmed.insert(number);
    }

    /// A worker got a record when nothing was left to hand out.
    pub(crate) fn late(&mut self, number: u64) {
        let known = if self.confirmed.contains(&number) { "a confirmed" } else { "a settled" };
        self.accuse(format!("{known} record came again: {}", name(number)));
    }

    /// Holds the log against all this.
    pub(crate) fn check_log(&mut self, view: &View) {
        let mut places = HashMap::new();
        for (partition, records) in view {
            let mut last: HashMap<u64, u64> = HashMap::new();
            for (place, (offset, number)) in records.iter().enumerate() {
                if usize::try_from(*offset).ok() != Some(place) {
                    self.accuse(format!("partition {partition}: {offset} where {place} should be"));
                }
                if let Some((other, at)) = places.insert(*number, (*partition, *offset)) {
                    let what = format!("{other}:{at} and {partition}:{offset}");
                    self.accuse(format!("{} is there twice: {what}", name(*number)));
                }
                if last.insert(*number >> 40, *number).is_some_and(|before| before > *number) {
                    self.accuse(format!("{} is out of its order", name(*number)));
                }
            }
        }
        let missing: Vec<String> = self
            .acknowledged
            .iter()
            .filter(|(number, place)| places.get(number) != Some(place))
            .map(|(number, (partition, offset))| {
                format!("{} at {partition}:{offset}", name(*number))
            })
            .collect();
        if let Some(first) = missing.first() {
            self.accuse(format!("{} acknowledged records are lost: {first}", missing.len()));
        }
    }

    /// With nothing left to hand out, each record of the log was done by somebody.
    pub(crate) fn check_work(&mut self, view: &View) {
        let records = view.values().flatten();
        let skipped: Vec<u64> = records
            .map(|(_, number)| *number)
            .filter(|number| !self.done.contains(number))
            .collect();
        if let Some(first) = skipped.first() {
            let count = skipped.len();
            self.accuse(format!(
                "{count} records are settled and nobody did them: {}",
                name(*first)
            ));
        }
    }

    /// The group's offsets as the broker remembers them.
    pub(crate) fn check_committed(&mut self, partition: u32, offset: u64) {
        let committed = self.before_commit(partition);
        if offset < committed {
            self.accuse(format!(
                "partition {partition}: {committed} was committed, now {offset} is"
            ));
        }
    }
}

/// A number in words.
fn name(number: u64) -> String {
    format!("record {} of producer {}", number & ((1 << 40) - 1), number >> 40)
}

/// The record of a number: the number, a proof of it, and a filler.
pub(crate) fn record_of(number: u64) -> Record {
    let mut dice = Dice::seeded(number);
    let proof = dice.next_number();
    let filler = usize::try_from(dice.below(200)).unwrap_or(0);
    let key = format!("k{}", dice.below(31));
    Record::new(format!("{number}:{proof:016x}:{}", ".".repeat(filler))).key(key)
}

/// The number of a record, if its bytes are those that were sent.
pub(crate) fn number_of(record: &Received) -> Option<u64> {
    let value = record.value.as_ref()?;
    let digits = value.split(|byte| *byte == b':').next()?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let sent = record_of(number);
    let sent: Option<Bytes> = sent.value_bytes().map(Bytes::copy_from_slice);
    (sent.as_ref() == Some(value)).then_some(number)
}

//! One delivery as the session keeps it.

use std::{ops::Range, sync::Arc};

use super::super::{
    bits::Bits,
    credit::Amount,
    lease::{Handed, Lease},
    parcel::ABSENT,
};

/// One delivery as the session keeps it: which of its records the broker counts as ours.
///
/// It is kept until no record is open and every job has handed in its slip.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) lease: Arc<Lease>,
    /// By index: what the record costs of the credit.
    sizes: Vec<u32>,
    /// Records the broker counts as ours, by index.
    open: Bits,
    open_count: u32,
    /// No record at or past it can be given out any more.
    end: u32,
    /// Below it, it was looked whether the start of handling is to be reported.
    pub(super) reported: u32,
    /// Records whose start was reported, by index.
    started: Bits,
    /// Jobs that handed in their last slip.
    pub(super) returned: u32,
    /// False once the session it came in is over.
    pub(super) is_live: bool,
}

impl Held {
    /// All records of a delivery, those without a record included, and what they cost.
    pub(super) fn new(lease: Arc<Lease>, sizes: Vec<u32>) -> (Held, Amount) {
        let len = lease.spans.len();
        let present = || sizes.iter().filter(|size| **size != ABSENT);
        let amount =
            Amount { records: u64::from(len), bytes: present().map(|size| u64::from(*size)).sum() };
        let end = (0..len).rev().find(|index| sizes[*index as usize] != ABSENT);
        let held = Held {
            open: Bits::full(len),
            open_count: len,
            end: end.map_or(0, |last| last + 1),
            reported: 0,
            started: Bits::empty(len),
            returned: 0,
            is_live: true,
            lease,
            sizes,
        };
        (held, amount)
    }

    /// Runs of offsets for which no record came.
    pub(super) fn absent(&self) -> Vec<Range<u32>> {
        runs(0..self.lease.spans.len(), |index| self.sizes[index as usize] == ABSENT)
    }

    /// Runs of open records among `indices`.
    pub(super) fn open_in(&self, indices: Range<u32>) -> Vec<Range<u32>> {
        runs(indices, |index| self.open.contains(index))
    }

    /// The start of handling is reported of the records at `indices`.
    pub(super) fn start(&mut self, indices: Range<u32>) {
        indices.for_each(|index| self.started.insert(index));
    }

    /// Runs of open records whose start was reported.
    pub(super) fn started(&self) -> Vec<Range<u32>> {
        let len = self.lease.spans.len();
        runs(0..len, |index| self.started.contains(index) && self.open.contains(index))
    }

    /// The records at `indices` are no longer ours; what came free by it.
    pub(super) fn free(&mut self, indices: Range<u32>) -> Amount {
        let mut amount = Amount::default();
        for index in indices {
            if self.open.remove(index) {
                let size = self.sizes[index as usize];
                amount.records += 1;
                amount.bytes += if size == ABSENT { 0 } else { u64::from(size) };
                self.open_count -= 1;
            }
        }
        amount
    }

    /// The broker took records back; the runs that were ours, and what came free.
    pub(super) fn take_back(&mut self, indices: Range<u32>) -> (Vec<Range<u32>>, Amount) {
        let runs = self.open_in(indices);
        let mut amount = Amount::default();
        for run in &runs {
            run.clone().for_each(|index| self.lease.take_back(index));
            let freed = self.free(run.clone());
            amount.records += freed.records;
            amount.bytes += freed.bytes;
        }
        let until = self.lease.handed().until;
        let last = (until..self.end).rev().find(|index| self.open.contains(*index));
        self.end = last.map_or(until.min(self.end), |last| last + 1);
        (runs, amount)
    }

    /// Whether nothing of it can be given out any more.
    pub(super) fn is_given_out(&self, handed: Handed) -> bool {
        handed.is_closed || handed.until >= self.end
    }

    /// Jobs in the program's hands.
    pub(super) fn outstanding(&self) -> u32 {
        self.lease.handed().given.saturating_sub(self.returned)
    }

    /// Whether it can be forgotten; from then on nothing of it is given out.
    pub(super) fn is_over(&self) -> bool {
        self.open_count == 0 && self.outstanding() == 0 && self.lease.close().given == self.returned
    }
}

/// The runs of indices for which `is` holds.
fn runs(indices: Range<u32>, is: impl Fn(u32) -> bool) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for index in indices.filter(|index| is(*index)) {
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            Some(_) | None => runs.push(index..index + 1),
        }
    }
    runs
}

//! What is known of the writers of a stream: a fold over its records, as far as it came.
//!
//! ```text
//! nothing --take_in, step by step--> all up to an offset --complete--> whole
//!                                             ^----------doubt-----------'
//! an append:   doubt, then note when it is in the log, or complete when it was refused
//! ```
//!
//! Once it is whole the log is not read again. Only where nobody can say what became of an append, doubt stays: then the
//! log is asked once more, from before that append on.

use riverrun_proto::batch::OffsetRecord;

use super::{Mark, Writers};

/// What is known of the writers, and up to where.
#[derive(Debug, Default)]
pub struct Fold {
    writers: Writers,
    /// Everything before this offset is in `writers`. Says nothing once it is whole.
    next: u64,
    /// Every append is in `writers`.
    is_whole: bool,
}

impl Fold {
    /// What the writers did; `None` while that is not known to the end.
    pub fn writers(&self) -> Option<&Writers> {
        self.is_whole.then_some(&self.writers)
    }

    /// Offset of the first record that is missing, while it is not whole.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes in the records before `next`, those from [`Fold::next`] on.
    pub fn take_in(&mut self, records: &[OffsetRecord], next: u64) {
        for OffsetRecord { offset, record } in records {
            self.writers.note(&Mark::of(&record.headers), (offset.0, record.timestamp_ms));
        }
        self.next = next;
    }

    /// Nothing is missing.
    pub fn complete(&mut self) {
        self.is_whole = true;
    }

    /// Takes in the append in doubt, whose last record has this offset and wall time; nothing is missing then.
    pub fn note(&mut self, mark: &Mark, last: (u64, i64)) {
        self.writers.note(mark, last);
        self.complete();
    }

    /// Nobody can say what the log has from `next` on.
    pub fn doubt(&mut self, next: u64) {
        (self.next, self.is_whole) = (next, false);
    }
}

#[cfg(test)]
mod tests {
    use riverrun_proto::{Offset, Record};

    use super::*;
    use crate::stream::{Producer, Turn};

    fn records(seqs: std::ops::Range<u64>) -> Vec<OffsetRecord> {
        let record = |seq| {
            let producer = Some(Producer { id: "a".into(), epoch: 0, seq });
            let mark = Mark { producer, ..Mark::default() };
            let record: Record = mark.records(vec!["x".into()]).remove(0);
            OffsetRecord { offset: Offset(seq), record }
        };
        seqs.map(record).collect()
    }

    #[test]
    fn a_fold_goes_on_where_it_was_and_says_nothing_before_it_is_whole() {
        let mut fold = Fold::default();
        fold.take_in(&records(0..2), 2);
        assert!(fold.writers().is_none());
        assert_eq!(fold.next(), 2);
        fold.take_in(&records(2..3), 3);
        fold.complete();
        let turn = |fold: &Fold| fold.writers().and_then(|writers| writers.turn("a"));
        assert_eq!(turn(&fold), Some(Turn { epoch: 0, seq: 2 }));
        fold.doubt(3);
        assert_eq!((turn(&fold), fold.next()), (None, 3));
        fold.take_in(&records(3..4), 4);
        fold.complete();
        assert_eq!(turn(&fold), Some(Turn { epoch: 0, seq: 3 }));
        fold.doubt(4);
        let mark = Mark::of(&records(4..5)[0].record.headers);
        fold.note(&mark, (4, 0));
        assert_eq!(turn(&fold), Some(Turn { epoch: 0, seq: 4 }));
    }
}

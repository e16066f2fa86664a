//! Tests of an open log through its doorway.

mod append;
mod lookup;
mod read;
mod retain;

use bytes::Bytes;

use crate::{OpenedLog, Timestamp, testing::batch};

/// Appends `count` batches of two records each; their values are their offsets.
pub(crate) fn fill(log: &mut OpenedLog, count: u64) {
    for _ in 0..count {
        let end = log.writer.log_end().0;
        let values = [end, end + 1].map(|offset| format!("{:>200}", format!("v{offset}")));
        let values = values.each_ref().map(String::as_str);
        log.writer.append(&batch(&values, 5_000), Timestamp(10_000)).unwrap();
    }
}

/// What [`fill`] wrote between two offsets.
pub(crate) fn filled(from: u64, to: u64) -> Vec<(u64, Bytes)> {
    (from..to).map(|at| (at, Bytes::from(format!("{:>200}", format!("v{at}"))))).collect()
}

//! The publication of a log's end, over a model of memory: all executions of a writer, a flusher and a reader.

mod atomics {
    //! What the watermarks are built on here.

    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[expect(unreachable_pub, reason = "a file of storage, where it is public")]
#[path = "../../../storage/src/offsets.rs"]
mod offsets;

use std::sync::atomic::{AtomicU64 as Counter, Ordering::Relaxed};

use loom::{model::Builder, sync::Arc, thread};
use riverrun_proto::Offset;

use self::{
    atomics::AtomicU64,
    offsets::{LogOffsets, Watermarks},
};

/// Records that the writer publishes.
const RECORDS: usize = 2;

/// A log: its watermarks, and a record for each offset. Records are written and read without any order of their own.
struct Log {
    watermarks: Watermarks,
    records: [AtomicU64; RECORDS],
}

/// Runs all executions; gives how many there were.
pub(super) fn run() -> u64 {
    static EXECUTIONS: Counter = Counter::new(0);
    EXECUTIONS.store(0, Relaxed);
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        EXECUTIONS.fetch_add(1, Relaxed);
        execution();
    });
    EXECUTIONS.load(Relaxed)
}

fn execution() {
    let log = Arc::new(Log {
        watermarks: Watermarks::new(LogOffsets::default()),
        records: std::array::from_fn(|_| AtomicU64::new(0)),
    });
    let writer = {
        let log = log.clone();
        thread::spawn(move || {
            for (offset, record) in (0..).zip(&log.records) {
                record.store(offset + 1, Relaxed);
                log.watermarks.set_log_end(Offset(offset + 1));
            }
        })
    };
    let flusher = {
        let log = log.clone();
        thread::spawn(move || {
            let flushed = log.watermarks.load().log_end;
            log.watermarks.set_flushed(flushed);
            log.watermarks.set_log_start(flushed);
        })
    };
    let seen = log.watermarks.load();
    let is_ordered = seen.log_start <= seen.flushed && seen.flushed <= seen.log_end;
    assert!(is_ordered, "watermarks out of order: {seen:?}");
    for (offset, record) in (0..seen.log_end.0).zip(&log.records) {
        assert_eq!(record.load(Relaxed), offset + 1, "an offset was shown before its bytes");
    }
    for thread in [writer, flusher] {
        thread.join().expect("a thread of the execution");
    }
}

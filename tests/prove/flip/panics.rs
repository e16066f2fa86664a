//! Panics of the log or broker under test: not printed, but told in the violation that says what was damaged.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::Mutex;

use crate::harness::{HARNESS_FAULT, Violation};

/// What the newest panic said, and where.
static NEWEST: Mutex<String> = Mutex::new(String::new());

/// Text of the newest panic. With several threads it may be another's.
pub(super) fn newest() -> String {
    format!("a panic: {}", NEWEST.lock())
}

/// Does `work` with panics kept instead of printed. One that nobody caught is a fault of the harness, and told too.
pub(super) fn kept<T>(work: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    std::panic::set_hook(Box::new(|panic| *NEWEST.lock() = panic.to_string()));
    let done = catch_unwind(AssertUnwindSafe(work));
    let _hook = std::panic::take_hook();
    done.unwrap_or_else(|_| {
        let what = format!("{HARNESS_FAULT}: {}", newest());
        Err(Violation { what, again: String::new() })
    })
}

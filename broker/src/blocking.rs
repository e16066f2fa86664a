//! Work that blocks and must not hold up the thread that asks for it; and ids that nobody else has.
//!
//! A simulation has one thread and leaves nothing to chance: there the work is done as one more task of that thread, and
//! ids are counted.

use std::future::Future;

use tokio::task::{self, JoinError, JoinHandle};
use uuid::Uuid;

#[cfg(feature = "sim")]
thread_local! {
    /// This thread is a simulation.
    static INLINE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    /// The next id, when ids are numbered.
    static NEXT_ID: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// Does all blocking work of this thread where it is asked for, from now on.
#[cfg(feature = "sim")]
pub(crate) fn run_inline() {
    INLINE.set(true);
}

/// Gives new ids of this thread from `first` on instead of random ones.
#[cfg(feature = "sim")]
pub(crate) fn number_ids(first: u64) {
    NEXT_ID.set(Some(first));
}

/// A new id.
pub(crate) fn new_uuid() -> Uuid {
    #[cfg(feature = "sim")]
    if let Some(next) = NEXT_ID.get() {
        NEXT_ID.set(Some(next + 1));
        return Uuid::from_u64_pair(next, next);
    }
    Uuid::new_v4()
}

/// Runs `work` on the blocking pool. It runs to its end also when nobody waits for it.
pub(crate) fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, JoinError>> {
    handle(work)
}

#[cfg(feature = "sim")]
fn handle<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match INLINE.get() {
        true => task::spawn(async move { work() }),
        false => task::spawn_blocking(work),
    }
}

#[cfg(not(feature = "sim"))]
fn handle<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    task::spawn_blocking(work)
}

//! The log under the store: entries in, durable, out again in order at the next start.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;

/// Why the log did not take an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateLogError {
    /// The disk has no room. Nothing was written; the same entry may be added later.
    #[error("no room in a log of state: {reason}")]
    NoRoom {
        /// What the disk said.
        reason: Arc<str>,
    },
    /// The entry may or may not be there. Final until the broker starts anew.
    #[error("a log of state failed: {reason}")]
    Failed {
        /// What happened.
        reason: Arc<str>,
    },
}

/// An answer to be awaited.
pub type Pending<'a> = Pin<Box<dyn Future<Output = Result<(), StateLogError>> + Send + 'a>>;

/// A log of entries. One writer calls it, one call at a time.
pub trait StateLog: Send + Sync + 'static {
    /// Adds one entry; done when it is durable.
    fn append(&self, entry: Bytes) -> Pending<'_>;

    /// Replaces everything before by `entries`, which begin with a snapshot's first entry; done when they are
    /// durable. A crash in between leaves the old entries readable, followed by none or some of the new ones.
    fn replace(&self, entries: Vec<Bytes>) -> Pending<'_>;
}

#[cfg(test)]
pub(crate) mod memory {
    //! A log in memory that can be made to wait and to fail.

    use parking_lot::Mutex;
    use tokio::sync::Semaphore;

    use super::*;

    /// Keeps what is durable; each append takes one permit of `gate` first.
    #[derive(Debug)]
    pub(crate) struct MemoryLog {
        pub(crate) durable: Mutex<Vec<Bytes>>,
        pub(crate) gate: Semaphore,
        pub(crate) replaced: Mutex<u32>,
        /// The append from which on everything fails; it may have happened all the same.
        pub(crate) fails_at: Mutex<Option<(usize, bool)>>,
        pub(crate) appends: Mutex<usize>,
        /// Tries that found no room.
        pub(crate) refused: Mutex<usize>,
        /// Nothing has room.
        pub(crate) is_full: Mutex<bool>,
    }

    impl MemoryLog {
        pub(crate) fn open(entries: Vec<Bytes>) -> Arc<MemoryLog> {
            Arc::new(MemoryLog {
                durable: Mutex::new(entries),
                gate: Semaphore::new(1_000_000),
                replaced: Mutex::new(0),
                fails_at: Mutex::new(None),
                appends: Mutex::new(0),
                refused: Mutex::new(0),
                is_full: Mutex::new(false),
            })
        }
    }

    impl StateLog for MemoryLog {
        fn append(&self, entry: Bytes) -> Pending<'_> {
            Box::pin(async move {
                if *self.is_full.lock() {
                    *self.refused.lock() += 1;
                    return Err(StateLogError::NoRoom { reason: "made full".into() });
                }
                self.gate.acquire().await.expect("never closed").forget();
                let count = std::mem::replace(&mut *self.appends.lock(), 0) + 1;
                *self.appends.lock() = count;
                let fails = self.fails_at.lock().filter(|(at, _)| count >= *at);
                if fails.is_none_or(|(_, happened)| happened) {
                    self.durable.lock().push(entry);
                }
                match fails {
                    None => Ok(()),
                    Some(_) => Err(StateLogError::Failed { reason: "made to fail".into() }),
                }
            })
        }

        fn replace(&self, entries: Vec<Bytes>) -> Pending<'_> {
            Box::pin(async move {
                *self.replaced.lock() += 1;
                *self.durable.lock() = entries;
                Ok(())
            })
        }
    }
}

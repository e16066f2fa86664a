//! The bytes a producer may hold in memory.
//!
//! Bytes are taken before a record is copied and given back when its batch is settled. Who finds too
//! few waits in line; nobody overtakes.

use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

/// Bytes left to take.
#[derive(Debug)]
pub(super) struct Budget {
    semaphore: Semaphore,
    /// All there are.
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Budget {
        let bytes = bytes.min(u32::MAX as usize);
        Budget { semaphore: Semaphore::new(bytes), bytes }
    }

    /// All there are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes nobody holds.
    pub(super) fn left(&self) -> usize {
        self.semaphore.available_permits()
    }

    /// Takes `bytes` if they are there now and nobody waits.
    pub(super) fn try_take(&self, bytes: usize) -> bool {
        match self.semaphore.try_acquire_many(permits(bytes)) {
            Ok(taken) => {
                taken.forget();
                true
            }
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => false,
        }
    }

    /// Waits in line for `bytes`, which must not be more than there are. `None` when closed.
    pub(super) async fn take(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        debug_assert!(bytes <= self.bytes);
        self.semaphore.acquire_many(permits(bytes)).await.ok()
    }

    /// Gives bytes back.
    pub(super) fn give(&self, bytes: usize) {
        self.semaphore.add_permits(bytes);
    }

    /// Wakes everybody who waits, for good.
    pub(super) fn close(&self) {
        self.semaphore.close();
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

//! Where readers wait for records of a partition to become visible.
//!
//! A [`Tail`] belongs to one partition and publishes its high watermark. A [`TailWaiter`] belongs to one
//! reader, stands on any number of tails at once, and is woken once.
//!
//! ```text
//! reader:    check -> register -> check again -> wait -> (woken) -> check ...
//! publisher: store the watermark -> look for waiters -> wake
//! ```
//!
//! Invariants:
//! - No wake is missed: a publisher stores before it looks, a reader registers before it checks, and both
//!   do so in one total order. A wake too many is possible; the reader checks anyway.
//! - A waiter that is dropped stands on no tail any more; [`Tail::waiter_count`] tells.
//! - The high watermark never goes back.
//!
//! It holds no records, no timers and no tasks: waiting costs memory, never time.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use riverrun_proto::Offset;
use riverrun_storage::planted::{Bug, planted};

use super::sync::{Arc, AtomicBool, AtomicI64, AtomicU64, AtomicUsize, AtomicWaker, Mutex, SeqCst};

/// The visible end of a partition and those who wait for it to move.
#[derive(Debug, Default)]
pub struct Tail {
    /// First offset not visible. Only grows.
    high_watermark: AtomicU64,
    /// Bytes of batches that became visible since the partition was opened. Only grows.
    bytes_visible: AtomicU64,
    /// Waiters standing in `waiters`; read by publishers without the lock.
    waiter_count: AtomicUsize,
    /// Waiters by slot, and the free slots.
    waiters: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Option<Standing>>,
    free: Vec<usize>,
}

/// A waiter on one tail.
#[derive(Clone, Debug)]
struct Standing {
    shared: Arc<Shared>,
    /// What the waiter calls this tail.
    key: u32,
}

/// The part of a waiter that tails reach.
#[derive(Debug)]
struct Shared {
    waker: AtomicWaker,
    /// Set by the wake, cleared by the reader before it checks.
    woken: AtomicBool,
    interest: Interest,
}

#[derive(Debug)]
enum Interest {
    /// Wake when this many more bytes became visible over all tails.
    Bytes(AtomicI64),
    /// Wake when any tail moved, and remember which.
    Moves(Mutex<Moves>),
}

#[derive(Debug, Default)]
struct Moves {
    /// By key: stands in `keys` already.
    moved: Vec<bool>,
    keys: Vec<u32>,
}

impl Tail {
    /// A tail whose visible end is `high_watermark`.
    pub fn new(high_watermark: Offset) -> Tail {
        Tail { high_watermark: AtomicU64::new(high_watermark.0), ..Tail::default() }
    }

    /// First offset not visible.
    pub fn high_watermark(&self) -> Offset {
        Offset(self.high_watermark.load(SeqCst))
    }

    /// Readers that stand here.
    pub fn waiter_count(&self) -> usize {
        self.waiter_count.load(SeqCst)
    }

    /// Makes everything below `high_watermark` visible; `bytes_visible` counts since the partition was
    /// opened. Values behind those published before are ignored, so publishers need no order.
    pub fn publish(&self, high_watermark: Offset, bytes_visible: u64) {
        let moved = self.high_watermark.fetch_max(high_watermark.0, SeqCst) < high_watermark.0;
        let bytes =
            bytes_visible.saturating_sub(self.bytes_visible.fetch_max(bytes_visible, SeqCst));
        if moved || bytes > 0 {
            self.notify(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// Wakes everyone: something other than the watermark changed (the partition failed or is gone).
    pub fn wake_all(&self) {
        self.notify(i64::MAX);
    }

    fn notify(&self, bytes: i64) {
        if self.waiter_count() == 0 {
            return;
        }
        let mut woken = Vec::new();
        for standing in self.waiters.lock().slots.iter().flatten() {
            if standing.shared.moved(standing.key, bytes) {
                woken.push(standing.shared.clone());
            }
        }
        for shared in woken {
            shared.waker.wake();
        }
    }

    fn insert(&self, standing: Standing) -> usize {
        let mut waiters = self.waiters.lock();
        self.waiter_count.fetch_add(1, SeqCst);
        let slot = waiters.free.pop().unwrap_or_else(|| {
            waiters.slots.push(None);
            waiters.slots.len() - 1
        });
        waiters.slots[slot] = Some(standing);
        slot
    }

    fn remove(&self, slot: usize) {
        let mut waiters = self.waiters.lock();
        self.waiter_count.fetch_sub(1, SeqCst);
        waiters.slots[slot] = None;
        waiters.free.push(slot);
        if waiters.free.len() == waiters.slots.len() {
            // The last one left: a crowd of waiters leaves no memory behind.
            mem::take(&mut *waiters);
        }
    }
}

impl Shared {
    /// Notes that a tail moved; true when the waiter is to be woken now.
    fn moved(&self, key: u32, bytes: i64) -> bool {
        match &self.interest {
            Interest::Bytes(missing) => {
                let before = missing.fetch_sub(bytes.min(i64::MAX / 4), SeqCst);
                if bytes < i64::MAX && before > bytes {
                    return false;
                }
            }
            Interest::Moves(moves) => moves.lock().note(key),
        }
        !self.woken.swap(true, SeqCst)
    }
}

impl Moves {
    fn note(&mut self, key: u32) {
        let index = key as usize;
        if index >= self.moved.len() {
            self.moved.resize(index + 1, false);
        }
        if !mem::replace(&mut self.moved[index], true) {
            self.keys.push(key);
        }
    }

    fn take(&mut self) -> Vec<u32> {
        for key in &self.keys {
            self.moved[*key as usize] = false;
        }
        mem::take(&mut self.keys)
    }
}

/// A reader's place on the tails it waits for. Leaves them all when dropped.
#[derive(Debug)]
pub struct TailWaiter {
    shared: Arc<Shared>,
    /// Tails it stands on, with its slot there.
    places: Vec<(Arc<Tail>, usize)>,
}

impl TailWaiter {
    /// A waiter to be woken when some bytes became visible; see [`TailWaiter::rearm`].
    pub fn for_bytes() -> TailWaiter {
        TailWaiter::new(Interest::Bytes(AtomicI64::new(1)))
    }

    /// A waiter to be woken when any tail moved; [`TailWaiter::take_moved`] names them.
    pub fn for_moves() -> TailWaiter {
        TailWaiter::new(Interest::Moves(Mutex::default()))
    }

    fn new(interest: Interest) -> TailWaiter {
        let woken = AtomicBool::new(false);
        let shared = Shared { waker: AtomicWaker::new(), woken, interest };
        TailWaiter { shared: Arc::new(shared), places: Vec::new() }
    }

    /// Stands on `tail`, which the waiter calls `key`. Check the tail after this, before waiting.
    pub fn register(&mut self, tail: &Arc<Tail>, key: u32) {
        let slot = tail.insert(Standing { shared: self.shared.clone(), key });
        self.places.push((tail.clone(), slot));
    }

    /// Forgets wakes so far and asks for one when `bytes_missing` more bytes became visible. Check the
    /// tails after this, before waiting; when fewer are missing by then, some came before this call and
    /// do not count: ask again with what is missing now.
    pub fn rearm(&self, bytes_missing: u64) {
        if let Interest::Bytes(missing) = &self.shared.interest {
            missing.store(i64::try_from(bytes_missing).unwrap_or(i64::MAX).max(1), SeqCst);
        }
        self.shared.woken.store(false, SeqCst);
    }

    /// Keys of the tails that moved since the last call.
    pub fn take_moved(&self) -> Vec<u32> {
        self.shared.woken.store(false, SeqCst);
        match &self.shared.interest {
            Interest::Bytes(_) => Vec::new(),
            Interest::Moves(moves) => moves.lock().take(),
        }
    }

    /// Waits until woken.
    pub fn wait(&mut self) -> Wait<'_> {
        Wait { shared: &self.shared }
    }
}

impl Drop for TailWaiter {
    fn drop(&mut self) {
        for (tail, slot) in self.places.drain(..) {
            tail.remove(slot);
        }
    }
}

/// Resolves when its [`TailWaiter`] was woken.
#[derive(Debug)]
pub struct Wait<'a> {
    shared: &'a Shared,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.woken.load(SeqCst) {
            return Poll::Ready(());
        }
        self.shared.waker.register(context.waker());
        if planted(Bug::MissedWake) {
            return Poll::Pending;
        }
        // Again, because the wake may have come before the waker stood there.
        if self.shared.woken.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests;

//! Where jobs hand in what became of them. Handing in is a short push; the session takes all of it at once.
//!
//! Bounds: one settlement per job, and marks and extensions up to [`SLIPS_MAX`]; what is past it is
//! dropped, which costs at most a redelivery.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::{Error, ErrorCode, Result};

/// Slips past which extensions and marks are not taken.
const SLIPS_MAX: usize = 1 << 20;

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// Handling began.
    Started,
    /// It needs this many milliseconds from now.
    Extend(u64),
    /// Done.
    Ack,
    /// Given back untouched.
    Release,
    /// Failed.
    Nack(Box<Nack>),
    /// It will never succeed.
    Reject(Box<str>),
    /// The program dropped it. Never sent.
    Dropped,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nack {
    pub(super) delay_ms: Option<u64>,
    pub(super) reason: String,
}

impl Act {
    /// Whether the record leaves the program's hands by it.
    pub(super) fn settles(&self) -> bool {
        match self {
            Act::Ack | Act::Release | Act::Nack(_) | Act::Reject(_) => true,
            Act::Started | Act::Extend(_) | Act::Dropped => false,
        }
    }
}

/// Who waits until an acknowledgement is durable.
pub(super) type Waiter = oneshot::Sender<Result<()>>;

/// What became of one record.
#[derive(Debug)]
pub(super) struct Slip {
    /// The delivery it came with.
    pub(super) serial: u64,
    pub(super) index: u32,
    pub(super) act: Act,
    pub(super) waiter: Option<Waiter>,
}

/// Where jobs hand in what became of them.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Handed in and not taken. Held for a push or a swap.
    slips: Mutex<Slips>,
    /// Records were given to the program since the session last looked.
    touched: AtomicBool,
    /// Who takes them.
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Slips {
    list: Vec<Slip>,
    closed: bool,
}

impl Desk {
    /// Hands a slip in. After the session's end only its waiter hears of it.
    #[inline]
    pub(super) fn put(&self, slip: Slip) {
        let mut slips = self.slips.lock();
        if slips.closed {
            drop(slips);
            if let Some(waiter) = slip.waiter {
                let _nobody = waiter.send(Err(over()));
            }
            return;
        }
        if slips.list.len() >= SLIPS_MAX && !slip.act.settles() {
            return;
        }
        let first = slips.list.is_empty();
        slips.list.push(slip);
        drop(slips);
        if first {
            self.waker.wake();
        }
    }

    /// Tells the session that a record was given to the program.
    #[inline]
    pub(super) fn touch(&self) {
        if !self.touched.load(Ordering::Relaxed) && !self.touched.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Swaps what was handed in with `into`, which must be empty; so two buffers serve for ever.
    pub(super) fn take(&self, into: &mut Vec<Slip>) {
        debug_assert!(into.is_empty(), "what was taken before is still there");
        self.touched.store(false, Ordering::Release);
        std::mem::swap(&mut self.slips.lock().list, into);
    }

    /// Registers who is woken by the next slip or touch. Look again afterwards.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Wakes who takes slips.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Takes nothing more; returns what was not taken.
    pub(super) fn close(&self) -> Vec<Slip> {
        let mut slips = self.slips.lock();
        slips.closed = true;
        std::mem::take(&mut slips.list)
    }
}

/// What waiters hear after the session's end.
pub(super) fn over() -> Error {
    Error::new(ErrorCode::Closed, "the subscriber is closed; the record comes again")
}

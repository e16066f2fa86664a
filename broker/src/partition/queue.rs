//! A queue between callers and the threads that work for them.
//!
//! Its bound is the callers' business: appends take a slot before they push, and flushes are at most two
//! per partition.

use std::{collections::VecDeque, mem, time::Duration};

use parking_lot::{Condvar, Mutex};

/// Work that waits.
#[derive(Debug)]
pub(crate) struct WorkQueue<T> {
    state: Mutex<State<T>>,
    more: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    /// Workers asleep; nobody is woken for nothing.
    idle_count: usize,
    closed: bool,
}

impl<T> WorkQueue<T> {
    /// An empty queue.
    pub(crate) fn new() -> WorkQueue<T> {
        let state = State { items: VecDeque::new(), idle_count: 0, closed: false };
        WorkQueue { state: Mutex::new(state), more: Condvar::new() }
    }

    /// Adds work. Gives it back when the queue is closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        let sleeping = state.idle_count > 0;
        drop(state);
        if sleeping {
            self.more.notify_one();
        }
        Ok(())
    }

    /// Takes the oldest, waiting for it. `None` when the queue is closed and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state.idle_count += 1;
            self.more.wait(&mut state);
            state.idle_count -= 1;
        }
    }

    /// Takes the oldest if there is one, without waiting.
    #[cfg(feature = "sim")]
    pub(crate) fn try_pop(&self) -> Option<T> {
        self.state.lock().items.pop_front()
    }

    /// Takes everything there is, without waiting.
    #[cfg(feature = "sim")]
    pub(crate) fn drain(&self) -> VecDeque<T> {
        mem::take(&mut self.state.lock().items)
    }

    /// Takes everything, waiting up to `wait` (for ever without one) while there is nothing. `None` when
    /// the queue is closed and empty.
    pub(crate) fn take_all(&self, wait: Option<Duration>) -> Option<VecDeque<T>> {
        let mut state = self.state.lock();
        if state.items.is_empty() && !state.closed {
            state.idle_count += 1;
            match wait {
                None => self.more.wait(&mut state),
                Some(wait) => drop(self.more.wait_for(&mut state, wait)),
            }
            state.idle_count -= 1;
        }
        if state.items.is_empty() && state.closed {
            return None;
        }
        Some(mem::take(&mut state.items))
    }

    /// Refuses further work and lets workers end once the rest is done.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.more.notify_all();
    }
}

//! Flushes that wait until a test lets them go on.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Where flushes pass.
#[derive(Debug, Default)]
pub(super) struct Gate {
    holds: Mutex<u32>,
    opened: Condvar,
}

/// While it lives no flush of a file begins, so nothing that is written becomes durable by one.
#[derive(Debug)]
pub struct FlushHold {
    gate: Arc<Gate>,
}

impl Gate {
    /// Waits while somebody holds flushes.
    pub(super) fn pass(&self) {
        let mut holds = self.holds.lock();
        self.opened.wait_while(&mut holds, |holds| *holds > 0);
    }
}

impl FlushHold {
    pub(super) fn new(gate: Arc<Gate>) -> FlushHold {
        *gate.holds.lock() += 1;
        FlushHold { gate }
    }
}

impl Drop for FlushHold {
    fn drop(&mut self) {
        *self.gate.holds.lock() -= 1;
        self.gate.opened.notify_all();
    }
}

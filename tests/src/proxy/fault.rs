//! What can be wrong with a network.

use std::time::Duration;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the broker.
    Up,
    /// From the broker to the client.
    Down,
}

/// What befalls a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Each chunk waits up to so long.
    Delay(Duration),
    /// Half-open: what is sent this way never arrives, and nobody is told.
    Swallow(Way),
    /// Both ends hear a reset after at most so many bytes more.
    Reset(u64),
    /// The connection ends politely after at most so many bytes more, wherever that is.
    Cut(u64),
    /// So many bytes at a time, with a pause after each.
    Trickle(usize, Duration),
    /// Bytes per second.
    Limit(u64),
    /// So many of a hundred replies never arrive: the connection is reset when one comes back. The broker did what it was asked.
    DropReplies(u8),
    /// Nothing is read from the sender of this way any more, so its window closes.
    Stall(Way),
}

/// The fault of now, and when it was switched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) fault: Fault,
    /// Connections it befalls, of a hundred.
    pub(super) percent: u8,
    /// Rises with each change, so that each picks its own connections.
    pub(super) serial: u64,
    /// Rises when every connection is to be cut.
    pub(super) resets: u64,
}

impl Default for Weather {
    fn default() -> Weather {
        Weather { fault: Fault::None, percent: 0, serial: 0, resets: 0 }
    }
}

impl Weather {
    pub(super) fn change(&mut self, fault: Fault, percent: u8) {
        self.fault = fault;
        self.percent = percent;
        self.serial += 1;
    }

    pub(super) fn reset(&mut self) {
        self.resets += 1;
    }
}

//! The workloads, and how large each is.
//!
//! | | what is done | what is counted |
//! | --- | --- | --- |
//! | W1 | one producer, one partition, random payload | from the first send to the last acknowledgement |
//! | W2 | the same data, one consumer from the start | until the last record has arrived |
//! | W3 | records that are *due* at a steady rate, one producer and one consumer | from the moment each was due to its arrival |
//! | W4 | one consumer, up to 1,000 in hand, each record acknowledged by itself | until all acknowledgements are taken |
//! | W5 | ten consumers, each of everything | deliveries over all |
//! | W6 | topics with one record, then waiting consumers | memory and processor of the server |
//! | W7 | restart after SIGKILL | from exec to the first record; what is lost of what was acknowledged |

use serde::{Deserialize, Serialize};

use crate::{
    drive::{Idle, Task},
    peer::Peer,
};

/// A kind of work.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
pub(crate) enum Workload {
    /// Produce.
    W1,
    /// Catch up.
    W2,
    /// Latency.
    W3,
    /// Acknowledge one by one.
    W4,
    /// Fan out.
    W5,
    /// Idle.
    W6,
    /// Restart.
    W7,
}

/// One workload with its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Case {
    /// What is done.
    pub(crate) workload: Workload,
    /// Bytes of a record's value.
    pub(crate) bytes: usize,
    /// Records per second that are due; 0 where they are sent as fast as it goes.
    pub(crate) rate: u64,
}

/// Records in hand at most while each is acknowledged by itself.
pub(crate) const IN_HAND: usize = 1000;
/// Consumers that each read everything.
pub(crate) const FAN_OUT: usize = 10;

impl Case {
    const fn of(workload: Workload, bytes: usize, rate: u64) -> Case {
        Case { workload, bytes, rate }
    }

    /// Its name in files and on the command line, as `w1-1024`.
    pub(crate) fn key(&self) -> String {
        let workload = format!("{:?}", self.workload).to_lowercase();
        match self.rate {
            0 => format!("{workload}-{}", self.bytes),
            rate => format!("{workload}-{rate}"),
        }
    }

    /// Whether it wants a server that did nothing else before: its memory and its restart are to be of this case alone.
    pub(crate) fn wants_fresh_server(&self) -> bool {
        matches!(self.workload, Workload::W6 | Workload::W7)
    }

    /// Topic it works on. Reading works on what writing left.
    pub(crate) fn topic(&self) -> String {
        match self.workload {
            Workload::W2 => Case { workload: Workload::W1, ..*self }.key(),
            Workload::W1
            | Workload::W3
            | Workload::W4
            | Workload::W5
            | Workload::W6
            | Workload::W7 => self.key(),
        }
    }

    /// What its driver has to do; of W7, what has to be done before.
    pub(crate) fn task(&self, size: Size) -> Task {
        match self.workload {
            Workload::W1 | Workload::W7 => Task::Produce,
            Workload::W2 => Task::Consume,
            Workload::W3 => Task::Latency { rate: self.rate },
            Workload::W4 => Task::Acknowledge,
            Workload::W5 => Task::FanOut,
            Workload::W6 => Task::Idle(size.idle()),
        }
    }

    /// Its heading for people.
    pub(crate) fn title(&self) -> String {
        let bytes = if self.bytes == 1024 { "1 KiB" } else { "100 B" };
        let (workload, rate) = (self.workload, self.rate);
        match workload {
            Workload::W1 => format!("W1 produce, {bytes}"),
            Workload::W2 => format!("W2 catch up, {bytes}"),
            Workload::W3 => format!("W3 latency from due time, {bytes}, {rate} records/s"),
            Workload::W4 => {
                format!("W4 one acknowledgement per record, {bytes}, {IN_HAND} in hand")
            }
            Workload::W5 => format!("W5 fan-out to {FAN_OUT} consumers, {bytes}"),
            Workload::W6 => format!("W6 idle: topics with a record of {bytes}, waiting consumers"),
            Workload::W7 => format!("W7 restart after SIGKILL, {bytes}"),
        }
    }
}

/// The cases of these workloads, in the order they are run. Reading needs what was written, so W2 brings W1.
pub(crate) fn cases(workloads: &[Workload]) -> Vec<Case> {
    const ALL: [Case; 10] = [
        Case::of(Workload::W1, 1024, 0),
        Case::of(Workload::W2, 1024, 0),
        Case::of(Workload::W1, 100, 0),
        Case::of(Workload::W2, 100, 0),
        Case::of(Workload::W3, 1024, 1_000),
        Case::of(Workload::W3, 1024, 10_000),
        Case::of(Workload::W4, 1024, 0),
        Case::of(Workload::W5, 1024, 0),
        Case::of(Workload::W6, 1024, 0),
        Case::of(Workload::W7, 1024, 0),
    ];
    let wanted = |case: &Case| {
        workloads.contains(&case.workload)
            || (case.workload == Workload::W1 && workloads.contains(&Workload::W2))
    };
    ALL.into_iter().filter(wanted).collect()
}

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Everything tiny, to try the harness itself.
    pub(crate) quick: bool,
}

impl Size {
    /// Records that count in this case with this peer. Slow peers get fewer, so that a round ends; the figures are rates, and the number
    /// stands beside each of them.
    pub(crate) fn records(self, case: Case, peer: Peer) -> u64 {
        let full = match case.workload {
            Workload::W1 | Workload::W2 if case.bytes < 1024 => 8_000_000,
            Workload::W1 | Workload::W2 => 2_000_000,
            Workload::W3 => return case.rate * self.seconds(),
            Workload::W4 => 1_000_000,
            Workload::W5 => 500_000,
            // Waiting consumers.
            Workload::W6 => 10_000,
            Workload::W7 => 4_000_000,
        };
        let quick = if self.quick { 100 } else { 1 };
        full / quick / peer.slowness(case.workload)
    }

    /// Records sent before those that count: connections, buffers and compiled code are then in place.
    pub(crate) fn warm_up(self, case: Case, peer: Peer) -> u64 {
        match case.workload {
            // The first second.
            Workload::W3 => case.rate,
            Workload::W1 | Workload::W2 => self.records(case, peer) / 10,
            Workload::W4 | Workload::W5 | Workload::W6 | Workload::W7 => 0,
        }
    }

    /// How idleness is measured.
    fn idle(self) -> Idle {
        if self.quick {
            Idle { topics: 10, settle_ms: 200, window_ms: 500 }
        } else {
            Idle { topics: 1000, settle_ms: 5_000, window_ms: 10_000 }
        }
    }

    /// Longest time one measurement may take.
    pub(crate) fn timeout_seconds(self) -> f64 {
        if self.quick { 30.0 } else { 600.0 }
    }

    /// Seconds that a steady rate is measured.
    fn seconds(self) -> u64 {
        if self.quick { 1 } else { 8 }
    }
}

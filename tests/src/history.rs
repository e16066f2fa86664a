//! What the clients of a harness did and saw, one event per line of JSON, for the checker.
//!
//! ```text
//! {"i":17,"t_ns":88213,"proc":3,"type":"invoke","f":"send","v":{...}}
//! {"i":19,"t_ns":91400,"proc":3,"type":"ok","f":"send","v":{...,"offset":12,"reached":"fsync"}}
//! ```
//!
//! A process does one thing at a time: every `invoke` is followed by its `ok`, `fail` (surely not done) or `info` (nobody knows)
//! before the next one. The completion repeats the operation with what was answered filled in; one that never comes is an `info`.
//! What comes without being asked for (a delivery, a fault) is a single `ok`. Every value is unique over the whole history: the
//! number of its sender, which is the `proc` of its `send`, and a counter.
//!
//! Sends and settlements may overlap: a sender may begin the next one before the last one was answered, if it sends in that order. They
//! are matched by their first value, or their first offset. Polls and the rest may not overlap within a process.
//!
//! A fault is recorded before it is done, and what gives service back (`start`, `heal`, `room`, `resume`) before it is begun: an answer
//! recorded before a `power-cut` was given before it, and an answer after a `start` may be of the new broker.
//!
//! What a client read is checked against its own bytes before it is recorded: bytes that do not verify are [`Value::WRONG`].

#![expect(missing_docs, reason = "fields of events that the operation above them explains")]

use serde::{Deserialize, Serialize};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Order of the events as recorded; strictly rising.
    #[serde(rename = "i")]
    pub index: u64,
    /// Monotonic time in nanoseconds, one clock for all processes.
    pub t_ns: u64,
    /// Who: a sender, a reader, a session. 0 is the harness itself.
    pub proc: u32,
    /// Begun, or how it ended.
    #[serde(rename = "type")]
    pub phase: Phase,
    /// What was done.
    #[serde(flatten)]
    pub operation: Operation,
    /// Code and text of the error of a `fail` or `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<String>,
}

/// Begun, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Begun.
    Invoke,
    /// Done.
    Ok,
    /// Surely not done.
    Fail,
    /// Nobody knows: a time-out, a broken connection, an internal error.
    Info,
}

/// A partition: number of the topic in the harness, number of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Part(pub u16, pub u32);

/// A record's value: `sender << 40 | counter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Value(pub u64);

impl Value {
    /// Bytes that are not what any sender sent.
    pub const WRONG: Value = Value(u64::MAX);
}

/// How durable a record was asked to be, and became.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Not waited for.
    None,
    /// In the page cache.
    Os,
    /// In the page cache and flushed soon.
    Interval,
    /// On the disk.
    Fsync,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", content = "v", rename_all = "kebab-case")]
pub enum Operation {
    /// Records appended as one batch.
    Send {
        at: Part,
        values: Vec<Value>,
        /// Key of each value; empty when they have none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<u32>,
        level: Level,
        /// Of the first record; in `ok`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        /// In `ok`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reached: Option<Level>,
    },
    /// Records read from an offset on.
    Poll {
        at: Part,
        from: u64,
        /// In `ok`.
        #[serde(default)]
        records: Vec<(u64, Value)>,
        /// Visible end as told; in `ok`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end: Option<u64>,
    },
    /// A reader goes elsewhere: its next poll may begin anywhere.
    Seek { at: Part, to: u64 },
    /// An offset stored for a group.
    Commit { group: u32, at: Part, offset: u64, epoch: i64 },
    /// The stored offset asked for; `offset` in `ok` (`None`: never stored).
    FetchOffset {
        group: u32,
        at: Part,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
    },
    /// A member owns a partition from here on; single `ok`.
    Own { group: u32, at: Part, epoch: i64 },
    /// A member gave a partition up, or was told that it lost it; single `ok`.
    Disown { group: u32, at: Part, epoch: i64 },
    /// A push session opened, with what it can hold in records.
    Open { subscription: u32, window: u32, ack_wait_ms: u64 },
    /// A push session ended, however.
    Close { subscription: u32 },
    /// Records handed to a session; single `ok`.
    Deliver { subscription: u32, at: Part, records: Vec<Delivered> },
    /// Outcomes told by a session. `ok` with `confirmed`: the broker said it is durable.
    Settle {
        subscription: u32,
        at: Part,
        offsets: Vec<u64>,
        outcome: Outcome,
        #[serde(default)]
        confirmed: bool,
    },
    /// A session was told that records were taken from it (its lease ended, an order, retention); single `ok`. From here on they do not
    /// count as held by it.
    Revoke { subscription: u32, at: Part, offsets: Vec<u64> },
    /// The harness did something to the broker; single `ok`. Names: `kill`, `power-cut`, `start`, `stop`, `pause`, `resume`,
    /// `full`, `room`, `cut`, `heal`, `clock`, `heal-all`.
    Fault { name: String },
    /// One whole look at a partition after everything was healed; single `ok`. Views: `first`, `second` (after another restart),
    /// `dump` (offline). All of them must be the same.
    Final { view: String, at: Part, log_start: u64, end: u64, records: Vec<(u64, Value)> },
    /// One whole look at the dead letters of a subscription, by origin; single `ok`.
    FinalDead { subscription: u32, letters: Vec<(Part, u64, Value)> },
    /// What is left of a subscription at the end, when nobody was given anything any more; single `ok`. Settled is what lies in
    /// `start..end` (where the subscription began, and how far it came) and is not in `open`.
    FinalOpen { subscription: u32, at: Part, start: u64, end: u64, open: Vec<u64> },
}

/// One record in a session's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    pub offset: u64,
    pub value: Value,
    /// Hand-outs, counted from 1.
    pub attempts: u32,
    pub failures: u32,
    #[serde(default)]
    pub key: Option<u32>,
}

/// What a session said of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Ack,
    Nack,
    Release,
    Reject,
    Extend,
}

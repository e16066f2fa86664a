//! Streams: topics of one partition that are written as the Durable Streams protocol says.
//!
//! ```text
//! what a stream is         StreamFacts   in the metadata log, from its creation on
//! what its writers did     Writers       a fold over the headers of its records ([`mark`], [`Fold`])
//! whether it is closed     a record of its own at the end of the log, appended with the last data
//! when it was last used    in memory; a restart of the broker counts as a use
//! ```
//!
//! Invariants:
//! - Everything but the time of the last use is in a log: facts in the metadata log, the rest in the stream's own,
//!   in the same batch as the data it belongs to. So an append and what is remembered of it are there together or not.
//! - A stream keeps all of its records: otherwise a fold over them would forget its writers.
//! - Nothing follows the closing record.
//! - A stream that somebody reads or writes is not removed because its time is over.
//!
//! This room reads no clock and does no I/O.

mod facts;
mod fold;
mod life;
pub mod mark;
mod writers;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::RwLock;

use self::life::Life;
pub use self::{
    facts::{Origin, StreamFacts, media_type},
    fold::Fold,
    mark::{Mark, Producer},
    writers::{Closing, Turn, Verdict, WriterError, Writers},
};

/// One live stream.
#[derive(Debug)]
pub struct Stream {
    facts: StreamFacts,
    /// Whether it is in use, and since when it is not.
    life: Mutex<Life>,
    /// What its writers did, as far as somebody asked. Held for reading over an append that only needs the stream to be
    /// open, for writing over one that has a turn of its own, and while it is read from the log.
    pub(crate) writers: Arc<RwLock<Fold>>,
}

impl Stream {
    /// A stream that was used last at `used_ms`, in steady milliseconds as everywhere here.
    pub fn new(facts: StreamFacts, used_ms: i64) -> Stream {
        Stream { facts, life: Mutex::new(Life::new(used_ms)), writers: Arc::default() }
    }

    /// What it is.
    pub fn facts(&self) -> &StreamFacts {
        &self.facts
    }

    /// Its time is over: nobody may read or write it any more.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.life.lock().is_expired(&self.facts, now_ms)
    }

    /// Somebody begins to read or write it. False when its time is over.
    #[must_use]
    pub fn enter(&self, now_ms: i64) -> bool {
        self.life.lock().enter(&self.facts, now_ms)
    }

    /// Somebody who entered is done.
    pub fn leave(&self, now_ms: i64) {
        self.life.lock().leave(now_ms);
    }

    /// Ends it when its time is over and nobody uses it; nobody enters from then on.
    #[must_use]
    pub fn end(&self, now_ms: i64) -> bool {
        self.life.lock().end(&self.facts, now_ms)
    }

    /// It ended and could not be removed.
    pub fn revive(&self) {
        self.life.lock().revive();
    }
}

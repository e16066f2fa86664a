//! Records in.

use std::sync::Arc;

use parking_lot::Mutex;
use riverrun_proto::{
    BatchBuilder, BuilderOptions, Compression,
    batch::{EncodeError, HEADER_BYTES},
};

use super::{Filling, Lane, Listing, State};
use crate::{
    clock,
    error::{Error, ErrorCode, Result},
    producer::{
        budget::Budget,
        delivery::{Cell, Delivery},
        record::Record,
    },
};

/// Bytes taken from the budget at once, so that most records need not ask.
const CHUNK_BYTES: usize = 16 << 10;
/// Builders kept for the next batches.
const SPARE_MAX: usize = 16;

/// What every lane needs to take records. Shared by all lanes of a producer.
#[derive(Debug)]
pub(in crate::producer) struct Intake {
    pub(in crate::producer) budget: Budget,
    /// A batch with this many bytes is full.
    pub(in crate::producer) batch_bytes: usize,
    /// Most bytes of a batch: the topic's limit.
    pub(in crate::producer) batch_bytes_max: usize,
    pub(in crate::producer) compression: Compression,
    /// Builders to be used again. Locked last, for a few instructions.
    spare: Mutex<Vec<BatchBuilder>>,
}

/// How a record is taken.
#[derive(Clone, Copy, Debug)]
pub(in crate::producer) struct Take {
    /// Bytes taken from the budget for it beforehand.
    pub(in crate::producer) granted: usize,
    /// Whether a [`Delivery`] is wanted.
    pub(in crate::producer) wanted: bool,
}

impl Take {
    /// Takes a record with the budget as it is.
    pub(in crate::producer) fn free(wanted: bool) -> Take {
        Take { granted: 0, wanted }
    }
}

/// A record is in its batch.
#[derive(Debug)]
pub(in crate::producer) struct Appended {
    /// `None` when nobody wants to know.
    pub(in crate::producer) delivery: Option<Delivery>,
    /// The lane must be put into the ready list.
    pub(in crate::producer) list: bool,
    /// The batch is full now, or the record did not fit into the one before.
    pub(in crate::producer) sealed: bool,
}

impl Intake {
    pub(in crate::producer) fn new(
        budget: Budget,
        batch_bytes: usize,
        batch_bytes_max: usize,
        compression: Compression,
    ) -> Intake {
        Intake { budget, batch_bytes, batch_bytes_max, compression, spare: Mutex::default() }
    }

    fn builder(&self) -> BatchBuilder {
        if let Some(builder) = self.spare.lock().pop() {
            return builder;
        }
        let options =
            BuilderOptions { bytes_max: self.batch_bytes_max, ..BuilderOptions::default() };
        BatchBuilder::new(self.compression, options)
    }

    /// Keeps a builder for later.
    pub(in crate::producer) fn keep(&self, mut builder: BatchBuilder) {
        builder.clear();
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_MAX {
            spare.push(builder);
        }
    }
}

impl Lane {
    /// Appends a record to the open batch. `Ok(None)` when the budget has too little left; come back
    /// with bytes taken from it in `take`, which then belong to the lane.
    #[inline]
    pub(in crate::producer) fn append(
        &self,
        record: &Record,
        timestamp_ms: i64,
        take: Take,
        intake: &Intake,
    ) -> Result<Option<Appended>> {
        let Take { granted, wanted } = take;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Some(error) = &state.closed {
            intake.budget.give(granted);
            return Err(error.clone());
        }
        let bytes = record.bytes_max();
        let mut sealed = state.seal_if_over(intake.batch_bytes_max, bytes);
        let partition = self.partition;
        let open = state.open.get_or_insert_with(|| Filling {
            builder: intake.builder(),
            cell: Cell::new(partition),
            opened_at: clock::now(),
            reserved: 0,
        });
        open.reserved += granted;
        if !open.has_room(bytes, &intake.budget) {
            state.discard_if_empty(intake);
            return Ok(None);
        }
        let pushed = open.builder.push_parts(
            timestamp_ms,
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
        if let Err(error) = pushed {
            state.discard_if_empty(intake);
            return Err(refused(&error));
        }
        let delivery = open.delivery(timestamp_ms, wanted);
        if open.builder.encoded_bytes() >= intake.batch_bytes {
            state.seal(&intake.budget);
            sealed = true;
        }
        let list = match state.listing {
            Listing::Ready => false,
            Listing::Waiting(_) => sealed && state.list(),
            Listing::Idle => state.list(),
        };
        Ok(Some(Appended { delivery, list, sealed }))
    }

    /// Closes the open batch for flushing, and gives the cell of every batch not settled yet.
    pub(in crate::producer) fn flush(&self, intake: &Intake) -> (Vec<Arc<Cell>>, bool) {
        let mut state = self.state.lock();
        state.seal(&intake.budget);
        let sent = state.sent.iter().map(|sent| sent.cell.clone());
        let cells = sent.chain(state.sealed.iter().map(|filling| filling.cell.clone())).collect();
        let list = state.has_work() && state.list();
        (cells, list)
    }
}

impl State {
    /// Closes the open batch when `bytes` more would take it over `limit`.
    #[inline]
    fn seal_if_over(&mut self, limit: usize, bytes: usize) -> bool {
        match &self.open {
            Some(open) if open.builder.encoded_bytes() + bytes > limit => {
                self.sealed.extend(self.open.take());
                true
            }
            Some(_) | None => false,
        }
    }

    /// Closes the open batch and gives back what it reserved too much.
    pub(super) fn seal(&mut self, budget: &Budget) {
        if let Some(mut open) = self.open.take() {
            let used = open.builder.encoded_bytes().min(open.reserved);
            budget.give(open.reserved - used);
            open.reserved = used;
            self.sealed.push_back(open);
        }
    }

    /// Takes an open batch without records away again.
    fn discard_if_empty(&mut self, intake: &Intake) {
        if let Some(open) = self.open.take_if(|open| open.builder.is_empty()) {
            intake.budget.give(open.reserved);
            intake.keep(open.builder);
        }
    }
}

impl Filling {
    /// Makes sure that `bytes` more are paid for.
    #[inline]
    fn has_room(&mut self, bytes: usize, budget: &Budget) -> bool {
        let needed = (self.builder.encoded_bytes() + bytes).saturating_sub(self.reserved);
        if needed == 0 {
            return true;
        }
        [needed.max(CHUNK_BYTES), needed].into_iter().any(|bytes| {
            let taken = budget.try_take(bytes);
            self.reserved += if taken { bytes } else { 0 };
            taken
        })
    }

    #[inline]
    fn delivery(&self, timestamp_ms: i64, wanted: bool) -> Option<Delivery> {
        if !wanted {
            self.cell.post();
            return None;
        }
        let index = u32::try_from(self.builder.len() - 1).expect("a batch counts in 31 bits");
        Some(Delivery::new(self.cell.clone(), index, timestamp_ms))
    }
}

/// Bytes to take from the budget for a record when the budget is short.
pub(in crate::producer) fn needed_alone(record: &Record) -> usize {
    record.bytes_max() + HEADER_BYTES
}

fn refused(error: &EncodeError) -> Error {
    let code = match error {
        EncodeError::BatchFull { .. } | EncodeError::RecordTooLarge { .. } => {
            ErrorCode::RecordTooLarge
        }
        EncodeError::Record(_) | EncodeError::Empty | EncodeError::Compress { .. } => {
            ErrorCode::InvalidArgument
        }
    };
    Error::new(code, error.to_string())
}

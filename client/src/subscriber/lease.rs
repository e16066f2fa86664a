//! One delivery: the records that came in one frame, under one lease.
//!
//! Records are named by their *index*: how many offsets of the delivery lie before them. They are given to
//! the program in order, each once. Once the lease is closed no further one is given out, so who closes it
//! learns exactly which records the program never saw.

use std::{
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use riverrun_proto::{TopicPartition, grpc::v1};

use super::desk::Desk;
use crate::{
    clock::Instant,
    error::{Error, ErrorCode, Result},
};

/// Most records of one delivery; a session never holds more.
const LEN_MAX: u64 = 1_000_000;
/// In `handed`: nothing more is given out.
const CLOSED: u64 = 1 << 63;
/// In `handed`: one job more was made.
const GIVEN: u64 = 1 << 32;

/// Offsets `[start, end)`, of which the first has the index `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u64,
    end: u64,
    first: u32,
}

/// The offsets of a delivery, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spans {
    spans: Box<[Span]>,
    len: u32,
}

impl Spans {
    /// # Errors
    /// `Protocol` when ranges are empty, not in order, or too many in all.
    pub(super) fn new(ranges: &[v1::OffsetRange]) -> Result<Spans> {
        let wrong = |what: &str| Err(Error::new(ErrorCode::Protocol, format!("delivery: {what}")));
        let mut spans = Vec::with_capacity(ranges.len());
        let (mut len, mut after) = (0, 0);
        for &v1::OffsetRange { start_offset: start, end_offset: end } in ranges {
            if start < after || start >= end {
                return wrong("ranges are empty or not in order");
            }
            let Some(first) = u32::try_from(len).ok().filter(|_| len + (end - start) <= LEN_MAX)
            else {
                return wrong("more records than a session may hold");
            };
            spans.push(Span { start, end, first });
            len += end - start;
            after = end;
        }
        let Some(len) = u32::try_from(len).ok().filter(|len| *len > 0) else {
            return wrong("no ranges");
        };
        Ok(Spans { spans: spans.into(), len })
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The index of an offset, when it is one of the delivery's.
    #[inline]
    pub(super) fn index(&self, offset: u64) -> Option<u32> {
        let at = self.spans.partition_point(|span| span.start <= offset).checked_sub(1)?;
        let span = &self.spans[at];
        if offset >= span.end {
            return None;
        }
        u32::try_from(offset - span.start).ok().map(|delta| span.first + delta)
    }

    /// The offset at an index below the length.
    pub(super) fn offset(&self, index: u32) -> u64 {
        let at = self.spans.partition_point(|span| span.first <= index) - 1;
        let span = &self.spans[at];
        span.start + u64::from(index - span.first)
    }

    /// The indices of the offsets that lie in `range`: always one run.
    pub(super) fn indices(&self, range: Range<u64>) -> Range<u32> {
        let below = |offset: u64| {
            let at = self.spans.partition_point(|span| span.start < offset);
            let Some(span) = at.checked_sub(1).map(|at| &self.spans[at]) else { return 0 };
            let inside = offset.min(span.end) - span.start;
            span.first + u32::try_from(inside).unwrap_or(u32::MAX - span.first)
        };
        below(range.start)..below(range.end.max(range.start))
    }
}

/// One delivery. Shared by its jobs and the session.
#[derive(Debug)]
pub(super) struct Lease {
    /// Number of the delivery within this process; never used again.
    pub(super) serial: u64,
    pub(super) partition: TopicPartition,
    /// With `seq`: the token that settlements repeat.
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) spans: Spans,
    /// When it came.
    pub(super) received: Instant,
    /// Where outcomes are handed in.
    pub(super) desk: Arc<Desk>,
    /// The state of giving out: low half the first index not given out, high half how many jobs were made,
    /// top bit closed. Raised by the reader; closed by the session.
    handed: AtomicU64,
    /// Indices that the broker took back, as bits. Set by the session only.
    taken: OnceLock<Box<[AtomicU64]>>,
}

/// How far a lease was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handed {
    /// Indices below were given out, or skipped since the broker had taken them back.
    pub(super) until: u32,
    /// Jobs made.
    pub(super) given: u32,
    pub(super) is_closed: bool,
}

impl Handed {
    fn of(state: u64) -> Handed {
        let half = |bits: u64| u32::try_from(bits & 0x7fff_ffff).unwrap_or_default();
        Handed { until: half(state), given: half(state >> 32), is_closed: state & CLOSED != 0 }
    }
}

impl Lease {
    pub(super) fn new(
        partition: TopicPartition,
        (epoch, seq): (u64, u64),
        spans: Spans,
        received: Instant,
        (serial, desk): (u64, Arc<Desk>),
    ) -> Lease {
        let handed = AtomicU64::new(0);
        Lease {
            serial,
            partition,
            epoch,
            seq,
            spans,
            received,
            desk,
            handed,
            taken: OnceLock::new(),
        }
    }

    /// Gives out the record at `index`; false when the lease is closed.
    #[inline]
    pub(super) fn hand_out(&self, index: u32) -> bool {
        let mut state = self.handed.load(Ordering::Acquire);
        while state & CLOSED == 0 {
            let given = (state & !(GIVEN - 1)) + GIVEN;
            let next = given | u64::from(index + 1);
            match self.handed.compare_exchange_weak(
                state,
                next,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// How far it was given out.
    pub(super) fn handed(&self) -> Handed {
        Handed::of(self.handed.load(Ordering::Acquire))
    }

    /// Nothing more is given out; tells how far it was.
    pub(super) fn close(&self) -> Handed {
        Handed::of(self.handed.fetch_or(CLOSED, Ordering::AcqRel))
    }

    /// The broker took the record at `index` back.
    pub(super) fn take_back(&self, index: u32) {
        let words = self.spans.len().div_ceil(64);
        let taken = self.taken.get_or_init(|| (0..words).map(|_| AtomicU64::new(0)).collect());
        taken[index as usize / 64].fetch_or(1 << (index % 64), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_taken_back(&self, index: u32) -> bool {
        self.taken.get().is_some_and(|taken| {
            taken[index as usize / 64].load(Ordering::Relaxed) & (1 << (index % 64)) != 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(ranges: &[(u64, u64)]) -> Result<Spans> {
        let range = |&(start_offset, end_offset)| v1::OffsetRange { start_offset, end_offset };
        Spans::new(&ranges.iter().map(range).collect::<Vec<_>>())
    }

    #[test]
    fn offsets_and_indices_are_two_names_of_a_record() {
        let spans = spans(&[(10, 12), (20, 21), (30, 34)]).unwrap();
        let offsets = [10, 11, 20, 30, 31, 32, 33];
        assert_eq!(spans.len(), 7);
        for (index, offset) in (0..).zip(offsets) {
            assert_eq!((spans.offset(index), spans.index(offset)), (offset, Some(index)));
        }
        for other in [0, 9, 12, 19, 21, 29, 34, u64::MAX] {
            assert_eq!(spans.index(other), None, "{other}");
        }
        for start in 0..40 {
            for end in start..40 {
                let inside: Vec<u32> = (0..)
                    .zip(offsets)
                    .filter(|(_, o)| (start..end).contains(o))
                    .map(|(i, _)| i)
                    .collect();
                let run: Vec<u32> = spans.indices(start..end).collect();
                assert_eq!(run, inside, "{start}..{end}");
            }
        }
    }

    #[test]
    fn ranges_that_lie_are_refused() {
        for wrong in [&[][..], &[(5, 5)], &[(6, 5)], &[(0, 2), (1, 3)], &[(0, u64::MAX)]] {
            assert_eq!(spans(wrong).unwrap_err().code(), ErrorCode::Protocol, "{wrong:?}");
        }
        assert!(spans(&[(0, LEN_MAX)]).is_ok());
        assert!(spans(&[(0, LEN_MAX), (LEN_MAX + 5, LEN_MAX + 6)]).is_err());
    }
}

//! What the writers of a stream did: a fold over the marks of its records, and what it says to the next append.
//!
//! Pure. A producer's turns count up by one from 0 in each of its epochs; an epoch never goes back:
//!
//! ```text
//! found epoch          found seq           verdict
//! below the known      any                 stale
//! above it, or new     0                   new
//! above it             not 0               refused: an epoch begins with 0
//! new producer         not 0               gap
//! the known            up to the last      duplicate
//! the known            the next            new
//! the known            beyond              gap
//! ```

use std::collections::HashMap;

use bytes::Bytes;
use thiserror::Error;

use super::mark::{Mark, Producer};

/// Most producers of one stream.
pub(super) const PRODUCERS_MAX: usize = 1_000;

/// Where a producer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its epoch.
    pub epoch: u64,
    /// The last turn that was appended.
    pub seq: u64,
}

/// The end of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Offset of the closing record: where the data ends.
    pub offset: u64,
    /// Whose turn it was.
    pub by: Option<Producer>,
}

/// What an append is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was not seen before.
    New,
    /// It is in the log already; its producer stands here.
    Duplicate(Turn),
}

/// An append out of turn.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WriterError {
    /// A newer life of the producer was seen.
    #[error("`producer-epoch` of producer `{}` is {current}, found {found}", .id.escape_debug())]
    StaleEpoch {
        /// The producer.
        id: String,
        /// Its epoch.
        current: u64,
        /// What came.
        found: u64,
    },
    /// Turns are missing.
    #[error("`producer-seq` of producer `{}` must be {expected}, found {found}", .id.escape_debug())]
    Gap {
        /// The producer.
        id: String,
        /// Its next turn.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// An epoch does not begin at its beginning.
    #[error("`producer-seq` must be 0 in a new epoch, found {found}")]
    EpochStart {
        /// What came.
        found: u64,
    },
    /// The stream has as many producers as one may have.
    #[error("the stream has {limit} producers, and `{}` is a new one", .id.escape_debug())]
    TooManyProducers {
        /// The producer.
        id: String,
        /// Most of one stream.
        limit: usize,
    },
    /// The writers' own sequence does not go on.
    #[error("`stream-seq` must be greater than `{}`", String::from_utf8_lossy(.last).escape_debug())]
    StaleSeq {
        /// The last one.
        last: Bytes,
    },
}

/// What the writers of a stream did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    producers: HashMap<Box<str>, Turn>,
    seq: Option<Bytes>,
    closing: Option<Closing>,
}

impl Writers {
    /// The end of the stream, when it is closed.
    pub fn closing(&self) -> Option<&Closing> {
        self.closing.as_ref()
    }

    /// Where a producer stands.
    pub fn turn(&self, id: &str) -> Option<Turn> {
        self.producers.get(id).copied()
    }

    /// Whether an append with this mark is in turn.
    ///
    /// # Errors
    /// Why it is not. A duplicate of a producer is told before the writers' own sequence is looked at.
    pub fn judge(&self, mark: &Mark) -> Result<Verdict, WriterError> {
        if let Some(producer) = &mark.producer
            && let Verdict::Duplicate(turn) = self.judge_producer(producer)?
        {
            return Ok(Verdict::Duplicate(turn));
        }
        match (&self.seq, &mark.seq) {
            (Some(last), Some(found)) if found <= last => {
                Err(WriterError::StaleSeq { last: last.clone() })
            }
            _ => Ok(Verdict::New),
        }
    }

    fn judge_producer(&self, producer: &Producer) -> Result<Verdict, WriterError> {
        let Producer { id, epoch, seq } = producer;
        let (epoch, found, id) = (*epoch, *seq, id.clone());
        let gap = |id, expected| Err(WriterError::Gap { id, expected, found });
        let Some(turn) = self.turn(&id) else {
            return match found {
                0 if self.producers.len() >= PRODUCERS_MAX => {
                    Err(WriterError::TooManyProducers { id, limit: PRODUCERS_MAX })
                }
                0 => Ok(Verdict::New),
                _ => gap(id, 0),
            };
        };
        if epoch < turn.epoch {
            return Err(WriterError::StaleEpoch { id, current: turn.epoch, found: epoch });
        }
        if epoch > turn.epoch {
            return match found {
                0 => Ok(Verdict::New),
                _ => Err(WriterError::EpochStart { found }),
            };
        }
        match turn.seq.checked_add(1) {
            _ if found <= turn.seq => Ok(Verdict::Duplicate(turn)),
            Some(next) if found == next => Ok(Verdict::New),
            next => gap(id, next.unwrap_or(u64::MAX)),
        }
    }

    /// Takes in the mark of the record at `offset`.
    pub fn note(&mut self, mark: &Mark, offset: u64) {
        if let Some(Producer { id, epoch, seq }) = &mark.producer {
            self.producers.insert(id.as_str().into(), Turn { epoch: *epoch, seq: *seq });
        }
        if let Some(seq) = &mark.seq {
            self.seq = Some(Bytes::copy_from_slice(seq));
        }
        if mark.is_closing {
            self.closing = Some(Closing { offset, by: mark.producer.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(id: &str, epoch: u64, seq: u64) -> Mark {
        let producer = Producer { id: id.into(), epoch, seq };
        Mark { producer: Some(producer), ..Mark::default() }
    }

    fn seq(text: &'static str) -> Mark {
        Mark { seq: Some(text.into()), ..Mark::default() }
    }

    fn after(marks: &[Mark]) -> Writers {
        let mut writers = Writers::default();
        for (offset, mark) in (0..).zip(marks) {
            writers.note(mark, offset);
        }
        writers
    }

    #[test]
    fn producers_take_their_turns_and_are_fenced_by_their_own_epochs() {
        let writers = after(&[turn("a", 1, 0), turn("b", 0, 0), turn("a", 1, 1), turn("a", 1, 2)]);
        let judged = |mark: Mark| writers.judge(&mark);
        let a = Turn { epoch: 1, seq: 2 };
        assert_eq!(judged(turn("a", 1, 3)), Ok(Verdict::New));
        assert_eq!(judged(turn("a", 1, 1)), Ok(Verdict::Duplicate(a)));
        assert_eq!(judged(turn("a", 2, 0)), Ok(Verdict::New));
        assert_eq!(judged(turn("b", 0, 1)), Ok(Verdict::New));
        assert_eq!(judged(turn("c", 9, 0)), Ok(Verdict::New));
        let gap = |id: &str, expected, found| WriterError::Gap { id: id.into(), expected, found };
        assert_eq!(judged(turn("a", 1, 4)), Err(gap("a", 3, 4)));
        assert_eq!(judged(turn("c", 0, 1)), Err(gap("c", 0, 1)));
        assert_eq!(judged(turn("a", 2, 3)), Err(WriterError::EpochStart { found: 3 }));
        let stale = WriterError::StaleEpoch { id: "a".into(), current: 1, found: 0 };
        assert_eq!(judged(turn("a", 0, 3)), Err(stale));
    }

    #[test]
    fn the_writers_own_sequence_goes_on_byte_by_byte() {
        let writers = after(&[seq("2")]);
        for (found, is_on) in [("2", false), ("10", false), ("20", true), ("3", true), ("", false)]
        {
            assert_eq!(writers.judge(&seq(found)).is_ok(), is_on, "{found}");
        }
        let both = Mark { seq: Some("2".into()), ..turn("a", 0, 0) };
        let writers = after(std::slice::from_ref(&both));
        assert!(
            matches!(writers.judge(&both), Ok(Verdict::Duplicate(_))),
            "told before the sequence"
        );
    }

    #[test]
    fn a_stream_has_a_bounded_number_of_producers() {
        let mut writers = Writers::default();
        for number in 0..PRODUCERS_MAX {
            writers.note(&turn(&number.to_string(), 0, 0), 0);
        }
        assert_eq!(writers.judge(&turn("0", 0, 1)), Ok(Verdict::New));
        let refused = writers.judge(&turn("one more", 0, 0));
        assert!(matches!(refused, Err(WriterError::TooManyProducers { .. })), "{refused:?}");
    }

    #[test]
    fn the_closing_record_says_whose_turn_it_was() {
        let mark = Mark { is_closing: true, ..turn("a", 0, 0) };
        let writers = after(&[Mark::default(), mark.clone()]);
        assert_eq!(writers.closing(), Some(&Closing { offset: 1, by: mark.producer }));
    }
}

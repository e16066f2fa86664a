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
//!
//! So many producers are remembered. One more takes the place of that which was silent for longest, once it was silent
//! for [`SILENCE_MIN`]; before that it is refused, and told when to come again. Who is forgotten follows from the log
//! alone: a fold after a start forgets the same.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use thiserror::Error;

use super::mark::{Mark, Producer};

/// Most producers of one stream that are remembered.
pub(super) const PRODUCERS_MAX: usize = 1_000;
/// A producer is remembered at least so long after its last turn: longer than any retry of it takes.
pub(super) const SILENCE_MIN: Duration = Duration::from_secs(3_600);

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
    /// Too many producers wrote to the stream of late.
    #[error(
        "{limit} producers wrote to the stream within the last {} seconds, and `{}` is a new one",
        SILENCE_MIN.as_secs(), .id.escape_debug()
    )]
    TooManyProducers {
        /// The producer.
        id: String,
        /// Most of one stream.
        limit: usize,
        /// One of them may be forgotten after this.
        retry_after: Duration,
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
    producers: HashMap<Arc<str>, Known>,
    /// The same producers by the offset of their last turn: who was silent for longest comes first.
    silent: BTreeMap<u64, Arc<str>>,
    seq: Option<Bytes>,
    closing: Option<Closing>,
}

/// What is remembered of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    turn: Turn,
    /// Offset of the record that has it.
    offset: u64,
    /// When it was appended, in wall milliseconds.
    at_ms: i64,
}

impl Writers {
    /// The end of the stream, when it is closed.
    pub fn closing(&self) -> Option<&Closing> {
        self.closing.as_ref()
    }

    /// Where a producer stands.
    pub fn turn(&self, id: &str) -> Option<Turn> {
        self.producers.get(id).map(|known| known.turn)
    }

    /// Whether an append with this mark is in turn, at this wall time in milliseconds.
    ///
    /// # Errors
    /// Why it is not. A duplicate of a producer is told before the writers' own sequence is looked at.
    pub fn judge(&self, mark: &Mark, now_ms: i64) -> Result<Verdict, WriterError> {
        if let Some(producer) = &mark.producer
            && let Verdict::Duplicate(turn) = self.judge_producer(producer, now_ms)?
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

    fn judge_producer(&self, producer: &Producer, now_ms: i64) -> Result<Verdict, WriterError> {
        let Producer { id, epoch, seq } = producer;
        let (epoch, found, id) = (*epoch, *seq, id.clone());
        let gap = |id, expected| Err(WriterError::Gap { id, expected, found });
        let Some(turn) = self.turn(&id) else {
            return match (found, self.full_for(now_ms)) {
                (0, None) => Ok(Verdict::New),
                (0, Some(retry_after)) => {
                    Err(WriterError::TooManyProducers { id, limit: PRODUCERS_MAX, retry_after })
                }
                (_, _) => gap(id, 0),
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

    /// How long there is no place for a new producer; `None` when there is one.
    fn full_for(&self, now_ms: i64) -> Option<Duration> {
        let (_, id) =
            self.silent.first_key_value().filter(|_| self.silent.len() >= PRODUCERS_MAX)?;
        let silent_ms = now_ms.saturating_sub(self.producers.get(id)?.at_ms);
        let silent = Duration::from_millis(u64::try_from(silent_ms).unwrap_or(0));
        SILENCE_MIN.checked_sub(silent).filter(|left| !left.is_zero())
    }

    /// Takes in the mark of the record with this offset, that was appended at this wall time in milliseconds.
    pub fn note(&mut self, mark: &Mark, (offset, at_ms): (u64, i64)) {
        if let Some(Producer { id, epoch, seq }) = &mark.producer {
            let turn = Turn { epoch: *epoch, seq: *seq };
            self.remember(id, Known { turn, offset, at_ms });
        }
        if let Some(seq) = &mark.seq {
            self.seq = Some(Bytes::copy_from_slice(seq));
        }
        if mark.is_closing {
            self.closing = Some(Closing { offset, by: mark.producer.clone() });
        }
    }

    fn remember(&mut self, id: &str, known: Known) {
        let before = self.producers.get(id).map(|before| before.offset);
        let held = before.and_then(|offset| self.silent.remove(&offset));
        let id = held.unwrap_or_else(|| id.into());
        self.silent.insert(known.offset, id.clone());
        self.producers.insert(id, known);
        if self.silent.len() > PRODUCERS_MAX
            && let Some((_, forgotten)) = self.silent.pop_first()
        {
            self.producers.remove(&forgotten);
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
            writers.note(mark, (offset, 0));
        }
        writers
    }

    #[test]
    fn producers_take_their_turns_and_are_fenced_by_their_own_epochs() {
        let writers = after(&[turn("a", 1, 0), turn("b", 0, 0), turn("a", 1, 1), turn("a", 1, 2)]);
        let judged = |mark: Mark| writers.judge(&mark, 0);
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
            assert_eq!(writers.judge(&seq(found), 0).is_ok(), is_on, "{found}");
        }
        let both = Mark { seq: Some("2".into()), ..turn("a", 0, 0) };
        let writers = after(std::slice::from_ref(&both));
        assert!(
            matches!(writers.judge(&both, 0), Ok(Verdict::Duplicate(_))),
            "told before the sequence"
        );
    }

    #[test]
    fn a_new_producer_takes_the_place_of_one_that_was_silent_for_long_enough() {
        let mut writers = Writers::default();
        for number in 0..PRODUCERS_MAX {
            let offset = number as u64;
            writers.note(&turn(&number.to_string(), 1, 0), (offset, number as i64));
        }
        // The first wrote once more, so the second was silent for longest.
        writers.note(&turn("0", 1, 1), (PRODUCERS_MAX as u64, 2_000));
        let hour_ms = 3_600_000;
        let one_more = turn("one more", 0, 0);
        let (id, limit) = ("one more".to_owned(), PRODUCERS_MAX);
        let retry_after = Duration::from_millis(1);
        let full = WriterError::TooManyProducers { id, limit, retry_after };
        assert_eq!(writers.judge(&one_more, hour_ms), Err(full));
        assert_eq!(writers.judge(&turn("1", 1, 1), hour_ms), Ok(Verdict::New), "known ones go on");
        let stale = writers.judge(&turn("1", 0, 0), hour_ms);
        assert!(matches!(stale, Err(WriterError::StaleEpoch { .. })), "{stale:?}");
        assert_eq!(writers.judge(&one_more, hour_ms + 1), Ok(Verdict::New));

        writers.note(&one_more, (PRODUCERS_MAX as u64 + 1, hour_ms + 1));
        assert_eq!(writers.producers.len(), PRODUCERS_MAX);
        assert_eq!(writers.silent.len(), PRODUCERS_MAX);
        assert_eq!((writers.turn("1"), writers.turn("0")), (None, Some(Turn { epoch: 1, seq: 1 })));
        let forgotten = writers.judge(&turn("1", 0, 0), hour_ms + 2);
        assert_eq!(forgotten, Ok(Verdict::New), "it is a new one, whatever its epoch was");
        let in_the_midst = writers.judge(&turn("1", 1, 1), hour_ms + 2);
        assert!(matches!(in_the_midst, Err(WriterError::Gap { expected: 0, .. })), "it is told");
        assert!(
            writers.judge(&turn("1", 0, 0), i64::MIN).is_err(),
            "a clock put back forgets nothing"
        );
    }

    #[test]
    fn the_closing_record_says_whose_turn_it_was() {
        let mark = Mark { is_closing: true, ..turn("a", 0, 0) };
        let writers = after(&[Mark::default(), mark.clone()]);
        assert_eq!(writers.closing(), Some(&Closing { offset: 1, by: mark.producer }));
    }
}

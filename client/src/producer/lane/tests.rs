use std::time::Duration;

use riverrun_proto::{Compression, Offset, ProducerEpoch, ProducerId, batch::BatchHeader};

use super::*;
use crate::{
    clock,
    durability::Durability,
    error::ErrorCode,
    producer::{budget::Budget, identity::Identity, record::Record},
};

const IDENTITY: Identity = Identity { id: ProducerId(9), epoch: ProducerEpoch(0) };

struct Bench {
    lane: Lane,
    intake: Intake,
    next_id: u64,
    resetting: bool,
}

impl Bench {
    fn new() -> Bench {
        let intake = Intake::new(Budget::new(1 << 20), 4096, 1 << 16, Compression::None);
        Bench { lane: Lane::new(0, 1), intake, next_id: 0, resetting: false }
    }

    /// Puts one record into a batch of its own.
    fn put(&self, value: &'static str) -> Arc<Cell> {
        self.lane.append(&Record::new(value), 0, Take::free(true), &self.intake).unwrap().unwrap();
        let (cells, _) = self.lane.flush(&self.intake);
        cells.last().unwrap().clone()
    }

    /// Everything the lane sends now: request id and header.
    fn send(&mut self) -> Vec<(u64, BatchHeader)> {
        let mut sent = Vec::new();
        loop {
            let sending = Sending {
                session: 1,
                linger: Duration::ZERO,
                pressed: false,
                resetting: self.resetting,
                identity: IDENTITY,
                now: clock::now() + Duration::from_secs(60),
            };
            self.next_id += 1;
            let (id, bytes) = match self.lane.choose(&sending, self.next_id) {
                Choice::Send { request_id, batch } => (request_id, batch),
                Choice::Encode(mut encoding) => {
                    let encoded = encoding.builder.build();
                    let encoded = self.lane.encoded(encoding.request_id, 1, encoded);
                    let Encoded::Send(bytes) = encoded else { panic!("{encoded:?}") };
                    (encoding.request_id, bytes)
                }
                Choice::Wait(_) | Choice::Nothing | Choice::Stale => return sent,
            };
            sent.push((id, BatchHeader::peek(&bytes).unwrap()));
        }
    }

    fn answer(&self, id: u64, answer: Result<u64, ErrorCode>) -> Answered {
        let answer = match answer {
            Ok(base) => Ok(BatchReceipt {
                base_offset: Offset(base),
                durability: Durability::Fsync,
                duplicate: false,
            }),
            Err(code) => Err(Error::new(code, "said the broker")),
        };
        self.lane.answer(id, answer, true, clock::now())
    }
}

fn sequences(sent: &[(u64, BatchHeader)]) -> Vec<i32> {
    sent.iter().map(|(_, header)| header.base_sequence).collect()
}

#[test]
fn five_batches_leave_and_the_sixth_waits_for_the_oldest() {
    let mut bench = Bench::new();
    for _ in 0..7 {
        bench.put("v");
    }
    let sent = bench.send();
    assert_eq!(sequences(&sent), [0, 1, 2, 3, 4]);
    // An answer to a later one does not let the broker forget the oldest.
    assert_eq!(bench.answer(sent[2].0, Ok(2)).settled.len(), 1);
    assert_eq!(sequences(&bench.send()), [0_i32; 0]);
    assert_eq!(bench.answer(sent[0].0, Ok(0)).settled.len(), 1);
    assert_eq!(sequences(&bench.send()), [5]);
}

#[test]
fn refused_batches_go_again_in_order_once_every_answer_came() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.put("v");
    }
    let sent = bench.send();
    assert!(bench.answer(sent[0].0, Err(ErrorCode::DiskFull)).settled.is_empty());
    assert!(bench.answer(sent[1].0, Err(ErrorCode::OutOfOrderSequence)).settled.is_empty());
    assert_eq!(sequences(&bench.send()), [0_i32; 0], "one answer is still missing");
    let last = bench.answer(sent[2].0, Err(ErrorCode::OutOfOrderSequence));
    assert!(last.settled.is_empty() && !last.stuck);
    let again = bench.send();
    assert_eq!(again, sent, "same numbers, same order");
}

#[test]
fn a_lost_link_resends_the_same_and_a_gap_then_waits_for_new_numbers() {
    let mut bench = Bench::new();
    bench.put("a");
    bench.put("b");
    let sent = bench.send();
    bench.lane.begin_session(1, true);
    assert!(!bench.lane.is_certain());
    assert_eq!(bench.send(), sent);
    assert!(!bench.answer(sent[0].0, Err(ErrorCode::OutOfOrderSequence)).stuck);
    let answered = bench.answer(sent[1].0, Err(ErrorCode::OutOfOrderSequence));
    assert!(answered.stuck && answered.settled.is_empty());
    assert!(bench.lane.is_certain(), "the broker remembers more than was in doubt");
    assert!(bench.send().is_empty());
    bench.lane.renumber(Identity { epoch: ProducerEpoch(1), ..IDENTITY });
    let again = bench.send();
    assert_eq!(sequences(&again), [0, 1]);
    assert!(again.iter().all(|(_, header)| header.producer_epoch == ProducerEpoch(1)));
}

#[test]
fn a_doubtful_batch_of_a_forgotten_producer_fails_and_is_not_sent_again() {
    let mut bench = Bench::new();
    bench.put("a");
    let sent = bench.send();
    bench.lane.begin_session(1, true);
    bench.put("b");
    let again = bench.send();
    assert_eq!(sequences(&again), [0, 1]);
    bench.answer(sent[0].0, Err(ErrorCode::UnknownProducerId));
    let answered = bench.answer(again[1].0, Err(ErrorCode::UnknownProducerId));
    assert_eq!(answered.settled.len(), 1);
    let error = answered.settled[0].outcome.as_ref().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Indeterminate);
    assert!(answered.stuck, "the second was sent once and refused: it goes under new numbers");
    bench.lane.renumber(IDENTITY);
    assert_eq!(sequences(&bench.send()), [0]);
}

#[test]
fn the_numbers_of_the_newest_refused_batch_are_used_again() {
    let mut bench = Bench::new();
    bench.put("a");
    let sent = bench.send();
    assert_eq!(bench.answer(sent[0].0, Err(ErrorCode::RecordTooLarge)).settled.len(), 1);
    bench.put("b");
    assert_eq!(sequences(&bench.send()), [0]);
}

#[test]
fn bytes_come_back_to_the_budget() {
    let mut bench = Bench::new();
    let all = bench.intake.budget.left();
    bench.put("a");
    bench.put("b");
    assert!(bench.intake.budget.left() < all);
    let sent = bench.send();
    let mut settled = bench.answer(sent[0].0, Ok(0)).settled;
    bench.lane.fail(&Error::new(ErrorCode::Closed, "closed"), &mut settled);
    let given: usize = settled.iter().map(|settled| settled.reserved).sum();
    assert_eq!(bench.intake.budget.left() + given, all);
}

#[test]
fn doubt_behind_a_gap_does_not_outlast_the_answers() {
    let mut bench = Bench::new();
    bench.put("a");
    bench.put("b");
    let sent = bench.send();
    bench.answer(sent[0].0, Err(ErrorCode::DiskFull));
    bench.lane.begin_session(1, true);
    assert_eq!(bench.send(), sent, "the second is doubtful, the first was refused");
    bench.answer(sent[0].0, Err(ErrorCode::UnknownProducerId));
    let answered = bench.answer(sent[1].0, Err(ErrorCode::UnknownProducerId));
    assert_eq!(answered.settled.len(), 1);
    assert!(answered.stuck && bench.lane.is_certain());
}

#[test]
fn a_doubtful_batch_refused_for_good_is_indeterminate() {
    let mut bench = Bench::new();
    let cell = bench.put("a");
    let (id, _) = bench.send()[0];
    bench.answer(id, Err(ErrorCode::Indeterminate));
    let (id, _) = bench.send()[0];
    let answered = bench.answer(id, Err(ErrorCode::RecordTooLarge));
    assert_eq!(answered.settled.len(), 1);
    assert!(Arc::ptr_eq(&answered.settled[0].cell, &cell));
    let outcome = answered.settled[0].outcome.as_ref().unwrap_err();
    assert_eq!(outcome.code(), ErrorCode::Indeterminate, "the first try may have been written");
}

#[test]
fn what_waited_too_long_on_a_full_disk_says_that_the_disk_is_full() {
    let timeout = Duration::from_secs(120);
    let much_later = clock::now() + 2 * timeout;
    let mut bench = Bench::new();
    let (refused, behind) = (bench.put("a"), bench.put("b"));
    let sent = bench.send();
    let _ = bench.answer(sent[0].0, Err(ErrorCode::DiskFull));
    let _ = bench.answer(sent[1].0, Err(ErrorCode::OutOfOrderSequence));
    let unsent = bench.put("c");
    assert_eq!(bench.lane.refusal().map(|error| error.code()), Some(ErrorCode::DiskFull));
    let expired = bench.lane.expire(much_later, timeout);
    let mut late = Vec::new();
    for settled in expired.settled {
        let error = settled.outcome.unwrap_err();
        assert!(error.is_retriable());
        assert_eq!(error.code(), ErrorCode::DiskFull, "{error}");
        assert!(error.message().contains("`120000` ms: said the broker"), "{error}");
        late.push(settled.cell.clone());
    }
    let each = [refused, behind, unsent];
    assert!(late.len() == 3 && each.iter().all(|cell| late.iter().any(|c| Arc::ptr_eq(c, cell))));
    assert!(bench.lane.refusal().is_none(), "nothing waits any more");
    // A success ends the refusal: what is late after it is just late.
    bench.put("d");
    let sent = bench.send();
    let _ = bench.answer(sent[0].0, Ok(0));
    bench.put("e");
    let late = bench.lane.expire(much_later, timeout).settled.pop().unwrap();
    assert_eq!(late.outcome.unwrap_err().code(), ErrorCode::DeadlineExceeded);
}

//! The book against scripts: no sockets, no clock of its own.

use std::sync::Arc;

use riverrun_proto::{BatchBuilder, BuilderOptions, Compression, LeaderEpoch, Record};
use tokio::sync::oneshot;

use super::*;
use crate::{
    clock,
    error::{ErrorCode, Result},
    subscriber::{
        desk::{Desk, Nack},
        job::Job,
        parcel::Place,
    },
};

/// A session under test and what it was told.
struct Bench {
    book: Book,
    desk: Arc<Desk>,
    now: Instant,
    serial: u64,
    epoch: u64,
}

impl Bench {
    /// A session of `window` records that is open and whose first frame was sent.
    fn open(window: u32) -> Bench {
        let now = clock::now();
        let settings = BookSettings {
            records_window: window,
            bytes_window: 1 << 20,
            bytes_max: 1 << 20,
            marks_started: true,
        };
        let book = Book::new(settings, now);
        let mut bench = Bench { book, desk: Arc::default(), now, serial: 0, epoch: 0 };
        bench.reopen(false);
        assert_eq!(bench.credit(), Some(window.into()));
        assert_eq!(bench.frame(), None);
        bench
    }

    fn reopen(&mut self, resumed: bool) -> Vec<SubscriberEvent> {
        self.epoch += 1;
        self.book.begin(self.now);
        self.book.opened(&v1::Opened {
            session_epoch: self.epoch,
            resumed,
            heartbeat_interval_ms: 5_000,
            ack_wait_ms: 40_000,
            ..v1::Opened::default()
        })
    }

    /// Delivers `batch` with these offsets given out.
    fn deliver(&mut self, seq: u64, ranges: &[(u64, u64)], batch: (u64, u64)) -> Option<Parcel> {
        let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
        for offset in batch.0..batch.1 {
            let value = Some(offset.to_string().into());
            builder.push(&Record { value, ..Record::default() }).unwrap();
        }
        let batch = builder.build().unwrap().stamped(Offset(batch.0), LeaderEpoch(0));
        let range = |&(start_offset, end_offset)| v1::OffsetRange { start_offset, end_offset };
        let mut frame = v1::Deliver {
            topic: "orders".into(),
            delivery_seq: seq,
            session_epoch: self.epoch,
            ranges: ranges.iter().map(range).collect(),
            batches: batch.into_bytes(),
            ..v1::Deliver::default()
        };
        if !self.book.is_news(&mut frame) {
            return None;
        }
        self.serial += 1;
        let place = Place { desk: &self.desk, serial: self.serial, epoch: 9, now: self.now };
        self.book.arrive(Arrival::decode(frame, &place).unwrap())
    }

    fn frame(&mut self) -> Option<Frame> {
        let mut slips = Vec::new();
        self.desk.take(&mut slips);
        self.book.take(&mut slips);
        self.book.next_frame(self.now)
    }

    /// The next frame must be of settlements; its id, whether it asks, and its items as text.
    #[track_caller]
    fn settles(&mut self) -> (u64, bool, String) {
        let Some(Frame::Settle(frame)) = self.frame() else { panic!("no settlements") };
        let texts = frame.items.iter().map(text);
        (frame.settle_id, frame.sync, texts.collect::<Vec<_>>().join(", "))
    }

    fn credit(&mut self) -> Option<u64> {
        match self.frame() {
            Some(Frame::Credit(credit)) => Some(credit.messages_total),
            _ => None,
        }
    }

    fn answer(&mut self, settle_id: u64, results: Vec<v1::SettleResult>) -> Vec<SubscriberEvent> {
        self.book.settled(&v1::Settled { settle_id, results })
    }
}

fn text(item: &v1::SettleItem) -> String {
    use v1::settle_item::Outcome;
    let act = match item.outcome.as_ref().unwrap() {
        Outcome::Ack(_) => "ack",
        Outcome::Nack(_) => "nack",
        Outcome::Release(_) => "release",
        Outcome::Reject(_) => "reject",
        Outcome::Extend(_) => "extend",
        Outcome::Started(_) => "started",
    };
    let (start, end) = (item.start_offset, item.end_offset);
    format!("{act} {start}..{end} of {}/{}", item.session_epoch, item.delivery_seq)
}

#[test]
fn credit_for_what_was_lost_with_a_stream_or_could_not_be_read_is_given_anew() {
    let mut bench = Bench::open(4);
    let mut parcel = bench.deliver(1, &[(0, 1)], (0, 1)).unwrap();
    let job = take(&mut parcel, 1).remove(0);
    // The broker used all four, of which three never came.
    bench.epoch += 1;
    bench.book.begin(bench.now);
    let used = v1::CreditUsed { messages_total: 4, bytes_total: 4 };
    let (session_epoch, credit_used) = (bench.epoch, Some(used));
    bench.book.opened(&v1::Opened {
        session_epoch,
        resumed: true,
        credit_used,
        ..v1::Opened::default()
    });
    bench.settles();
    assert_eq!(bench.credit(), Some(4 - 1 + 4), "all but the one in hand");
    job.ack();
    bench.settles();
    assert_eq!(bench.credit(), Some(4 + 4));
    bench.book.used(&v1::CreditUsed { messages_total: 8, bytes_total: 8 });
    assert_eq!(bench.credit(), Some(8 + 4));
}

fn take(parcel: &mut Parcel, count: usize) -> Vec<Job> {
    let jobs: Vec<Job> = std::iter::from_fn(|| parcel.next_job()).take(count).collect();
    assert_eq!(jobs.len(), count);
    jobs
}

fn refused(item: u32, status: v1::SettleStatus, range: Option<(u64, u64)>) -> v1::SettleResult {
    let range =
        range.map(|(start_offset, end_offset)| v1::OffsetRange { start_offset, end_offset });
    v1::SettleResult { item, status: status.into(), range }
}

#[test]
fn acks_leave_as_ranges_and_free_their_credit_once() {
    let mut bench = Bench::open(8);
    let mut parcel = bench.deliver(1, &[(0, 3), (5, 9)], (0, 10)).unwrap();
    let jobs = take(&mut parcel, 7);
    assert!(parcel.next_job().is_none());
    let offsets: Vec<u64> = jobs.iter().map(|job| job.record().offset.0).collect();
    assert_eq!(offsets, [0, 1, 2, 5, 6, 7, 8]);
    let mut jobs: HashMap<u64, Job> = offsets.into_iter().zip(jobs).collect();
    for offset in [8, 2, 5, 0, 6] {
        jobs.remove(&offset).unwrap().ack();
    }
    // A range may span what was not part of the delivery; what is in hand still is started, not acked.
    let items = "ack 0..1 of 1/1, ack 2..7 of 1/1, ack 8..9 of 1/1, started 1..2 of 1/1, started 7..8 of 1/1";
    assert_eq!(bench.settles(), (1, true, items.into()));
    assert_eq!(bench.credit(), Some(13));
    assert_eq!(bench.frame(), None);
}

#[test]
fn a_delivery_seen_before_is_not_given_out_again() {
    let mut bench = Bench::open(8);
    let mut parcel = bench.deliver(1, &[(0, 4)], (0, 4)).unwrap();
    let jobs = take(&mut parcel, 2);
    assert_eq!(bench.settles().2, "started 0..2 of 1/1");
    bench.reopen(true);
    assert!(bench.deliver(1, &[(0, 4)], (0, 4)).is_none());
    assert!(bench.deliver(2, &[(4, 6)], (4, 6)).is_some());
    assert!(bench.deliver(1, &[(2, 3)], (2, 3)).is_none());
    assert_eq!(bench.settles().2, "started 0..2 of 1/1", "marks may be lost with the stream");
    assert_eq!(bench.credit(), Some(8), "totals are told again, and count each record once");
    jobs.into_iter().for_each(Job::ack);
    assert_eq!(bench.settles().2, "ack 0..2 of 1/1");
}

#[test]
fn a_delivery_may_come_in_several_frames_and_is_resumed_within() {
    let mut bench = Bench::open(8);
    let mut first = bench.deliver(1, &[(0, 2)], (0, 2)).unwrap();
    take(&mut first, 2).into_iter().for_each(Job::ack);
    let mut second = bench.deliver(1, &[(4, 6)], (4, 6)).unwrap();
    let jobs = take(&mut second, 2);
    let (_, resume) = bench.book.begin(bench.now);
    assert_eq!(resume.unwrap().last_delivery_seq, 0, "more of the last one may be lost");
    bench.reopen(true);
    // What the broker did not hear of is replayed as a whole; what is new in it is given out.
    let mut third = bench.deliver(1, &[(0, 8)], (0, 8)).unwrap();
    let offsets: Vec<u64> = take(&mut third, 4).iter().map(|job| job.record().offset.0).collect();
    assert_eq!(offsets, [2, 3, 6, 7]);
    assert!(bench.deliver(1, &[(0, 8)], (0, 8)).is_none());
    drop(jobs);
}

#[test]
fn what_waits_too_long_for_the_program_is_given_back() {
    let mut bench = Bench::open(8);
    let mut parcel = bench.deliver(1, &[(0, 4)], (0, 4)).unwrap();
    let held = take(&mut parcel, 1);
    assert_eq!(bench.settles().2, "started 0..1 of 1/1");
    bench.now += Duration::from_secs(29);
    assert!(matches!(bench.frame(), Some(Frame::Heartbeat(_))));
    assert_eq!(bench.book.next_wake(), Some(bench.now + Duration::from_secs(1)));
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.settles().2, "release 1..4 of 1/1");
    assert!(parcel.next_job().is_none(), "not given out any more");
    assert_eq!(bench.credit(), Some(11));
    assert!(!held[0].is_revoked(), "what is in hand stays");
}

#[test]
fn records_missing_in_the_batch_are_given_back() {
    let mut bench = Bench::open(8);
    let mut parcel = bench.deliver(1, &[(0, 6)], (1, 4)).unwrap();
    let jobs = take(&mut parcel, 3);
    let items = "release 0..1 of 1/1, release 4..6 of 1/1, started 1..4 of 1/1";
    assert_eq!(bench.settles().2, items);
    assert_eq!(bench.credit(), Some(11));
    jobs.into_iter().for_each(Job::ack);
    assert_eq!(bench.settles().2, "ack 1..4 of 1/1");
}

#[test]
fn what_was_taken_back_is_freed_once_and_may_still_be_acked() {
    let mut bench = Bench::open(4);
    let mut parcel = bench.deliver(1, &[(0, 4)], (0, 4)).unwrap();
    let jobs = take(&mut parcel, 2);
    let partition = TopicPartition::new("orders", 0);
    let range = v1::OffsetRange { start_offset: 1, end_offset: 9 };
    let ours = bench.book.taken_back(&partition, &[range, range]);
    assert_eq!(ours, [Offset(1)..Offset(4)]);
    assert_eq!(jobs.iter().map(Job::is_revoked).collect::<Vec<_>>(), [false, true]);
    assert!(parcel.next_job().is_none());
    assert_eq!(bench.settles().2, "started 0..1 of 1/1");
    assert_eq!(bench.credit(), Some(7));
    jobs.into_iter().for_each(Job::ack);
    assert_eq!(bench.settles().2, "ack 0..2 of 1/1");
    assert_eq!(bench.credit(), Some(8));
    assert!(bench.book.held.is_empty());
}

#[test]
fn outcomes_are_kept_until_confirmed_and_told_again_after_a_break() {
    let mut bench = Bench::open(16);
    let mut parcel = bench.deliver(1, &[(0, 8)], (0, 8)).unwrap();
    let mut jobs = take(&mut parcel, 8).into_iter();
    jobs.next().unwrap().ack();
    let (first, asks, _) = bench.settles();
    assert!(asks);
    jobs.next().unwrap().ack();
    let (second, asks, _) = bench.settles();
    assert!(!asks, "one question at a time");
    bench.answer(first, vec![]);
    // Nothing else is to be said, so the rest is asked for.
    let (third, asks, items) = bench.settles();
    assert!(asks && third > second);
    assert_eq!(items, "ack 1..2 of 1/1");
    bench.answer(third, vec![]);
    assert!(bench.book.outgoing.is_idle());

    jobs.next().unwrap().ack();
    jobs.next().unwrap().nack("no");
    bench.settles();
    jobs.next().unwrap().ack();
    bench.reopen(true);
    let (_, _, items) = bench.settles();
    let again = "ack 2..3 of 1/1, nack 3..4 of 1/1, started 4..8 of 1/1, ack 4..5 of 1/1";
    assert_eq!(items, again);
    // Not resumed: a failure under an old lease means nothing, work that is done still does.
    let events = bench.reopen(false);
    assert!(matches!(&events[0], SubscriberEvent::Revoked { ranges, .. }
        if *ranges == [Offset(5)..Offset(8)]));
    jobs.next().unwrap().ack();
    jobs.next().unwrap().nack("no");
    assert_eq!(bench.settles().2, "ack 2..3 of 1/1, ack 4..5 of 1/1, ack 5..6 of 1/1");
    assert_eq!(bench.credit(), Some(16));
}

#[test]
fn who_waits_hears_of_its_own_record() {
    hears_of_its_own_record(&Act::Ack, "ack");
}

/// A record of which only the start was told must not be acknowledged by the question after it.
#[test]
fn who_waits_for_a_mark_of_the_start_is_asked_for_with_that_mark() {
    hears_of_its_own_record(&Act::Started, "started");
}

/// Says that handling of the record at `index` of the last delivery begins, and waits for the broker's word on it.
fn confirm_start(bench: &mut Bench, index: u32) -> oneshot::Receiver<Result<()>> {
    let (waiter, hears) = oneshot::channel();
    let (serial, act) = (bench.serial, Act::Started);
    bench.desk.put(Slip { serial, index, act, waiter: Some(waiter) });
    hears
}

#[test]
fn who_waits_for_a_mark_that_was_lost_with_the_stream_waits_until_it_is_told_again() {
    let mut bench = Bench::open(16);
    let mut parcel = bench.deliver(1, &[(0, 4)], (0, 4)).unwrap();
    let _jobs = take(&mut parcel, 4);
    bench.settles();
    let mut hears = confirm_start(&mut bench, 1);
    assert_eq!(bench.settles().2, "started 1..2 of 1/1");
    bench.reopen(true);
    let (id, asks, items) = bench.settles();
    assert_eq!((asks, &*items), (true, "started 1..2 of 1/1, started 0..4 of 1/1"));
    assert!(hears.try_recv().is_err(), "the broker may not have noted it");
    bench.answer(id, vec![]);
    assert!(matches!(hears.try_recv(), Ok(Ok(()))));
}

#[test]
fn who_waits_for_a_mark_of_a_session_that_is_over_hears_that_the_lease_is() {
    let mut bench = Bench::open(16);
    let mut parcel = bench.deliver(1, &[(0, 4)], (0, 4)).unwrap();
    let _jobs = take(&mut parcel, 4);
    bench.settles();
    let sent = confirm_start(&mut bench, 1);
    bench.settles();
    let mut slips = Vec::new();
    let queued = confirm_start(&mut bench, 2);
    bench.desk.take(&mut slips);
    bench.book.take(&mut slips);
    bench.reopen(false);
    let late = confirm_start(&mut bench, 3);
    bench.frame();
    for mut hears in [sent, queued, late] {
        let heard = hears.try_recv().expect("an answer");
        assert_eq!(heard.unwrap_err().code(), ErrorCode::StaleLease);
    }
}

#[test]
fn after_a_break_only_what_the_program_said_was_started_is_marked_again() {
    let mut bench = Bench::open(16);
    bench.book.settings.marks_started = false;
    let mut parcel = bench.deliver(1, &[(0, 4)], (0, 4)).unwrap();
    let mut jobs = take(&mut parcel, 4);
    jobs[1].started();
    jobs[3].started();
    assert_eq!(bench.settles().2, "started 1..2 of 1/1, started 3..4 of 1/1");
    jobs.remove(3).ack();
    assert_eq!(bench.settles().2, "ack 3..4 of 1/1");
    bench.reopen(true);
    let items = "ack 3..4 of 1/1, started 1..2 of 1/1";
    assert_eq!(bench.settles().2, items, "the others wait for the program still");
}

fn hears_of_its_own_record(act: &Act, word: &str) {
    let mut bench = Bench::open(16);
    let mut parcel = bench.deliver(1, &[(0, 4)], (0, 4)).unwrap();
    let mut heard: Vec<oneshot::Receiver<Result<()>>> = Vec::new();
    let _jobs = take(&mut parcel, 4);
    // They count as started by being taken; that is not what is looked at.
    assert_eq!(bench.settles().2, "started 0..4 of 1/1");
    let mut slips: Vec<Slip> = (0..4)
        .map(|index| {
            let (waiter, hears) = oneshot::channel();
            heard.push(hears);
            Slip { serial: bench.serial, index, act: act.clone(), waiter: Some(waiter) }
        })
        .collect();
    bench.book.take(&mut slips);
    let (id, _, items) = bench.settles();
    assert_eq!(items, format!("{word} 0..4 of 1/1"));
    let stale = refused(0, v1::SettleStatus::StaleLease, Some((1, 3)));
    let events = bench.answer(id, vec![stale]);
    if *act == Act::Ack {
        assert!(matches!(&events[..], [SubscriberEvent::Refused { range, .. }]
            if *range == (Offset(1)..Offset(3))));
    }
    let mut code = |index: usize| heard[index].try_recv().unwrap().unwrap_err().code();
    assert_eq!((code(1), code(2)), (ErrorCode::StaleLease, ErrorCode::StaleLease));
    // The others got some other status: each is asked for by itself.
    let (id, asks, items) = bench.settles();
    assert!(asks);
    assert_eq!(items, format!("{word} 0..1 of 1/1, {word} 3..4 of 1/1"));
    let results = vec![
        refused(0, v1::SettleStatus::Ok, None),
        refused(1, v1::SettleStatus::Indeterminate, None),
    ];
    bench.answer(id, results);
    assert!(heard[0].try_recv().unwrap().is_ok());
    assert_eq!(heard[3].try_recv().unwrap().unwrap_err().code(), ErrorCode::Indeterminate);
}

#[test]
fn a_drain_is_over_when_every_job_is_back_and_confirmed() {
    let mut bench = Bench::open(8);
    let mut parcel = bench.deliver(1, &[(0, 4)], (0, 4)).unwrap();
    let mut jobs = take(&mut parcel, 2);
    bench.book.drain();
    assert!(parcel.next_job().is_none());
    let (id, _, items) = bench.settles();
    assert_eq!(items, "started 0..2 of 1/1, release 2..4 of 1/1");
    assert_eq!(bench.frame(), Some(Frame::Drain(v1::DrainSession {})));
    assert_eq!(bench.frame(), None, "no credit any more");
    assert!(bench.deliver(2, &[(4, 5)], (4, 5)).is_none(), "what was on its way goes back");
    bench.answer(id, vec![]);
    let (id, _, items) = bench.settles();
    assert_eq!(items, "release 4..5 of 1/2");
    bench.answer(id, vec![]);
    drop(jobs.pop());
    assert_eq!(bench.frame(), None);
    assert!(!bench.book.may_end(), "one is in hand");
    jobs.pop().unwrap().ack();
    let (id, _, items) = bench.settles();
    assert_eq!(items, "ack 0..1 of 1/1");
    assert!(!bench.book.may_end(), "its outcome is not confirmed");
    bench.answer(id, vec![]);
    assert!(bench.book.may_end());
}

#[test]
fn one_frame_holds_ten_thousand_items_at_most() {
    let mut bench = Bench::open(1_000_000);
    let mut parcel = bench.deliver(1, &[(0, 30_001)], (0, 30_001)).unwrap();
    for job in take(&mut parcel, 30_001) {
        match job.record().offset.0 % 2 {
            0 => job.ack(),
            _ => drop(job),
        }
    }
    let mut count = 0;
    let mut largest = 0;
    while let Some(Frame::Settle(frame)) = bench.frame() {
        let acks = frame.items.iter().filter(|item| text(item).starts_with("ack"));
        count += acks.count();
        largest = largest.max(frame.items.len());
    }
    assert_eq!((count, largest), (15_001, 10_000));
}

#[test]
fn equal_outcomes_share_an_item_and_different_ones_do_not() {
    let mut bench = Bench::open(16);
    let parcel = bench.deliver(1, &[(0, 8)], (0, 8)).unwrap();
    let nack = |reason: &str| Act::Nack(Box::new(Nack { delay_ms: None, reason: reason.into() }));
    let acts = [nack("a"), nack("a"), nack("b"), Act::Ack, Act::Ack, Act::Release, nack("a")];
    let serial = bench.serial;
    let slip = |(index, act)| Slip { serial, index, act, waiter: None };
    let mut slips: Vec<Slip> = (0..).zip(acts).map(slip).collect();
    bench.book.take(&mut slips);
    let items = "ack 3..5 of 1/1, release 5..6 of 1/1, nack 0..2 of 1/1, nack 6..7 of 1/1, \
                 nack 2..3 of 1/1";
    assert_eq!(bench.settles().2, items);
    drop(parcel);
}

#[test]
fn an_answer_speaks_for_what_was_sent_before_also_when_it_comes_first() {
    let mut bench = Bench::open(16);
    let mut parcel = bench.deliver(1, &[(0, 3)], (0, 3)).unwrap();
    let mut jobs = take(&mut parcel, 3).into_iter();
    jobs.next().unwrap().ack();
    assert_eq!(bench.settles(), (1, true, "ack 0..1 of 1/1, started 1..3 of 1/1".into()));
    jobs.next().unwrap().ack();
    assert!(!bench.settles().1, "the first is not answered yet");
    let mut last = Box::pin(jobs.next().unwrap().ack_sync());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(last.as_mut().poll(&mut cx).is_pending());
    assert_eq!(bench.settles(), (3, true, "ack 2..3 of 1/1".into()));
    bench.answer(3, Vec::new());
    assert!(!bench.book.outgoing.is_idle());
    bench.answer(1, Vec::new());
    assert!(bench.book.outgoing.is_idle());
}

#[test]
fn before_a_drain_everything_is_asked_for() {
    let mut bench = Bench::open(16);
    let mut parcel = bench.deliver(1, &[(0, 3)], (0, 3)).unwrap();
    let mut jobs = take(&mut parcel, 3).into_iter();
    jobs.next().unwrap().ack();
    assert!(bench.settles().1);
    jobs.next().unwrap().ack();
    assert!(!bench.settles().1);
    bench.book.drain();
    assert_eq!(bench.settles(), (3, true, "ack 1..2 of 1/1".into()));
    while !matches!(bench.frame(), Some(Frame::Drain(_))) {}
    jobs.next().unwrap().ack();
    assert_eq!(bench.settles(), (4, true, "ack 2..3 of 1/1".into()));
}

use std::time::Duration;

use bytes::Bytes;
use riverrun_proto::{BatchBuilder, BuilderOptions, Compression, LeaderEpoch};

use super::*;
use crate::{clock, consumer::batch::Range, error::ErrorCode};

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn only() -> BTreeSet<TopicPartition> {
    BTreeSet::from([partition()])
}

/// A book with one partition that is read from offset 10.
fn book() -> Book {
    let mut book = Book::default();
    book.assign([partition()]);
    book.partitions.get_mut(&partition()).unwrap().start_at(Offset(10));
    book
}

/// The records `from..next`, as fetched in this life.
fn fetched(book: &Book, from: u64, next: u64) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    for offset in from..next {
        builder.push_parts(0, None, Some(offset.to_string().as_bytes()), &[]).unwrap();
    }
    let bytes = match from < next {
        true => builder.build().unwrap().stamped(Offset(from), LeaderEpoch(1)).into_bytes(),
        false => Bytes::new(),
    };
    let life = book.partitions.get(&partition()).map_or(0, |part| part.life);
    let range = Range {
        partition: partition(),
        life,
        start: Offset(from),
        next: Offset(next),
        leader_epoch: 1,
    };
    Batch::decode(range, &bytes).unwrap()
}

fn fetch(book: &mut Book, from: u64, next: u64) {
    let batch = fetched(book, from, next);
    book.fetched(batch, Offset(100));
}

/// What a consumer gets now: `from..next`, or the code of an error.
fn take(book: &mut Book) -> Option<Result<(u64, u64), ErrorCode>> {
    let taken = book.take(Waker::noop(), 5)?;
    Some(taken.map(|b| (b.start.0, b.next.0)).map_err(|error| error.code()))
}

#[test]
fn batches_come_in_order_and_move_the_position() {
    let mut book = book();
    fetch(&mut book, 10, 12);
    fetch(&mut book, 12, 15);
    fetch(&mut book, 12, 15);
    assert_eq!(take(&mut book), Some(Ok((10, 12))));
    assert_eq!(book.position(&partition()), Some(Offset(12)));
    assert_eq!(take(&mut book), Some(Ok((12, 15))));
    assert_eq!(take(&mut book), None, "what was fetched twice is taken once");
    assert_eq!(book.lag()[0].lag, 85);
    assert_eq!(book.queued_bytes(), 0);
}

#[test]
fn nothing_of_a_revoked_partition_is_handed_out_and_late_answers_are_dropped() {
    let mut book = book();
    fetch(&mut book, 10, 12);
    assert_eq!(take(&mut book), Some(Ok((10, 12))));
    fetch(&mut book, 12, 15);
    let late = fetched(&book, 15, 20);
    let now = clock::now();
    let until = now + Duration::from_secs(5);
    assert_eq!(book.revoke(&only(), until), only());
    assert_eq!(book.revoke(&only(), until), BTreeSet::new(), "told once");
    assert_eq!(take(&mut book), None);
    assert!(book.released(now).is_empty(), "what was handed out is not committed yet");
    let life = book.partitions[&partition()].life;
    book.committed(&Progress { partition: partition(), life, offset: Offset(12) });
    assert_eq!(book.released(now), only());
    book.let_go(&only());
    book.fetched(late, Offset(100));
    assert_eq!(take(&mut book), None);
    book.assign([partition()]);
    book.partitions.get_mut(&partition()).unwrap().start_at(Offset(12));
    assert!(book.done(&partition(), life, Offset(12)).unwrap_err().is_fenced());
}

#[test]
fn a_partition_is_let_go_when_the_grace_is_over_and_at_once_when_nothing_was_handed_out() {
    let now = clock::now();
    let until = now + Duration::from_secs(5);
    let mut untouched = book();
    fetch(&mut untouched, 10, 12);
    untouched.revoke(&only(), until);
    assert_eq!(untouched.released(now), only());
    let mut read = book();
    fetch(&mut read, 10, 12);
    take(&mut read);
    read.revoke(&only(), until);
    assert!(read.released(now).is_empty());
    assert_eq!(read.released(until), only());
}

#[test]
fn a_partition_that_comes_back_is_read_from_where_its_group_stands() {
    let mut book = book();
    fetch(&mut book, 10, 12);
    take(&mut book);
    let life = book.partitions[&partition()].life;
    book.revoke(&only(), clock::now() + Duration::from_secs(5));
    book.take_back(&only());
    assert_eq!(book.position(&partition()), None, "somebody else may have gone on in between");
    assert!(!book.lives(&partition(), life), "what was processed before is not committed any more");
    book.partitions.get_mut(&partition()).unwrap().start_at(Offset(30));
    fetch(&mut book, 30, 31);
    assert_eq!(take(&mut book), Some(Ok((30, 31))));
}

#[test]
fn a_partition_that_is_reset_while_it_is_given_up_is_let_go_at_once() {
    let mut book = book();
    fetch(&mut book, 10, 12);
    take(&mut book);
    let life = book.partitions[&partition()].life;
    let now = clock::now();
    book.revoke(&only(), now + Duration::from_secs(5));
    book.processed(&partition(), life, Offset(12));
    book.resolve_again(&[partition()]);
    assert!(!book.lives(&partition(), life), "the new offset is not overwritten");
    assert!(book.progress(true).is_empty());
    assert_eq!(book.assignment(), [], "it is not read again");
    assert_eq!(book.released(now), only());
}

#[test]
fn an_error_comes_after_what_was_fetched_before_it() {
    let mut book = book();
    fetch(&mut book, 10, 12);
    book.stop(&partition(), Error::new(ErrorCode::DataCorrupt, "bad"));
    assert_eq!(take(&mut book), Some(Ok((10, 12))));
    assert_eq!(take(&mut book), Some(Err(ErrorCode::DataCorrupt)));
    assert_eq!(take(&mut book), None);
    fetch(&mut book, 12, 15);
    assert_eq!(take(&mut book), None, "stopped until a seek");
    assert!(book.seek(&partition(), Offset(20)));
    fetch(&mut book, 20, 21);
    assert_eq!(take(&mut book), Some(Ok((20, 21))));
}

#[test]
fn a_seek_and_a_pause_drop_what_was_fetched() {
    let mut book = book();
    fetch(&mut book, 10, 12);
    let late = fetched(&book, 12, 15);
    book.seek(&partition(), Offset(30));
    book.fetched(late, Offset(100));
    assert_eq!(take(&mut book), None);
    fetch(&mut book, 30, 31);
    book.pause(&partition(), true);
    assert_eq!(take(&mut book), None);
    book.pause(&partition(), false);
    fetch(&mut book, 30, 31);
    assert_eq!(take(&mut book), Some(Ok((30, 31))));
}

#[test]
fn with_a_tracker_open_records_are_bounded_and_only_the_prefix_is_progress() {
    let mut book = book();
    book.tracking = true;
    fetch(&mut book, 10, 15);
    fetch(&mut book, 15, 16);
    assert_eq!(take(&mut book), Some(Ok((10, 15))));
    assert_eq!(take(&mut book), None, "five are open");
    let life = book.partitions[&partition()].life;
    book.done(&partition(), life, Offset(11)).unwrap();
    assert!(book.progress(true).is_empty());
    book.done(&partition(), life, Offset(10)).unwrap();
    assert_eq!(book.progress(true)[0].offset, Offset(12));
    assert_eq!(take(&mut book), Some(Ok((15, 16))));
}

#[test]
fn a_deleted_topic_ends_the_book_behind_what_was_fetched() {
    let mut book = book();
    fetch(&mut book, 10, 12);
    let error = || Error::new(ErrorCode::TopicDeleted, "topic `t` was deleted");
    book.topic_deleted("other", error());
    book.topic_deleted("t", error());
    book.topic_deleted("t", error());
    assert!(!book.seek(&partition(), Offset(0)), "it is not read again");
    book.pause(&partition(), true);
    book.pause(&partition(), false);
    fetch(&mut book, 12, 14);
    assert!(!book.has_ended());
    let taken: Vec<_> = std::iter::from_fn(|| take(&mut book)).take(3).collect();
    assert_eq!(taken[1], Err(ErrorCode::TopicDeleted), "{taken:?}");
    assert_eq!(taken[2], Err(ErrorCode::TopicDeleted), "for ever: {taken:?}");
    assert!(book.has_ended() && book.partitions.is_empty());
}

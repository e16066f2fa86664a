//! Appends: what is known of the writers, and those who wait for their turn.

use super::*;
use crate::{partition::AppendError, service::produce::ProduceError};

/// A stream `s` of three batches, of which a start has read none: 1 MiB, 3 MiB, and the first turn of a producer.
async fn unread() -> House {
    let house = House::new(Clock::real());
    house.create("s").await;
    house.append(plain("s", vec![b'a'; MIB])).await.unwrap();
    house.append(plain("s", vec![b'b'; 3 * MIB])).await.unwrap();
    house.append(turn("s", 0, "c")).await.unwrap();
    house.restarted()
}

/// What the writers did is known.
fn is_known(house: &House) -> bool {
    let stream = house.stream("s");
    stream.writers.try_read().is_ok_and(|fold| fold.writers().is_some())
}

#[tokio::test]
async fn a_stream_is_read_to_its_end_also_when_the_caller_who_needs_it_leaves() {
    for request in [turn("s", 1, "d"), plain("s", "d")] {
        let house = unread().await;
        let mut appending = Box::pin(house.service.append(request, &house.connection));
        begin(&mut appending);
        drop(appending);
        until(|| is_known(&house)).await;
        assert_eq!(house.values("s").await.len(), 3, "nothing was appended for nobody");
        house.append(turn("s", 1, "d")).await.unwrap();
        let gap = house.append(turn("s", 3, "f")).await.unwrap_err();
        assert!(matches!(gap, StreamError::Writer(_)), "{gap}");
    }
}

#[tokio::test]
async fn a_moment_without_memory_costs_nothing_that_was_read_before() {
    let house = unread().await;
    let left = 2 * MIB;
    let others = house.reading.try_take(house.reading.limit() - left).unwrap();
    let refused = house.append(turn("s", 1, "d")).await.unwrap_err();
    assert!(matches!(refused, StreamError::Fetch(_)), "{refused}");
    drop(others);
    house.append(turn("s", 1, "d")).await.unwrap();
    assert_eq!(house.partition("s").fetched().records.get(), 3, "each record once");
}

#[tokio::test]
async fn those_who_wait_for_their_turn_are_gone_with_their_callers() {
    let house = House::new(Clock::real());
    house.create("s").await;
    let held = house.stream("s").writers.clone().write_owned().await;
    let waiting: Vec<_> = (0..100)
        .map(|seq| {
            let share = house.connection.try_take(1_000).unwrap();
            let request = AppendRequest { share, ..turn("s", seq, "x") };
            let mut waiting = Box::pin(house.service.append(request, &house.connection));
            begin(&mut waiting);
            waiting
        })
        .collect();
    assert_eq!(house.connection.used(), 100_000);
    drop(waiting);
    assert_eq!(house.connection.used(), 0, "nothing of them waits on");
    drop(held);
    assert_eq!(house.values("s").await.len(), 0);
}

#[tokio::test]
async fn a_turn_runs_to_its_end_when_its_caller_leaves() {
    let house = House::new(Clock::real());
    house.create("s").await;
    house.append(turn("s", 0, "a")).await.unwrap();
    let share = house.connection.try_take(1_000).unwrap();
    let request = AppendRequest { share, ..turn("s", 1, "b") };
    let mut appending = Box::pin(house.service.append(request, &house.connection));
    begin(&mut appending);
    drop(appending);
    assert!(house.connection.used() > 0, "its body is still there");
    until(|| house.connection.used() == 0).await;
    let again = house.append(turn("s", 1, "b")).await.unwrap();
    assert!(again.is_duplicate);
    assert_eq!(house.values("s").await, ["a", "b"]);
}

#[tokio::test]
async fn a_turn_that_a_full_disk_refuses_costs_no_second_reading_of_the_stream() {
    let house = unread().await;
    house.append(turn("s", 1, "d")).await.unwrap();
    let read = house.partition("s").fetched().records.get();
    house.gauge.set(true, 0, 1);
    for request in [turn("s", 2, "e"), closing("s")] {
        let refused = house.append(request).await.unwrap_err();
        let is_full = |error: &StreamError| {
            matches!(error, StreamError::Produce(ProduceError::Append(AppendError::DiskFull(_))))
        };
        assert!(is_full(&refused), "{refused}");
    }
    house.gauge.set(false, u64::MAX, 1);
    house.append(turn("s", 2, "e")).await.unwrap();
    assert_eq!(house.partition("s").fetched().records.get(), read, "it knew all the time");
}

#[tokio::test]
async fn an_append_on_its_way_comes_before_the_end_of_the_stream() {
    let house = House::new(Clock::real());
    house.create("s").await;
    house.append(plain("s", "0")).await.unwrap();
    let narrow = Quota::new("test", 1_000, SOON);
    let others = narrow.try_take(1_000).unwrap();
    let mut appending = Box::pin(house.service.append(plain("s", "a"), &narrow));
    begin(&mut appending);
    let mut ending = Box::pin(house.service.append(closing("s"), &house.connection));
    begin(&mut ending);
    // Whatever may go on does.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(others);
    soon(appending).await.unwrap();
    let end = soon(ending).await.unwrap();
    assert!(end.is_closed);
    let refused = house.append(plain("s", "b")).await.unwrap_err();
    assert!(matches!(refused, StreamError::Closed { .. }), "{refused}");
    let found = house.service.find("s", 0).unwrap();
    let tail = house.service.tail(&found, &house.room()).await.unwrap();
    assert_eq!((tail.is_closed, tail.position), (true, end.tail));
    assert_eq!(house.values("s").await, ["0", "a"]);
}

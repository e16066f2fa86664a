use std::{
    sync::atomic::AtomicU32,
    task::{Wake, Waker},
    thread,
};

use super::*;

/// Counts wakes.
#[derive(Default)]
struct Counter(AtomicU32);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn tail() -> Arc<Tail> {
    Arc::new(Tail::new(Offset::ZERO))
}

fn is_woken(waiter: &mut TailWaiter) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(&mut waiter.wait()).poll(&mut context).is_ready()
}

#[test]
fn one_waiter_on_many_tails_is_woken_once_by_enough_bytes() {
    let tails = [tail(), tail(), tail()];
    let counter = Arc::new(Counter::default());
    let mut waiter = TailWaiter::for_bytes();
    for (key, tail) in (0..).zip(&tails) {
        waiter.register(tail, key);
    }
    waiter.rearm(100);
    let waker = Waker::from(counter.clone());
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut waiter.wait()).poll(&mut context).is_pending());
    tails[0].publish(Offset(1), 40);
    tails[1].publish(Offset(1), 59);
    assert_eq!(counter.0.load(SeqCst), 0);
    tails[2].publish(Offset(1), 1);
    tails[0].publish(Offset(2), 500);
    assert_eq!(counter.0.load(SeqCst), 1);
    assert!(is_woken(&mut waiter));
    waiter.rearm(1);
    assert!(!is_woken(&mut waiter));
    tails[1].wake_all();
    assert!(is_woken(&mut waiter));
}

#[test]
fn a_dropped_waiter_stands_nowhere() {
    let tails = [tail(), tail()];
    let crowd: Vec<_> = (0..1_000)
        .map(|_| {
            let mut waiter = TailWaiter::for_bytes();
            waiter.register(&tails[0], 0);
            waiter.register(&tails[1], 1);
            waiter
        })
        .collect();
    assert_eq!((tails[0].waiter_count(), tails[1].waiter_count()), (1_000, 1_000));
    drop(crowd);
    assert_eq!((tails[0].waiter_count(), tails[1].waiter_count()), (0, 0));
    assert_eq!(tails[0].waiters.lock().slots.capacity(), 0);
}

#[test]
fn published_values_never_go_back() {
    let tail = tail();
    tail.publish(Offset(10), 1_000);
    tail.publish(Offset(5), 400);
    assert_eq!(tail.high_watermark(), Offset(10));
    let mut waiter = TailWaiter::for_bytes();
    waiter.register(&tail, 0);
    tail.publish(Offset(10), 1_000);
    assert!(!is_woken(&mut waiter), "nothing moved");
    tail.publish(Offset(11), 1_001);
    assert!(is_woken(&mut waiter));
}

#[test]
fn moves_name_the_tails_that_moved() {
    let tails = [tail(), tail(), tail()];
    let mut waiter = TailWaiter::for_moves();
    for (key, tail) in (0..).zip(&tails) {
        waiter.register(tail, key);
    }
    tails[2].publish(Offset(1), 10);
    tails[0].publish(Offset(1), 10);
    tails[2].publish(Offset(2), 20);
    assert!(is_woken(&mut waiter));
    assert_eq!(waiter.take_moved(), [2, 0]);
    assert!(!is_woken(&mut waiter));
    tails[1].publish(Offset(1), 10);
    assert!(is_woken(&mut waiter));
    assert_eq!(waiter.take_moved(), [1]);
}

/// Publisher and reader race over every step; a missed wake hangs the reader's thread.
#[test]
fn no_wake_is_missed_under_contention() {
    const PUBLISHED: u64 = 50_000;
    let tails = [tail(), tail()];
    let publishers = tails.clone().map(|tail| {
        thread::spawn(move || {
            for count in 1..=PUBLISHED {
                tail.publish(Offset(count), count);
            }
        })
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut read = [0, 0];
        while read != [PUBLISHED; 2] {
            let mut waiter = TailWaiter::for_bytes();
            for (key, tail) in (0..).zip(&tails) {
                waiter.register(tail, key);
            }
            loop {
                waiter.rearm(1);
                let now = [tails[0].high_watermark().0, tails[1].high_watermark().0];
                if now != read {
                    read = now;
                    break;
                }
                waiter.wait().await;
            }
        }
    });
    for publisher in publishers {
        publisher.join().unwrap();
    }
    assert_eq!(tails[0].waiter_count() + tails[1].waiter_count(), 0);
}

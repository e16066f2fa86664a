use std::{
    sync::atomic::{AtomicU32, AtomicU64},
    task::{Wake, Waker},
    thread,
    time::Duration,
};

use super::*;

/// Longest time that anything here may take.
const SOON: Duration = Duration::from_secs(60);

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

/// Publishers and reader race over every step: nothing more is published before the reader has seen what was, so a
/// wake that is missed is not made good by the next.
#[test]
fn no_wake_is_missed_under_contention() {
    const PUBLISHED: u64 = 4_000;
    let tails = [tail(), tail()];
    let seen: [Arc<AtomicU64>; 2] = Default::default();
    let publishers = [0, 1].map(|which| {
        let (tail, seen) = (tails[which].clone(), seen[which].clone());
        thread::spawn(move || {
            for count in 1..=PUBLISHED {
                tail.publish(Offset(count), count);
                while seen.load(SeqCst) < count {
                    thread::yield_now();
                }
            }
        })
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let reading = async {
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
                    (0..2).for_each(|which| seen[which].store(read[which], SeqCst));
                    break;
                }
                waiter.wait().await;
            }
        }
    };
    let read = runtime.block_on(async { tokio::time::timeout(SOON, reading).await });
    read.expect("a wake was missed");
    for publisher in publishers {
        publisher.join().unwrap();
    }
    assert_eq!(tails[0].waiter_count() + tails[1].waiter_count(), 0);
}

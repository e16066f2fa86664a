//! Small programs of threads that meet at a tail. Each ends in every schedule, or a wake was missed.

use shuttle::{
    future::block_on,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use riverrun_proto::Offset;

use super::{
    sync::Arc,
    tail::{Tail, TailWaiter},
};

/// All of them.
pub(super) const ALL: &[(&str, fn())] = &[
    ("a reader of bytes on two tails", bytes_of_two_tails),
    ("a reader of moves on two tails", moves_of_two_tails),
    ("a reader that gives up beside one that stays", one_gives_up),
    ("a reader whose partition fails", failed_partition),
    ("publishers that overtake each other", overtaking_publishers),
];

/// Publications on each tail.
const MOVES: u64 = 2;

fn tail() -> Arc<Tail> {
    Arc::new(Tail::new(Offset::ZERO))
}

fn publisher(tail: &Arc<Tail>) -> thread::JoinHandle<()> {
    let tail = tail.clone();
    thread::spawn(move || {
        for count in 1..=MOVES {
            tail.publish(Offset(count), count * 10);
        }
    })
}

fn end(tails: &[Arc<Tail>], threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("a thread of the race");
    }
    for tail in tails {
        assert_eq!(tail.waiter_count(), 0, "a waiter that is gone stands on a tail");
    }
}

/// Reads as a fetch does: stands, asks for the bytes that are missing, looks, and waits when as many are missing still.
fn read_bytes(tails: &[Arc<Tail>; 2], wanted: u64) {
    let mut waiter = TailWaiter::for_bytes();
    for (key, tail) in (0..).zip(tails) {
        waiter.register(tail, key);
    }
    let look = || {
        let seen = tails.iter().map(|tail| tail.high_watermark().0).sum::<u64>();
        wanted.saturating_sub(seen) * 10
    };
    let mut missing = look();
    while missing > 0 {
        waiter.rearm(missing);
        let missing_now = look();
        if missing_now == missing {
            block_on(waiter.wait());
            missing = look();
        } else {
            missing = missing_now;
        }
    }
}

fn bytes_of_two_tails() {
    let tails = [tail(), tail()];
    let publishers = [publisher(&tails[0]), publisher(&tails[1])];
    read_bytes(&tails, MOVES * 2);
    end(&tails, publishers);
}

/// Reads as a subscription does: looks only where it was told that something moved.
fn moves_of_two_tails() {
    let tails = [tail(), tail()];
    let publishers = [publisher(&tails[0]), publisher(&tails[1])];
    let mut waiter = TailWaiter::for_moves();
    for (key, tail) in (0..).zip(&tails) {
        waiter.register(tail, key);
    }
    let mut seen = [tails[0].high_watermark(), tails[1].high_watermark()];
    while seen != [Offset(MOVES); 2] {
        block_on(waiter.wait());
        for key in waiter.take_moved() {
            let key = key as usize;
            let now = tails[key].high_watermark();
            assert!(now >= seen[key], "the visible end went back");
            seen[key] = now;
        }
    }
    drop(waiter);
    end(&tails, publishers);
}

fn one_gives_up() {
    let tails = [tail(), tail()];
    let leaver = {
        let tails = tails.clone();
        thread::spawn(move || {
            let mut waiter = TailWaiter::for_bytes();
            waiter.register(&tails[0], 0);
            waiter.register(&tails[1], 1);
            waiter.rearm(1_000);
        })
    };
    let publishers = [publisher(&tails[0]), publisher(&tails[1])];
    read_bytes(&tails, MOVES * 2);
    end(&tails, publishers.into_iter().chain([leaver]));
}

fn failed_partition() {
    let tails = [tail(), tail()];
    let failed = Arc::new(AtomicBool::new(false));
    let writer = {
        let (tail, failed) = (tails[1].clone(), failed.clone());
        thread::spawn(move || {
            tail.publish(Offset(1), 10);
            failed.store(true, SeqCst);
            tail.wake_all();
        })
    };
    let mut waiter = TailWaiter::for_bytes();
    waiter.register(&tails[0], 0);
    waiter.register(&tails[1], 1);
    loop {
        waiter.rearm(1_000);
        if failed.load(SeqCst) {
            break;
        }
        block_on(waiter.wait());
    }
    drop(waiter);
    end(&tails, [writer]);
}

fn overtaking_publishers() {
    let tails = [tail(), tail()];
    let publishers = [1, 2, 3].map(|count| {
        let tail = tails[0].clone();
        thread::spawn(move || tail.publish(Offset(count), count * 10))
    });
    read_bytes(&tails, 3);
    assert_eq!(tails[0].high_watermark(), Offset(3));
    end(&tails, publishers);
}

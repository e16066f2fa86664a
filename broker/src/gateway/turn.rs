//! How long one connection keeps its thread before the others that the thread serves have theirs.
//!
//! A thread asks the system for what came on other connections only between two turns. Without a bound, whoever
//! sends without a pause has one as long as there is something of it to read.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{task::yield_now, time::Instant};

/// The longest turn.
const TURN: Duration = Duration::from_micros(200);

/// The turn of one connection.
#[derive(Debug, Default)]
pub(super) struct Turn {
    began: Option<Instant>,
}

impl Turn {
    /// True when it is over: nothing is to be read now. The connection is woken once the others had their turn.
    pub(super) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        if now.duration_since(began) < TURN {
            return false;
        }
        self.began = None;
        // It notes the waker for after the next look at the system, and need not be polled again.
        pin!(yield_now()).poll(context).is_pending()
    }

    /// Passes on what a read gave. When there was nothing the turn is over: the next one begins with the next bytes.
    pub(super) fn note_read<T>(&mut self, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() {
            self.began = None;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering::SeqCst},
        },
        task::{Wake, Waker},
    };

    use tokio::time::advance;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_by_time_or_when_there_is_nothing_to_read() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let context = &mut Context::from_waker(&waker);
        let mut turn = Turn::default();
        assert!(!turn.is_over(context));
        advance(TURN / 2).await;
        assert!(!turn.is_over(context));
        assert!(turn.note_read(Poll::<()>::Pending).is_pending());
        advance(TURN).await;
        assert!(!turn.is_over(context), "another one began");
        assert!(turn.note_read(Poll::Ready(())).is_ready());
        advance(TURN).await;
        assert!(turn.is_over(context));
        assert!(!turn.is_over(context), "the next one began");
        assert_eq!(woken.0.load(SeqCst), 0, "the others come first");
        yield_now().await;
        assert_eq!(woken.0.load(SeqCst), 1);
    }
}

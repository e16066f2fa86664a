//! Being asked to end early: once to stop and show what was measured, twice to wait for nothing more.
//!
//! Invariant: who waits for the first request is woken by the first one and by every later one.

use std::sync::Arc;

use tokio::sync::watch;

use crate::signals::interrupted;

/// Tells whether the run is to end early. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Halt {
    /// How often it was asked for.
    asked: Arc<watch::Sender<u32>>,
}

impl Halt {
    /// Listens for Ctrl-C and SIGTERM for as long as the program runs.
    pub(super) fn listen() -> Halt {
        let halt = Halt { asked: Arc::new(watch::Sender::new(0)) };
        let listening = halt.clone();
        tokio::spawn(async move {
            loop {
                interrupted().await;
                listening.ask();
            }
        });
        halt
    }

    /// Asks for the end.
    pub(super) fn ask(&self) {
        self.asked.send_modify(|count| *count = count.saturating_add(1));
    }

    /// Whether the end was asked for.
    pub(super) fn is_asked(&self) -> bool {
        *self.asked.borrow() > 0
    }

    /// Waits until the end is asked for.
    pub(super) async fn asked(&self) {
        self.at_least(1).await;
    }

    /// Waits until it is asked for again, because even the end takes too long.
    pub(super) async fn asked_twice(&self) {
        self.at_least(2).await;
    }

    /// Waits until it was asked for so often.
    pub(super) async fn at_least(&self, count: u32) {
        let mut asked = self.asked.subscribe();
        // The sender lives as long as `self`.
        let _closed = asked.wait_for(|asked| *asked >= count).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_request_is_told_from_the_first() {
        use futures_util::FutureExt;
        let halt = Halt { asked: Arc::new(watch::Sender::new(0)) };
        assert!(!halt.is_asked());
        assert!(halt.asked().now_or_never().is_none());
        halt.ask();
        assert!(halt.is_asked());
        halt.asked().await;
        assert!(halt.asked_twice().now_or_never().is_none());
        halt.ask();
        halt.asked_twice().await;
    }
}

//! Being asked to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Requests to end: Ctrl-C and SIGTERM.
struct Requests {
    interrupt: Signal,
    terminate: Signal,
}

impl Requests {
    /// Those from now on; `None` when they cannot be waited for.
    fn listen() -> Option<Requests> {
        let interrupt = signal(SignalKind::interrupt()).ok()?;
        let terminate = signal(SignalKind::terminate()).ok()?;
        Some(Requests { interrupt, terminate })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for Ctrl-C or SIGTERM. For ever when they cannot be waited for.
pub(crate) async fn interrupted() {
    match Requests::listen() {
        Some(mut requests) => requests.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of the terminal (SIGHUP) or SIGQUIT. For ever when they cannot be waited for.
pub(crate) async fn hung_up() {
    let signals = (signal(SignalKind::hangup()), signal(SignalKind::quit()));
    let (Ok(mut hangup), Ok(mut quit)) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = hangup.recv() => {}
        _ = quit.recv() => {}
    }
}

/// From now on the second request ends the program, whatever it is doing: it may write to somebody who does not read.
pub(crate) fn end_at_second() {
    let Some(mut requests) = Requests::listen() else { return };
    tokio::spawn(async move {
        requests.next().await;
        requests.next().await;
        eprintln!("riverrun: ended at once; what was not stored or acknowledged comes again");
        #[expect(clippy::exit, reason = "the main task may be blocked for good")]
        std::process::exit(1);
    });
}

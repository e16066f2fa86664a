//! How the end is announced: to the process by a signal, inside the house by a flag that those who wait
//! look at.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Announces the end.
#[derive(Debug)]
pub struct Shutdown {
    begun: watch::Sender<bool>,
}

/// Hears of the end.
#[derive(Clone, Debug)]
pub struct ShutdownWatch {
    begun: watch::Receiver<bool>,
}

impl Shutdown {
    /// Nothing was announced yet.
    pub fn new() -> Shutdown {
        Shutdown { begun: watch::Sender::new(false) }
    }

    /// For those who want to hear of it.
    pub fn watch(&self) -> ShutdownWatch {
        ShutdownWatch { begun: self.begun.subscribe() }
    }

    /// Announces it. Announcing it twice is harmless.
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}

impl ShutdownWatch {
    /// True once it was announced.
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Waits until it is announced.
    pub async fn begun(&self) {
        // An announcer that is gone has nothing left to serve.
        drop(self.begun.clone().wait_for(|begun| *begun).await);
    }
}

/// Blocks until the process is asked to end, by SIGTERM or SIGINT.
///
/// # Errors
/// When the signals cannot be waited for.
pub fn wait_for_signal() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

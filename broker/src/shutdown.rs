//! How the end is announced: to the process by a signal, inside the house by a flag that those who wait
//! look at.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// How often a wait for a signal looks whether it is over.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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

/// Hears when the process is asked to end, by SIGTERM or SIGINT.
#[derive(Debug)]
pub struct SignalWatch {
    runtime: tokio::runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl SignalWatch {
    /// Listens from now on; signals no longer end the process by themselves.
    ///
    /// # Errors
    /// When the signals cannot be waited for.
    pub fn new() -> io::Result<SignalWatch> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt) = {
            let _inside = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        Ok(SignalWatch { runtime, terminate, interrupt })
    }

    /// Blocks until a signal came, or `is_over` says so when it is asked now and then. True for a signal.
    pub fn wait_or(&mut self, is_over: impl Fn() -> bool) -> bool {
        let SignalWatch { runtime, terminate, interrupt } = self;
        runtime.block_on(async {
            let over = async {
                while !is_over() {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
            };
            tokio::select! {
                _ = terminate.recv() => true,
                _ = interrupt.recv() => true,
                () = over => false,
            }
        })
    }
}

//! Waits for acknowledgements beside the sending, and takes the time of each.

use std::time::Instant;

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use riverrun_client::{Delivery, Durability};
use tokio::{sync::mpsc, task::JoinHandle};

use super::times::Times;
use crate::failure::Failure;

/// Records on their way here; those that wait for their acknowledgement are bounded by the client's buffer.
const QUEUE: usize = 4096;

/// What was acknowledged.
#[derive(Debug)]
pub(super) struct Acked {
    /// From due to acknowledged.
    pub(super) times: Times,
    /// The least durability that was reached.
    pub(super) durability: Option<Durability>,
}

/// A task that waits for them.
#[derive(Debug)]
pub(super) struct AckWatch {
    sender: mpsc::Sender<(Instant, Delivery)>,
    task: JoinHandle<Result<Acked, Failure>>,
}

impl AckWatch {
    /// Starts it on this runtime.
    pub(super) fn start() -> AckWatch {
        let (sender, receiver) = mpsc::channel(QUEUE);
        AckWatch { sender, task: tokio::spawn(wait(receiver)) }
    }

    /// Takes the time from `due` to the acknowledgement.
    pub(super) async fn watch(&self, due: Instant, delivery: Delivery) {
        // The task ends early only at a failure, which `finish` tells.
        let _ended = self.sender.send((due, delivery)).await;
    }

    /// Waits for those that are still on their way.
    pub(super) async fn finish(self) -> Result<Acked, Failure> {
        drop(self.sender);
        self.task.await.map_err(|error| Failure::other(error.to_string())).flatten()
    }
}

async fn wait(mut receiver: mpsc::Receiver<(Instant, Delivery)>) -> Result<Acked, Failure> {
    let mut acked = Acked { times: Times::new(), durability: None };
    let mut waiting = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !waiting.is_empty() {
        tokio::select! {
            Some((due, receipt)) = waiting.next() => {
                let receipt: riverrun_client::Receipt = receipt?;
                acked.times.add(Instant::elapsed(&due));
                let level = receipt.durability;
                acked.durability = Some(acked.durability.map_or(level, |least| least.min(level)));
            }
            received = receiver.recv(), if is_open => match received {
                Some((due, delivery)) => waiting.push(delivery.map(move |receipt| (due, receipt))),
                None => is_open = false,
            },
        }
    }
    Ok(acked)
}

//! Works on many records at once, in any order, and still commits only what is done without a gap.
//!
//! `cargo run --release -p riverrun-client --example parallel_tracker [address]`

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::{sync::Arc, time::Duration};

use riverrun_client::{Client, Error, Received, Tracker};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "riverrun://127.0.0.1:7070".into());
    let mq = Client::connect(&address).await?;
    let mut orders = mq.consumer("orders").group("parallel").open_max(10_000).build().await?;
    let tracker = orders.tracker();
    let workers = Arc::new(Semaphore::new(64));

    while let Some(batch) = orders.poll(Duration::from_secs(5)).await? {
        for record in batch {
            let worker = workers.clone().acquire_owned().await.expect("never closed");
            tokio::spawn(work(record, tracker.clone(), worker));
        }
    }
    let _all_done = workers.acquire_many(64).await;
    tracker.commit().await?;
    println!("{} records are open", tracker.open());
    orders.close().await
}

/// Takes longer for some records than for others.
async fn work(record: Received, tracker: Tracker, _worker: OwnedSemaphorePermit) {
    tokio::time::sleep(Duration::from_millis(record.offset.0 % 7)).await;
    if let Err(error) = tracker.done(&record) {
        println!("it comes again, here or at another member: {error}");
    }
}

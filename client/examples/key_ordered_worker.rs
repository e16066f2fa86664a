//! Many tasks at once, and still in order for each key: no two records of a key are ever in work at the
//! same time, also when one is tried again and also with several of these programs running.
//!
//! `cargo run --release -p riverrun-client --example key_ordered_worker [address]`

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::{collections::HashMap, sync::Arc, time::Duration};

use riverrun_client::{Client, Error, Job, Mode, Offset};
use tokio::sync::Mutex;

/// The last record done of each customer and partition.
type Done = Arc<Mutex<HashMap<(u32, String), Offset>>>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "riverrun://127.0.0.1:7070".into());
    let mq = Client::connect(&address).await?;
    let mut jobs = mq
        .subscribe("orders")
        .name("balances")
        .mode(Mode::KeyFifo)
        .credit(64, 4 << 20)
        .open()
        .await?;
    let done = Done::default();
    // At most 64 tasks run: that many jobs may be unsettled.
    while let Some(job) = jobs.next().await {
        tokio::spawn(handle(job?, done.clone()));
    }
    jobs.close().await
}

/// Handles one record and settles it, in a task of its own.
async fn handle(job: Job, done: Done) {
    let record = job.record();
    let key = record.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned());
    let offset = record.offset;
    tokio::time::sleep(Duration::from_millis(offset.0 % 7)).await;
    if let Some(customer) = &key {
        let lane = (record.partition.partition.0, customer.clone());
        let before = done.lock().await.insert(lane, offset);
        let in_order = before.is_none_or(|before| before < offset || job.attempts() > 1);
        println!("{customer} at {offset}{}", if in_order { "" } else { ": out of order" });
    }
    // Returns once the broker has it on disk; `ack` alone would be queued and not waited for.
    if let Err(error) = job.ack_sync().await {
        println!("{key:?} at {offset} comes again: {error}");
    }
}

//! Follows a topic without a group: short poll, long poll, and a seek by time.
//!
//! `cargo run --release -p riverrun-client --example long_poll [address]`

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::Duration;

use riverrun_client::{Client, Error, Record, Seek, Start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "riverrun://127.0.0.1:7070".into());
    let mq = Client::connect(&address).await?;

    // Every partition, from the end on. The broker holds each question up to 30 s.
    let builder = mq.consumer("orders").start_missing(Start::Latest);
    let mut tail = builder.max_wait(Duration::from_secs(30)).build().await?;

    // A short poll: what is there now, or nothing.
    match tail.poll(Duration::from_millis(200)).await? {
        Some(batch) => println!("{} records at once", batch.len()),
        None => println!("nothing yet"),
    }

    // A long poll wakes as soon as a record is visible.
    let orders = mq.producer("orders").build().await?;
    let sent = tokio::time::Instant::now();
    orders.send(Record::new("a late order")).await?.await?;
    let batch = tail.next_batch().await?;
    println!("{} after {:?}", batch.partition(), sent.elapsed());

    // Back to what was written in the last hour.
    tail.seek(batch.partition(), Seek::Ago(Duration::from_secs(3600))).await?;
    let again = tail.next_batch().await?;
    println!("{} records from {}", again.len(), again.partition());
    orders.close().await
}

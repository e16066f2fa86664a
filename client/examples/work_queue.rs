//! A work queue: any number of these share the records of a subscription, each record done by one of them.
//! What fails is tried again with growing delays; what cannot succeed goes to the dead letters.
//!
//! `cargo run --release -p riverrun-client --example work_queue [address]`

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::Duration;

use riverrun_client::{Client, Error, Outcome, SubscriberEvent, Work};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "riverrun://127.0.0.1:7070".into());
    let mq = Client::connect(&address).await?;
    let jobs = mq
        .subscribe("orders")
        .name("invoices")
        .ack_wait(Duration::from_secs(30))
        .max_failures(5)
        .open()
        .await?;

    // What happens to the session is told apart from the jobs.
    let mut events = jobs.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let SubscriberEvent::Disconnected(error) = &event {
                println!("away: {error}");
            } else if let SubscriberEvent::Opened { resumed: true, .. } = &event {
                println!("back; what is in hand stays in hand");
            } else {
                println!("{event:?}");
            }
        }
    });

    // Ctrl-C: nothing more is taken, what is under way comes to its end.
    let stop = jobs.stopper();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.stop();
        }
    });
    jobs.run(16, write_invoice).await
}

/// Handles one record. Its lease is extended while this runs; a panic counts as a failure.
async fn write_invoice(job: Work) -> Outcome {
    let record = job.record();
    let Some(order) = record.value.as_deref() else {
        return Outcome::reject("an order without content");
    };
    let Ok(order) = std::str::from_utf8(order) else {
        return Outcome::reject("an order is text");
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    if order.contains("later") && job.failures() == 0 {
        return Outcome::retry("the printer is busy");
    }
    println!("{} {}: {order}", record.partition, record.offset);
    Outcome::Done
}

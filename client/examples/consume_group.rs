//! Reads a topic as a member of a group. Start it twice and see the partitions move.
//!
//! `cargo run --release -p riverrun-client --example consume_group [address]`

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use riverrun_client::{Client, Error, Start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "riverrun://127.0.0.1:7070".into());
    let mq = Client::builder().client_id("billing-example").connect(&address).await?;
    let builder = mq.consumer("orders").group("billing").start_missing(Start::Earliest);
    let mut orders = builder.build().await?;

    let mut rebalances = orders.rebalances();
    tokio::spawn(async move {
        while let Some(change) = rebalances.next().await {
            println!("{change:?}");
        }
    });

    loop {
        let batch = tokio::select! {
            batch = orders.next_batch() => match batch {
                Err(error) if error.partition().is_some() => {
                    println!("one partition stopped, the others go on: {error}");
                    continue;
                }
                batch => batch?,
            },
            _ = tokio::signal::ctrl_c() => break,
        };
        for record in &batch {
            std::hint::black_box(&record.value); // the work
        }
        // Confirmed means durable: after a crash the group goes on behind this batch.
        match orders.commit(&batch).await {
            Err(error) if error.is_fenced() => println!("given up meanwhile: {error}"),
            committed => committed?,
        }
        let lag: u64 = orders.lag().iter().map(|partition| partition.lag).sum();
        println!("{} records of {}, lag {lag}", batch.len(), batch.partition());
    }
    orders.close().await
}

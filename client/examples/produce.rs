//! Sends a hundred thousand records, the fast way and the careful way.
//!
//! `cargo run --release -p riverrun-client --example produce [address]`

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::Duration;

use riverrun_client::{Client, Compression, Error, ErrorCode, Record, TopicSpec};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "riverrun://127.0.0.1:7070".into());
    let mq = Client::connect(&address).await?;
    match mq.admin().create_topic(TopicSpec::new("orders").partitions(6)).await {
        Err(error) if error.code() == ErrorCode::TopicExists => {}
        created => println!("created topic `{}`", created?.topic),
    }

    let builder = mq.producer("orders").compression(Compression::Lz4);
    let orders = builder.linger(Duration::from_millis(2)).build().await?;

    // The careful way: every record's fate is known.
    let record = Record::new("12 apples").key("customer-7").header("type", "text");
    let delivery = orders.send(record).await?; // waits for buffer space
    let receipt = delivery.await?; // waits for the acknowledgement
    println!("partition {} offset {} {:?}", receipt.partition, receipt.offset, receipt.durability);

    // The fast way: failures are told by `flush` or `close`.
    for n in 0..100_000_u32 {
        let record = Record::new(format!("order {n}")).key(format!("customer-{}", n % 1000));
        orders.post(record).await?;
    }
    orders.close().await?;
    println!("100000 records are on disk");
    Ok(())
}

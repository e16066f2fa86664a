//! Creates, changes and looks at topics and groups.
//!
//! `cargo run --release -p riverrun-client --example admin [address]`

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::Duration;

use riverrun_client::{
    Client, Durability, Error, ErrorCode, Limit, Reset, TopicChange, TopicConfig, TopicSpec,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "riverrun://127.0.0.1:7070".into());
    let mq = Client::connect(&address).await?;
    let admin = mq.admin();

    let spec = TopicSpec::new("orders").partitions(6).retain(7 * DAY).durability(Durability::Fsync);
    match admin.create_topic(spec).await {
        Err(error) if error.code() == ErrorCode::TopicExists => println!("{error}"),
        created => println!("created `{}`", created?.topic),
    }
    let config =
        TopicConfig { retention_bytes: Some(Limit::At(10 << 30)), ..TopicConfig::default() };
    admin.alter_topic("orders", TopicChange::new().config(config)).await?;

    for partition in admin.describe_topic("orders").await?.partitions {
        let (start, end) = (partition.log_start, partition.high_watermark);
        println!(
            "partition {}: {start}..{end}, {} bytes",
            partition.partition, partition.size_bytes
        );
    }
    for group in admin.list_groups().await? {
        println!("group `{}` {:?}, lag {}", group.group, group.state, group.lag);
        for row in admin.lag(&group.group).await? {
            println!("  {} committed {:?} lag {}", row.partition, row.committed, row.lag);
        }
        // Where would the group stand if it began again? Nothing moves.
        for row in admin.reset_offsets(&group.group, Reset::Earliest).dry_run().await? {
            println!("  {} from {:?} to {}", row.partition, row.from, row.to);
        }
    }
    Ok(())
}

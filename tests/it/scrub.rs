//! Sealed segments are re-read while nobody asks for them.

use std::{fs::OpenOptions, os::unix::fs::FileExt, path::Path, time::Duration};

use riverrun_proto::grpc::v1;

use super::metrics::scrape;
use crate::support::{
    broker::TestBroker,
    client::in_time,
    damage::{first_segment, partition_dir},
    records::{append, fetch},
};

/// Flips a bit of one byte of a file that is in use, and touches no other.
fn flip_in_place(path: &Path, pos: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, pos).unwrap();
    file.write_all_at(&[byte[0] ^ 1], pos).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_a_sealed_segment_is_told_before_anybody_reads_it() {
    let broker = TestBroker::start_with(|config| {
        config.disk.scrub_interval = Duration::from_millis(10);
        config.disk.scrub_bytes_per_second = 64 << 20;
    })
    .await;
    let mut stubs = broker.stubs().await;
    let (segment_bytes, message_bytes_max) = (Some(1 << 20), Some(1_000_000));
    let small = v1::TopicConfig { segment_bytes, message_bytes_max, ..Default::default() };
    for topic in ["hit", "other"] {
        stubs.create(topic, 1, small).await;
        for _ in 0..5 {
            stubs.append(topic, &["v".repeat(400_000).as_str()]).await;
        }
    }
    let places = |scrape: &crate::support::openmetrics::Scrape, topic| {
        scrape.value("riverrun_damaged_places", &[("topic", topic), ("partition", "0")])
    };
    let id = broker.inside().registry().topic("hit").unwrap().id.to_string();
    let segment = first_segment(&partition_dir(&broker.data_dir(), &id, 0));
    in_time(async {
        while scrape(&broker).await.value("riverrun_scrub_bytes_total", &[]) == 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let before = scrape(&broker).await;
    assert_eq!(before.value("riverrun_scrub_damages_total", &[]), 0.0);
    flip_in_place(&segment, 4096 + 96 + 200_000);
    in_time(async {
        while places(&scrape(&broker).await, "hit") == 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let seen = scrape(&broker).await;
    assert_eq!((places(&seen, "hit"), places(&seen, "other")), (1.0, 0.0));
    assert_eq!(seen.value("riverrun_topic_failed_partitions", &[("topic", "hit")]), 0.0);

    let described = |topic: &str| v1::DescribeTopicRequest { topic: topic.into() };
    let told = stubs.admin.describe_topic(described("hit")).await.unwrap().into_inner();
    let partition = &told.partitions[0];
    assert_eq!((partition.damaged_places, partition.damaged.len()), (1, 1));
    let place = &partition.damaged[0];
    assert_eq!((place.start_offset, place.end_offset), (0, 1));
    assert!(place.reason.contains("00000000000000000000.log"), "{}", place.reason);
    assert_eq!(partition.failure, None);
    let told = stubs.admin.describe_topic(described("other")).await.unwrap().into_inner();
    assert_eq!((told.partitions[0].damaged_places, told.partitions[0].damaged.len()), (0, 0));

    let fetched = stubs.fetch.fetch(fetch("hit", 0)).await.unwrap().into_inner();
    let error = fetched.partitions[0].error.clone().expect("these are damaged");
    assert_eq!(error.code(), v1::ErrorCode::DataCorrupt);
    let fetched = stubs.fetch.fetch(fetch("hit", 1)).await.unwrap().into_inner();
    assert_eq!(fetched.partitions[0].error, None);
    stubs.produce.append(append("hit", &["more"])).await.unwrap();
}

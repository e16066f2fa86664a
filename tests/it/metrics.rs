//! Metrics say what really happened: compared with receipts, descriptions and each other, after real work.

use std::{collections::BTreeSet, time::Duration};

use riverrun_broker::{
    Config,
    clock::Clock,
    metrics::{FAMILIES, Kind},
};
use riverrun_proto::{
    ProducerEpoch, ProducerId,
    batch::BuilderOptions,
    grpc::v1::{self, group_client::GroupClient, settle_item::Outcome},
};
use riverrun_storage::disk::sim::SimDisk;
use serde_json::Value;

use crate::support::{
    broker::{Stubs, TestBroker},
    client::{client_with_topic, in_time, send_numbers},
    openmetrics::Scrape,
    push::{PushStubs, item, nack, open},
    records::{append, batch, code, fetch},
};

/// What the broker says now.
pub(super) async fn scrape(broker: &TestBroker) -> Scrape {
    let text = in_time(broker.inside().services().metrics.render()).await;
    Scrape::parse(&text)
}

/// The sum over all partitions of `t`.
fn sum(scrape: &Scrape, name: &str) -> f64 {
    scrape.all(name).filter(|(labels, _)| labels["topic"] == "t").map(|(_, value)| value).sum()
}

#[tokio::test]
async fn what_is_produced_and_fetched_is_counted_truly_and_never_goes_back() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 3).await;
    let before = scrape(&broker).await;
    assert_eq!(sum(&before, "riverrun_produce_records_total"), 0.0);
    let producer = mq.producer("t").build().await.expect("built");
    send_numbers(&producer, 0..500).await;
    let produced = scrape(&broker).await;
    produced.check_follows(&before);
    assert_eq!(sum(&produced, "riverrun_produce_records_total"), 500.0);
    for partition in ["0", "1", "2"] {
        let labels = [("topic", "t"), ("partition", partition)];
        let records = produced.value("riverrun_produce_records_total", &labels);
        assert_eq!(produced.value("riverrun_partition_high_watermark", &labels), records);
        assert_eq!(produced.value("riverrun_partition_log_end_offset", &labels), records);
        assert_eq!(produced.value("riverrun_partition_log_start_offset", &labels), 0.0);
        assert_eq!(produced.value("riverrun_partition_failed", &labels), 0.0);
        let bytes = produced.value("riverrun_produce_bytes_total", &labels);
        assert!(bytes > records, "{bytes} bytes of {records} records");
        assert!(produced.value("riverrun_partition_bytes", &labels) >= bytes);
    }
    assert_eq!(produced.value("riverrun_topic_records", &[("topic", "t")]), 500.0);
    assert_eq!(produced.value("riverrun_topic_partitions", &[("topic", "t")]), 3.0);
    // Every batch is one observation, and every record became durable by one flush.
    let batches = sum(&produced, "riverrun_produce_batches_total");
    assert_eq!(produced.value("riverrun_append_duration_seconds_count", &[]), batches);
    assert_eq!(produced.value("riverrun_group_commit_records_sum", &[]), 500.0);
    let flushes = produced.value("riverrun_flush_duration_seconds_count", &[]);
    assert!(flushes >= produced.value("riverrun_group_commit_records_count", &[]));

    let mut stubs = broker.stubs().await;
    let partition = |partition| v1::FetchPartition {
        topic: "t".into(),
        partition,
        ..v1::FetchPartition::default()
    };
    let request = |partitions| v1::FetchRequest { partitions, ..v1::FetchRequest::default() };
    let all = request((0..3).map(partition).collect());
    in_time(stubs.fetch.fetch(all)).await.expect("fetched");
    let fetched = scrape(&broker).await;
    fetched.check_follows(&produced);
    assert_eq!(sum(&fetched, "riverrun_fetch_records_total"), 500.0);
    let bytes = sum(&produced, "riverrun_produce_bytes_total");
    assert_eq!(sum(&fetched, "riverrun_fetch_bytes_total"), bytes, "the same batches");
    // From the middle of a log on, and with a bound of records.
    let some = v1::FetchRequest {
        max_records: 7,
        ..request(vec![v1::FetchPartition { offset: 10, ..partition(0) }])
    };
    in_time(stubs.fetch.fetch(some)).await.expect("fetched");
    assert_eq!(sum(&scrape(&broker).await, "riverrun_fetch_records_total"), 507.0);
}

/// A broker with a clock of the test's, and group `g` that read three of the ten records of `t`, 90 s ago.
async fn behind(change: impl FnOnce(&mut Config)) -> (TestBroker, Stubs) {
    let (clock, hand) = Clock::manual(1_700_000_000_000);
    let broker = TestBroker::start_at((SimDisk::new(1), clock), change).await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 2, v1::TopicConfig::default()).await;
    let mut group = GroupClient::new(broker.channel().await);
    let topics = vec!["t".to_owned()];
    let joining = v1::HeartbeatRequest {
        group: "g".into(),
        member_id: "m".into(),
        subscription: Some(v1::TopicList { topics }),
        ..v1::HeartbeatRequest::default()
    };
    let joined = in_time(group.heartbeat(joining)).await.expect("joined").into_inner();
    for count in [3, 7] {
        stubs.append("t", &vec!["x"; count]).await;
        hand.advance(Duration::from_secs(45));
    }
    let (group_name, member_id) = ("g".to_owned(), "m".to_owned());
    let member =
        v1::GroupMember { group: group_name, member_id, member_epoch: joined.member_epoch };
    let offset = v1::OffsetCommit { topic: "t".into(), offset: 3, ..v1::OffsetCommit::default() };
    let commit = v1::CommitOffsetsRequest { member: Some(member), offsets: vec![offset] };
    let committed = in_time(group.commit_offsets(commit)).await.expect("committed").into_inner();
    assert_eq!(committed.results[0].error, None);
    (broker, stubs)
}

#[tokio::test]
async fn lag_is_what_the_description_of_the_group_says() {
    let (broker, mut stubs) = behind(|config| config.metrics.kafka_exporter_names = true).await;
    let request = v1::DescribeGroupRequest { group: "g".into() };
    let described = stubs.admin.describe_group(request).await.unwrap().into_inner();
    let seen = scrape(&broker).await;
    assert_eq!(described.partitions.len(), 2);
    for one in &described.partitions {
        let partition = one.partition.to_string();
        let ours = [("group", "g"), ("topic", "t"), ("partition", partition.as_str())];
        let kafkas = [("consumergroup", "g"), ("topic", "t"), ("partition", partition.as_str())];
        let committed = one.committed_offset.unwrap() as f64;
        assert_eq!(seen.value("riverrun_group_committed_offset", &ours), committed);
        assert_eq!(seen.value("riverrun_group_lag_records", &ours), one.lag as f64);
        assert_eq!(seen.value("riverrun_group_lag_seconds", &ours), one.lag_ms as f64 / 1e3);
        assert_eq!(seen.value("kafka_consumergroup_current_offset", &kafkas), committed);
        assert_eq!(seen.value("kafka_consumergroup_lag", &kafkas), one.lag as f64);
        let end = seen.value("kafka_topic_partition_current_offset", &ours[1..]);
        assert_eq!(end, one.high_watermark as f64);
        let oldest = seen.value("kafka_topic_partition_oldest_offset", &ours[1..]);
        assert_eq!(oldest, one.log_start_offset as f64);
    }
    let first = [("group", "g"), ("topic", "t"), ("partition", "0")];
    assert_eq!(seen.value("riverrun_group_lag_records", &first), 7.0);
    assert_eq!(seen.value("riverrun_group_lag_seconds", &first), 45.0);
    assert_eq!(seen.value("riverrun_group_members", &[("group", "g")]), 1.0);
    assert_eq!(seen.value("riverrun_groups", &[]), 1.0);
    assert_eq!(seen.value("process_start_time_seconds", &[]), 1_700_000_000.0);
}

#[tokio::test]
async fn without_partition_labels_lag_is_summed_and_no_partition_is_named() {
    let (broker, mut stubs) = behind(|config| config.metrics.partition_labels = false).await;
    let second = v1::AppendRequest { partition: 1, ..append("t", &["x", "y"]) };
    stubs.produce.append(second).await.unwrap();
    let seen = scrape(&broker).await;
    let labels = [("group", "g"), ("topic", "t")];
    assert_eq!(seen.value("riverrun_group_lag_records", &labels), 9.0);
    assert_eq!(seen.value("riverrun_group_lag_seconds", &labels), 45.0);
    assert_eq!(seen.value("riverrun_produce_records_total", &[("topic", "t")]), 12.0);
    assert!(!seen.names_label("partition"));
    assert!(seen.families.keys().all(|name| !name.starts_with("kafka_")));
    assert!(seen.families.keys().all(|name| !name.starts_with("riverrun_partition_")));
}

#[tokio::test]
async fn a_subscription_counts_what_it_gave_and_what_became_of_it() {
    let broker = TestBroker::start().await;
    let settings = v1::SubscriptionSettings { max_failures: Some(2), ..Default::default() };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send_numbers(6).await;
    let of = [("subscription", "s")];
    let before = scrape(&broker).await;
    assert_eq!(before.value("riverrun_subscription_lag_records", &of), 6.0);
    assert_eq!(before.value("riverrun_subscription_deliveries_total", &of), 0.0);

    let mut session = stubs.session("a").await;
    let mut got = session.take(6).await;
    let held = scrape(&broker).await;
    held.check_follows(&before);
    assert_eq!(held.value("riverrun_subscription_sessions", &of), 1.0);
    assert_eq!(held.value("riverrun_subscription_in_flight", &of), 6.0);
    assert_eq!(held.value("riverrun_subscription_deliveries_total", &of), 6.0);
    assert!(held.value("riverrun_subscription_delivered_bytes_total", &of) >= 6.0);

    let (poison, rejected, released) = (got.remove(0), got.remove(0), got.remove(0));
    session.ack(&got).await;
    session.settle_one(item(&rejected, Outcome::Reject(v1::Reject::default()))).await;
    session.settle_one(item(&released, Outcome::Release(v1::Release {}))).await;
    let again = session.one().await;
    assert_eq!(again.offset, released.offset);
    session.settle_one(nack(&poison, 0)).await;
    let worn_out = session.one().await;
    session.settle_one(nack(&worn_out, 0)).await;
    stubs.lane_until(|lane| lane.dead == 2).await;
    let seen = scrape(&broker).await;
    seen.check_follows(&held);
    let outcomes = [
        ("ack", 3.0),
        ("nack", 2.0),
        ("reject", 1.0),
        ("release", 1.0),
        ("expired", 0.0),
        ("crashed", 0.0),
    ];
    for (outcome, count) in outcomes {
        let labels = [of[0], ("outcome", outcome)];
        let found = seen.value("riverrun_subscription_settlements_total", &labels);
        assert_eq!(found, count, "{outcome}");
    }
    assert_eq!(seen.value("riverrun_subscription_deliveries_total", &of), 8.0);
    assert_eq!(seen.value("riverrun_subscription_dead_letters_total", &of), 2.0);
    assert_eq!(seen.value("riverrun_subscription_in_flight", &of), 1.0);
    assert_eq!(seen.value("riverrun_subscription_lag_records", &of), 1.0);
    session.ack(&[again]).await;
    let done = scrape(&broker).await;
    assert_eq!(done.value("riverrun_subscription_lag_records", &of), 0.0);
    assert_eq!(done.value("riverrun_subscription_oldest_unacked_seconds", &of), 0.0);
}

#[tokio::test]
async fn connections_calls_and_refusals_are_counted() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let door = [("door", "grpc")];
    let before = scrape(&broker).await;
    assert_eq!(before.value("riverrun_connections", &door), 1.0);
    for _ in 0..3 {
        stubs.append("t", &["x"]).await;
    }
    stubs.produce.append(append("nowhere", &["x"])).await.unwrap_err();
    stubs.fetch.fetch(fetch("t", 99)).await.unwrap();
    let mut pipeline = stubs.clone();
    let refused = v1::AppendRequest { request_id: 9, ..append("nowhere", &["x"]) };
    let replies = pipeline.produce.append_pipeline(tokio_stream::iter([refused])).await.unwrap();
    let reply = in_time(replies.into_inner().message()).await.unwrap().expect("an answer");
    assert!(reply.responses[0].error.is_some());
    let mut stranger = PushStubs::new(&broker).await;
    let session = stranger.session_with(open("a")).await;
    assert_eq!(code(&session.unwrap_err()), v1::ErrorCode::UnknownSubscription);
    drop(stranger);
    let seen = scrape(&broker).await;
    seen.check_follows(&before);
    let times = |api| {
        let labels = [("door", "grpc"), ("api", api)];
        seen.value("riverrun_request_duration_seconds_count", &labels)
    };
    assert_eq!((times("Produce/Append"), times("Fetch/Fetch")), (4.0, 1.0));
    assert_eq!(times("Admin/CreateTopic"), 1.0);
    let refused = |code| seen.value("riverrun_requests_refused_total", &[("code", code)]);
    assert_eq!(refused("UNKNOWN_TOPIC_OR_PARTITION"), 2.0);
    assert_eq!(refused("OFFSET_OUT_OF_RANGE"), 1.0);
    assert_eq!(refused("UNKNOWN_SUBSCRIPTION"), 1.0);
    assert_eq!(refused("DISK_FULL"), 0.0);
    let quota = [("quota", "limits.in_flight_bytes_max")];
    assert_eq!(seen.value("riverrun_quota_used_bytes", &quota), 0.0);
    assert_eq!(seen.value("riverrun_quota_limit_bytes", &quota), f64::from(256 << 20));
    for quota in ["limits.receive_bytes_max", "limits.read_bytes_max"] {
        assert!(seen.get("riverrun_quota_used_bytes", &[("quota", quota)]).is_some(), "{quota}");
    }
    assert!(seen.value("riverrun_quota_limit", &[("quota", "limits.waiters_max")]) > 0.0);
    assert!(seen.value("riverrun_disk_free_bytes", &[]) > 0.0);
    assert_eq!(seen.value("riverrun_disk_full", &[]), 0.0);
    assert!(seen.value("process_resident_memory_bytes", &[]) > 0.0);
    assert!(seen.value("process_cpu_seconds_total", &[]) > 0.0);
    drop((stubs, pipeline));
    in_time(async {
        while scrape(&broker).await.value("riverrun_connections", &door) > 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(scrape(&broker).await.value("riverrun_connections_opened_total", &door), 2.0);
}

#[tokio::test]
async fn a_batch_that_comes_twice_counts_once() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let identity = stubs.produce.init_producer(v1::InitProducerRequest::default()).await.unwrap();
    let options = BuilderOptions {
        producer_id: ProducerId(identity.into_inner().producer_id),
        producer_epoch: ProducerEpoch(0),
        base_sequence: 0,
        ..BuilderOptions::default()
    };
    let same = batch(&["x", "y"], options);
    for _ in 0..2 {
        let payload = Some(v1::append_request::Payload::Batch(same.clone().into_bytes()));
        let request = v1::AppendRequest { payload, ..append("t", &["x"]) };
        stubs.produce.append(request).await.unwrap();
    }
    assert_eq!(sum(&scrape(&broker).await, "riverrun_produce_records_total"), 2.0);
}

#[tokio::test]
async fn each_batch_of_a_bulk_is_timed_once_although_its_flush_is_waited_for_at_the_end() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let requests = vec![append("t", &["x", "y"]); 3];
    let bulk = stubs.produce.append_bulk(tokio_stream::iter(requests)).await.unwrap().into_inner();
    assert_eq!((bulk.batch_count, bulk.record_count), (3, 6));
    let seen = scrape(&broker).await;
    assert_eq!(sum(&seen, "riverrun_produce_batches_total"), 3.0);
    assert_eq!(seen.value("riverrun_append_duration_seconds_count", &[]), 3.0);
}

#[tokio::test]
async fn every_metric_of_the_table_is_told_and_no_other() {
    let broker = TestBroker::start_with(|config| config.metrics.kafka_exporter_names = true).await;
    let told = scrape(&broker).await.families;
    let known: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(told.keys().map(String::as_str).collect::<BTreeSet<_>>(), known);
    for family in FAMILIES {
        assert_eq!(told[family.name], family.kind.name(), "{}", family.name);
    }
}

#[test]
fn every_metric_that_dashboard_and_rules_name_exists() {
    let mut known: BTreeSet<String> = FAMILIES.iter().map(|family| family.sample_name()).collect();
    for family in FAMILIES.iter().filter(|family| family.kind == Kind::Histogram) {
        known.remove(family.name);
        known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", family.name)));
    }
    let labels: BTreeSet<&str> =
        FAMILIES.iter().flat_map(|family| family.labels.iter().copied()).chain(["le"]).collect();
    let dashboard = include_str!("../../docs/operations/grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(dashboard).expect("the dashboard is JSON");
    let rules = include_str!("../../docs/operations/prometheus-rules.yml");
    let mut queries = Vec::new();
    strings_of(&dashboard, &["expr", "definition"], &mut queries);
    let panels = queries.len();
    queries.extend(
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned),
    );
    assert!(panels > 20 && queries.len() > panels + 10, "{} queries", queries.len());
    for query in &queries {
        let names = words(query).filter(|word| {
            ["riverrun_", "process_", "kafka_"].iter().any(|prefix| word.starts_with(prefix))
        });
        let mut count = 0;
        for name in names {
            assert!(known.contains(name), "`{name}` is no metric, in `{query}`");
            count += 1;
        }
        assert!(count > 0, "no metric in `{query}`");
        for codes in query.split("code=").skip(1) {
            for code in codes.split('"').nth(1).unwrap_or_default().split('|') {
                let found = v1::ErrorCode::from_str_name(&format!("ERROR_CODE_{code}"));
                assert!(found.is_some(), "`{code}` is no code, in `{query}`");
            }
        }
        for grouped in query.split("by (").skip(1) {
            let list = grouped.split(')').next().unwrap_or_default();
            for label in list.split(',').map(str::trim) {
                assert!(labels.contains(label), "`{label}` is no label, in `{query}`");
            }
        }
    }
}

/// Every text under one of these keys.
fn strings_of(value: &Value, keys: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                let wanted = field.as_str().filter(|_| keys.contains(&key.as_str()));
                found.extend(wanted.map(str::to_owned));
                strings_of(field, keys, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strings_of(item, keys, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Words that may be names.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != ':')
}

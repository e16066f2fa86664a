//! Every metric there is. What is not in this table cannot be rendered, and the documentation is made of it.

use super::family::{Family, Kind};

/// Declares the metrics and the table of all of them.
macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// Every metric.
        pub static FAMILIES: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    TOPIC_PARTITIONS = Gauge "riverrun_topic_partitions" ["topic"]
        "Partitions of a topic.";
    TOPIC_FAILED_PARTITIONS = Gauge "riverrun_topic_failed_partitions" ["topic"]
        "Partitions of a topic that refuse writes or could not be opened.";
    TOPIC_RECORDS = Gauge "riverrun_topic_records" ["topic"]
        "Records of a topic that can be read: from the log start to the high watermark, offsets that compaction emptied included.";
    TOPIC_BYTES = Gauge "riverrun_topic_bytes" ["topic"]
        "Bytes of the logs of a topic.";

    PARTITION_LOG_START = Gauge "riverrun_partition_log_start_offset" ["topic", "partition"]
        "First offset that is kept.";
    PARTITION_LOG_END = Gauge "riverrun_partition_log_end_offset" ["topic", "partition"]
        "Next offset to be given.";
    PARTITION_HIGH_WATERMARK = Gauge "riverrun_partition_high_watermark" ["topic", "partition"]
        "First offset that cannot be read yet.";
    PARTITION_BYTES = Gauge "riverrun_partition_bytes" ["topic", "partition"]
        "Bytes of the log of a partition.";
    PARTITION_SEGMENTS = Gauge "riverrun_partition_segments" ["topic", "partition"]
        "Segment files of a partition.";
    PARTITION_FAILED = Gauge "riverrun_partition_failed" ["topic", "partition"]
        "1 when a partition refuses writes or could not be opened.";

    PRODUCE_BATCHES = Counter "riverrun_produce_batches" ["topic", "partition"]
        "Record batches appended; those that came twice count once.";
    PRODUCE_RECORDS = Counter "riverrun_produce_records" ["topic", "partition"]
        "Records appended.";
    PRODUCE_BYTES = Counter "riverrun_produce_bytes" ["topic", "partition"]
        "Bytes of record batches appended, as they were compressed.";
    FETCH_RECORDS = Counter "riverrun_fetch_records" ["topic", "partition"]
        "Records given to fetches, by the offsets they cover.";
    FETCH_BYTES = Counter "riverrun_fetch_bytes" ["topic", "partition"]
        "Bytes given to fetches.";

    APPEND_DURATION = Histogram "riverrun_append_duration_seconds" []
        "Time of a record batch from the queue of its partition to its receipt, the flush it waits for included.";
    FLUSH_DURATION = Histogram "riverrun_flush_duration_seconds" []
        "Time of one flush of a log, the broker's own logs included.";
    GROUP_COMMIT_RECORDS = Histogram "riverrun_group_commit_records" []
        "Records of a topic that became durable by one flush.";

    SCRUB_BYTES = Counter "riverrun_scrub_bytes" []
        "Bytes of sealed segments that were re-read to find damage.";
    SCRUB_PASSES = Counter "riverrun_scrub_passes" []
        "Passes over the sealed segments of all partitions that came to their end.";
    SCRUB_DAMAGES = Counter "riverrun_scrub_damages" []
        "Damaged places met by such passes, each time they were met, the broker's own logs included.";
    DAMAGED_PLACES = Gauge "riverrun_damaged_places" ["topic", "partition"]
        "Damaged places of a partition that the latest pass over it met; the log of the broker names them.";

    GROUPS = Gauge "riverrun_groups" []
        "Consumer groups.";
    GROUP_MEMBERS = Gauge "riverrun_group_members" ["group"]
        "Members of a group.";
    GROUP_COMMITTED_OFFSET = Gauge "riverrun_group_committed_offset" ["group", "topic", "partition"]
        "Offset that a group reads next.";
    GROUP_LAG_RECORDS = Gauge "riverrun_group_lag_records" ["group", "topic", "partition"]
        "Records that a group has not read yet; without partition labels, over all partitions of the topic.";
    GROUP_LAG_SECONDS = Gauge "riverrun_group_lag_seconds" ["group", "topic", "partition"]
        "Age of the oldest record that a group has not read yet; without partition labels, the oldest of the topic.";

    SUBSCRIPTIONS = Gauge "riverrun_subscriptions" []
        "Push subscriptions.";
    SUBSCRIPTION_PAUSED = Gauge "riverrun_subscription_paused" ["subscription"]
        "1 while delivery is stopped by an operator.";
    SUBSCRIPTION_SESSIONS = Gauge "riverrun_subscription_sessions" ["subscription"]
        "Sessions that are open or may be resumed.";
    SUBSCRIPTION_LAG_RECORDS = Gauge "riverrun_subscription_lag_records" ["subscription"]
        "Records that are not settled.";
    SUBSCRIPTION_READY = Gauge "riverrun_subscription_ready" ["subscription"]
        "Records that may be handed out at once.";
    SUBSCRIPTION_IN_FLIGHT = Gauge "riverrun_subscription_in_flight" ["subscription"]
        "Records in the hands of consumers.";
    SUBSCRIPTION_RETRYING = Gauge "riverrun_subscription_retrying" ["subscription"]
        "Records that failed and wait for their next try.";
    SUBSCRIPTION_BLOCKED = Gauge "riverrun_subscription_blocked" ["subscription"]
        "Records that wait for an earlier one of their key.";
    SUBSCRIPTION_SCHEDULED = Gauge "riverrun_subscription_scheduled" ["subscription"]
        "Records that wait for their time.";
    SUBSCRIPTION_DEAD_PENDING = Gauge "riverrun_subscription_dead_pending" ["subscription"]
        "Worn-out records whose dead letter is not written yet.";
    SUBSCRIPTION_OLDEST_UNACKED = Gauge "riverrun_subscription_oldest_unacked_seconds" ["subscription"]
        "Age of the oldest record that is not settled.";
    SUBSCRIPTION_DELIVERIES = Counter "riverrun_subscription_deliveries" ["subscription"]
        "Records handed out, every try counted.";
    SUBSCRIPTION_DELIVERED_BYTES = Counter "riverrun_subscription_delivered_bytes" ["subscription"]
        "Bytes of keys, values and headers handed out, every try counted.";
    SUBSCRIPTION_SETTLEMENTS = Counter "riverrun_subscription_settlements" ["subscription", "outcome"]
        "Deliveries that ended, by what became of them: ack, nack, reject, release, expired (the lease ended), crashed (the session was lost).";
    SUBSCRIPTION_DEAD_LETTERS = Counter "riverrun_subscription_dead_letters" ["subscription"]
        "Dead letters written since the broker started.";

    WEBHOOK_REQUESTS = Counter "riverrun_webhook_requests" ["subscription", "outcome"]
        "Requests of webhooks by what became of them: delivered, failed, postponed (the endpoint asked for time), no_room (no place or no memory was free in time, so it was not sent). Only of subscriptions that had one.";
    WEBHOOK_BROKEN = Gauge "riverrun_webhook_broken" ["subscription"]
        "1 while the endpoint of a webhook is left alone because it failed too often, or is tried with one record at a time. Only of subscriptions that have one.";
    WEBHOOK_DURATION = Histogram "riverrun_webhook_duration_seconds" []
        "Time of a request of a webhook to the head of its answer, or to its failure.";

    CONNECTIONS = Gauge "riverrun_connections" ["door"]
        "Open connections.";
    CONNECTIONS_OPENED = Counter "riverrun_connections_opened" ["door"]
        "Connections accepted.";
    CONNECTIONS_REFUSED = Counter "riverrun_connections_refused" ["door"]
        "Connections closed on arrival because there were as many as there may be.";
    REQUEST_DURATION = Histogram "riverrun_request_duration_seconds" ["door", "api"]
        "Time of a call from its first byte to the beginning of its answer, the wait of a long poll included. Calls that never came have no series.";
    WEB_REQUESTS = Counter "riverrun_web_requests" ["api", "status"]
        "Requests of the web door that were answered, by method and route (`other`: none of them) and class of the status. gRPC-Web counts as gRPC.";
    WEB_REQUESTS_IN_FLIGHT = Gauge "riverrun_web_requests_in_flight" []
        "Requests of the web door whose answer has not begun, long polls included.";
    REQUESTS_REFUSED = Counter "riverrun_requests_refused" ["code"]
        "Calls, sessions, batches of a pipeline and partitions of a fetch that were refused, by error code.";

    QUOTA_USED_BYTES = Gauge "riverrun_quota_used_bytes" ["quota"]
        "Bytes taken of a bound of memory, by the setting that bounds it.";
    QUOTA_LIMIT_BYTES = Gauge "riverrun_quota_limit_bytes" ["quota"]
        "The bound of memory.";
    TRACE_SPANS = Counter "riverrun_trace_spans" ["outcome"]
        "Spans of calls by what became of them: exported, or lost because the queue was full or the collector did not take them. Only where spans are exported.";
    QUOTA_USED = Gauge "riverrun_quota_used" ["quota"]
        "Places taken of a bounded number, by the setting that bounds it.";
    QUOTA_LIMIT = Gauge "riverrun_quota_limit" ["quota"]
        "The bound of the number.";

    DISK_FREE_BYTES = Gauge "riverrun_disk_free_bytes" []
        "Free bytes of the disk that holds the data directory, as housekeeping last saw it.";
    DISK_RESERVE_BYTES = Gauge "riverrun_disk_reserve_bytes" []
        "Produce is refused while less than this is free (`disk.free_bytes_min`).";
    DISK_FULL = Gauge "riverrun_disk_full" []
        "1 while produce is refused for want of room.";

    DISK_FAILED = Gauge "riverrun_disk_failed" []
        "1 once so many partitions stopped after failed writes or flushes that the disk counts as failed: every append is refused until the next start.";

    BUILD = Info "riverrun_build" ["version"]
        "Version of the broker.";
    PROCESS_START_TIME = Gauge "process_start_time_seconds" []
        "When the broker started, in seconds since 1970-01-01 UTC.";
    PROCESS_CPU = Counter "process_cpu_seconds" []
        "Time that the process ran on any core.";
    PROCESS_RESIDENT_BYTES = Gauge "process_resident_memory_bytes" []
        "Memory that the process holds.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" []
        "Files and sockets that the process has open (Linux 6.2 or later).";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "Most files and sockets that it may have open.";

    SCRAPE_DURATION = Gauge "riverrun_scrape_duration_seconds" []
        "Time that gathering this text took.";
    SCRAPE_SKIPPED = Gauge "riverrun_scrape_skipped_ages" []
        "Ages of oldest records that were left out of this text because there were too many to look up.";

    KAFKA_GROUP_OFFSET = Gauge "kafka_consumergroup_current_offset" ["consumergroup", "topic", "partition"]
        "As `riverrun_group_committed_offset`, by the name that Kafka's exporter has. Only with `metrics.kafka_exporter_names`.";
    KAFKA_GROUP_LAG = Gauge "kafka_consumergroup_lag" ["consumergroup", "topic", "partition"]
        "As `riverrun_group_lag_records`, by the name that Kafka's exporter has. Only with `metrics.kafka_exporter_names`.";
    KAFKA_PARTITION_OFFSET = Gauge "kafka_topic_partition_current_offset" ["topic", "partition"]
        "As `riverrun_partition_high_watermark`, by the name that Kafka's exporter has. Only with `metrics.kafka_exporter_names`.";
    KAFKA_PARTITION_OLDEST = Gauge "kafka_topic_partition_oldest_offset" ["topic", "partition"]
        "As `riverrun_partition_log_start_offset`, by the name that Kafka's exporter has. Only with `metrics.kafka_exporter_names`.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules_and_stand_once() {
        let mut seen = BTreeSet::new();
        for family in FAMILIES {
            let Family { name, kind, labels, help } = family;
            assert!(seen.insert(name), "{name} stands twice");
            let known = ["riverrun_", "process_", "kafka_"];
            assert!(known.iter().any(|prefix| name.starts_with(prefix)), "{name}");
            let plain = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            assert!(plain(name) && labels.iter().all(|label| plain(label)), "{name}");
            let reserved = ["_total", "_info", "_bucket", "_sum", "_count", "_created"];
            assert!(!reserved.iter().any(|end| name.ends_with(end)), "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
            assert!(!labels.contains(&"le") || *kind != Kind::Histogram, "{name}");
        }
    }
}

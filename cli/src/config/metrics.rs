//! The reference of all metrics as Markdown, made of the table that the broker renders from.

use std::fmt::Write as _;

use riverrun_broker::metrics::{FAMILIES, Family, Kind};

const HEAD: &str = "# Metrics

Generated from the binary by `cargo xtask docs`; edit the table in `broker/src/metrics/families.rs`, not this page.

The broker tells what it does as OpenMetrics text, gathered when it is asked for. Counters count from the start of the
broker; the series of a topic, group or subscription end with it. Times are in seconds, sizes in bytes.

With `metrics.partition_labels = false` the metrics about single partitions are left out, and those that have the label
`partition` beside others are summed up without it: about ten series for each partition less, and three for each partition of a group. With
`metrics.kafka_exporter_names = true` lag and offsets come also by the names of Kafka's exporter, so that dashboards and
alerts made for it work unread.

A [Grafana dashboard](operations/grafana-dashboard.json) and [Prometheus rules](operations/prometheus-rules.yml) stand in
`docs/operations/`.
";

/// Names of the groups of metrics, by what their names begin with.
const PARTS: [(&str, &[&str]); 11] = [
    ("Topics and partitions", &["riverrun_topic_", "riverrun_partition_"]),
    ("Records in and out", &["riverrun_produce_", "riverrun_fetch_"]),
    ("Writing", &["riverrun_append_", "riverrun_flush_", "riverrun_group_commit_"]),
    ("Damage", &["riverrun_scrub_", "riverrun_damaged_"]),
    ("Consumer groups", &["riverrun_group"]),
    ("Push subscriptions", &["riverrun_subscription"]),
    ("Webhooks", &["riverrun_webhook_"]),
    (
        "Connections and requests",
        &["riverrun_connection", "riverrun_request", "riverrun_web_", "riverrun_trace_"],
    ),
    ("Bounds and the disk", &["riverrun_quota_", "riverrun_disk_"]),
    ("The process", &["riverrun_build", "process_", "riverrun_scrape_"]),
    ("By the names of Kafka's exporter", &["kafka_"]),
];

/// The page.
pub(super) fn markdown() -> String {
    let mut text = String::from(HEAD);
    for (index, (title, _)) in PARTS.iter().enumerate() {
        let _ = write!(
            text,
            "\n## {title}\n\n| Metric | Type | Labels | Meaning |\n| --- | --- | --- | --- |\n"
        );
        for family in FAMILIES.iter().filter(|family| part_of(family.name) == Some(index)) {
            row(family, &mut text);
        }
    }
    text
}

/// The first part that the name belongs to.
fn part_of(name: &str) -> Option<usize> {
    PARTS.iter().position(|(_, starts)| starts.iter().any(|start| name.starts_with(start)))
}

fn row(family: &Family, text: &mut String) {
    let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    let name = match family.kind {
        // Its samples end in `_bucket`, `_sum` and `_count`.
        Kind::Histogram => family.name.to_owned(),
        Kind::Counter | Kind::Gauge | Kind::Info => family.sample_name(),
    };
    let (kind, help) = (family.kind.name(), family.help);
    let _ = writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_row() {
        let text = markdown();
        for family in FAMILIES {
            let cell = format!("| `{}` |", family.sample_name());
            assert_eq!(text.matches(&cell).count(), 1, "{cell}");
        }
    }
}

//! `riverrun subscription explain` and `peek`: why nothing is delivered, and what is not settled.

use riverrun_client::{Admin, Explanation, PeekedRecord};
use serde_json::{Value, json};

use crate::{
    failure::Stop,
    output::{self, Output, Table},
    printer::put_bytes,
    time, units,
};

/// Tells why nothing is delivered now.
pub(super) async fn explain(admin: &Admin, name: &str, form: Output) -> Result<(), Stop> {
    let partitions = admin.explain_subscription(name).await?;
    if form == Output::Json {
        let partitions: Vec<Value> = partitions.iter().map(explanation_json).collect();
        return output::print_json(&json!({ "subscription": name, "partitions": partitions }));
    }
    let mut table = Table::new(&["TOPIC", "PARTITION", "REASON", "EXPLANATION"]);
    for one in &partitions {
        table.row(vec![
            one.partition.topic.to_string(),
            one.partition.partition.to_string(),
            one.reason.map_or("-", |reason| reason.name()).to_owned(),
            one.message.clone(),
        ]);
    }
    output::print(&table.render())
}

fn explanation_json(one: &Explanation) -> Value {
    let mut value = json!({
        "topic": &*one.partition.topic,
        "partition": one.partition.partition.0,
        "reason": one.reason.map(|reason| reason.name()),
        "message": one.message,
        "offset": one.offset.map(|offset| offset.0),
        "session_id": one.session_id,
        "until": one.until_ms.map(time::format),
    });
    put_bytes(&mut value, "key", one.key.as_deref());
    value
}

/// Shows up to `max` records that are not settled.
pub(super) async fn peek(
    admin: &Admin,
    (name, max): (&str, u32),
    form: Output,
) -> Result<(), Stop> {
    let records = admin.peek_subscription(name, max).await?;
    if form == Output::Json {
        let records: Vec<Value> = records.iter().map(record_json).collect();
        return output::print_json(&json!({ "subscription": name, "records": records }));
    }
    if records.is_empty() {
        return output::print("every record is settled\n");
    }
    let heading = [
        "TOPIC",
        "PARTITION",
        "OFFSET",
        "STATE",
        "ATTEMPTS",
        "FAILURES",
        "SESSION",
        "UNTIL",
        "KEY",
        "SIZE",
    ];
    let mut table = Table::new(&heading);
    for one in &records {
        table.row(record_row(one));
    }
    output::print(&table.render())
}

fn record_row(one: &PeekedRecord) -> Vec<String> {
    let key =
        one.record.key.as_ref().map(|key| String::from_utf8_lossy(key).escape_debug().to_string());
    let size = one.record.value.as_ref().map_or(0, |value| value.len());
    vec![
        one.record.partition.topic.to_string(),
        one.record.partition.partition.to_string(),
        one.record.offset.to_string(),
        one.state.name().to_owned(),
        one.attempts.to_string(),
        one.failures.to_string(),
        one.session_id.clone().unwrap_or_else(|| "-".to_owned()),
        one.until_ms.map_or_else(|| "-".to_owned(), time::format),
        key.unwrap_or_else(|| "-".to_owned()),
        units::bytes(size as u64),
    ]
}

fn record_json(one: &PeekedRecord) -> Value {
    let mut value = json!({
        "topic": &*one.record.partition.topic,
        "partition": one.record.partition.partition.0,
        "offset": one.record.offset.0,
        "timestamp_ms": one.record.timestamp_ms,
        "state": one.state.name(),
        "attempts": one.attempts,
        "failures": one.failures,
        "session_id": one.session_id,
        "until": one.until_ms.map(time::format),
    });
    put_bytes(&mut value, "key", one.record.key.as_deref());
    put_bytes(&mut value, "value", one.record.value.as_deref());
    value
}

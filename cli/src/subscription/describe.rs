//! `riverrun subscription describe`: positions, counts, settings and sessions of one subscription.

use riverrun_client::{
    Admin, Explanation, SubscriptionDescription, SubscriptionPartition, SubscriptionSession,
};
use serde_json::{Value, json};

use super::{
    settings::{self, as_ms},
    state, webhook,
};
use crate::{
    failure::Stop,
    output::{self, Output, Table},
    time, units,
};

/// Asks for what is known of a subscription and writes it out.
pub(super) async fn run(admin: &Admin, name: &str, form: Output) -> Result<(), Stop> {
    let described = admin.describe_subscription(name).await?;
    let why = admin.explain_subscription(name).await?;
    match form {
        Output::Json => output::print_json(&to_json(&described, &why)),
        Output::Table => output::print(&to_text(&described, &why)),
    }
}

fn to_text(one: &SubscriptionDescription, why: &[Explanation]) -> String {
    let sum = |of: fn(&SubscriptionPartition) -> u64| -> String {
        units::count(one.partitions.iter().map(of).sum())
    };
    let oldest = one.partitions.iter().map(|p| p.oldest_unsettled).max().unwrap_or_default();
    let mode = one.settings.mode.unwrap_or_default().name().to_owned();
    let columns = [
        ("SUBSCRIPTION", one.subscription.clone(), "TOPICS", one.topics.join(",")),
        ("MODE", mode, "STATE", state(one.is_paused).to_owned()),
        ("SESSIONS", one.sessions.len().to_string(), "DEAD", dead(&one.partitions)),
        ("LAG", sum(|p| p.lag), "OLDEST UNACKED", units::millis(as_ms(oldest))),
    ];
    let mut text = output::two_lines(&columns);
    let heading = [
        "TOPIC",
        "PARTITION",
        "FLOOR",
        "END",
        "LAG",
        "READY",
        "IN-FLIGHT",
        "RETRYING",
        "BLOCKED",
        "SCHEDULED",
        "DEAD",
        "OLDEST-UNACKED",
        "WHY-IDLE",
    ];
    let mut table = Table::new(&heading);
    for partition in &one.partitions {
        table.row(partition_row(partition, why));
    }
    text.push('\n');
    text.push_str(&table.render());
    if !one.sessions.is_empty() {
        text.push('\n');
        text.push_str(&sessions_text(&one.sessions));
    }
    if let Some(standing) = &one.webhook {
        text.push('\n');
        text.push_str(&webhook::standing_text(standing));
    }
    let mut table = Table::new(&["SETTING", "VALUE"]);
    for (key, value) in settings::rows(&one.settings) {
        // The default follows from the name.
        let value = if value.is_empty() { format!("{}.dead", one.subscription) } else { value };
        table.row(vec![key.to_owned(), value]);
    }
    text.push('\n');
    text.push_str(&table.render());
    text
}

/// Dead letters that were written, and those that are still to be.
fn dead(partitions: &[SubscriptionPartition]) -> String {
    let written = units::count(partitions.iter().map(|one| one.dead).sum());
    match partitions.iter().map(|one| one.dead_pending).sum() {
        0 => written,
        pending => format!("{written} + {} pending", units::count(pending)),
    }
}

fn partition_row(partition: &SubscriptionPartition, why: &[Explanation]) -> Vec<String> {
    let why = why.iter().find(|one| one.partition == partition.partition);
    let reason = why.and_then(|one| one.reason).map_or("-", |reason| reason.name());
    vec![
        partition.partition.topic.to_string(),
        partition.partition.partition.to_string(),
        units::count(partition.floor.0),
        units::count(partition.high_watermark.0),
        units::count(partition.lag),
        units::count(partition.ready),
        units::count(partition.in_flight),
        units::count(partition.retrying),
        units::count(partition.blocked),
        units::count(partition.scheduled),
        dead(std::slice::from_ref(partition)),
        units::millis(as_ms(partition.oldest_unsettled)),
        reason.to_owned(),
    ]
}

fn sessions_text(sessions: &[SubscriptionSession]) -> String {
    let heading = [
        "SESSION",
        "CLIENT-ID",
        "HOST",
        "IN-FLIGHT",
        "CREDIT",
        "CREDIT-BYTES",
        "DELIVERED",
        "STATE",
    ];
    let mut table = Table::new(&heading);
    for session in sessions {
        table.row(vec![
            session.session_id.clone(),
            session.client_id.clone(),
            session.host.clone(),
            units::count(session.in_flight),
            units::count(session.credit_records),
            units::bytes(session.credit_bytes),
            units::count(session.delivered),
            session_state(session).to_owned(),
        ]);
    }
    table.render()
}

fn session_state(session: &SubscriptionSession) -> &'static str {
    if session.is_detached {
        "detached"
    } else if session.is_draining {
        "draining"
    } else if session.is_paused {
        "paused"
    } else if session.is_unary {
        "by call"
    } else {
        "open"
    }
}

fn to_json(one: &SubscriptionDescription, why: &[Explanation]) -> Value {
    let partitions: Vec<Value> =
        one.partitions.iter().map(|partition| partition_json(partition, why)).collect();
    let sessions: Vec<Value> = one.sessions.iter().map(session_json).collect();
    json!({
        "subscription": one.subscription,
        "topics": one.topics,
        "settings": settings::to_json(&one.settings),
        "paused": one.is_paused,
        "created": time::format(one.created_ms),
        "lag": one.partitions.iter().map(|partition| partition.lag).sum::<u64>(),
        "partitions": partitions,
        "sessions": sessions,
        "webhook": one.webhook.as_ref().map(webhook::standing_json),
    })
}

fn partition_json(partition: &SubscriptionPartition, why: &[Explanation]) -> Value {
    let why = why.iter().find(|one| one.partition == partition.partition);
    json!({
        "topic": &*partition.partition.topic,
        "partition": partition.partition.partition.0,
        "floor": partition.floor.0,
        "high_watermark": partition.high_watermark.0,
        "lag": partition.lag,
        "ready": partition.ready,
        "in_flight": partition.in_flight,
        "retrying": partition.retrying,
        "blocked": partition.blocked,
        "scheduled": partition.scheduled,
        "dead": partition.dead,
        "dead_pending": partition.dead_pending,
        "oldest_unacked_ms": as_ms(partition.oldest_unsettled),
        "ack_state_bytes": partition.ack_state_bytes,
        "why_idle": why.and_then(|one| one.reason).map(|reason| reason.name()),
    })
}

fn session_json(session: &SubscriptionSession) -> Value {
    json!({
        "session_id": session.session_id,
        "client_id": session.client_id,
        "host": session.host,
        "in_flight": session.in_flight,
        "credit_records": session.credit_records,
        "credit_bytes": session.credit_bytes,
        "delivered": session.delivered,
        "state": session_state(session),
    })
}

//! `riverrun topic` against a broker.

use serde_json::Value;

use crate::support::process::{Broker, Done};

#[track_caller]
fn json(done: Done) -> Value {
    let done = done.ok();
    serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

#[test]
fn a_topic_is_created_listed_described_altered_and_deleted() {
    let broker = Broker::start();
    let created = broker
        .call(&["topic", "create", "orders", "--partitions", "4", "--set", "retention_ms=7d"])
        .ok();
    assert_eq!(
        created.text(),
        "created topic `orders`: 4 partitions, durability fsync, retention_ms 7 d\n"
    );

    let list = json(broker.call(&["topic", "list", "--output", "json"]));
    assert_eq!(list["topics"][0]["topic"], "orders");
    assert_eq!(list["topics"][0]["partitions"].as_array().unwrap().len(), 4);

    broker.call(&["topic", "alter", "orders", "--partitions", "6", "--set", "durability=os"]).ok();
    let described = json(broker.call(&["topic", "describe", "orders", "-o", "json"]));
    assert_eq!(described["config"]["durability"], "os");
    assert_eq!(described["partitions"].as_array().unwrap().len(), 6);
    assert_eq!(described["partitions"][5]["high_watermark"], 0);

    broker.call(&["topic", "alter", "orders", "--unset", "durability"]).ok();
    let described = json(broker.call(&["topic", "describe", "orders", "-o", "json"]));
    assert_eq!(described["config"]["durability"], "fsync");

    let table = broker.call(&["topic", "describe", "orders"]).ok().text();
    assert!(table.contains("PARTITION  LOG-START  HIGH-WATERMARK"), "{table}");

    broker.call(&["topic", "delete", "orders"]).refused(2, &["--yes"]);
    broker.call(&["topic", "delete", "orders", "--yes"]).ok();
    assert_eq!(
        json(broker.call(&["topic", "list", "-o", "json"]))["topics"],
        Value::Array(Vec::new())
    );
}

#[test]
fn what_the_broker_refuses_ends_with_4_and_its_reason() {
    let broker = Broker::start();
    broker.call(&["topic", "create", "orders"]).ok();
    broker.call(&["topic", "create", "orders"]).refused(4, &["orders", "exists"]);
    broker.call(&["topic", "create", "a/b"]).refused(4, &["a/b"]);
    broker.call(&["topic", "create", "..", "--dry-run"]).refused(4, &[".."]);
    broker.call(&["topic", "create", "many", "--partitions", "10001"]).refused(4, &["10001"]);
    broker.call(&["topic", "create", "zero", "--partitions", "0"]).refused(2, &["at least 1"]);
    broker.call(&["topic", "alter", "orders", "--partitions", "0"]).refused(2, &["at least 1"]);
    broker
        .call(&["topic", "create", "tiny", "--set", "segment_bytes=1KiB"])
        .refused(4, &["segment_bytes"]);
    broker.call(&["topic", "describe", "gone"]).refused(4, &["gone", "riverrun topic list"]);
    broker.call(&["topic", "delete", "gone", "--yes"]).refused(4, &["gone"]);
    broker.call(&["group", "describe", "nobody"]).refused(4, &["nobody", "riverrun group list"]);
}

#[test]
fn a_dry_run_shows_what_would_be_and_changes_nothing() {
    let broker = Broker::start();
    let create = ["topic", "create", "orders", "--partitions", "2"];
    let dry = broker.call(&[&create[..], &["--dry-run"]].concat()).ok().text();
    assert_eq!(dry, "would create topic `orders`: 2 partitions, durability fsync\n");
    let list = broker.call(&["topic", "list"]).ok();
    assert!(list.text().contains("no topics yet"), "{}", list.text());

    broker.call(&create).ok();
    let alter = ["topic", "alter", "orders", "--partitions", "4", "--set", "retention_ms=1h"];
    let dry = broker.call(&[&alter[..], &["--dry-run"]].concat()).ok().text();
    let wanted = "topic `orders`: 4 partitions, durability fsync, retention_ms 1 h\n";
    assert_eq!(dry, format!("would change {wanted}"));
    let list = json(broker.call(&["topic", "list", "--output", "json"]));
    assert_eq!(list["topics"][0]["partitions"].as_array().unwrap().len(), 2);
    assert_eq!(broker.call(&alter).ok().text(), format!("changed {wanted}"));
}

#[test]
fn settings_that_contradict_each_other_say_what_to_type() {
    let broker = Broker::start();
    let create = ["topic", "create", "t", "--set", "segment_bytes=1MiB"];
    let told = ["`segment_bytes`", "`1048576`", "`message_bytes_max=1032192`", "found `4194304`"];
    broker.call(&create).refused(4, &told);
    broker.call(&[&create[..], &["--set", "message_bytes_max=1032192"]].concat()).ok();
    broker.call(&["topic", "create", "u", "--set", "segment_bytes=4210688"]).ok();
}

//! Consumer groups by the web door.

use serde_json::{Value, json};

use super::create;
use crate::support::{broker::TestBroker, http::call};

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_told_with_their_lag_moved_and_deleted() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 2).await;
    let records: Vec<_> = (0..10).map(|n| json!({"value": n, "partition": n % 2})).collect();
    let body = Value::from(records).to_string();
    call(web, "POST /v1/topics/t/records", body.as_bytes()).await.ok(200);
    let tried = br#"{"to":"earliest","topics":["t"],"dry_run":true}"#;
    let tried = call(web, "POST /v1/groups/g/reset", tried).await.ok(200);
    assert_eq!(tried["resets"][1]["to_offset"], 0);
    assert_eq!(call(web, "GET /v1/groups", b"").await.ok(200), json!({"groups": []}));
    let moved = br#"{"to":{"offset":3},"topics":["t"]}"#;
    let moved = call(web, "POST /v1/groups/g/reset", moved).await.ok(200);
    let first =
        json!({"topic": "t", "partition": 0, "from_offset": null, "to_offset": 3, "lag": 2});
    assert_eq!(moved["resets"][0], first);
    let shifted = br#"{"to":{"shift_by":-1},"partitions":[{"topic":"t","partition":1}]}"#;
    call(web, "POST /v1/groups/g/reset", shifted).await.ok(200);
    let groups = call(web, "GET /v1/groups", b"").await.ok(200);
    assert_eq!(groups["groups"][0]["lag"], 5);
    let group = call(web, "GET /v1/groups/g", b"").await.ok(200);
    assert_eq!((&group["state"], &group["members"]), (&json!("empty"), &json!([])));
    assert_eq!(group["partitions"][1]["committed_offset"], 2);
    assert_eq!(group["partitions"][1]["lag"], 3);
    assert_eq!(call(web, "DELETE /v1/groups/g", b"").await.head.status, 204);
    call(web, "GET /v1/groups/g", b"").await.refused((404, "UNKNOWN_GROUP"), &["g"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_resets_are_named() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    let invalid = (400, "INVALID_ARGUMENT");
    for (body, part) in [
        ("{}", "missing field `to`"),
        (r#"{"to":"middle"}"#, "middle"),
        (r#"{"to":{"offset":-1}}"#, "-1"),
        (r#"{"to":{"offset":1,"latest":null}}"#, ""),
        (r#"{"to":"latest","topic":"t"}"#, "unknown field `topic`"),
    ] {
        call(web, "POST /v1/groups/g/reset", body.as_bytes()).await.refused(invalid, &[part]);
    }
}

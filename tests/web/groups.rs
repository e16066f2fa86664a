//! Consumer groups over HTTP.

use std::net::SocketAddr;

use riverrun_proto::grpc::v1::{self, group_client::GroupClient};
use serde_json::{Value, json};

use super::create;
use crate::support::{broker::TestBroker, http::call};

/// A broker with topic `t` of one partition that holds three records.
async fn three_records() -> (TestBroker, SocketAddr) {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let body = br#"[{"value":"a"},{"value":"b"},{"value":"c"}]"#;
    call(web, "POST /v1/topics/t/records", body).await.ok(200);
    (broker, web)
}

async fn send(web: SocketAddr, line: &str, body: Value) -> crate::support::http::Reply {
    call(web, line, body.to_string().as_bytes()).await
}

fn offset(offset: u64) -> Value {
    json!({"offsets": [{"topic": "t", "partition": 0, "offset": offset, "metadata": "note"}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_an_outsider_are_stored_shown_moved_and_deleted() {
    let (broker, web) = three_records().await;
    let stored = send(web, "PUT /v1/groups/g/offsets", offset(1)).await.ok(200);
    assert_eq!(stored, json!({"results": [{"topic": "t", "partition": 0, "error": null}]}));
    let read = call(web, "GET /v1/groups/g/offsets", b"").await.ok(200);
    assert_eq!(read["offsets"][0]["offset"], 1);
    assert_eq!(read["offsets"][0]["metadata"], "note");
    let one = call(web, "GET /v1/groups/g/offsets?topic=t&partition=0", b"").await.ok(200);
    assert_eq!(one, read);
    let listed = call(web, "GET /v1/groups", b"").await.ok(200);
    let summary = json!({"group": "g", "state": "empty", "member_count": 0, "lag": 2});
    assert_eq!(listed, json!({ "groups": [summary] }));
    let described = call(web, "GET /v1/groups/g", b"").await.ok(200);
    let partition = &described["partitions"][0];
    assert_eq!((&partition["lag"], &partition["committed_offset"]), (&json!(2), &json!(1)));
    assert!(partition["lag_ms"].is_u64(), "{partition}");

    let told =
        send(web, "POST /v1/groups/g/offsets/reset", json!({"to": "latest", "dry_run": true}));
    let told = told.await.ok(200);
    assert_eq!(told["resets"][0]["to_offset"], 3);
    assert_eq!(
        call(web, "GET /v1/groups/g/offsets", b"").await.ok(200),
        read,
        "a dry run moves nothing"
    );
    for (to, expected) in [
        (json!("latest"), 3),
        (json!("earliest"), 0),
        (json!({"offset": 2}), 2),
        (json!({"timestamp_ms": 0}), 0),
        (json!({"shift_by": 1}), 1),
    ] {
        let moved = send(web, "POST /v1/groups/g/offsets/reset", json!({"to": to})).await.ok(200);
        assert_eq!(moved["resets"][0]["to_offset"], expected, "{to}: {moved}");
    }
    // What HTTP stored is what gRPC reads.
    let mut groups = GroupClient::new(broker.channel().await);
    let request = v1::GetOffsetsRequest { group: "g".into(), ..Default::default() };
    let seen = groups.get_offsets(request).await.unwrap().into_inner();
    assert_eq!(seen.offsets[0].offset, Some(1));

    let removed = call(web, "DELETE /v1/groups/g", b"").await;
    assert_eq!(removed.head.status, 204);
    call(web, "GET /v1/groups/g", b"").await.refused((404, "UNKNOWN_GROUP"), &["g"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_groups_cannot_mean_is_refused_by_name() {
    let (_broker, web) = three_records().await;
    let past = send(web, "PUT /v1/groups/g/offsets", offset(4)).await.ok(200);
    let error = &past["results"][0]["error"];
    assert_eq!(error["code"], "OFFSET_OUT_OF_RANGE");
    assert_eq!(error["range"], json!({"start_offset": 0, "end_offset": 3}));
    let bad = (400, "INVALID_ARGUMENT");
    let reset = "POST /v1/groups/g/offsets/reset";
    for (line, body, parts) in [
        ("PUT /v1/groups/g/offsets", json!({"offset": []}), ["offset", "unknown field"]),
        ("PUT /v1/groups/g/offsets", json!({}), ["offsets", "missing field"]),
        ("PUT /v1/groups/a%20b/offsets", offset(1), ["group", "a b"]),
        (reset, json!({"to": "yesterday"}), ["yesterday", "earliest"]),
        (reset, json!({"to": {"offset": -1}}), ["-1", "u64"]),
        (reset, json!({"dry_run": true}), ["to", "missing field"]),
    ] {
        send(web, line, body).await.refused(bad, &parts);
    }
    call(web, "GET /v1/groups?all=1", b"").await.refused(bad, &["all"]);
    call(web, "GET /v1/groups/g/offsets?topic=t", b"").await.refused(bad, &["partition"]);
    call(web, "GET /v1/groups/g/offsets?partition=x", b"").await.refused(bad, &["partition"]);
    let unknown = (404, "UNKNOWN_GROUP");
    call(web, "DELETE /v1/groups/none", b"").await.refused(unknown, &["none"]);
    call(web, "GET /v1/groups/none/offsets", b"").await.refused(unknown, &["none"]);
    send(web, "POST /v1/groups/none/offsets/reset", json!({"to": "latest"}))
        .await
        .refused(unknown, &["none"]);
}

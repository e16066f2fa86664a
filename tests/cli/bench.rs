//! `riverrun bench`: its figures are true, what it made is gone, and it says so when something is wrong.

use std::{collections::BTreeSet, process::Child};

use riverrun_tests::proxy::{Fault, Proxy};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::process::{Broker, run};

/// Runs a workload that ends well and gives its document.
#[track_caller]
fn measured(broker: &Broker, arguments: &[&str]) -> Value {
    let arguments = [&["bench"], arguments, &["-o", "json"]].concat();
    let done = broker.call(&arguments).ok();
    assert_eq!(done.stderr, "", "nothing is wrong");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// A number of the document.
#[track_caller]
fn number(document: &Value, path: &str) -> f64 {
    let found = document.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number at {path} in {document:#}"))
}

/// What the broker says of the topic that a run kept: records in each partition, and the topic's name.
fn kept(broker: &Broker, document: &Value) -> (Vec<u64>, String) {
    assert_eq!(document["topic"]["deleted"], false);
    let name = document["topic"]["name"].as_str().unwrap().to_owned();
    let text = broker.call(&["topic", "describe", &name, "-o", "json"]).ok().text();
    let topic: Value = serde_json::from_str(&text).unwrap();
    let ends = topic["partitions"].as_array().unwrap().iter();
    (ends.map(|one| one["log_end_offset"].as_u64().unwrap()).collect(), name)
}

/// Nothing that a run made is left.
#[track_caller]
fn nothing_is_left(broker: &Broker) {
    let topics = broker.call(&["topic", "list", "-o", "json"]).ok().text();
    assert!(!topics.contains("riverrun-bench"), "{topics}");
    let subscriptions = broker.call(&["subscription", "list", "-o", "json"]).ok().text();
    assert!(!subscriptions.contains("riverrun-bench"), "{subscriptions}");
}

#[test]
fn what_bench_produce_says_is_stored_is_stored() {
    let broker = Broker::start();
    let arguments = [
        "produce",
        "--records",
        "2500",
        "--producers",
        "2",
        "--partitions",
        "3",
        "--keys",
        "50",
        "--size",
        "100",
        "--warm-up",
        "500",
        "--compression",
        "lz4",
        "--payload",
        "text",
        "--keep",
    ];
    let document = measured(&broker, &arguments);
    let (ends, name) = kept(&broker, &document);
    assert_eq!(ends.iter().sum::<u64>(), 3000);
    assert!(ends.iter().all(|end| *end > 0), "keys spread over partitions: {ends:?}");
    for field in ["sent", "acknowledged", "stored"] {
        assert_eq!(document["records"][field], 3000, "{field}");
    }
    assert_eq!(document["records"]["measured"], 2500);
    assert_eq!(document["bytes"], 2500 * 100);
    assert_eq!(document["acknowledged_at"], "fsync");
    assert_eq!(document["interrupted"], false);
    let rate = number(&document, "/records_per_second") * number(&document, "/seconds");
    assert!((rate - 2500.0).abs() < 25.0, "{rate} records");
    // What stands in the topic are values of that size, and so many keys.
    let read = broker.call(&["consume", &name, "--no-follow", "-f", "%k %S\\n"]).ok().text();
    let lines: BTreeSet<&str> = read.lines().collect();
    assert_eq!((read.lines().count(), lines.len()), (3000, 50));
    assert!(lines.iter().all(|line| line.ends_with(" 100")), "{lines:?}");
}

#[test]
fn at_a_rate_every_record_is_timed_from_when_it_was_due() {
    let broker = Broker::start();
    let arguments = ["produce", "--records", "300", "--rate", "1000", "--durability", "os"];
    let document = measured(&broker, &arguments);
    let times = &document["latency_us"]["acknowledged"];
    assert_eq!(times["count"], 300);
    let order = ["p50", "p90", "p99", "p99_9", "max"].map(|name| times[name].as_f64().unwrap());
    assert!(order[0] > 0.0 && order.is_sorted(), "{order:?}");
    assert_eq!(document["acknowledged_at"], "os");
    // The last of them was due after 299 ms.
    assert!(number(&document, "/seconds") >= 0.299, "{document:#}");
    nothing_is_left(&broker);
}

#[test]
fn both_sides_of_the_work_are_measured() {
    let broker = Broker::start();
    let document = measured(&broker, &["produce", "--records", "20000"]);
    assert!(document["broker"]["pid"].is_u64(), "{document:#}");
    assert!(document["broker"]["not_measured"].is_null());
    for field in ["client_seconds", "broker_seconds", "client_seconds_per_gb"] {
        assert!(document["cpu"][field].as_f64().is_some(), "{field} in {document:#}");
    }
    for field in ["client_peak_bytes", "broker_peak_resident_bytes", "broker_peak_heap_bytes"] {
        assert!(document["memory"][field].as_u64().unwrap() > 0, "{field}");
    }
}

#[test]
fn bench_consume_reads_what_was_stored_and_leaves_a_named_topic_alone() {
    let broker = Broker::start();
    let own = ["consume", "--records", "3000", "--partitions", "2", "--consumers", "2"];
    let document = measured(&broker, &own);
    assert_eq!(
        (&document["records"]["stored"], &document["records"]["read"]),
        (&3000.into(), &3000.into())
    );
    assert_eq!(document["bytes"], 3000 * 1024);
    nothing_is_left(&broker);

    broker.call(&["topic", "create", "t"]).ok();
    broker.run(&["produce", "t"], b"one\ntwo\nthree\n").ok();
    let document = measured(&broker, &["consume", "--topic", "t"]);
    assert_eq!((&document["records"]["read"], &document["bytes"]), (&3.into(), &11.into()));
    assert_eq!(document["topic"]["made_for_this_run"], false);
    assert_eq!(broker.call(&["consume", "t", "--no-follow"]).ok().text(), "one\ntwo\nthree\n");
}

#[test]
fn bench_latency_times_acknowledgement_and_reader_by_pull_and_by_push() {
    let broker = Broker::start();
    for via in ["pull", "push"] {
        let arguments = [
            "latency",
            "--via",
            via,
            "--rate",
            "500",
            "--duration",
            "400ms",
            "--warm-up",
            "100ms",
            "--consumers",
            "2",
            "--durability",
            "os",
        ];
        let document = measured(&broker, &arguments);
        assert_eq!(document["records"]["acknowledged"], 250, "{via}");
        assert_eq!(document["records"]["delivered"], 500, "{via}");
        assert_eq!(document["latency_us"]["acknowledged"]["count"], 200, "{via}");
        assert_eq!(document["latency_us"]["received"]["count"], 400, "{via}");
        assert!(number(&document, "/latency_us/received/p50") > 0.0);
        nothing_is_left(&broker);
    }
}

#[test]
fn bench_latency_counts_only_its_own_records_in_a_named_topic() {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t"]).ok();
    broker.run(&["produce", "t"], b"not of the run\n").ok();
    let arguments =
        ["latency", "--topic", "t", "--duration", "100ms", "--warm-up", "0", "--rate", "100"];
    let document = measured(&broker, &arguments);
    assert_eq!(document["records"]["delivered"], 10);
    let text = broker.call(&["consume", "t", "--no-follow", "-f", "%o\\n"]).ok().text();
    assert_eq!(text.lines().count(), 11);
}

#[test]
fn bench_queue_settles_every_record_at_the_broker() {
    let broker = Broker::start();
    for mode in ["unordered", "key-fifo"] {
        let arguments = [
            "queue",
            "--records",
            "3000",
            "--mode",
            mode,
            "--keys",
            "20",
            "--consumers",
            "3",
            "--in-flight",
            "50",
            "--size",
            "64",
        ];
        let document = measured(&broker, &arguments);
        assert_eq!(document["records"]["acknowledged"], 3000, "{mode}");
        assert_eq!(document["records"]["settled"], 3000, "{mode}");
        nothing_is_left(&broker);
    }
}

#[test]
fn bench_fanout_brings_everything_to_everybody() {
    let broker = Broker::start();
    let document = measured(&broker, &["fanout", "--records", "2000", "--consumers", "4"]);
    assert_eq!(document["records"]["delivered"], 8000);
    assert_eq!(document["bytes"], 8000 * 1024);
    let arguments =
        ["fanout", "--records", "200", "--consumers", "2", "--rate", "1000", "--via", "push"];
    let document = measured(&broker, &arguments);
    assert_eq!(document["latency_us"]["received"]["count"], 400);
    nothing_is_left(&broker);
}

#[test]
fn bench_idle_looks_at_three_states_and_deletes_all_topics() {
    let broker = Broker::start();
    for via in ["pull", "push"] {
        let arguments = [
            "idle",
            "--topics",
            "5",
            "--consumers",
            "20",
            "--connections",
            "3",
            "--via",
            via,
            "--duration",
            "100ms",
            "--settle",
            "1ms",
        ];
        let document = measured(&broker, &arguments);
        let states = document["states"].as_array().unwrap();
        assert_eq!(states.len(), 3, "{via}");
        for state in states {
            assert!(state["resident_bytes"].as_u64().unwrap() > 0, "{state}");
            assert!(state["percent_of_a_core"].as_f64().is_some(), "{state}");
        }
        assert_eq!(document["records"]["topics"], 5);
        assert_eq!(document["records"]["readers_waiting"], 20);
        nothing_is_left(&broker);
    }
}

#[test]
fn bench_restart_kills_its_own_broker_and_finds_every_record() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let arguments = [
        "bench",
        "restart",
        "--data-dir",
        dir.to_str().unwrap(),
        "--records",
        "2000",
        "--rounds",
        "2",
        "--partitions",
        "2",
        "--quiet",
        "-o",
        "json",
    ];
    // No broker is asked for: the one that is named does not exist.
    let done = run(&[&["--server", "127.0.0.1:1"], &arguments[..]].concat(), b"").ok();
    let document: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(document["records"]["acknowledged"], 2000);
    let rounds = document["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        assert_eq!(round["records"], 2000);
        let (ready, first) = (&round["ready_ms"], &round["first_record_ms"]);
        assert!(first.as_f64().unwrap() >= ready.as_f64().unwrap(), "{round}");
    }
    assert!(!dir.exists(), "the directory was made for the run");
}

#[test]
fn bench_restart_leaves_a_directory_that_was_there_as_it_was() {
    let mut broker = Broker::start();
    broker.call(&["topic", "create", "t"]).ok();
    broker.run(&["produce", "t"], b"mine\n").ok();
    let dir = broker.data_dir();
    let dir = dir.to_str().unwrap();
    let arguments = [
        "bench",
        "restart",
        "--data-dir",
        dir,
        "--records",
        "500",
        "--rounds",
        "1",
        "--stop",
        "term",
    ];
    run(&arguments, b"").refused(1, &["did not start", dir, "in use"]);
    broker.stop();
    run(&arguments, b"").ok();
    broker.restart();
    nothing_is_left(&broker);
    assert_eq!(broker.call(&["consume", "t", "--no-follow"]).ok().text(), "mine\n");
}

/// Asks a running workload to end once its topic has records, and gives its document.
#[track_caller]
fn ended_early(broker: &Broker, child: Child) -> Value {
    let pid = Pid::from_child(&child);
    let has_records = || {
        let text = broker.call(&["topic", "list", "-o", "json"]).ok().text();
        let topics: Value = serde_json::from_str(&text).unwrap();
        let Some(name) = topics["topics"][0]["topic"].as_str().map(str::to_owned) else {
            return false;
        };
        let described = broker.call(&["topic", "describe", &name, "-o", "json"]).text();
        let described: Value = serde_json::from_str(&described).unwrap_or_default();
        described["partitions"][0]["log_end_offset"].as_u64() > Some(0)
    };
    while !has_records() {}
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn ctrl_c_shows_what_was_measured_and_deletes_the_topic() {
    let broker = Broker::start();
    for workload in ["produce", "latency", "fanout"] {
        let rate = if workload == "produce" { "10000" } else { "1000" };
        let arguments =
            ["bench", workload, "--duration", "1h", "--rate", rate, "--size", "32", "-o", "json"];
        let document = ended_early(&broker, broker.spawn(&arguments));
        assert_eq!(document["interrupted"], true, "{workload}");
        let sent = number(&document, "/records/acknowledged");
        assert!(sent > 0.0, "{workload}");
        assert_eq!(number(&document, "/records/stored"), sent, "{workload}");
        nothing_is_left(&broker);
    }
}

#[test]
fn wrong_wishes_are_refused_with_what_would_be_right() {
    let broker = Broker::start();
    broker.call(&["topic", "create", "compacted", "--set", "cleanup_policy=compact"]).ok();
    broker.call(&["topic", "create", "plain"]).ok();
    let compacted = ["queue", "--set", "cleanup_policy=compact", "--keys", "5", "--records", "9"];
    let cases: [(&[&str], i32, &[&str]); 10] = [
        (&compacted, 2, &["compacted", "cleanup_policy=delete"]),
        (&["produce", "--topic", "nope"], 4, &["`nope`", "does not exist", "topic list"]),
        (&["produce", "--set", "colour=red"], 2, &["`colour`", "there are durability"]),
        (&["produce", "--broker-pid", "4194305"], 2, &["--broker-pid", "4194305"]),
        (&["consume", "--consumers", "2"], 2, &["--consumers 2", "partitions", "1"]),
        (&["consume", "--topic", "compacted"], 2, &["compacted", "cleanup_policy=delete"]),
        (&["queue", "--topic", "plain", "--records", "5"], 2, &["`--records`", "--topic"]),
        (&["latency", "--acks", "none"], 2, &["--acks none", "all"]),
        (&["queue", "--acks", "none"], 2, &["--acks none"]),
        (&["produce", "--size", "5MiB"], 4, &["record 0", "4194304"]),
    ];
    for (arguments, code, parts) in cases {
        broker.call(&[&["bench"], arguments].concat()).refused(code, parts);
    }
    // The rest of a usage error is the parser's, on several lines.
    for (arguments, part) in [
        (["produce", "--size", "15"], "16 B and 64 MiB"),
        (["produce", "--records", "0"], "--records"),
        (["latency", "--rate", "0"], "--rate"),
        (["latency", "--duration", "0"], "more than 0"),
        (["idle", "--max-wait", "61s"], "at most 60s"),
    ] {
        let done = broker.call(&[&["bench"], &arguments[..]].concat());
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.stderr.contains(part), "{}", done.stderr);
    }
    run(&["--server", "127.0.0.1:1", "bench", "produce"], b"").refused(3, &["127.0.0.1:1"]);
    nothing_is_left(&broker);
}

#[test]
fn a_broker_that_cannot_be_seen_is_said_not_to_be_measured() {
    // Somebody else listens: this test's own process passes on to the broker.
    let broker = Broker::start();
    let proxy = Proxy::start(broker.address.parse().unwrap(), 1).unwrap();
    let address = proxy.address().to_string();
    let done =
        run(&["--server", &address, "bench", "produce", "--records", "100", "-o", "json"], b"")
            .ok();
    let document: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(document["records"]["stored"], 100);
    assert!(document["cpu"]["broker_seconds"].is_null(), "{document:#}");
    assert!(document["broker"]["not_measured"].as_str().unwrap().contains("listens there"));
    let done = run(&["--server", &address, "bench", "produce", "--records", "100"], b"").ok();
    assert!(done.text().contains("BROKER      not measured: "), "{}", done.text());
}

#[test]
fn a_sender_that_is_held_up_is_charged_for_what_was_due_meanwhile() {
    let broker = Broker::start();
    let proxy = Proxy::start(broker.address.parse().unwrap(), 1).unwrap();
    // 60 KiB at 20,000 bytes a second take three seconds, and are due within 60 ms. No more than four records are
    // ever on their way, so that counted from its sending each would look fast.
    proxy.set(Fault::Limit(20_000), 100);
    let arguments = [
        "--server",
        &proxy.address().to_string(),
        "bench",
        "produce",
        "--records",
        "60",
        "--rate",
        "1000",
        "--in-flight-bytes",
        "5000",
        "-o",
        "json",
    ];
    let done = run(&arguments, b"").ok();
    let document: Value = serde_json::from_slice(&done.stdout).unwrap();
    let times = &document["latency_us"]["acknowledged"];
    assert_eq!(times["count"], 60);
    assert!(times["p50"].as_f64().unwrap() > 1e6, "half of them waited for a second: {times}");
}

#[test]
fn without_acknowledgements_it_is_told_what_is_in_the_log() {
    let broker = Broker::start();
    let document = measured(&broker, &["produce", "--records", "500", "--acks", "none"]);
    assert!(document["records"]["acknowledged"].is_null(), "{document:#}");
    assert_eq!(document["records"]["stored"], 500);
    assert_eq!(document["acknowledged_at"], "accepted");
}

//! `riverrun log` on the files a broker left.

use std::path::PathBuf;

use crate::support::{
    damage::{first_segment, flip_first_record, partition_dir},
    process::{Broker, run, write_file},
};

/// A stopped broker whose topic `t` holds `count` records, and the segment file that holds them.
fn stopped_broker(count: u32) -> (Broker, PathBuf) {
    let mut broker = Broker::start();
    broker.call(&["topic", "create", "t"]).ok();
    let input: String = (0..count).map(|n| format!("record {n}\n")).collect();
    broker.run(&["produce", "t"], input.as_bytes()).ok();
    let id = broker.topic_id("t");
    broker.stop();
    let segment = first_segment(&partition_dir(&broker.data_dir(), &id, 0));
    (broker, segment)
}

#[test]
fn a_sound_directory_is_verified_and_dumped() {
    let (broker, segment) = stopped_broker(3);
    let dir = broker.data_dir();
    let dir = dir.to_str().unwrap();
    let verified = run(&["log", "verify", dir], b"").ok().text();
    assert!(verified.contains("sound") && !verified.contains("DAMAGED"), "{verified}");
    let entries = run(&["log", "dump", dir], b"").ok().text();
    assert!(entries.contains("  records  0.."), "{entries}");
    let records = run(&["log", "dump", dir, "--format", "%v\\n"], b"").ok().text();
    assert!(records.contains("record 0\nrecord 1\nrecord 2\n"), "{records}");
    let partition = segment.parent().unwrap().to_str().unwrap();
    let entries = run(&["log", "dump", partition, "-o", "json", "--max", "1"], b"").ok().stdout;
    let entry: serde_json::Value = serde_json::from_slice(&entries).unwrap();
    assert_eq!((&entry["position"], &entry["base_offset"]), (&4096.into(), &0.into()), "{entry}");
}

#[test]
fn a_flipped_bit_is_named_with_file_and_offsets() {
    let (mut broker, segment) = stopped_broker(1_000);
    flip_first_record(&segment);
    let dir = broker.data_dir();
    let done = run(&["log", "verify", dir.to_str().unwrap()], b"").refused(5, &["1 of", "damaged"]);
    let text = done.text();
    for part in ["DAMAGED", "00000000000000000000.log", "offsets `0.."] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    broker.restart();
    broker.call(&["topic", "create", "other"]).ok();
    broker.run(&["produce", "other"], b"still served\n").ok();
}

#[test]
fn a_directory_in_use_is_said_to_be_and_nothing_in_it_is_called_left_over() {
    let broker = Broker::start();
    let small = ["--set", "segment_bytes=1MiB", "--set", "message_bytes_max=256KiB"];
    broker.call(&[&["topic", "create", "t"][..], &small].concat()).ok();
    let much = format!("{}\n", "x".repeat(1000)).repeat(3000);
    broker.run(&["produce", "t"], much.as_bytes()).ok();
    let partition = partition_dir(&broker.data_dir(), &broker.topic_id("t"), 0);
    // As the broker makes its next segment under another name of the kind, whether or not it is at it now.
    write_file(&partition, "probe.tmp", b"");
    for dir in [broker.data_dir(), partition.clone()] {
        let verified = run(&["log", "verify", dir.to_str().unwrap()], b"").ok().text();
        assert!(verified.contains("in use by process "), "{verified}");
        assert!(!verified.contains("interrupted") && !verified.contains("torn"), "{verified}");
    }
    broker.run(&["produce", "t"], b"not disturbed\n").ok();
    drop(broker);
}

#[test]
fn what_a_dead_broker_left_is_said_to_be_left_over() {
    let (broker, segment) = stopped_broker(1);
    let dir = segment.parent().unwrap();
    write_file(dir, "prepared.tmp", b"");
    let verified = run(&["log", "verify", dir.to_str().unwrap()], b"").ok().text();
    assert!(verified.contains("left by an interrupted step"), "{verified}");
    assert!(!verified.contains("in use"), "{verified}");
    drop(broker);
}

#[test]
fn a_directory_without_logs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    run(&["log", "verify", path], b"").refused(1, &[path, "no logs"]);
    let missing = format!("{path}/missing");
    run(&["log", "dump", &missing], b"").refused(1, &[&missing, "No such file"]);
}

//! `riverrun log` on the files a broker left.

use std::path::PathBuf;

use crate::support::{
    damage::{first_segment, flip_first_record, partition_dir},
    process::{Broker, run},
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
    let (broker, _) = stopped_broker(3);
    let dir = broker.data_dir();
    let dir = dir.to_str().unwrap();
    let verified = run(&["log", "verify", dir], b"").ok().text();
    assert!(verified.contains("sound") && !verified.contains("DAMAGED"), "{verified}");
    let entries = run(&["log", "dump", dir], b"").ok().text();
    assert!(entries.contains("  records  0.."), "{entries}");
    let records = run(&["log", "dump", dir, "--format", "%v\\n"], b"").ok().text();
    assert!(records.contains("record 0\nrecord 1\nrecord 2\n"), "{records}");
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
fn a_directory_without_logs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    run(&["log", "verify", path], b"").refused(1, &[path, "no logs"]);
    let missing = format!("{path}/missing");
    run(&["log", "dump", &missing], b"").refused(1, &[&missing, "No such file"]);
}

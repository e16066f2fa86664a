//! `riverrun log repair`: from a partition that refuses writes to one that takes them again.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use crate::support::{
    damage::{flip_bit, flip_first_record, partition_dir},
    process::{Broker, run},
};

/// Records of a topic with several segments.
const COUNT: usize = 3000;

/// A stopped broker with a topic `t` of several segments, the topic's directory, and what was produced.
fn stopped_broker() -> (Broker, PathBuf, Vec<String>) {
    let mut broker = Broker::start();
    let small = ["--set", "segment_bytes=1MiB", "--set", "message_bytes_max=256KiB"];
    broker.call(&[&["topic", "create", "t"][..], &small].concat()).ok();
    let lines: Vec<String> = (0..COUNT).map(|n| format!("{n:04} {}", "x".repeat(1000))).collect();
    broker.run(&["produce", "t"], format!("{}\n", lines.join("\n")).as_bytes()).ok();
    let dir = partition_dir(&broker.data_dir(), &broker.topic_id("t"), 0);
    broker.stop();
    (broker, dir, lines)
}

/// Names and bytes of all files below `dir`.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// Everything that a reader gets who begins with offset `from`.
fn consumed(broker: &Broker, from: usize) -> Vec<String> {
    let from = format!("offset:{from}");
    let args = ["consume", "t", "--from", &from, "--no-follow", "--format", "%o %v\\n"];
    broker.run(&args, b"").ok().text().lines().map(str::to_owned).collect()
}

#[test]
fn a_damaged_partition_takes_records_again_once_the_loss_is_accepted() {
    let (mut broker, dir, lines) = stopped_broker();
    let segment = dir.join("00000000000000000000.log");
    // The header block stops the writes; the record is what is lost.
    flip_bit(&segment, 41);
    flip_first_record(&segment);
    let damaged = fs::read(&segment).unwrap();
    broker.restart();
    let mut child = broker.spawn(&["produce", "t"]);
    child.stdin.take().unwrap().write_all(b"refused\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("refused for now") && line.contains("damaged"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
    let last = format!("{} {}", COUNT - 1, lines[COUNT - 1]);
    assert_eq!(consumed(&broker, COUNT - 1), [last], "records behind the damage are served");
    let data_dir = broker.data_dir();
    let path = data_dir.to_str().unwrap();
    run(&["log", "repair", path, "--accept-loss"], b"").refused(1, &["in use by process"]);
    run(&["log", "repair", path], b"").refused(1, &["in use by process"]);
    broker.stop();

    let before = files(&data_dir);
    let dry =
        run(&["log", "repair", path], b"").refused(5, &["nothing was changed", "--accept-loss"]);
    let dry = dry.text();
    assert!(dry.contains("damaged") && dry.contains("lost offsets `0.."), "{dry}");
    assert!(files(&data_dir) == before, "nothing is changed without the flag");
    let json = run(&["log", "repair", dir.to_str().unwrap(), "--output", "json"], b"");
    let json: serde_json::Value = serde_json::from_str(&json.refused(5, &[]).text()).unwrap();
    let log = &json["damaged_logs"][0];
    let lost = usize::try_from(log["lost_count"].as_u64().unwrap()).unwrap();
    assert_eq!(log["lost"][0]["start_offset"], 0);
    assert_eq!(log["lost"][0]["end_offset"], lost);
    assert!(lost > 0 && lost < COUNT / 2, "{lost}");

    let done = run(&["log", "repair", path, "--accept-loss"], b"").ok().text();
    assert!(done.contains("repaired") && done.contains("in quarantine"), "{done}");
    let relative = dir.strip_prefix(data_dir.join("logs")).unwrap();
    let kept = data_dir.join("quarantine").join(relative).join("00000000000000000000.log");
    assert!(fs::read(kept).unwrap() == damaged, "what was damaged is kept as it was");
    let verified = run(&["log", "verify", path], b"").ok().text();
    assert!(verified.contains("were lost and given up"), "{verified}");
    let again = run(&["log", "repair", path, "--accept-loss"], b"").ok().text();
    assert_eq!(again, "nothing is damaged\n");

    broker.restart();
    broker.run(&["produce", "t"], b"accepted\n").ok();
    let mut expected: Vec<String> =
        (lost..COUNT).map(|offset| format!("{offset} {}", lines[offset])).collect();
    expected.push(format!("{COUNT} accepted"));
    assert_eq!(consumed(&broker, 0), expected);
    // A group whose stored offset lies in the hole goes on behind it.
    broker.call(&["group", "reset", "g", "--topic", "t", "--to-offset", "1", "--yes"]).ok();
    let args = ["consume", "t", "--group", "g", "--max", "1", "--format", "%o\\n"];
    assert_eq!(broker.run(&args, b"").ok().text(), format!("{lost}\n"));
}

#[test]
fn the_logs_of_the_broker_itself_are_refused_by_name() {
    let (broker, dir, _) = stopped_broker();
    let own = broker.data_dir().join("logs/00000000-0000-0000-0000-000000000001/0");
    flip_first_record(&own.join("00000000000000000000.log"));
    flip_first_record(&dir.join("00000000000000000000.log"));
    let before = files(&broker.data_dir());
    for path in [broker.data_dir(), own] {
        let args = ["log", "repair", path.to_str().unwrap(), "--accept-loss"];
        run(&args, b"").refused(5, &["topics and their settings", "nothing was changed"]);
        let unlocked = |files: Vec<(PathBuf, Vec<u8>)>| {
            files.into_iter().filter(|(path, _)| !path.ends_with("LOCK")).collect::<Vec<_>>()
        };
        assert!(unlocked(files(&broker.data_dir())) == unlocked(before.clone()));
    }
    // The partition alone can be repaired.
    run(&["log", "repair", dir.to_str().unwrap(), "--accept-loss"], b"").ok();
    run(&["log", "verify", dir.to_str().unwrap()], b"").ok();
}

#[test]
fn a_log_that_cannot_be_looked_at_hides_nothing_of_the_others() {
    let (mut broker, dir, _) = stopped_broker();
    broker.restart();
    for topic in ["a", "z"] {
        broker.call(&["topic", "create", topic]).ok();
        broker.run(&["produce", topic], b"one\n").ok();
    }
    let [a, z] =
        ["a", "z"].map(|topic| partition_dir(&broker.data_dir(), &broker.topic_id(topic), 0));
    broker.stop();
    let segment = |dir: &Path| dir.join("00000000000000000000.log");
    flip_first_record(&segment(&dir));
    // A file of another partition, and a log of which a note of its producers is left.
    fs::copy(segment(&dir), segment(&a)).unwrap();
    for (path, _) in files(&z) {
        fs::remove_file(path).unwrap();
    }
    fs::write(z.join("00000000000000000001.producers"), b"").unwrap();
    let path = broker.data_dir().to_str().unwrap().to_owned();
    let told = run(&["log", "repair", &path], b"");
    let told = told.refused(5, &["1 log is damaged", "1 log is gone", "belongs to partition"]);
    let text = told.text();
    assert!(text.contains("lost offsets `0.."), "{text}");
    let name = |dir: &Path| dir.strip_prefix(&path).unwrap().display().to_string();
    assert!(text.contains(&format!("{}: gone", name(&z))), "{text}");
    assert!(text.contains(&format!("{}: not repaired", name(&a))), "{text}");

    let done = run(&["log", "repair", &path, "--accept-loss"], b"");
    let done = done.refused(5, &["1 log is gone", "belongs to partition"]).text();
    assert!(done.contains(&format!("{}: repaired", name(&dir))), "{done}");
    run(&["log", "verify", dir.to_str().unwrap()], b"").ok();
    let json = run(&["log", "repair", &path, "--output", "json"], b"").refused(5, &[]).text();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["missing_logs"][0], name(&z));
    assert_eq!(json["failed_logs"][0]["log"], name(&a));
    assert_eq!(json["damaged_logs"].as_array().unwrap().len(), 0);
    // An empty directory may be one that was never filled.
    fs::remove_file(z.join("00000000000000000001.producers")).unwrap();
    fs::remove_dir_all(&a).unwrap();
    let told = run(&["log", "repair", &path], b"").ok().text();
    assert!(told.starts_with("nothing is damaged\n"), "{told}");
    assert!(told.contains(&format!("{}: holds nothing", name(&z))), "{told}");
}

#[test]
fn what_is_no_data_directory_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().to_str().unwrap();
    for flags in [&[][..], &["--accept-loss"]] {
        let args = [&["log", "repair", path][..], flags].concat();
        run(&args, b"").refused(1, &["name a data directory"]);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}

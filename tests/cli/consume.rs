//! `riverrun consume` and `riverrun watch` against a broker.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::ioctl_fionread,
    process::{Pid, Signal, kill_process},
};

use crate::support::{
    damage::{cut_in_half, cut_to, first_segment, flip_first_record, partition_dir},
    process::{Broker, run},
};

/// A broker with the topic `t` and `count` records `0`, `1`, … in its one partition.
fn broker_with_records(count: u32) -> Broker {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t"]).ok();
    let input: String = (0..count).map(|n| format!("{n}\n")).collect();
    broker.run(&["produce", "t"], input.as_bytes()).ok();
    broker
}

fn text(broker: &Broker, arguments: &[&str]) -> String {
    broker.call(&[&["consume", "t", "--no-follow"], arguments].concat()).ok().text()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn reading_begins_where_it_is_told_to() {
    let broker = broker_with_records(10);
    assert_eq!(text(&broker, &["--max", "3"]), "0\n1\n2\n");
    assert_eq!(text(&broker, &["--from", "offset:7"]), "7\n8\n9\n");
    assert_eq!(text(&broker, &["--from", "latest"]), "");
    assert_eq!(text(&broker, &["--from", "time:-1h", "--max", "2"]), "0\n1\n");
    assert_eq!(text(&broker, &["--from", "time:2100-01-01"]), "");
}

#[test]
fn an_offset_out_of_range_names_the_range() {
    let broker = broker_with_records(10);
    let trim = ["topic", "trim", "t", "--partition", "0", "--before", "3", "--yes"];
    broker.call(&trim).ok();
    for offset in ["11", "2"] {
        let (from, told) = (format!("offset:{offset}"), format!("t-0: offset {offset} is outside"));
        let command = ["consume", "t", "--from", &from];
        for command in [&command[..], &[&command[..], &["--no-follow"]].concat()] {
            broker.call(command).refused(4, &[&told, "`[3, 10]`"]);
        }
    }
    broker.call(&["consume", "gone", "--no-follow"]).refused(4, &["gone"]);
}

#[test]
fn records_are_written_as_the_format_or_json_says() {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t"]).ok();
    broker.run(&["produce", "t", "-k", ":"], b"k:v\n\xff\n").ok();
    assert_eq!(
        text(&broker, &["--format", "%t %p %o [%k] %K %S%%\\n"]),
        "t 0 0 [k] 1 1%\nt 0 1 [] -1 1%\n"
    );
    let json = text(&broker, &["--output", "json"]);
    let rows: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&rows[0]["key"], &rows[0]["value"], &rows[0]["offset"]),
        (&"k".into(), &"v".into(), &0.into())
    );
    assert_eq!(rows[1]["value_hex"], "ff");
    assert!(rows[0]["timestamp_ms"].as_i64().unwrap() > 1_700_000_000_000);
}

#[test]
fn following_shows_what_is_written_later() {
    let broker = broker_with_records(1);
    let mut child = broker.spawn(&["consume", "t"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "0");
    broker.run(&["produce", "t"], b"later\n").ok();
    assert_eq!(lines.next().unwrap().unwrap(), "later");
    end(child);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let broker = broker_with_records(200_000);
    let mut child = broker.spawn(&["consume", "t", "--no-follow"]);
    let mut first = [0; 2];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(stderr, "");
}

#[test]
fn whoever_interrupts_twice_does_not_wait_for_a_reader_that_does_not_read() {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t"]).ok();
    let line = "x".repeat(1_000) + "\n";
    broker.run(&["produce", "t"], line.repeat(5_000).as_bytes()).ok();
    for command in [&["consume", "t"][..], &["subscribe", "t", "--subscription", "s"]] {
        let mut child = broker.spawn(command);
        let deadline = Instant::now() + Duration::from_secs(30);
        // Nothing is read, so it stands in a write once the pipe takes no more.
        let pipe = child.stdout.as_ref().unwrap();
        let (mut before, mut stands) = (0, 0);
        while stands < 30 {
            assert!(Instant::now() < deadline, "{command:?} writes too little");
            thread::sleep(Duration::from_millis(10));
            let written = ioctl_fionread(pipe).unwrap();
            stands = if written == before && written > 0 { stands + 1 } else { 0 };
            before = written;
        }
        let status = loop {
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            thread::sleep(Duration::from_millis(100));
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{command:?} waits for its reader");
        };
        // 0 where it came between two writes.
        assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    }
}

#[test]
fn a_watch_tells_of_the_state_and_of_every_move() {
    let broker = broker_with_records(3);
    let mut child = broker.spawn(&["watch", "t", "--output", "json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["high_watermark"], 3);
    broker.run(&["produce", "t"], b"more\n").ok();
    assert_eq!(next()["high_watermark"], 4);
    end(child);
}

/// A broker whose topic `t` has several segments of records in partition 1, and `count` records in partition
/// 0. The directory of partition 1.
fn broker_with_segments(count: usize) -> (Broker, PathBuf) {
    let broker = Broker::start();
    let small = ["--set", "segment_bytes=1MiB", "--set", "message_bytes_max=256KiB"];
    broker.call(&[&["topic", "create", "t", "--partitions", "2"][..], &small].concat()).ok();
    broker.run(&["produce", "t", "--partition", "0"], "whole\n".repeat(count).as_bytes()).ok();
    let much = format!("{}\n", "x".repeat(1000)).repeat(3000);
    broker.run(&["produce", "t", "--partition", "1"], much.as_bytes()).ok();
    let dir = partition_dir(&broker.data_dir(), &broker.topic_id("t"), 1);
    assert!(dir.read_dir().unwrap().count() > 4, "it has sealed segments");
    (broker, dir)
}

/// The same with a damaged record in a sealed segment of partition 1.
fn broker_with_damage(count: usize) -> Broker {
    let (mut broker, dir) = broker_with_segments(count);
    broker.stop();
    flip_first_record(&first_segment(&dir));
    broker.restart();
    broker
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_named_with_position_and_offsets_without_a_broker() {
    let mut broker = broker_with_damage(1);
    broker.stop();
    let dir = broker.data_dir();
    let dir = dir.to_str().unwrap();
    let done = run(&["log", "verify", dir, "-o", "json"], b"").refused(5, &["1 of", "damaged"]);
    let verified: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let logs = verified["logs"].as_array().unwrap();
    let damaged: Vec<_> = logs.iter().filter(|log| log["sound"] == false).collect();
    let [log] = &damaged[..] else { panic!("{verified}") };
    assert_eq!(log["segments"][0]["sealed"], true, "{log}");
    let finding = &log["findings"][0];
    let path = finding["path"].as_str().unwrap();
    assert_eq!(finding["kind"], "damage", "{log}");
    assert!(path.ends_with("/1/00000000000000000000.log"), "{path}");
    // Behind the header block.
    assert_eq!((&finding["position"], &finding["start_offset"]), (&4096.into(), &0.into()));
    let end = finding["end_offset"].as_u64().unwrap();
    assert!((1..1_000).contains(&end), "what is not readable is one batch: {log}");
    let text = run(&["log", "verify", dir], b"").text();
    assert!(text.contains("4096") && text.contains(&format!("`0..{end}`")), "{text}");
}

#[test]
fn damage_in_one_partition_does_not_end_the_reading_of_others() {
    let broker = broker_with_damage(500);
    let told = ["t-1: offsets `0..", "are damaged", "00000000000000000000.log", "going on"];
    for group in [&[][..], &["--group", "g"]] {
        let done = broker.call(&[&["consume", "t", "--no-follow"], group].concat());
        assert_eq!(done.code, Some(5), "{done:?}");
        assert_eq!(done.text(), "whole\n".repeat(500));
        let lines: Vec<&str> = done.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "told once, then summed up: {lines:?}");
        assert!(told.iter().all(|part| lines[0].contains(part)), "{lines:?}");
        assert!(lines[1].contains("not read to the end: `t-1`"), "{lines:?}");
    }
    let alone = ["consume", "t", "--partition", "1"];
    broker.call(&alone).refused(5, &["t-1: offsets `0..", "are damaged", "--from offset:"]);

    let text = broker.call(&["topic", "describe", "t"]).text();
    let (table, places) = text.split_once("DAMAGED-FROM").unwrap_or_else(|| panic!("{text}"));
    assert!(table.contains(" ok\n") && table.contains(" DAMAGED\n"), "{text}");
    assert!(
        places.contains("00000000000000000000.log") && places.contains("riverrun log"),
        "{text}"
    );
    let json = broker.call(&["topic", "describe", "t", "--output", "json"]).text();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let of = |partition: usize| json["partitions"][partition]["damaged_places"].clone();
    assert_eq!((of(0), of(1)), (0.into(), 1.into()), "{json}");
    assert_eq!(json["partitions"][1]["damaged"][0]["start_offset"], 0, "{json}");
}

#[test]
fn a_subscription_that_comes_to_damage_gives_the_rest_and_ends_with_the_reason() {
    let broker = broker_with_damage(500);
    let done = broker.call(&["subscribe", "t", "--subscription", "s", "--no-follow"]);
    assert_eq!(done.code, Some(5), "{done:?}");
    assert_eq!(done.text(), "whole\n".repeat(500));
    for part in ["subscription `s` cannot go on: t-1: ", "damaged", "00000000000000000000.log"] {
        assert!(done.stderr.contains(part), "{done:?}");
    }
    let exec = ["subscribe", "t", "--subscription", "s", "--no-follow", "--exec", "cat"];
    broker.call(&exec).refused(5, &["subscription `s` cannot go on: t-1: "]);
}

/// The damaged offsets that a line tells of.
fn damaged(line: &str) -> (usize, usize) {
    let (_, range) = line.split_once("offsets `").unwrap_or_else(|| panic!("{line}"));
    let (range, _) = range.split_once('`').unwrap();
    let (start, end) = range.split_once("..").unwrap();
    (start.parse().unwrap(), end.parse().unwrap())
}

#[test]
fn a_sealed_segment_cut_under_the_broker_is_read_to_the_cut_and_named() {
    let (broker, dir) = broker_with_segments(500);
    let started = Instant::now();
    // A batch has at most a quarter of a segment, so there are some before the middle and some behind.
    let len = cut_in_half(&first_segment(&dir));
    let cut = format!("it has `{len}` bytes instead of `");
    for group in [&[][..], &["--group", "g"]] {
        let done = broker.call(&[&["consume", "t", "--no-follow"], group].concat());
        assert_eq!(done.code, Some(5), "{}", done.stderr);
        let lines: Vec<&str> = done.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        for part in ["t-1: offsets `", "00000000000000000000.log", &cut, "going on"] {
            assert!(lines[0].contains(part), "`{part}` is missing in {lines:?}");
        }
        let (start, end) = damaged(lines[0]);
        assert!(0 < start && start < end, "{start}..{end}");
        let written = done.text();
        assert_eq!(written.matches("whole").count(), 500);
        assert_eq!(written.lines().count() - 500, start, "every record before the cut");
        let behind = format!("--from offset:{end}");
        let advice = if group.is_empty() { behind } else { format!("--to-offset {end}") };
        assert!(lines[1].contains(&advice), "{lines:?}");
        let from = format!("offset:{end}");
        let rest = ["consume", "t", "--partition", "1", "--no-follow", "--from", &from];
        assert_eq!(broker.call(&rest).ok().text().lines().count(), 3000 - end);
    }
    let told = broker.stderr().matches("damaged records").count();
    let minutes = usize::try_from(started.elapsed().as_secs() / 60).unwrap();
    assert!((1..=1 + minutes).contains(&told), "{told} lines in {minutes} minutes");
}

#[test]
fn an_active_segment_cut_under_the_broker_is_read_to_the_cut_and_named() {
    let mut broker = Broker::start();
    broker.call(&["topic", "create", "t", "--set", "message_bytes_max=256KiB"]).ok();
    let much = format!("{}\n", "x".repeat(1000)).repeat(3000);
    broker.run(&["produce", "t"], much.as_bytes()).ok();
    let segment = first_segment(&partition_dir(&broker.data_dir(), &broker.topic_id("t"), 0));
    cut_to(&segment, 1_000_000);
    let mut starts = Vec::new();
    for _ in 0..2 {
        let done = broker.call(&["consume", "t", "--no-follow"]);
        assert_eq!(done.code, Some(5), "{}", done.stderr);
        assert!(done.stderr.contains("it has `1000000` bytes instead of `"), "{}", done.stderr);
        let (start, end) = damaged(&done.stderr);
        assert_eq!(end, 3000);
        assert_eq!(done.text().lines().count(), start, "every record before the cut");
        starts.push(start);
        // After a start the same is told.
        broker.kill();
        broker.restart();
    }
    assert!(starts[0] > 0 && starts[0] == starts[1], "{starts:?}");
}

#[test]
fn every_partition_that_is_not_kept_is_told_of_with_its_reason_and_a_member_with_the_way_on() {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t", "--partitions", "2"]).ok();
    for partition in ["0", "1"] {
        broker.run(&["produce", "t", "--partition", partition], b"a\nb\nc\n").ok();
    }
    broker.call(&["group", "reset", "g", "--topic", "t", "--to-offset", "1", "--yes"]).ok();
    for partition in ["0", "1"] {
        let trim = ["topic", "trim", "t", "--partition", partition, "--before", "3", "--yes"];
        broker.call(&trim).ok();
    }
    let done = broker.call(&["consume", "t", "--from", "offset:1", "--no-follow"]);
    assert_eq!(done.code, Some(4), "{done:?}");
    for part in ["t-0: offset 1 is", "t-1: offset 1 is", "not read to the end: `t-0`, `t-1`"] {
        assert!(done.stderr.contains(part), "`{part}` is missing in {}", done.stderr);
    }

    let mut member = broker.spawn(&["consume", "t", "--group", "g"]);
    let mut told = BufReader::new(member.stderr.take().unwrap()).lines().map(Result::unwrap);
    let way = "riverrun group reset g --topic t:0 --to-earliest";
    assert!(told.any(|line| line.contains(way)), "no `{way}`");
    broker.call(&[&way.split(' ').skip(1).collect::<Vec<_>>()[..], &["--yes"]].concat()).ok();
    broker.run(&["produce", "t", "--partition", "0"], b"later\n").ok();
    let mut lines = BufReader::new(member.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "later");
    end(member);
}

#[test]
fn a_follower_goes_on_with_the_partitions_that_are_whole() {
    let broker = broker_with_damage(2);
    for (group, there) in [(&[][..], 2), (&["--group", "g"], 3)] {
        let mut child = broker.spawn(&[&["consume", "t"], group].concat());
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(errors.next().unwrap().unwrap().contains("t-1: offsets `0.."));
        for _ in 0..there {
            assert!(lines.next().unwrap().is_ok());
        }
        broker.run(&["produce", "t", "--partition", "0"], b"later\n").ok();
        assert_eq!(lines.next().unwrap().unwrap(), "later");
        end(child);
    }
}

#[test]
fn a_follower_sees_added_partitions_and_ends_with_its_topic() {
    let broker = broker_with_records(1);
    let mut child = broker.spawn(&["consume", "t", "--from", "latest"]);
    let mut member = broker.spawn(&["consume", "t", "--group", "g"]);
    let mut of_member = BufReader::new(member.stdout.take().unwrap()).lines();
    assert_eq!(of_member.next().unwrap().unwrap(), "0");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    broker.call(&["topic", "alter", "t", "--partitions", "2"]).ok();
    broker.run(&["produce", "t", "--partition", "1"], b"added\n").ok();
    // What was produced to the first partition before the reader began is not read, so this comes first.
    assert_eq!(lines.next().unwrap().unwrap(), "added");
    assert_eq!(of_member.next().unwrap().unwrap(), "added");

    broker.call(&["topic", "delete", "t", "--yes"]).ok();
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(told, "riverrun: topic `t` was deleted\n");
    assert_eq!(child.wait().unwrap().code(), Some(4));

    broker.call(&["topic", "create", "t"]).ok();
    broker.run(&["produce", "t"], b"anew\n").ok();
    assert_eq!(of_member.next().unwrap().unwrap(), "anew");
    end(member);
}

#[test]
fn a_watch_refuses_an_unknown_topic_unless_it_is_told_to_wait() {
    let broker = Broker::start();
    broker.call(&["watch", "gone"]).refused(4, &["topic `gone` does not exist"]);
    let mut child = broker.spawn(&["watch", "gone", "--wait", "--max", "1"]);
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(told.next().unwrap().unwrap().contains("`gone` does not exist; waiting for it"));
    broker.call(&["topic", "create", "gone"]).ok();
    let mut line = String::new();
    child.stdout.take().unwrap().read_to_string(&mut line).unwrap();
    assert!(line.contains("gone-0  0..0"), "{line}");
    assert!(child.wait().unwrap().success());
}

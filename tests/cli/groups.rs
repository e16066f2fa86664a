//! Consumer groups from the command line: reading, lag, reset.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{
    binary,
    process::{Broker, Done},
};

fn broker_with_records() -> Broker {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t", "--partitions", "2"]).ok();
    for partition in ["0", "1"] {
        broker.run(&["produce", "t", "--partition", partition], b"a\nb\nc\nd\n").ok();
    }
    broker
}

#[track_caller]
fn json(done: Done) -> Value {
    serde_json::from_slice(&done.ok().stdout).unwrap()
}

fn consume(broker: &Broker, arguments: &[&str]) -> String {
    let read = ["consume", "t", "--group", "g", "--no-follow", "--format", "%p%v "];
    let text = broker.call(&[&read[..], arguments].concat()).ok().text();
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words.join(" ")
}

fn lag(broker: &Broker) -> u64 {
    json(broker.call(&["group", "describe", "g", "-o", "json"]))["lag"].as_u64().unwrap()
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let broker = broker_with_records();
    assert_eq!(consume(&broker, &[]), "0a 0b 0c 0d 1a 1b 1c 1d");
    assert_eq!(lag(&broker), 0);
    assert_eq!(consume(&broker, &[]), "");
    broker.run(&["produce", "t", "--partition", "1"], b"e\n").ok();
    assert_eq!(lag(&broker), 1);
    assert_eq!(consume(&broker, &[]), "1e");
}

#[test]
fn a_new_group_begins_where_it_is_told_to_and_goes_on_where_it_stopped() {
    let broker = broker_with_records();
    let begins = |group: &str, from: &str| {
        let read = ["consume", "t", "--no-follow", "--format", "%v", "--group", group];
        broker.call(&[&read[..], &["--from", from]].concat()).ok().text().len()
    };
    assert_eq!(begins("late", "latest"), 0);
    assert_eq!(begins("past", "time:1970-01-02"), 8);
    assert_eq!(begins("future", "time:2999-01-01"), 0);
    broker.run(&["produce", "t", "--partition", "1"], b"e\n").ok();
    for group in ["late", "past", "future"] {
        assert_eq!(begins(group, "earliest"), 1, "`{group}` has a position");
    }
}

#[test]
fn a_group_that_reads_is_described_with_its_member() {
    let broker = broker_with_records();
    let mut reader = broker.spawn(&["consume", "t", "--group", "g"]);
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    // What it wrote it has read as a member.
    assert!(lines.next().unwrap().is_ok());
    let described = json(broker.call(&["group", "describe", "g", "-o", "json"]));
    let table = broker.call(&["group", "describe", "g"]).ok().text();
    kill_process(Pid::from_child(&reader), Signal::INT).unwrap();
    reader.wait().unwrap();
    assert_eq!(described["state"], "Stable", "{described}");
    let member = &described["members"][0];
    let text = |key: &str| member[key].as_str().unwrap().to_owned();
    assert!(text("client_id").starts_with("riverrun"), "{described}");
    assert_eq!(text("host"), "127.0.0.1", "{described}");
    assert_eq!(member["assignment"].as_array().unwrap().len(), 2, "{described}");
    let row = table.lines().find(|line| line.starts_with("t ")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    let of_member = [text("member_id"), text("client_id"), text("host")];
    assert!(cells.ends_with(&of_member.each_ref().map(String::as_str)), "{table}");
    assert!(table.contains("Stable (epoch "), "{table}");
}

#[test]
fn what_was_not_written_out_is_not_committed() {
    let broker = broker_with_records();
    let first = consume(&broker, &["--max", "3"]);
    assert_eq!(first.split(' ').count(), 3, "{first}");
    assert_eq!(lag(&broker), 5);
    let mut all: Vec<String> = first.split(' ').map(str::to_owned).collect();
    all.extend(consume(&broker, &[]).split(' ').map(str::to_owned));
    all.sort_unstable();
    assert_eq!(all.join(" "), "0a 0b 0c 0d 1a 1b 1c 1d");
}

/// Runs a command whose standard output is a full disk.
fn onto_a_full_disk(broker: &Broker, arguments: &[&str]) {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(binary::path());
    command.args(arguments).env("RIVERRUN_SERVER", &broker.address).stdout(full);
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot write to standard output: No space left"), "{told}");
}

#[test]
fn what_a_full_disk_did_not_take_is_neither_committed_nor_acknowledged() {
    let broker = broker_with_records();
    onto_a_full_disk(&broker, &["consume", "t", "--group", "g", "--no-follow"]);
    assert_eq!(consume(&broker, &[]), "0a 0b 0c 0d 1a 1b 1c 1d");
    let subscribe = ["subscribe", "t", "--subscription", "s", "--no-follow", "--format", "%p%v "];
    onto_a_full_disk(&broker, &subscribe);
    let told = broker.call(&subscribe).ok().text();
    let mut told: Vec<&str> = told.split_whitespace().collect();
    told.sort_unstable();
    assert_eq!(told.join(" "), "0a 0b 0c 0d 1a 1b 1c 1d");
}

#[test]
fn a_described_group_shows_lag_and_list_sums_it() {
    let broker = broker_with_records();
    consume(&broker, &["--max", "8"]);
    broker.run(&["produce", "t", "--partition", "0"], b"x\ny\n").ok();
    let table = broker.call(&["group", "describe", "g"]).ok().text();
    for part in ["GROUP", "TOTAL LAG", "OLDEST UNREAD", "COMMITTED  LOG-END  LAG", "Empty"] {
        assert!(table.contains(part), "{part} is missing in\n{table}");
    }
    let list = json(broker.call(&["group", "list", "-o", "json"]));
    assert_eq!((&list["groups"][0]["group"], &list["groups"][0]["lag"]), (&"g".into(), &2.into()));
}

#[test]
fn a_reset_is_shown_before_it_is_done() {
    let broker = broker_with_records();
    consume(&broker, &[]);
    let dry =
        json(broker.call(&["group", "reset", "g", "--to-earliest", "--dry-run", "-o", "json"]));
    assert_eq!(dry["resets"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&dry["resets"][0]["from_offset"], &dry["resets"][0]["to_offset"]),
        (&4.into(), &0.into())
    );
    assert_eq!(lag(&broker), 0, "a dry run changes nothing");

    broker.call(&["group", "reset", "g", "--to-earliest"]).refused(2, &["--yes"]);
    broker.call(&["group", "reset", "g", "--to-earliest", "--yes"]).ok();
    assert_eq!(lag(&broker), 8);
    broker.call(&["group", "reset", "g", "--topic", "t:1", "--to-offset", "3", "--yes"]).ok();
    assert_eq!(lag(&broker), 5);
    broker.call(&["group", "reset", "g", "--shift-by", "-1", "--yes"]).ok();
    assert_eq!(lag(&broker), 6, "partition 0 was at its start already");
    broker.call(&["group", "reset", "g", "--by-duration", "1h", "--yes"]).ok();
    assert_eq!(lag(&broker), 8);
    broker.call(&["group", "reset", "g", "--to-latest", "--yes"]).ok();
    assert_eq!(lag(&broker), 0);
    broker.call(&["group", "reset", "g", "--to-time", "1970-01-01", "--yes"]).ok();
    assert_eq!(lag(&broker), 8);
}

#[test]
fn a_group_can_start_where_another_stands_and_be_deleted() {
    let broker = broker_with_records();
    consume(&broker, &["--max", "8"]);
    broker
        .call(&["group", "reset", "h", "--to-latest", "--yes"])
        .refused(4, &["h", "does not exist", "--topic"]);
    broker.call(&["consume", "t", "--group", "h", "--no-follow", "--max", "1"]).ok();
    broker.call(&["group", "reset", "h", "--topic", "t", "--from-group", "g", "--yes"]).ok();
    let h = json(broker.call(&["group", "describe", "h", "-o", "json"]));
    assert_eq!(h["partitions"][1]["committed_offset"], 4);
    broker.call(&["group", "delete", "g"]).refused(2, &["--yes"]);
    broker.call(&["group", "delete", "g", "--yes"]).ok();
    broker.call(&["group", "describe", "g"]).refused(4, &["g"]);
}

#[test]
fn a_reset_makes_the_group_that_does_not_exist() {
    let broker = broker_with_records();
    let reset = ["group", "reset", "new", "--topic", "t", "--to-offset", "3"];
    broker
        .call(&[&["group", "reset", "new", "--topic", "tt", "--to-earliest", "--yes"][..]].concat())
        .refused(4, &["1 of 1 partitions cannot be moved"]);
    broker.call(&["group", "describe", "new"]).refused(4, &["new", "does not exist"]);

    let dry = broker.call(&[&reset[..], &["--dry-run"]].concat()).ok();
    assert!(dry.stderr.contains("group `new` does not exist and would be made"), "{dry:?}");
    assert!(
        dry.text().lines().nth(2).unwrap().split_whitespace().eq(["t", "1", "-", "3", "1"]),
        "{dry:?}"
    );
    broker.call(&["group", "describe", "new"]).refused(4, &["new", "does not exist"]);
    broker.call(&reset).refused(2, &["make group `new` with 2 stored offsets?", "--yes"]);

    let done = broker.call(&[&reset[..], &["--yes"]].concat()).ok();
    assert!(done.stderr.contains("group `new` did not exist and was made"), "{done:?}");
    let read = ["consume", "t", "--group", "new", "--no-follow", "--format", "%p%v "];
    let text = broker.call(&read).ok().text();
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    assert_eq!(words, ["0d", "1d"]);
}

#[test]
fn a_member_outlives_a_broker_that_is_away_longer_than_its_timeout() {
    const LINES: usize = 20_000;
    let mut broker = Broker::start();
    broker.call(&["topic", "create", "t"]).ok();
    let line = |number: usize| format!("{number:0>100}");
    let input: String = (0..LINES).map(|number| line(number) + "\n").collect();
    broker.run(&["produce", "t"], input.as_bytes()).ok();
    let mut member = broker.spawn(&["consume", "t", "--group", "g", "--timeout", "2s"]);
    let mut lines = BufReader::new(member.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), line(0));
    // The pipe holds less than what was fetched: the rest is written out, and to be stored, with nobody there.
    broker.kill();
    let reading = std::thread::spawn(move || lines.take(LINES - 1).collect::<Vec<_>>());
    let mut told = BufReader::new(member.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(told.any(|line| line.contains("offsets are not stored yet")), "it ended");
    broker.restart();
    assert!(told.any(|line| line.contains("connected again")), "it ended");
    let read = reading.join().unwrap();
    assert!(read.into_iter().eq((1..LINES).map(line)), "other lines, or another order");
    kill_process(Pid::from_child(&member), Signal::TERM).unwrap();
    assert_eq!(told.collect::<Vec<_>>(), Vec::<String>::new());
    assert!(member.wait().unwrap().success());
    assert_eq!(lag(&broker), 0);
}

//! `riverrun consume` and `riverrun watch` against a broker.

use std::{
    io::{BufRead, BufReader, Read},
    process::Child,
};

use crate::support::process::Broker;

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
    broker.call(&["consume", "t", "--no-follow", "--from", "offset:11"]).refused(4, &["11", "10"]);
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

//! `riverrun produce` against a broker, and what comes back of it.

use std::{
    io::{BufRead, BufReader, Write},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::process::{Broker, write_file};

/// A broker with the topic `t` of `partitions` partitions.
fn broker_with_topic(partitions: &str) -> Broker {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t", "--partitions", partitions]).ok();
    broker
}

/// Everything in the topic, written with `format`.
fn read_back(broker: &Broker, format: &str) -> Vec<u8> {
    broker.call(&["consume", "t", "--no-follow", "--format", format]).ok().stdout
}

#[test]
fn lines_come_back_byte_for_byte() {
    let inputs: [&[u8]; 6] = [
        b"one\ntwo\n",
        b"no newline at the end",
        b"\n\nempty lines\n\n",
        b"\xff\xfe\x00binary\x00\n\r\n",
        b"tab\tand \"quotes\" and \\n\n",
        b"",
    ];
    for input in inputs {
        let broker = broker_with_topic("1");
        let done = broker.run(&["produce", "t"], input).ok();
        assert!(done.stdout.is_empty());
        let count = input.split_inclusive(|byte| *byte == b'\n').count();
        let noun = if count == 1 { "1 record (" } else { &format!("{count} records (") };
        assert!(done.stderr.starts_with(&format!("wrote {noun}")), "{}", done.stderr);
        let mut expected = input.to_vec();
        if !expected.is_empty() && !expected.ends_with(b"\n") {
            expected.push(b'\n');
        }
        assert_eq!(read_back(&broker, "%v\\n"), expected);
    }
}

#[test]
fn a_large_file_with_keys_keeps_every_line_and_the_order_of_each_key() {
    let broker = broker_with_topic("4");
    let lines: Vec<String> = (0..200_000).map(|n| format!("key-{}:value {n}", n % 997)).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = write_file(folder.path(), "lines.txt", lines.join("\n").as_bytes());
    broker.call(&["produce", "t", &file, "--key-separator", ":", "--compression", "lz4"]).ok();

    let text = String::from_utf8(read_back(&broker, "%k:%v\\n")).unwrap();
    let mut expected = vec![Vec::new(); 997];
    lines.iter().enumerate().for_each(|(n, line)| expected[n % 997].push(line.as_str()));
    let mut found = vec![Vec::new(); 997];
    for line in text.lines() {
        let key: usize = line[4..].split(':').next().unwrap().parse().unwrap();
        found[key].push(line);
    }
    assert!(expected == found, "{} lines went in, {} came back", lines.len(), text.lines().count());
}

#[test]
fn a_partition_can_be_named_and_must_exist() {
    let broker = broker_with_topic("3");
    broker.run(&["produce", "t", "--partition", "2"], b"a\nb\n").ok();
    assert_eq!(read_back(&broker, "%p %o %v\\n"), b"2 0 a\n2 1 b\n");
    broker.run(&["produce", "t", "--partition", "3"], b"a\n").refused(4, &["3"]);
    broker.run(&["produce", "gone"], b"a\n").refused(4, &["gone", "riverrun topic create gone"]);
}

#[test]
fn a_line_over_the_limit_is_named_and_what_came_before_is_kept() {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t", "--set", "message_bytes_max=4KiB"]).ok();
    let input = [b"first\nsecond\n".to_vec(), vec![b'x'; 5_000], b"\nfourth\n".to_vec()].concat();
    broker.run(&["produce", "t"], &input).refused(4, &["line 3", "4096"]);
    let kept = read_back(&broker, "%v\\n");
    assert!(b"first\nsecond\n".starts_with(&kept[..]), "{}", String::from_utf8_lossy(&kept));
}

#[test]
fn a_gigantic_line_is_refused_without_being_buffered() {
    let broker = broker_with_topic("1");
    let input = vec![b'x'; 64 << 20];
    let started = Instant::now();
    broker.run(&["produce", "t"], &input).refused(4, &["line 1", "4194304"]);
    assert!(started.elapsed().as_secs() < 30);
}

#[test]
fn every_compression_and_every_ack_level_is_written() {
    let broker = broker_with_topic("1");
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        broker
            .run(
                &["produce", "t", "--compression", compression],
                format!("{compression}\n").as_bytes(),
            )
            .ok();
    }
    for acks in ["leader", "all", "none"] {
        broker.run(&["produce", "t", "--acks", acks], format!("{acks} acks\n").as_bytes()).ok();
    }
    // It follows until there is as much: nobody said of the last one that it is there.
    let read = broker.call(&["consume", "t", "--max", "8", "--format", "%v "]).ok().text();
    assert_eq!(read, "none gzip snappy lz4 zstd leader acks all acks none acks ");
}

#[test]
fn quiet_says_nothing() {
    let broker = broker_with_topic("1");
    let done = broker.run(&["produce", "t", "--quiet"], b"a\n").ok();
    assert_eq!(done.stderr, "");
}

#[test]
fn on_a_full_disk_the_user_is_told_and_can_end_it() {
    let broker = Broker::start_with("[disk]\nfree_bytes_min = \"1048576GiB\"\n");
    broker.call(&["topic", "create", "t"]).ok();
    let mut child = broker.spawn(&["produce", "t"]);
    let pid = Pid::from_child(&child);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"never written\n").unwrap();
    drop(stdin);
    // The input is at its end: what is left to do is to wait for the broker.
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("refused for now") && line.contains("disk"), "{line}");
    kill_process(pid, Signal::INT).unwrap();
    line.clear();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("interrupted") && line.contains("not acknowledged"), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(read_back(&broker, "%v\n").is_empty());
}

#[test]
fn a_compacted_topic_refuses_records_without_key() {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t", "--set", "cleanup_policy=compact"]).ok();
    let refused = broker.run(&["produce", "t"], b"no key\n");
    refused.refused(4, &["record 0 of the batch has no key", "`cleanup_policy`", "compact"]);
    for compression in ["none", "zstd"] {
        let keyed = ["produce", "t", "-k", ":", "--compression", compression];
        broker.run(&keyed, b"k:v\nk:w\n").ok();
        broker.run(&keyed, b"k:v\nno key\n").refused(4, &["of the batch has no key"]);
    }
    let read = broker.call(&["consume", "t", "--no-follow"]).ok().text();
    assert!(read.lines().count() >= 4 && !read.contains("no key"), "{read}");
}

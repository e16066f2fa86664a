//! Real text through the command line: into four partitions by key, back through a group of two; once undisturbed, and once
//! with the broker killed three times on the way.
//!
//! The text is what the machine has of sources and documentation. `CORPUS_BYTES` says how much of it, and a machine that has
//! less fails; the check takes little, the full size is `CORPUS_BYTES=200000000 cargo test --release -p riverrun-tests corpus`.

use std::{
    collections::HashMap,
    io::{Read, Write},
    process::Child,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{process::Broker, text};

/// Stands between key and value; the corpus has none.
const SEPARATOR: u8 = 1;
/// Bytes of text unless `CORPUS_BYTES` says more.
const BYTES: usize = 6 << 20;
/// Partitions of the topic.
const PARTITIONS: u64 = 4;

/// Records as `produce` reads them: key, separator, number of the line, line.
struct Corpus {
    input: Vec<u8>,
    /// Bytes of the lines themselves, without keys and numbers.
    text_bytes: usize,
    /// By number of the line: where its record lies in `input`.
    lines: Vec<std::ops::Range<usize>>,
}

impl Corpus {
    /// Every line of as many files as it takes.
    fn gather(bytes: usize) -> Corpus {
        let mut corpus = Corpus { input: Vec::new(), text_bytes: 0, lines: Vec::new() };
        text::each_file(|text| {
            corpus.add(text);
            corpus.text_bytes < bytes
        });
        let found = corpus.text_bytes;
        assert!(found >= bytes, "the machine has {found} bytes of text, not {bytes}");
        corpus
    }

    fn add(&mut self, text: &[u8]) {
        for line in text.split(|byte| *byte == b'\n') {
            let start = self.input.len();
            // Neighbours of a sorted word list, of a table, of an indented block share a key.
            let key = line.get(..8).unwrap_or(line);
            self.input.extend(key.iter().map(|byte| if *byte == SEPARATOR { b' ' } else { *byte }));
            self.input.push(SEPARATOR);
            write!(self.input, "{}:", self.lines.len()).unwrap();
            self.input.extend_from_slice(line);
            self.text_bytes += line.len() + 1;
            self.lines.push(start..self.input.len());
            self.input.push(b'\n');
        }
    }

    /// Key and value of a line.
    fn record(&self, number: usize) -> (&[u8], &[u8]) {
        let line = &self.input[self.lines[number].clone()];
        let at = line.iter().position(|byte| *byte == SEPARATOR).unwrap();
        (&line[..at], &line[at + 1..])
    }
}

/// Feeds `produce` a quarter at a time: a new one when the broker was killed and is back.
fn feed(mut stdin: impl Write + Send + 'static, input: Vec<u8>) -> (JoinHandle<()>, Quarters) {
    let (fed, hear_fed) = mpsc::channel();
    let (go, hear_go) = mpsc::channel();
    let feeder = thread::spawn(move || {
        for quarter in input.chunks(input.len().div_ceil(4)) {
            stdin.write_all(quarter).unwrap();
            fed.send(()).unwrap();
            if hear_go.recv().is_err() {
                return;
            }
        }
    });
    (feeder, Quarters { fed: hear_fed, go })
}

struct Quarters {
    fed: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

/// A member of the group, and what it prints.
struct Member {
    child: Child,
    printed: JoinHandle<Vec<u8>>,
}

impl Member {
    fn start(broker: &Broker) -> Member {
        let mut child =
            broker.spawn(&["consume", "t", "--group", "g", "--format", "%p %o %k\u{1}%v\n"]);
        let mut stdout = child.stdout.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
        let printed = thread::spawn(move || {
            let mut text = Vec::new();
            stdout.read_to_end(&mut text).unwrap();
            text
        });
        Member { child, printed }
    }

    fn end(mut self) -> Vec<u8> {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        self.child.wait().unwrap();
        self.printed.join().unwrap()
    }
}

/// Records by partition and offset, as both members printed them.
type Printed = HashMap<(u64, u64), (Vec<u8>, Vec<u8>)>;

/// Takes in what a member printed, and gives the number of records. A record may be printed again after a kill, and is the
/// same then.
fn take_in(printed: &mut Printed, text: &[u8]) -> usize {
    let mut records = 0;
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let mut number =
            || std::str::from_utf8(parts.next().unwrap()).unwrap().parse::<u64>().unwrap();
        let place = (number(), number());
        let rest = parts.next().unwrap();
        let at = rest.iter().position(|byte| *byte == SEPARATOR).unwrap();
        let record = (rest[..at].to_vec(), rest[at + 1..].to_vec());
        if let Some(before) = printed.insert(place, record.clone()) {
            assert_eq!(before, record, "{place:?} changed");
        }
        records += 1;
    }
    records
}

/// Every line once, offsets without a gap, and each key in the order of the lines. Gives the number of keys.
fn check(corpus: &Corpus, printed: &Printed) -> usize {
    let mut seen = vec![false; corpus.lines.len()];
    let mut last_of_key: HashMap<&[u8], usize> = HashMap::new();
    for partition in 0..PARTITIONS {
        let count = printed.keys().filter(|(of, _)| *of == partition).count() as u64;
        for offset in 0..count {
            let gap = || panic!("partition {partition} has no offset {offset} of {count}");
            let (key, value) = printed.get(&(partition, offset)).unwrap_or_else(gap);
            let digits = value.iter().position(|byte| *byte == b':').unwrap();
            let number: usize = std::str::from_utf8(&value[..digits]).unwrap().parse().unwrap();
            assert_eq!(corpus.record(number), (&key[..], &value[..]), "line {number} changed");
            assert!(!std::mem::replace(&mut seen[number], true), "line {number} is there twice");
            let last = last_of_key.insert(key, number);
            assert!(last < Some(number), "key of line {number} is out of order: {last:?}");
        }
    }
    let missing = seen.iter().filter(|seen| !**seen).count();
    assert_eq!(missing, 0, "of {} lines are missing", seen.len());
    last_of_key.len()
}

fn lag(broker: &Broker) -> Option<u64> {
    let described = broker.call(&["group", "describe", "g", "-o", "json"]).stdout;
    serde_json::from_slice::<Value>(&described).ok()?["lag"].as_u64()
}

#[test]
fn real_text_comes_back_by_key_and_in_order_and_nothing_twice() {
    let came = there_and_back(0);
    println!("{} bytes, {} lines, {} keys", came.bytes, came.lines, came.keys);
    assert_eq!(came.printed, came.lines, "lines came again although nothing was disturbed");
}

#[test]
fn real_text_survives_three_kills_by_key_and_in_order() {
    let came = there_and_back(3);
    println!("{} bytes, {} lines, {} keys", came.bytes, came.lines, came.keys);
}

/// What was sent, and how many lines were printed.
struct Came {
    bytes: usize,
    lines: usize,
    keys: usize,
    printed: usize,
}

/// Sends the corpus and reads it back, with so many kills of the broker, at most 3; checks what came.
fn there_and_back(kills: usize) -> Came {
    let bytes = std::env::var("CORPUS_BYTES").ok().map_or(BYTES, |bytes| bytes.parse().unwrap());
    let corpus = Corpus::gather(bytes);
    let mut broker = Broker::start();
    broker.call(&["topic", "create", "t", "--partitions", &PARTITIONS.to_string()]).ok();
    let members = [Member::start(&broker), Member::start(&broker)];
    let mut producing = broker.spawn(&["produce", "t", "--key-separator", "\u{1}"]);
    let (feeder, quarters) = feed(producing.stdin.take().unwrap(), corpus.input.clone());
    for quarter in 0..3 {
        quarters.fed.recv().unwrap();
        if quarter < kills {
            broker.kill();
            broker.restart();
        }
        quarters.go.send(()).unwrap();
    }
    quarters.fed.recv().unwrap();
    drop(quarters);
    feeder.join().unwrap();
    let produced = producing.wait_with_output().unwrap();
    assert!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
    while lag(&broker) != Some(0) {
        thread::sleep(Duration::from_millis(20));
    }
    let mut printed = Printed::new();
    let lines = members.map(|member| take_in(&mut printed, &member.end())).iter().sum();
    let keys = check(&corpus, &printed);
    assert_eq!(broker.stop().code(), Some(0));
    let data_dir = broker.data_dir();
    crate::support::process::run(&["log", "verify", data_dir.to_str().unwrap()], b"").ok();
    Came { bytes: corpus.text_bytes, lines: corpus.lines.len(), keys, printed: lines }
}

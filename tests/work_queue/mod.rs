//! A work queue at real work: worker processes that fail and die, a broker that is killed twice, and every line settled exactly as
//! its handler decided.
//!
//! The check takes few lines; the full size is `WORK_LINES=100000 cargo test --release -p riverrun-tests work_queue::`.

mod crew;
mod stuck;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use riverrun_tests::work::{Fate, MAX_FAILURES};
use serde_json::Value;

use self::crew::{Crew, Decision};
use crate::support::{process::Broker, text};

/// Partitions of the topic.
const PARTITIONS: &str = "4";
/// Worker processes.
const WORKERS: usize = 16;
/// Worker processes where the order of keys is kept.
const WORKERS_BY_KEY: usize = 64;
/// Keys whose order is kept; fewer where there are few lines, so that each has several.
const KEYS: u64 = 10_000;
/// Records that a worker may hold.
const IN_HAND: u32 = 16;

/// Lines to work on.
fn line_count() -> u64 {
    std::env::var("WORK_LINES").ok().map_or(3_000, |lines| lines.parse().unwrap())
}

/// Makes the topic and puts `count` lines in, by key: `NUMBER:a line of real text`.
fn fill(broker: &Broker, count: u64, keys: u64) {
    let lines = text::lines(usize::try_from(count).unwrap());
    assert_eq!(lines.len() as u64, count, "the machine has too little text");
    let mut input = String::new();
    for (number, line) in (0..).zip(&lines) {
        input.push_str(&format!("k{}\u{1}{number}:{line}\n", number % keys));
    }
    broker.call(&["topic", "create", "jobs", "--partitions", PARTITIONS]).ok();
    broker.run(&["produce", "jobs", "--key-separator", "\u{1}"], input.as_bytes()).ok();
}

fn json(broker: &Broker, arguments: &[&str]) -> Value {
    serde_json::from_slice(&broker.call(&[arguments, &["-o", "json"]].concat()).ok().stdout)
        .unwrap()
}

/// Records not settled.
fn lag(broker: &Broker) -> u64 {
    let described = json(broker, &["subscription", "describe", "work"]);
    let partitions = described["partitions"].as_array().unwrap();
    partitions.iter().map(|partition| partition["lag"].as_u64().unwrap()).sum()
}

/// Works all lines off while the broker is killed twice. Gives what the handlers decided, in order, and how many
/// workers died.
fn work_off(broker: &mut Broker, mode: &str, workers: usize, count: u64) -> (Vec<Decision>, u32) {
    let mut crew = Crew::start(broker, mode, workers, "faults");
    for kill in 1..=2 {
        crew.until(broker, |log| log.len() as u64 > kill * count / 3);
        broker.kill();
        broker.restart();
    }
    crew.until(broker, |log| {
        let settled: BTreeSet<u64> =
            log.iter().filter(|(_, _, fate)| fate == "done").map(|(number, ..)| *number).collect();
        settled.len() as u64 == (0..count).filter(|number| !Fate::is_poison(*number)).count() as u64
    });
    crew.until_idle(broker, lag);
    let (log, died) = crew.end();
    assert!(died > 0, "no worker died: nothing was proved");
    (log, died)
}

/// The dead letters: number of the line, reason, failures, and how many tries their history tells.
fn dead_letters(broker: &Broker) -> Vec<(u64, String, u32, usize)> {
    let read = ["consume", "work.dead", "--no-follow", "-o", "json"];
    let text = broker.call(&read).ok().text();
    text.lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            let header = |name: &str| {
                let headers = record["headers"].as_array().unwrap();
                let found = headers.iter().find(|header| header["name"] == name);
                found.unwrap_or_else(|| panic!("no `{name}` in {line}"))["value"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            };
            let value = record["value"].as_str().unwrap();
            let number = value.split(':').next().unwrap().parse().unwrap();
            let history: Value = serde_json::from_str(&header("riverrun-dead-history")).unwrap();
            let tries = history.as_array().unwrap().len();
            (
                number,
                header("riverrun-dead-reason"),
                header("riverrun-dead-failures").parse().unwrap(),
                tries,
            )
        })
        .collect()
}

/// Each poison line stands in the dead letters once, with reason and history, and no other line does.
fn check_dead(broker: &Broker, count: u64) {
    let letters = dead_letters(broker);
    let numbers: Vec<u64> = letters.iter().map(|(number, ..)| *number).collect();
    let poison: BTreeSet<u64> = (0..count).filter(|number| Fate::is_poison(*number)).collect();
    assert!(!poison.is_empty());
    assert_eq!(numbers.iter().copied().collect::<BTreeSet<_>>(), poison);
    assert_eq!(numbers.len(), poison.len(), "a dead letter stands there twice");
    for (number, reason, failures, tries) in letters {
        assert_eq!(reason, "max-failures", "line {number}");
        assert_eq!((failures, tries), (MAX_FAILURES, MAX_FAILURES as usize), "line {number}");
    }
}

#[test]
fn every_line_is_settled_as_its_handler_decided() {
    let count = line_count();
    let mut broker = Broker::start();
    fill(&broker, count, 997);
    let (log, died) = work_off(&mut broker, "unordered", WORKERS, count);
    let mut decided: HashMap<u64, BTreeMap<&str, u32>> = HashMap::new();
    for (number, _, fate) in &log {
        *decided.entry(*number).or_default().entry(fate.as_str()).or_default() += 1;
    }
    for number in 0..count {
        let fates = &decided[&number];
        assert_eq!(
            fates.contains_key("done"),
            !Fate::is_poison(number),
            "line {number}: {fates:?}"
        );
    }
    let repeated: u32 =
        decided.values().map(|fates| fates.get("done").copied().unwrap_or(1) - 1).sum();
    // Only what a worker held that died, and what all held, or acknowledged in the last commit, when the broker was killed.
    let bound = IN_HAND * (died + 2 * 2 * u32::try_from(WORKERS).unwrap());
    assert!(
        repeated <= bound,
        "{repeated} lines were done twice, at most {bound} can have been in hand"
    );
    check_dead(&broker, count);

    let poison = (0..count).filter(|number| Fate::is_poison(*number)).count() as u64;
    let redrive = ["subscription", "redrive", "work"];
    let dry = json(&broker, &[&redrive[..], &["--dry-run"]].concat());
    assert_eq!(dry["matched"], poison, "{dry}");
    let redriven = json(&broker, &[&redrive[..], &["--yes"]].concat());
    assert_eq!(redriven["redriven"], poison, "{redriven}");
    let again = json(&broker, &[&redrive[..], &["--yes"]].concat());
    assert_eq!(again["redriven"], 0, "a second redrive repeats nothing");
    let mut healed = Crew::start(&broker, "unordered", 2, "healed");
    healed.until(&broker, |log| log.len() as u64 >= poison);
    healed.until_idle(&broker, lag);
    let done: BTreeSet<u64> = healed.end().0.into_iter().map(|(number, ..)| number).collect();
    assert_eq!(done, (0..count).filter(|number| Fate::is_poison(*number)).collect());
    println!(
        "{count} lines, {poison} poison, {} decisions, {died} workers died, {repeated} done twice",
        log.len()
    );
}

#[test]
fn keys_keep_their_order_under_failures_and_kills() {
    let count = line_count();
    let keys = KEYS.min(count / 3);
    let mut broker = Broker::start();
    fill(&broker, count, keys);
    let (log, died) = work_off(&mut broker, "key-fifo", WORKERS_BY_KEY, count);
    let mut first_done = BTreeSet::new();
    let mut last_of_key: HashMap<u64, u64> = HashMap::new();
    for (number, _, fate) in &log {
        if fate == "done" && first_done.insert(*number) {
            let last = last_of_key.insert(number % keys, *number);
            assert!(last < Some(*number), "line {number} was done after line {last:?} of its key");
        }
    }
    check_dead(&broker, count);
    println!("{count} lines of {keys} keys, {} decisions, {died} workers died", log.len());
}

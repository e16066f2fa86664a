//! KILL: the real broker is killed at random times under load at all three levels of durability, and started again. What was
//! acknowledged, committed or confirmed is there, once, in its order.
//!
//! Now and then a life ends by a polite stop instead, under the same load: it succeeds in time, and the next start has
//! nothing to recover.
//!
//! One data directory lives through a series of kills while the same clients go on; then everything is read, by a fresh
//! client, by another one after another restart, and the checker judges the history of the whole series.

#![expect(clippy::disallowed_methods, reason = "a harness removes what killed runs left")]

use std::{collections::HashMap, sync::Arc, time::Duration};

use riverrun_tests::{
    checker::{Findings, Rules, SubscriptionRules, check},
    history::{Event, Level, Operation, Phase},
    house::{House, HouseOptions},
    load::{Load, LoadOptions, MAX_FAILURES, SUBSCRIPTION, look},
    random::Random,
    recorder::Recorder,
};

use crate::{
    harness::{Size, Verdict, Violation},
    power::leftovers::{abandoned, end_brokers},
};

/// Kills in the life of one data directory.
const SERIES: u64 = 20;
/// Longest time from a start to the next kill, in milliseconds.
const LIFE_MS: u64 = 400;
/// Of so many ends one is a polite stop.
const STOP_EVERY: u64 = 5;
/// What a start says that finds logs which were not closed.
const UNCLEAN: &str = "unclean";
/// Names of folders begin so, and go on with the process.
const PREFIX: &str = "riverrun-kill-";
/// One topic for each.
const LEVELS: [Level; 3] = [Level::Fsync, Level::Os, Level::Interval];
/// Settings of every broker of the harnesses.
pub(crate) const SETTINGS: &str = "[grpc]\nconnections_per_ip_max = 1000\n";

pub(crate) fn run(size: &Size) -> Verdict {
    sweep(PREFIX);
    let rounds = size.rounds(100, 500);
    let ends = size.time.map(|time| std::time::Instant::now() + time);
    let (mut kills, mut total, mut series) = (0, Totals::default(), 0);
    let mut settled = 0;
    while kills < rounds && ends.is_none_or(|ends| std::time::Instant::now() <= ends) {
        let seed = size.seed + series;
        let count = SERIES.min(rounds - kills);
        match one_series(seed, count) {
            Ok((findings, confirmed)) => {
                total.add(&findings);
                settled += confirmed;
            }
            Err(what) => {
                let again = format!("--seed {seed} --count {count}");
                return Verdict::Violation(Violation { what, again });
            }
        }
        kills += count;
        series += 1;
    }
    let figures = total.figures();
    Verdict::Green(format!(
        "{kills} kills, {figures}, {settled} settlements confirmed, 0 came again"
    ))
}

/// Ends brokers that killed runs left in folders of this name, and removes the folders.
pub(crate) fn sweep(prefix: &str) {
    for folder in abandoned(prefix) {
        end_brokers(&folder);
        let _removed = std::fs::remove_dir_all(&folder);
    }
}

/// Settlements that the broker confirmed.
fn confirmed(events: &[Event]) -> u64 {
    let mut count = 0;
    for event in events.iter().filter(|event| event.phase == Phase::Ok) {
        if let Operation::Settle { offsets, confirmed: true, .. } = &event.operation {
            count += offsets.len() as u64;
        }
    }
    count
}

/// Sums over several histories.
#[derive(Default)]
pub(crate) struct Totals {
    operations: u64,
    acked: u64,
}

impl Totals {
    /// One more history, without anomalies.
    pub(crate) fn add(&mut self, findings: &Findings) {
        self.operations += findings.counts.operations;
        self.acked += findings.counts.acked;
    }

    pub(crate) fn figures(&self) -> String {
        format!("{} operations, {} records acked, 0 lost, 0 repeated", self.operations, self.acked)
    }
}

/// What the load of these harnesses is judged by.
pub(crate) fn rules(levels: &[Level]) -> Rules {
    let settings = SubscriptionRules { max_failures: Some(MAX_FAILURES), ..Default::default() };
    Rules {
        levels: (0..).zip(levels.iter().copied()).collect(),
        subscriptions: HashMap::from([(SUBSCRIPTION, settings)]),
        ..Rules::default()
    }
}

/// The findings, or what is wrong with them.
pub(crate) fn judged(recorder: &Recorder, rules: &Rules) -> Result<Findings, String> {
    judged_events(&recorder.finish().map_err(|error| error.to_string())?, rules)
}

/// Writes a history that was not clean to the file that `PROVE_HISTORY` names, if it names one: the same seed seldom gives the
/// same history again.
fn keep(events: &[Event]) {
    let Some(path) = std::env::var_os("PROVE_HISTORY") else { return };
    let lines = events.iter().filter_map(|event| serde_json::to_string(event).ok());
    let text = lines.fold(String::new(), |text, line| text + &line + "\n");
    if let Err(error) = std::fs::write(&path, text) {
        println!("  the history cannot be kept in `{}`: {error}", path.display());
    }
}

fn judged_events(events: &[Event], rules: &Rules) -> Result<Findings, String> {
    let findings = check(events, rules);
    if !findings.is_clean() {
        keep(events);
        return Err(format!("{findings}\n{}", findings.report()));
    }
    if findings.counts.acked == 0 {
        return Err("nothing was acknowledged, so nothing was shown".into());
    }
    Ok(findings)
}

/// Asks the broker to end, which it does in time and with success.
pub(crate) fn stopped(house: &mut House) -> Result<(), String> {
    let status = house.stop().ok_or("the broker that is to stop does not run")?;
    if status.success() {
        return Ok(());
    }
    Err(format!("a polite stop ended with {status}: {}", house.stderr()))
}

/// Fails when the start after a polite stop had logs to recover.
fn found_closed(house: &House) -> Result<(), String> {
    let errors = house.stderr();
    match errors.lines().find(|line| line.contains(UNCLEAN)) {
        None => Ok(()),
        Some(line) => Err(format!("a start after a polite stop recovered: {line}")),
    }
}

/// A series of kills on one data directory.
fn one_series(seed: u64, kills: u64) -> Result<(Findings, u64), String> {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
    let folder = folder.map_err(|error| error.to_string())?;
    let options = HouseOptions {
        folder: folder.path().to_owned(),
        settings: SETTINGS.into(),
        ..HouseOptions::default()
    };
    let mut house = House::start(options)?;
    let recorder = Arc::new(Recorder::new());
    let options = LoadOptions {
        seed,
        levels: LEVELS.to_vec(),
        senders: 2,
        consumers: true,
        segment_bytes: 1 << 20,
        pause: Duration::from_micros(500),
    };
    let load = Load::start(house.address(), options, &recorder)?;
    let mut random = Random::new(seed);
    for end in 1..=kills {
        std::thread::sleep(Duration::from_millis(random.below(LIFE_MS)));
        let is_stop = end % STOP_EVERY == 0;
        recorder.fault(if is_stop { "stop" } else { "kill" });
        if is_stop {
            stopped(&mut house)?
        } else {
            house.kill()
        }
        recorder.fault("start");
        house.restart()?;
        if is_stop {
            found_closed(&house)?;
        }
    }
    recorder.fault("heal-all");
    load.finish().map_err(|error| format!("{error}\n{}", house.stderr()))?;
    let topics = u16::try_from(LEVELS.len()).unwrap_or(0);
    look(house.address(), "first", topics, &recorder)?;
    stopped(&mut house)?;
    house.restart()?;
    found_closed(&house)?;
    look(house.address(), "second", topics, &recorder)?;
    stopped(&mut house)?;
    let events = recorder.finish().map_err(|error| error.to_string())?;
    let confirmed = confirmed(&events);
    if confirmed == 0 {
        return Err("no settlement was confirmed, so nothing was shown of push".into());
    }
    Ok((judged_events(&events, &rules(&LEVELS))?, confirmed))
}

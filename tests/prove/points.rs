//! POINTS: the broker dies at one place of its own code after the other, under load or in its start, and is started again.
//!
//! One data directory lives through all places of a round while the same clients go on. Which time the broker comes to a place it dies
//! follows from the seed, and from the second on a start may die as well that follows. What must be true is what `kill` asks for.

use std::{sync::Arc, time::Duration};

use riverrun_storage::failpoint::Place;
use riverrun_tests::{
    checker::Findings,
    history::Level,
    house::{House, HouseOptions},
    load::{Load, LoadOptions, look},
    random::Random,
    recorder::Recorder,
};

use crate::{
    harness::{Size, Verdict, Violation},
    kill::{SETTINGS, Totals, judged, rules, stopped, sweep},
    planted::twin,
};

/// Names of folders begin so, and go on with the process.
const PREFIX: &str = "riverrun-points-";
/// What names a place to a broker.
const VARIABLE: &str = "RIVERRUN_DIE_AT";
/// A place that is not come to in so long is not reached.
const REACH_MAX: Duration = Duration::from_secs(4);
/// A broker comes to a place at most so many times before it dies there: to one on the way of every record, and to the others.
const TIMES_MAX: (u64, u64) = (40, 2);
/// Time for the clients to find a broker that started, and to give it something to recover, in milliseconds: at least, and how much more.
const LIFE_MS: (u64, u64) = (300, 300);
/// Places, and whether the broker died there.
type Reached = Vec<(&'static str, bool)>;

/// One topic for each.
const LEVELS: [Level; 3] = [Level::Fsync, Level::Os, Level::Interval];

pub(crate) fn run(size: &Size) -> Verdict {
    sweep(PREFIX);
    let Some(program) = twin("riverrun") else {
        return Verdict::Skipped(
            "no build with places to die at; `cargo xtask prove` makes one".into(),
        );
    };
    let rounds = size.rounds(2, 20);
    let ends = size.time.map(|time| std::time::Instant::now() + time);
    let (mut total, mut dead, mut missed) = (Totals::default(), 0, Vec::new());
    let mut round = 0;
    while round < rounds && ends.is_none_or(|ends| std::time::Instant::now() <= ends) {
        let seed = size.seed + round;
        match one_round(seed, &program) {
            Ok((findings, reached)) => {
                total.add(&findings);
                dead += reached.iter().filter(|(_, died)| *died).count();
                missed.extend(reached.into_iter().filter(|(_, died)| !died).map(|(at, _)| at));
            }
            Err(what) => {
                let again = format!("--seed {seed} --count 1");
                return Verdict::Violation(Violation { what, again });
            }
        }
        round += 1;
    }
    let missed = match missed.as_slice() {
        [] => String::new(),
        some => format!(" (not reached, not counted: {})", some.join(", ")),
    };
    let (places, figures) = (Place::ALL.len(), total.figures());
    if dead == 0 {
        let what = "no broker died at any place, so nothing was shown".into();
        return Verdict::Violation(Violation { what, again: String::new() });
    }
    Verdict::Green(format!("{dead} deaths at {places} places{missed}, {figures}"))
}

/// Every place once, in an order of the seed; which were reached.
fn one_round(seed: u64, program: &std::path::Path) -> Result<(Findings, Reached), String> {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
    let folder = folder.map_err(|error| error.to_string())?;
    let options = HouseOptions {
        folder: folder.path().to_owned(),
        settings: SETTINGS.into(),
        program: Some(program.to_owned()),
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
    let reached = die_everywhere(seed, &mut house, &recorder)?;
    recorder.fault("heal-all");
    load.finish().map_err(|error| format!("{error}\n{}", house.stderr()))?;
    let topics = u16::try_from(LEVELS.len()).unwrap_or(0);
    look(house.address(), "first", topics, &recorder)?;
    stopped(&mut house)?;
    house.restart()?;
    look(house.address(), "second", topics, &recorder)?;
    stopped(&mut house)?;
    Ok((judged(&recorder, &rules(&LEVELS))?, reached))
}

/// Kills the broker, starts it to die at a place, and starts it anew; for each place.
fn die_everywhere(seed: u64, house: &mut House, recorder: &Recorder) -> Result<Reached, String> {
    let mut random = Random::new(seed);
    let mut places: Vec<(u64, Place)> =
        Place::ALL.into_iter().map(|place| (random.below(1 << 32), place)).collect();
    places.sort_unstable_by_key(|(order, _)| *order);
    let mut reached = Vec::new();
    for (_, place) in places {
        let (frequent, rare) = TIMES_MAX;
        let times = 1 + random.below(if place.is_frequent() { frequent } else { rare });
        std::thread::sleep(Duration::from_millis(LIFE_MS.0 + random.below(LIFE_MS.1)));
        recorder.fault("kill");
        house.kill();
        let chosen = format!("{}:{times}", place.name());
        recorder.fault("start");
        let died = house
            .start_to_die((VARIABLE, &chosen), REACH_MAX)
            .map_err(|error| format!("at `{chosen}`: {error}"))?;
        reached.push((place.name(), died));
        house.kill();
        recorder.fault("kill");
        recorder.fault("start");
        house.restart().map_err(|error| format!("after `{chosen}`: {error}"))?;
    }
    Ok(reached)
}

//! POWER: the real broker on a loop-mounted ext4 and XFS whose power is cut under load. What was acknowledged before the cut on a
//! topic of durability `fsync`, or shown from it, is there after the journal was replayed; a topic of durability `interval` loses its
//! youngest end at most.
//!
//! ```text
//! life ─▶ power-cut: the file system is shut down without its log ─▶ the broker is killed ─▶ unmount, mount ─▶ start
//! ```
//!
//! Meanwhile a thread sends random pages of the active segments to the device. Some starts are cut short in the middle of recovery,
//! by a kill or by the next power cut.

mod disorder;
pub(crate) mod leftovers;
mod probe;
mod shutdown;
pub(crate) mod volume;

use std::{sync::Arc, time::Duration};

use riverrun_client::{Client, TopicChange, TopicConfig};
use riverrun_tests::{
    checker::{Findings, Rules},
    history::Level,
    house::{House, HouseOptions},
    load::{Load, LoadOptions, look, topic},
    random::Random,
    recorder::Recorder,
};

use rustix::process::Signal;

use self::{
    disorder::Disorder,
    volume::{Kind, PREFIX, Volume},
};
use crate::{
    harness::{Size, Verdict, Violation},
    kill::{SETTINGS, Totals, judged, rules, stopped},
};

/// Power cuts in the life of one file system.
const SERIES: u64 = 20;
/// Longest time from a start to the next cut, in milliseconds.
const LIFE_MS: u64 = 300;
/// One life in each series is longer than what an `interval` topic may lose.
const LONG_LIFE: Duration = Duration::from_millis(3_500);
/// Segments are sealed at this age, the youngest that there is, and every fifth life ends about then.
const SEGMENT_AGE: Duration = Duration::from_secs(1);
/// Flushes of an `interval` topic begin every 50 ms; the rest is for one flush on a busy machine.
const INTERVAL_MAX: Duration = Duration::from_millis(2_000);
/// Longest time after which a start is cut short, in milliseconds.
const STUMBLE_MS: u64 = 40;
/// One topic for each.
const LEVELS: [Level; 3] = [Level::Fsync, Level::Interval, Level::Os];
/// Which file system a series is on, by its seed: three of five are on ext4.
const KINDS: [Kind; 5] = [Kind::Ext4, Kind::Xfs, Kind::Ext4, Kind::Xfs, Kind::Ext4];

pub(crate) fn run(size: &Size) -> Verdict {
    leftovers::sweep(PREFIX);
    if !rustix::process::geteuid().is_root() {
        return Verdict::Skipped("mounting wants root".into());
    }
    for kind in [Kind::Ext4, Kind::Xfs] {
        match platform(kind) {
            Ok(probe) if !probe.cuts() => {
                let why = format!("the power of {} cannot be cut here", kind.name());
                return Verdict::Skipped(why);
            }
            Ok(probe) => {
                println!("  platform {}: {}", kind.name(), probe.line());
                if let Some(what) = probe.broken() {
                    let what = format!("{}: {what}", kind.name());
                    return Verdict::Violation(Violation { what, again: "--count 0".into() });
                }
            }
            Err(why) => return Verdict::Skipped(format!("{}: {why}", kind.name())),
        }
    }
    rounds(size)
}

/// Makes a file system and asks it what it does.
fn platform(kind: Kind) -> Result<probe::Probe, String> {
    let folder = folder()?;
    let volume = Volume::make(kind, folder.path())?;
    probe::probe(&volume)
}

fn folder() -> Result<tempfile::TempDir, String> {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().map_err(|error| error.to_string())
}

fn rounds(size: &Size) -> Verdict {
    let rounds = size.rounds(100, 500);
    let ends = size.time.map(|time| std::time::Instant::now() + time);
    let (mut done, mut series, mut total) = ([0, 0], 0, Totals::default());
    while done[0] + done[1] < rounds && ends.is_none_or(|ends| std::time::Instant::now() <= ends) {
        let seed = size.seed + series;
        let kind = kind_of(seed);
        let count = SERIES.min(rounds - done[0] - done[1]);
        match one_series(kind, seed, count) {
            Ok(findings) => total.add(&findings),
            Err(what) => {
                let what = format!("{}: {what}", kind.name());
                let again = format!("--seed {seed} --count {count}");
                return Verdict::Violation(Violation { what, again });
            }
        }
        done[usize::from(kind == Kind::Xfs)] += count;
        series += 1;
    }
    let [ext4, xfs] = done;
    Verdict::Green(format!("{ext4} ext4 + {xfs} xfs power cuts, {}", total.figures()))
}

fn kind_of(seed: u64) -> Kind {
    let place = usize::try_from(seed % KINDS.len() as u64).unwrap_or(0);
    KINDS[place]
}

/// One file system, its broker, and who troubles both.
struct Scene {
    volume: Volume,
    house: House,
    disorder: Disorder,
    recorder: Arc<Recorder>,
    random: Random,
}

/// A series of power cuts on one file system.
fn one_series(kind: Kind, seed: u64, cuts: u64) -> Result<Findings, String> {
    let folder = folder()?;
    let volume = Volume::make(kind, folder.path())?;
    let options = HouseOptions {
        folder: folder.path().join("broker"),
        data_dir: Some(volume.path().join("data")),
        settings: format!("{SETTINGS}\n[disk]\nfree_bytes_min = \"4 MiB\"\n"),
        ..HouseOptions::default()
    };
    let house = House::start(options)?;
    let disorder = Disorder::start(volume.path().to_owned(), seed);
    let recorder = Arc::new(Recorder::new());
    let mut scene = Scene { volume, house, disorder, recorder, random: Random::new(seed) };
    let load = Load::start(scene.house.address(), load(seed), &scene.recorder)?;
    seal_early(scene.house.address()).map_err(|error| format!("{error:?}"))?;
    for number in 0..cuts {
        match number % SERIES {
            2 => std::thread::sleep(LONG_LIFE),
            4 | 9 | 14 | 19 => {
                let after = Duration::from_millis(scene.random.below(LIFE_MS));
                std::thread::sleep(SEGMENT_AGE + after);
            }
            _ => std::thread::sleep(Duration::from_millis(scene.random.below(LIFE_MS))),
        }
        scene.lose_power()?;
    }
    scene.recorder.fault("heal-all");
    load.finish().map_err(|error| format!("{error}\n{}", scene.house.stderr()))?;
    let topics = u16::try_from(LEVELS.len()).unwrap_or(0);
    look(scene.house.address(), "first", topics, &scene.recorder)?;
    stopped(&mut scene.house)?;
    scene.house.restart()?;
    look(scene.house.address(), "second", topics, &scene.recorder)?;
    stopped(&mut scene.house)?;
    judged(&scene.recorder, &Rules { interval_max: Some(INTERVAL_MAX), ..rules(&LEVELS) })
}

fn load(seed: u64) -> LoadOptions {
    LoadOptions {
        seed,
        levels: LEVELS.to_vec(),
        senders: 2,
        consumers: true,
        segment_bytes: 1 << 20,
        pause: Duration::from_millis(1),
    }
}

/// Has segments sealed when they are a second old.
fn seal_early(address: &str) -> riverrun_client::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime of one thread can be made");
    runtime.block_on(async {
        let mq = Client::connect(address).await?;
        for number in (0..).take(LEVELS.len()) {
            let config = TopicConfig { segment_time: Some(SEGMENT_AGE), ..TopicConfig::default() };
            let change = TopicChange::new().config(config);
            mq.admin().alter_topic(&topic(number), change).await?;
        }
        Ok(())
    })
}

impl Scene {
    /// Cuts the power, and starts the broker again; now and then something comes in between.
    fn lose_power(&mut self) -> Result<(), String> {
        self.cut()?;
        while self.random.below(5) == 0 {
            self.recorder.fault("start");
            self.house.begin()?;
            std::thread::sleep(Duration::from_millis(self.random.below(STUMBLE_MS)));
            match self.random.below(2) {
                0 => self.cut()?,
                _ => {
                    self.recorder.fault("kill");
                    self.house.kill();
                }
            }
        }
        self.recorder.fault("start");
        self.house.restart()
    }

    fn cut(&mut self) -> Result<(), String> {
        self.recorder.fault("power-cut");
        // A machine without power goes on with nothing: the broker does not see its device go.
        self.house.signal(Signal::STOP);
        self.volume.cut()?;
        self.house.kill();
        let _no_file_open = self.disorder.gate.lock();
        self.volume.mount_again()
    }
}

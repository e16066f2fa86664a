//! CLOCK: the wall clock of the real broker jumps by up to ten years in both directions under load. Nothing is lost or there twice,
//! retention by time takes nothing early, and no lease ends early.
//!
//! The broker runs under libfaketime, which reads the jump from a file anew at every call and leaves the monotonic clock alone.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use riverrun_client::{Client, Limit, Record, TopicChange, TopicConfig, TopicSpec};
use riverrun_tests::{
    checker::Findings,
    history::{Event, Level, Operation},
    house::{House, HouseOptions},
    load::{Load, LoadOptions, look, topic},
    random::Random,
    recorder::Recorder,
};

use crate::{
    harness::{Size, Verdict, Violation},
    kill::{SETTINGS, Totals, rules, stopped},
};

/// Where the library may be.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];
/// Jumps in a round.
const JUMPS: u64 = 8;
const YEAR: i64 = 365 * 24 * 3600;
/// What is sent stays at least so long.
const RETENTION: Duration = Duration::from_secs(3600);
/// A topic whose records are soon old, to see that retention works at all.
const SHORT: &str = "short";
const SHORT_RETENTION: Duration = Duration::from_millis(500);
/// Longest time in which it must have worked.
const SHORT_MAX: Duration = Duration::from_secs(30);
const LEVELS: [Level; 2] = [Level::Fsync, Level::Os];

pub(crate) fn run(size: &Size) -> Verdict {
    let Some(library) = LIBRARIES.iter().find(|path| Path::new(path).exists()) else {
        return Verdict::Skipped("no libfaketime".into());
    };
    match trial(library) {
        Ok(true) => {}
        Ok(false) => {
            return Verdict::Skipped("the broker's clock does not follow libfaketime".into());
        }
        Err(why) => return Verdict::Skipped(why),
    }
    let ends = size.time.map(|time| Instant::now() + time);
    let (mut done, mut total) = (0, Totals::default());
    while done < size.rounds(5, 50) && ends.is_none_or(|ends| Instant::now() <= ends) {
        let seed = size.seed + done;
        match round(library, seed) {
            Ok(findings) => total.add(&findings),
            Err(what) => {
                let again = format!("--seed {seed} --count 1");
                return Verdict::Violation(Violation { what, again });
            }
        }
        done += 1;
    }
    Verdict::Green(format!("{done} rounds of {JUMPS} jumps, {}", total.figures()))
}

/// A broker whose wall clock is moved by a file. The file lies beside it.
struct Scene {
    house: House,
    jump: PathBuf,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn start(library: &str, seconds: i64) -> Result<Scene, String> {
        let folder = tempfile::Builder::new().prefix("riverrun-clock-").tempdir();
        let folder = folder.map_err(|error| error.to_string())?;
        let jump = folder.path().join("jump");
        set(&jump, seconds)?;
        let file = jump.to_string_lossy().into_owned();
        let environment = [
            ("LD_PRELOAD", library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        let options = HouseOptions {
            folder: folder.path().to_owned(),
            settings: format!("{SETTINGS}\n[disk]\nhousekeeping_interval = \"50ms\"\n"),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            ..HouseOptions::default()
        };
        Ok(Scene { house: House::start(options)?, jump, _folder: folder })
    }

    /// Puts the wall clock so many seconds from the right time.
    fn jump_to(&self, seconds: i64) -> Result<(), String> {
        set(&self.jump, seconds)
    }
}

/// Written beside and renamed: the library never reads half of it.
fn set(file: &Path, seconds: i64) -> Result<(), String> {
    let beside = file.with_extension("new");
    let written = fs::write(&beside, format!("{seconds:+}\n"));
    written.and_then(|()| fs::rename(&beside, file)).map_err(|error| error.to_string())
}

/// Whether the broker's clock follows a jump while it runs: what it logs when it ends is of nine years ago.
fn trial(library: &str) -> Result<bool, String> {
    let mut scene = Scene::start(library, 9 * YEAR)?;
    scene.jump_to(-9 * YEAR)?;
    stopped(&mut scene.house)?;
    let log = scene.house.stderr();
    let last = log.lines().next_back().and_then(|line| line.get(..4)?.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let year = 1970 + now / 31_556_952;
    Ok(last.is_some_and(|last| last <= year - 8))
}

fn round(library: &str, seed: u64) -> Result<Findings, String> {
    let mut scene = Scene::start(library, 0)?;
    let recorder = Arc::new(Recorder::new());
    let options = LoadOptions {
        seed,
        levels: LEVELS.to_vec(),
        senders: 2,
        consumers: true,
        segment_bytes: 1 << 20,
        pause: Duration::from_millis(1),
    };
    let load = Load::start(scene.house.address(), options, &recorder)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let retention = runtime.block_on(set_retention(scene.house.address()));
    retention.map_err(|error| error.to_string())?;
    let mut random = Random::new(seed);
    for number in 0..JUMPS {
        let years = i64::try_from(1 + random.below(10)).unwrap_or(1);
        let forward = random.below(2) == 0 || number == 0;
        recorder.fault("clock");
        scene.jump_to(if forward { years * YEAR } else { -years * YEAR })?;
        thread::sleep(Duration::from_millis(200 + random.below(300)));
    }
    recorder.fault("clock");
    scene.jump_to(0)?;
    recorder.fault("heal-all");
    load.finish().map_err(|error| format!("{error}\n{}", scene.house.stderr()))?;
    runtime.block_on(wait_for_retention(scene.house.address()))?;
    let topics = u16::try_from(LEVELS.len()).unwrap_or(0);
    look(scene.house.address(), "first", topics, &recorder)?;
    stopped(&mut scene.house)?;
    scene.house.restart()?;
    look(scene.house.address(), "second", topics, &recorder)?;
    stopped(&mut scene.house)?;
    judged(&recorder)
}

/// The topics of the load keep everything for an hour; one more topic keeps nothing for long.
async fn set_retention(address: &str) -> riverrun_client::Result<()> {
    let mq = Client::connect(address).await?;
    for number in 0..u16::try_from(LEVELS.len()).unwrap_or(0) {
        let config =
            TopicConfig { retention_time: Some(Limit::At(RETENTION)), ..TopicConfig::default() };
        mq.admin().alter_topic(&topic(number), TopicChange::new().config(config)).await?;
    }
    let config = TopicConfig {
        retention_time: Some(Limit::At(SHORT_RETENTION)),
        segment_bytes: Some(1 << 20),
        message_bytes_max: Some(32 << 10),
        ..TopicConfig::default()
    };
    mq.admin().create_topic(TopicSpec::new(SHORT).partitions(1).config(config)).await?;
    let producer = mq.producer(SHORT).build().await?;
    for _ in 0..200 {
        producer.send(Record::new(vec![7; 16 << 10])).await?.await?;
    }
    Ok(())
}

/// With the right time again, what is old goes.
async fn wait_for_retention(address: &str) -> Result<(), String> {
    let mq = Client::connect(address).await.map_err(|error| error.to_string())?;
    let began = Instant::now();
    loop {
        let told = mq.admin().describe_topic(SHORT).await.map_err(|error| error.to_string())?;
        if told.partitions.iter().any(|partition| partition.log_start.0 > 0) {
            return Ok(());
        }
        if began.elapsed() > SHORT_MAX {
            return Err("retention by time did not go on after the jumps".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As for a kill; besides, nothing is old enough to be gone.
fn judged(recorder: &Recorder) -> Result<Findings, String> {
    let events: Vec<Event> = recorder.events();
    let early = events.iter().find_map(|event| {
        let Operation::Final { at, log_start, .. } = &event.operation else { return None };
        (*log_start > 0).then_some((*at, *log_start))
    });
    if let Some((at, log_start)) = early {
        return Err(format!("{at:?} was deleted early, up to {log_start}"));
    }
    crate::kill::judged(recorder, &rules(&LEVELS))
}

//! FULL: the real broker on a file system of 32 MB that gets full under load, again and again. What was acknowledged, committed
//! and confirmed is there; what is refused is refused as `DISK_FULL`; reads go on; and once there is room, records are taken again,
//! without a start.
//!
//! ```text
//! records fill the disk ─▶ refused ─▶ perhaps somebody else takes the rest ─▶ calls of all kinds
//!      ▲                                  ─▶ perhaps killed, and started on the full disk ─▶ calls of all kinds
//!      └── accepted again ◀── room: records are deleted, or retention drops them, or somebody else's file goes
//! ```
//!
//! The load of the other harnesses goes on meanwhile; what it saw is judged by the checker.

mod hoard;
mod probes;
mod volume;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use riverrun_client::{Client, Error, ErrorCode};
use riverrun_tests::{
    checker::Findings,
    history::{Event, Level},
    house::{House, HouseOptions},
    load::{Load, LoadOptions, look},
    random::Random,
    recorder::Recorder,
};
use tokio::runtime::Runtime;

use self::{
    hoard::{Hoard, Sent},
    probes::{Answers, Probes},
    volume::{Kind, PREFIX, Volume},
};
use crate::{
    harness::{Size, Verdict, Violation},
    kill::{SETTINGS, Totals, judged, rules, stopped},
    power::leftovers,
};

/// One topic for each.
const LEVELS: [Level; 3] = [Level::Fsync, Level::Os, Level::Interval];
/// Which file system a round is on, by its seed: three of five are on ext4.
const KINDS: [Kind; 5] = [Kind::Ext4, Kind::Tmpfs, Kind::Ext4, Kind::Tmpfs, Kind::Ext4];
/// Bytes of somebody else's file at the beginning of a cycle, when room will come from it and when not.
const FILLER_BYTES: [u64; 2] = [5 << 20, 1 << 20];
/// More than the file system has.
const EVERYTHING: u64 = 1 << 30;
/// How long the broker may take to see that there is room again, with everything that it does by then.
const ROOM_MAX: Duration = Duration::from_secs(30);
/// Longest time that one call may take.
const CALL_MAX: Duration = Duration::from_secs(2);
/// Times that the disk gets full in a round, each time with room from elsewhere.
const CYCLES: usize = 2;
/// Times that the calls are made while the disk is full.
const LOOKS: u32 = 2;
/// What no client may be told because a disk is full.
const STRANGE: [ErrorCode; 6] = [
    ErrorCode::PartitionFailed,
    ErrorCode::Internal,
    ErrorCode::DataCorrupt,
    ErrorCode::CorruptBatch,
    ErrorCode::ReadOnly,
    ErrorCode::Protocol,
];

/// Where room comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// Records are deleted up to an offset.
    Delete,
    /// Retention is made to drop records.
    Retention,
    /// Somebody else's file goes.
    Filler,
}

pub(crate) fn run(size: &Size) -> Verdict {
    leftovers::sweep(PREFIX);
    if !rustix::process::geteuid().is_root() {
        return Verdict::Skipped("mounting wants root".into());
    }
    for kind in [Kind::Ext4, Kind::Tmpfs] {
        if let Err(why) = folder().and_then(|folder| Volume::make(kind, folder.path()).map(drop)) {
            return Verdict::Skipped(format!("{}: {why}", kind.name()));
        }
    }
    rounds(size)
}

fn folder() -> Result<tempfile::TempDir, String> {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().map_err(|error| error.to_string())
}

fn rounds(size: &Size) -> Verdict {
    let rounds = size.rounds(5, 20);
    let ends = size.time.map(|time| Instant::now() + time);
    let (mut done, mut total, mut sum) = (0, Totals::default(), Tally::default());
    while done < rounds && ends.is_none_or(|ends| Instant::now() <= ends) {
        let seed = size.seed + done;
        let place = usize::try_from(seed % KINDS.len() as u64).unwrap_or(0);
        match one_round(KINDS[place], seed) {
            Ok((findings, tally)) => {
                total.add(&findings);
                sum.add(tally);
            }
            Err(what) => {
                let what = format!("{}: {what}", KINDS[place].name());
                let again = format!("--seed {seed} --count 1");
                return Verdict::Violation(Violation { what, again });
            }
        }
        done += 1;
    }
    Verdict::Green(format!("{done} rounds, {}, {}", sum.figures(), total.figures()))
}

/// What happened in some rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Times that the disk was full, and of these: with no byte left.
    full: u64,
    brim: u64,
    kills: u64,
    /// Times that the room that was made was not enough.
    helped: u64,
    /// Large records that were acknowledged.
    records: u64,
    answers: Answers,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.full += other.full;
        self.brim += other.brim;
        self.kills += other.kills;
        self.helped += other.helped;
        self.records += other.records;
        self.answers.done += other.answers.done;
        self.answers.refused += other.answers.refused;
        self.answers.waiting += other.answers.waiting;
    }

    fn figures(&self) -> String {
        let Tally { full, brim, kills, helped, records, answers } = self;
        format!(
            "{full} times full ({brim} to the last byte, {kills} kills then, {helped} times room was made and was not enough), {records} records to fill it, \
             {} other calls done, {} refused and {} left waiting then",
            answers.done, answers.refused, answers.waiting
        )
    }
}

/// A broker on a small file system, and who works with it.
struct Scene {
    // Dropped in this order: the broker goes before its file system.
    house: House,
    volume: Volume,
    recorder: Arc<Recorder>,
    random: Random,
    runtime: Runtime,
    hoard: Hoard,
    probes: Probes,
    tally: Tally,
    /// Somebody else took every byte, those of the ballast as well.
    is_at_brim: bool,
    _folder: tempfile::TempDir,
}

fn one_round(kind: Kind, seed: u64) -> Result<(Findings, Tally), String> {
    let mut scene = Scene::open(kind, seed)?;
    let load = Load::start(scene.house.address(), load(seed), &scene.recorder)?;
    let mut ways = [Room::Delete, Room::Retention, Room::Filler];
    for last in (1..ways.len()).rev() {
        let other = scene.random.below(last as u64 + 1);
        ways.swap(last, usize::try_from(other).unwrap_or(0));
    }
    for way in ways.into_iter().take(CYCLES) {
        let done = scene.cycle(way);
        done.map_err(|what| format!("{way:?}: {what}\n{}", scene.house.stderr()))?;
    }
    scene.recorder.fault("heal-all");
    load.finish().map_err(|error| format!("{error}\n{}", scene.house.stderr()))?;
    scene.finish()
}

fn load(seed: u64) -> LoadOptions {
    LoadOptions {
        seed,
        levels: LEVELS.to_vec(),
        senders: 2,
        consumers: true,
        segment_bytes: 1 << 20,
        pause: Duration::from_millis(2),
    }
}

impl Scene {
    fn open(kind: Kind, seed: u64) -> Result<Scene, String> {
        let folder = folder()?;
        let volume = Volume::make(kind, folder.path())?;
        let disk = "[disk]\nfree_bytes_min = \"2 MiB\"\nhousekeeping_interval = \"50ms\"\n";
        let house = House::start(HouseOptions {
            folder: folder.path().join("broker"),
            data_dir: Some(volume.data()),
            settings: format!("{SETTINGS}\n{disk}"),
            ..HouseOptions::default()
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let mq = Client::builder().call_timeout(CALL_MAX).connect(house.address());
        let mq = runtime.block_on(mq);
        let mq = mq.map_err(|error| error.to_string())?;
        let hoard = runtime.block_on(Hoard::make(&mq))?;
        Ok(Scene {
            house,
            volume,
            recorder: Arc::new(Recorder::new()),
            random: Random::new(seed),
            runtime,
            hoard,
            probes: Probes::new(&mq),
            tally: Tally::default(),
            is_at_brim: false,
            _folder: folder,
        })
    }

    /// Fills the disk, sees what goes on, makes room, and sees that records are taken again.
    fn cycle(&mut self, way: Room) -> Result<(), String> {
        let wanted = FILLER_BYTES[usize::from(way != Room::Filler)];
        let taken = self.volume.fill(wanted)?;
        // Segments that the broker made ahead may have left somebody else less than what records need to be taken again; then
        // giving it back makes no room for them.
        let way = if way == Room::Filler && taken < wanted { Room::Delete } else { way };
        self.fill()?;
        self.look()?;
        if self.random.below(2) == 0 {
            self.recorder.fault("kill");
            self.house.kill();
            self.recorder.fault("start");
            self.house.restart().map_err(|error| format!("on a full disk: {error}"))?;
            self.tally.kills += 1;
            self.look()?;
        }
        self.recorder.fault("room");
        self.make_room(way)?;
        self.resume()?;
        self.runtime.block_on(self.hoard.check())?;
        self.runtime.block_on(self.probes.check())?;
        self.volume.clear()?;
        thread::sleep(Duration::from_millis(self.random.below(400)));
        Ok(())
    }

    /// Fills the disk with records; now and then somebody else takes what is left, and what the broker gives back for it.
    fn fill(&mut self) -> Result<(), String> {
        self.recorder.fault("full");
        self.runtime.block_on(self.hoard.fill())?;
        self.tally.full += 1;
        self.is_at_brim = self.random.below(2) == 0;
        if self.is_at_brim {
            for _ in 0..4 {
                self.volume.fill(EVERYTHING)?;
                thread::sleep(Duration::from_millis(100));
            }
            self.tally.brim += 1;
        }
        Ok(())
    }

    /// What goes on while the disk is full. As long as nobody else took it, the ballast has room for everything but records.
    fn look(&mut self) -> Result<(), String> {
        let before = self.probes.answers;
        for _ in 0..LOOKS {
            self.runtime.block_on(self.probes.all())?;
            self.runtime.block_on(self.hoard.check())?;
            if let Sent::Unknown(error) = self.runtime.block_on(self.hoard.send()) {
                return Err(format!("a record for a full disk: {error:?}"));
            }
        }
        let Answers { refused, waiting, .. } = self.probes.answers;
        if !self.is_at_brim && (refused, waiting) != (before.refused, before.waiting) {
            return Err("a full disk refused more than records".into());
        }
        self.runtime.block_on(self.probes.check())
    }

    /// Where somebody else took every byte, records cannot be deleted before that one gave some back: what must be written first
    /// finds no room.
    fn make_room(&mut self, way: Room) -> Result<(), String> {
        let began = Instant::now();
        if way == Room::Filler || self.is_at_brim {
            self.volume.clear()?;
        }
        loop {
            let freed = match way {
                Room::Delete => self.runtime.block_on(self.hoard.delete()),
                Room::Retention => self.runtime.block_on(self.hoard.retain(true)),
                Room::Filler => return Ok(()),
            };
            match freed {
                Ok(()) => return Ok(()),
                // A broker that could not recover its logs begins anew once it can.
                Err(error) if self.is_at_brim && error.is_retriable() => {
                    if began.elapsed() > ROOM_MAX {
                        return Err(told("no records can be deleted", &error));
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(told("no records can be deleted", &error)),
            }
        }
    }

    /// Records are taken again. The room that was made may have gone into segments made ahead, or fall some KiB short of the ballast and the
    /// reserve. Then more is made, once, and that is counted.
    fn resume(&mut self) -> Result<(), String> {
        let began = Instant::now();
        let mut is_helped = false;
        loop {
            if !is_helped && began.elapsed() > ROOM_MAX / 3 {
                is_helped = true;
                self.volume.clear()?;
                self.make_room(Room::Delete)?;
                self.tally.helped += 1;
            }
            match self.runtime.block_on(self.hoard.send()) {
                Sent::Acked => break,
                Sent::Refused | Sent::Doubtful if began.elapsed() < ROOM_MAX => {}
                // A broker that could not recover its logs begins anew once it can.
                Sent::Unknown(error) if error.is_retriable() && began.elapsed() < ROOM_MAX => {}
                Sent::Refused | Sent::Doubtful => {
                    let free = self.volume.free_bytes()?;
                    return Err(format!(
                        "there is room ({free} bytes), and records are still refused"
                    ));
                }
                Sent::Unknown(error) => return Err(told("there is room again", &error)),
            }
        }
        let kept = self.runtime.block_on(self.hoard.retain(false));
        kept.map_err(|error| told("there is room again", &error))
    }

    /// Looks at everything twice, and judges.
    fn finish(mut self) -> Result<(Findings, Tally), String> {
        let topics = u16::try_from(LEVELS.len()).unwrap_or(0);
        look(self.house.address(), "first", topics, &self.recorder)?;
        stopped(&mut self.house)?;
        self.house.restart()?;
        look(self.house.address(), "second", topics, &self.recorder)?;
        self.runtime.block_on(self.hoard.check())?;
        self.runtime.block_on(self.probes.check())?;
        stopped(&mut self.house)?;
        self.tally.records = self.hoard.len() as u64;
        let Answers { done, refused, waiting } = self.probes.answers;
        self.tally.answers.done += done;
        self.tally.answers.refused += refused;
        self.tally.answers.waiting += waiting;
        strange(&self.recorder.events())?;
        Ok((judged(&self.recorder, &rules(&LEVELS))?, self.tally))
    }
}

fn told(what: &str, error: &Error) -> String {
    format!("{what}: {error:?}")
}

/// A full disk is told as one, and nothing else is told because of it.
fn strange(events: &[Event]) -> Result<(), String> {
    let names = STRANGE.map(|code| format!("code: {code:?},"));
    for event in events {
        let Some(err) = &event.err else { continue };
        if names.iter().any(|name| err.contains(name)) {
            return Err(format!("event {} was answered with {err}", event.index));
        }
    }
    Ok(())
}

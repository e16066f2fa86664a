//! One machine: a disk, a clock, and a broker whose every step is taken from here.

use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use riverrun_broker::{
    Config,
    broker::{Ground, simulated::Simulated},
    clock::{Clock, ClockHand},
    service::Services,
};
use riverrun_storage::{
    data_dir::Meta,
    disk::{
        Disk,
        sim::{CrashPolicy, SimDisk},
    },
};
use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinHandle, yield_now},
};

use super::{model::Broken, step::End};

/// When the machine is set up: 2026-01-01.
const BEGIN_MS: i64 = 1_767_225_600_000;
/// Rounds of all workers in which every call must come to its end.
const ROUNDS_MAX: usize = 400;
/// Milliseconds of a year.
const YEAR_MS: i64 = 31_557_600_000;

/// The machine, with its broker running.
pub(super) struct World {
    pub(super) disk: SimDisk,
    clock: Clock,
    hand: ClockHand,
    broker: Option<Simulated>,
    runtime: Runtime,
}

impl World {
    /// A machine with an empty disk.
    pub(super) fn new(seed: u64) -> Result<World, Broken> {
        World::on(World::empty_disk(seed)?)
    }

    /// A disk before the first start.
    pub(super) fn empty_disk(seed: u64) -> Result<SimDisk, Broken> {
        Simulated::number_ids(1 << 20);
        let disk = SimDisk::new(seed);
        let made = disk.create_dir(Path::new("logs")).and_then(|()| disk.sync_dir(Path::new("")));
        made.map_err(|error| format!("no disk: {error}"))?;
        Ok(disk)
    }

    /// A machine over `disk` that was switched off.
    pub(super) fn on(disk: SimDisk) -> Result<World, Broken> {
        let (clock, hand) = Clock::manual(BEGIN_MS);
        let mut world = World { disk, clock, hand, broker: None, runtime: runtime()? };
        world.open()?;
        Ok(world)
    }

    /// Starts the broker.
    fn open(&mut self) -> Result<(), Broken> {
        self.broker = None;
        self.runtime = runtime()?;
        let meta = Meta { cluster_id: uuid::Uuid::nil(), node_id: 0 };
        let disk = Arc::new(self.disk.clone());
        let ground = Ground { disk, meta, clock: self.clock.clone(), data_dir: None };
        let inside = self.runtime.enter();
        let broker = Simulated::open(Config::default(), &ground)
            .map_err(|error| format!("no-start: {error}"))?;
        for work in broker.background() {
            self.runtime.spawn(work);
        }
        drop(inside);
        self.broker = Some(broker);
        self.settle();
        Ok(())
    }

    /// Ends the broker and starts it on what is left. With `again` the power goes once more during the start.
    pub(super) fn restart(&mut self, end: End, again: Option<u8>) -> Result<(), Broken> {
        self.stop_tasks()?;
        self.disk = after(&self.disk, end);
        if let Some(at) = again {
            self.disk.cut_power_at(u64::from(at));
            // It may come to its end before the power goes.
            let _ = self.open();
            self.stop_tasks()?;
            self.disk = after(&self.disk, end);
        }
        self.open()?;
        self.is_whole()
    }

    /// An error when a partition did not start.
    pub(super) fn is_whole(&self) -> Result<(), Broken> {
        let partitions = self.broker().registry().open_partitions();
        match partitions.iter().find_map(|one| Some((one.name(), one.failure()?.clone()))) {
            Some((name, failure)) => Err(format!("no-start: partition {name}: {failure}")),
            None => Ok(()),
        }
    }

    /// Ends the broker. Nothing of it may be left: a partition that somebody still holds is memory that never comes back.
    fn stop_tasks(&mut self) -> Result<(), Broken> {
        let partitions = self.broker.iter().flat_map(|broker| broker.registry().open_partitions());
        let partitions: Vec<_> = partitions.map(|one| Arc::downgrade(&one)).collect();
        self.runtime = runtime()?;
        self.broker = None;
        match partitions.iter().find_map(Weak::upgrade) {
            Some(left) => Err(format!("leak: partition {} outlives its broker", left.name())),
            None => Ok(()),
        }
    }

    /// True when the power went.
    pub(super) fn is_dead(&self) -> bool {
        self.disk.free_bytes().is_err()
    }

    /// The services.
    pub(super) fn services(&self) -> Services {
        self.broker().services().clone()
    }

    fn broker(&self) -> &Simulated {
        self.broker.as_ref().expect("open between two starts")
    }

    fn hands(&mut self) -> &mut riverrun_broker::partition::Hands {
        &mut self.broker.as_mut().expect("open between two starts").hands
    }

    pub(super) fn turn(&mut self, shard: usize) {
        self.hands().turn(shard);
    }

    pub(super) fn flush(&mut self) {
        self.hands().flush();
    }

    pub(super) fn prepare(&mut self) {
        self.hands().prepare();
    }

    /// Lets time pass.
    pub(super) fn wait(&self, ms: u32) {
        self.hand.advance(Duration::from_millis(u64::from(ms)));
    }

    /// Lets the wall clock jump.
    pub(super) fn jump(&self, years: i8) {
        self.hand.jump_wall_to((self.clock.wall_ms() + i64::from(years) * YEAR_MS).max(0));
    }

    /// Lets every task go on that can.
    pub(super) fn settle(&self) {
        self.runtime.block_on(async {
            for _ in 0..6 {
                yield_now().await;
            }
        });
    }

    /// Begins a call.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(call)
    }

    /// The answer of a call, when it came.
    pub(super) fn answer<T>(&self, call: &mut JoinHandle<T>) -> Option<Result<T, Broken>> {
        if !call.is_finished() {
            return None;
        }
        let answer = self.runtime.block_on(call);
        Some(answer.map_err(|error| format!("panic: a call ended with {error}")))
    }

    /// Makes a call and takes all steps that it needs.
    pub(super) fn call<T: Send + 'static>(
        &mut self,
        what: &str,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Broken> {
        let mut call = self.begin(call);
        for _ in 0..ROUNDS_MAX {
            self.settle();
            if let Some(answer) = self.answer(&mut call) {
                return answer;
            }
            self.turn(0);
            self.turn(1);
            self.flush();
            self.prepare();
        }
        Err(format!("hang: `{what}` has no answer after {ROUNDS_MAX} rounds"))
    }
}

fn runtime() -> Result<Runtime, Broken> {
    Builder::new_current_thread().enable_time().build().map_err(|error| error.to_string())
}

/// What is left of a disk.
fn after(disk: &SimDisk, end: End) -> SimDisk {
    match end {
        // A dead machine does not come back with its memory.
        End::Kill if disk.free_bytes().is_err() => disk.crash(CrashPolicy::lose_all()),
        End::Kill => disk.kill(),
        End::Power(seed) => disk.crash(CrashPolicy::random(seed)),
        End::PowerAnyNames(seed) => disk.crash(CrashPolicy::weak(seed)),
        End::PowerLosesAll => disk.crash(CrashPolicy::lose_all()),
    }
}

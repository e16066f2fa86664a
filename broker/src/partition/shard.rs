//! A shard writes the partitions that are pinned to it: it takes what waits in its queue, appends all of
//! it, and hands the partitions that need it to the flush threads. It knows when background flushes and
//! marks are due, for all of them, by one heap; while nothing is due and nothing comes it sleeps.
//!
//! The shard itself has no thread: `workers.rs` gives it one, and a simulation may drive it by hand.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use riverrun_storage::{LogWriter, Timestamp};
use tokio::sync::Semaphore;

use super::{Append, Partition, queue::WorkQueue};
use crate::{clock::Clock, metrics::WriteMeter};

/// Appends that wait in one shard's queue.
const QUEUE_SLOTS: usize = 4_096;
/// A partition idle for so long gets its mark flushed.
const IDLE: Duration = Duration::from_millis(100);
/// A partition with unflushed records that nobody asked to flush is flushed when idle for so long.
const IDLE_UNFLUSHED: Duration = Duration::from_secs(5);

/// Something to do with a partition's writer, on its own thread.
pub(crate) type Act = Box<dyn FnOnce(&mut Option<LogWriter>, Timestamp) + Send>;

/// Work for a shard.
pub(crate) enum Command {
    /// Append a batch, queued at this monotonic time.
    Append(Arc<Partition>, Append, Duration),
    /// Anything else that needs the writer.
    Act(Arc<Partition>, Act),
}

/// Work for the flush threads.
#[derive(Debug)]
pub(crate) enum Flush {
    /// Flush what was appended.
    Log(Arc<Partition>),
    /// Flush the mark of an idle partition.
    Mark(Arc<Partition>),
}

/// What partitions know of their shard and of the flush threads.
#[derive(Clone, Debug)]
pub(crate) struct ShardHandle {
    /// Commands that wait.
    pub(crate) commands: Arc<WorkQueue<Command>>,
    /// Room in the queue for appends.
    pub(crate) slots: Arc<Semaphore>,
    /// Flushes that wait.
    pub(crate) flushes: Arc<WorkQueue<Flush>>,
    /// Monotonic time, for what is due and what was said lately.
    pub(crate) clock: Clock,
    /// Partitions whose next segment is to be made.
    pub(crate) preparations: Arc<WorkQueue<Arc<Partition>>>,
    /// How long it takes, over all shards.
    pub(crate) meter: Arc<WriteMeter>,
}

/// One shard.
#[derive(Debug)]
pub(crate) struct Shard {
    handle: ShardHandle,
    /// Partitions with something due, by time.
    due: BinaryHeap<Reverse<Due>>,
    /// Partitions appended to in this round.
    touched: Vec<Arc<Partition>>,
}

#[derive(Debug)]
struct Due {
    at: Duration,
    what: Timer,
    partition: Arc<Partition>,
}

/// What may be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The flush of a partition with a flush interval.
    Interval,
    /// The mark of an idle partition.
    Idle,
}

impl ShardHandle {
    /// A handle of a shard that hands its flushes to `flushes` and preparations to `preparations`.
    pub(crate) fn new(
        flushes: Arc<WorkQueue<Flush>>,
        preparations: Arc<WorkQueue<Arc<Partition>>>,
        (clock, meter): (Clock, Arc<WriteMeter>),
    ) -> ShardHandle {
        let commands = Arc::new(WorkQueue::new());
        let slots = Arc::new(Semaphore::new(QUEUE_SLOTS));
        ShardHandle { commands, slots, flushes, clock, preparations, meter }
    }
}

impl Shard {
    /// A shard that works for `handle`.
    pub(crate) fn new(handle: ShardHandle) -> Shard {
        Shard { handle, due: BinaryHeap::new(), touched: Vec::new() }
    }

    /// Waits for work and does it. False when there will be no more.
    pub(crate) fn turn(&mut self) -> bool {
        let wait =
            self.due.peek().map(|next| next.0.at.saturating_sub(self.handle.clock.elapsed()));
        let Some(commands) = self.handle.commands.take_all(wait) else { return false };
        self.run(commands);
        true
    }

    /// Does what waits and what is due, without waiting for more.
    #[cfg(feature = "sim")]
    pub(crate) fn step(&mut self) {
        let commands = self.handle.commands.drain();
        self.run(commands);
    }

    /// Where its commands wait.
    #[cfg(feature = "sim")]
    pub(crate) fn commands(&self) -> &WorkQueue<Command> {
        &self.handle.commands
    }

    /// Does `commands` and what is due.
    pub(crate) fn run(&mut self, commands: VecDeque<Command>) {
        if !commands.is_empty() {
            let now = Timestamp(self.handle.clock.wall_ms());
            for command in commands {
                self.do_one(command, now);
            }
        }
        for partition in std::mem::take(&mut self.touched) {
            partition.start_flush();
            partition.start_preparation();
            self.arm(partition);
        }
        self.do_due();
    }

    fn do_one(&mut self, command: Command, now: Timestamp) {
        match command {
            Command::Append(partition, append, queued_at) => {
                self.handle.slots.add_permits(1);
                partition.write((append, queued_at), now, self.handle.clock.elapsed());
                if !self.touched.last().is_some_and(|last| Arc::ptr_eq(last, &partition)) {
                    self.touched.push(partition);
                }
            }
            Command::Act(partition, act) => {
                partition.act(act, now);
                self.touched.push(partition);
            }
        }
    }

    /// Sets the timers that the partition needs and has not.
    fn arm(&mut self, partition: Arc<Partition>) {
        let now = self.handle.clock.elapsed();
        if let Some(interval) = partition.arm_interval() {
            self.set(now + interval, Timer::Interval, partition.clone());
        }
        if partition.arm_idle() {
            self.set(now + IDLE, Timer::Idle, partition);
        }
    }

    fn set(&mut self, at: Duration, what: Timer, partition: Arc<Partition>) {
        self.due.push(Reverse(Due { at, what, partition }));
    }

    fn do_due(&mut self) {
        let now = self.handle.clock.elapsed();
        while self.due.peek().is_some_and(|next| next.0.at <= now) {
            let Some(Reverse(due)) = self.due.pop() else { return };
            match due.what {
                Timer::Interval => due.partition.interval_is_over(),
                Timer::Idle => self.look_if_idle(due.partition, now),
            }
        }
    }

    /// Flushes the mark when the partition was idle long enough, else looks again later.
    fn look_if_idle(&mut self, partition: Arc<Partition>, now: Duration) {
        let (last_append, dirty) = partition.activity();
        let needed = if dirty { IDLE_UNFLUSHED } else { IDLE };
        let idle_at = last_append + needed;
        if idle_at > now {
            self.set(idle_at, Timer::Idle, partition);
        } else if dirty {
            partition.interval_is_over();
            self.set(now + IDLE, Timer::Idle, partition);
        } else {
            partition.is_idle();
        }
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Append(partition, ..) => write!(f, "Append({})", partition.name()),
            Command::Act(partition, _) => write!(f, "Act({})", partition.name()),
        }
    }
}

//! The threads behind the partitions: shards that append, a pool that flushes, one that prepares segments.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;
use riverrun_storage::Timestamp;

use super::{
    Partition,
    queue::WorkQueue,
    shard::{Flush, Shard, ShardHandle},
};
use crate::{clock::Clock, metrics::WriteMeter};

/// The threads. They end when told to, after the work that waits.
#[derive(Debug)]
pub struct Workers {
    pub(super) shards: Vec<ShardHandle>,
    pub(super) flushes: Arc<WorkQueue<Flush>>,
    /// Partitions whose next segment is to be made; each stands in it once at most.
    pub(super) preparations: Arc<WorkQueue<Arc<Partition>>>,
    /// Shard that the next partition is pinned to.
    pub(super) next_shard: AtomicUsize,
    /// Threads by role; taken when they are joined.
    pub(super) writers: Mutex<Vec<JoinHandle<()>>>,
    pub(super) flushers: Mutex<Vec<JoinHandle<()>>>,
    pub(super) preparers: Mutex<Vec<JoinHandle<()>>>,
    /// How long the writing side takes.
    pub(super) meter: Arc<WriteMeter>,
}

impl Workers {
    /// Starts `writer_count` appending and `flusher_count` flushing threads.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(writer_count: usize, flusher_count: usize, clock: &Clock) -> io::Result<Workers> {
        let flushes = Arc::new(WorkQueue::new());
        let preparations = Arc::new(WorkQueue::<Arc<Partition>>::new());
        let mut workers = Workers {
            shards: Vec::new(),
            flushes: flushes.clone(),
            preparations: preparations.clone(),
            next_shard: AtomicUsize::new(0),
            writers: Mutex::default(),
            flushers: Mutex::default(),
            preparers: Mutex::default(),
            meter: Arc::default(),
        };
        for index in 0..writer_count.max(1) {
            let measured = (clock.clone(), workers.meter.clone());
            let handle = ShardHandle::new(flushes.clone(), preparations.clone(), measured);
            let mut shard = Shard::new(handle.clone());
            let name = format!("writer-{index}");
            let thread = thread::Builder::new().name(name).spawn(move || while shard.turn() {})?;
            workers.shards.push(handle);
            workers.writers.lock().push(thread);
        }
        for index in 0..flusher_count.max(1) {
            let flushes = flushes.clone();
            let name = format!("flusher-{index}");
            let thread = thread::Builder::new().name(name).spawn(move || {
                while let Some(flush) = flushes.pop() {
                    flush.run();
                }
            })?;
            workers.flushers.lock().push(thread);
        }
        let name = "preparer".to_owned();
        let thread_clock = clock.clone();
        let thread = thread::Builder::new().name(name).spawn(move || {
            while let Some(partition) = preparations.pop() {
                partition.prepare(Timestamp(thread_clock.wall_ms()));
            }
        })?;
        workers.preparers.lock().push(thread);
        Ok(workers)
    }

    /// How long the writing side takes.
    pub fn meter(&self) -> &Arc<WriteMeter> {
        &self.meter
    }

    /// The shard for a new partition: each takes its turn.
    pub(crate) fn shard(&self) -> ShardHandle {
        let index = self.next_shard.fetch_add(1, Relaxed) % self.shards.len();
        self.shards[index].clone()
    }

    /// Lets the threads finish what waits and end. Blocks until they did.
    pub fn stop(&self) {
        for shard in &self.shards {
            shard.commands.close();
        }
        join(&self.writers);
        self.flushes.close();
        join(&self.flushers);
        self.preparations.close();
        join(&self.preparers);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Flush {
    /// Does it.
    pub(crate) fn run(self) {
        match self {
            Flush::Log(partition) => partition.flush(),
            Flush::Mark(partition) => partition.flush_mark(),
        }
    }
}

fn join(threads: &Mutex<Vec<JoinHandle<()>>>) {
    let threads = std::mem::take(&mut *threads.lock());
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker thread panicked");
        }
    }
}

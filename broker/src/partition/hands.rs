//! The hands of a simulation: they do step by step what threads do otherwise.

use std::sync::{Arc, atomic::AtomicUsize};

use parking_lot::Mutex;
use riverrun_storage::Timestamp;

use super::{
    Partition, Workers,
    queue::WorkQueue,
    shard::{Flush, Shard, ShardHandle},
};
use crate::{blocking, clock::Clock, metrics::WriteMeter};

/// Takes the steps of workers that have no threads.
#[derive(Debug)]
pub struct Hands {
    shards: Vec<Shard>,
    flushes: Arc<WorkQueue<Flush>>,
    preparations: Arc<WorkQueue<Arc<Partition>>>,
    clock: Clock,
}

impl Workers {
    /// Workers without threads, and the hands that work for them. All blocking work of this thread is done where
    /// it is asked for from now on.
    pub fn manual(shard_count: usize, clock: &Clock) -> (Workers, Hands) {
        blocking::run_inline();
        let flushes = Arc::new(WorkQueue::new());
        let preparations = Arc::new(WorkQueue::new());
        let meter = Arc::<WriteMeter>::default();
        let measured = || (clock.clone(), meter.clone());
        let handle = || ShardHandle::new(flushes.clone(), preparations.clone(), measured());
        let shards: Vec<ShardHandle> = (0..shard_count.max(1)).map(|_| handle()).collect();
        let hands = Hands {
            shards: shards.iter().cloned().map(Shard::new).collect(),
            flushes: flushes.clone(),
            preparations: preparations.clone(),
            clock: clock.clone(),
        };
        let workers = Workers {
            shards,
            flushes,
            preparations,
            next_shard: AtomicUsize::new(0),
            writers: Mutex::default(),
            flushers: Mutex::default(),
            preparers: Mutex::default(),
            meter,
        };
        (workers, hands)
    }
}

impl Hands {
    /// How many shards there are.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Appends what waits at a shard, and begins what is due there.
    pub fn turn(&mut self, shard: usize) {
        self.shards[shard].step();
    }

    /// Does the oldest flush that waits. False when there was none.
    pub fn flush(&mut self) -> bool {
        let flush = self.flushes.try_pop();
        flush.map(Flush::run).is_some()
    }

    /// Makes the next segment of a partition that waits for it. False when there was none.
    pub fn prepare(&mut self) -> bool {
        let partition = self.preparations.try_pop();
        partition.map(|partition| partition.prepare(Timestamp(self.clock.wall_ms()))).is_some()
    }
}

/// What still waits holds partitions, and these hold the queues: without this neither would ever go.
impl Drop for Hands {
    fn drop(&mut self) {
        for queue in self.shards.iter().map(Shard::commands) {
            queue.close();
            drop(queue.drain());
        }
        self.flushes.close();
        drop(self.flushes.drain());
        self.preparations.close();
        drop(self.preparations.drain());
    }
}

//! One partition: its log, the single writer with group commit, and the wake-ups of its readers.
//!
//! ```text
//! callers --append--> shard's queue --> LogWriter::append --> ledger --> receipt (page cache is enough)
//!                                                               |
//!                     flush threads <-- wants a flush ----------+
//!                           `--> LogFlusher::flush --> ledger --> replicator --> high watermark --> receipts, tail
//! ```
//!
//! Invariants:
//! - log start <= high watermark <= log end; the high watermark never goes back.
//! - The high watermark is what the replicator says is committed; on a single node that is what is as durable
//!   as the topic asks. Who may append is the replicator's word too.
//! - Records are visible before their receipt is given, so whoever has a receipt can read them.
//! - A panic or a failed flush stops this partition for writing, never the process.
//! - Only this room calls storage: writes on shard threads, flushes on flush threads, next segments on
//!   a thread that no append or flush waits for, reads where the caller is when they come from memory and on the blocking pool when they may not.

mod complaints;
pub mod damages;
pub mod device;
pub mod directory;
mod durability;
pub mod error;
pub mod files;
pub mod gauge;
#[cfg(feature = "sim")]
mod hands;
pub mod housekeeping;
mod ledger;
mod maintain;
mod queue;
mod read;
mod replicator;
pub mod scrub;
pub mod settings;
mod shard;
pub mod starts;
pub mod state_log;
mod sync;
pub mod tail;
pub mod ticket;
pub mod workers;
mod write;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use riverrun_proto::{Offset, PartitionId, RecordBatch, TopicId};
use riverrun_storage::{
    LogCompactor, LogFailure, LogFlusher, LogPreparer, LogReader, LogWriter, OpenedLog,
};

#[cfg(feature = "sim")]
pub use self::hands::Hands;
use self::{
    complaints::Complaints, damages::Damages, ledger::Ledger, read::Hot, replicator::Replicator,
    shard::ShardHandle,
};
pub use self::{
    directory::{PartitionOpener, partition_dir},
    durability::Durability,
    error::{
        AppendError, DiskFull, MaintainError, NotLeader, OffsetRange, PartitionFailed, ReadError,
        ReadOnly,
    },
    gauge::DiskGauge,
    read::{PartitionFacts, PartitionRead, TimeAnswer, VisibleRange},
    replicator::Role,
    settings::PartitionSettings,
    starts::Starts,
    state_log::StateLog,
    tail::{Tail, TailWaiter},
    ticket::{AppendReceipt, AppendResult, AppendTicket, Completer, ReceiptSink},
    workers::Workers,
};
use crate::{metrics::Traffic, quota::Share};

/// A batch on its way to a partition.
#[derive(Debug)]
pub struct Append {
    /// The batch; its checksum was verified by the caller.
    pub batch: RecordBatch,
    /// What the receipt waits for.
    pub wait: WaitFor,
    /// Who gets the receipt.
    pub completer: Completer,
    /// Share of the in-flight bytes; given back once the batch is in the log.
    pub share: Share,
}

/// How far a batch must have come before its receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// In the page cache of this node.
    Written,
    /// Committed, and at the topic's durability, or this one when it is stronger.
    AtLeast(Durability),
}

/// An append that waits for its flush.
#[derive(Debug)]
struct Waiting {
    completer: Completer,
    base_offset: Offset,
    end_offset: Offset,
    duplicate: bool,
    /// Monotonic time when it was queued; absent when nothing was appended and only its flush is waited for.
    queued_at: Option<Duration>,
}

/// One open partition.
pub struct Partition {
    topic_id: TopicId,
    partition: PartitionId,
    /// Settings in force. Replaced as a whole.
    settings: RwLock<Arc<PartitionSettings>>,
    shard: ShardHandle,
    gauge: Arc<DiskGauge>,
    reader: LogReader,
    flusher: LogFlusher,
    preparer: LogPreparer,
    /// The next segment is being made ready, or waits for it.
    preparing: AtomicBool,
    /// `None` once closed. Only the shard's thread takes the lock, so it is always free.
    writer: Mutex<Option<LogWriter>>,
    ledger: Mutex<Ledger<Waiting>>,
    /// One pass at a time; held for all of it.
    compactor: Mutex<LogCompactor>,
    tail: Arc<Tail>,
    /// This node may append, as the replicator last said. Written with the ledger locked.
    leads: AtomicBool,
    /// Why the partition refuses writes, when the reason is its own. Set once.
    failure: OnceLock<PartitionFailed>,
    /// Why nothing can be written, when the data directory is only read. Constant.
    read_only: Option<ReadOnly>,
    /// Set when the partition is to be closed; appends are refused from then on.
    closed: AtomicBool,
    /// Monotonic time of the last append, in milliseconds. Written by the shard.
    last_append_ms: AtomicU64,
    /// A flush timer is set. Written by the shard.
    interval_armed: AtomicBool,
    /// An idle timer is set. Written by the shard.
    idle_armed: AtomicBool,
    /// Somebody asked for at least [`Durability::Interval`] since the last background flush.
    interval_wanted: AtomicBool,
    /// What was said lately about records that cannot be read.
    complaints: Complaints,
    /// Cold records were read since housekeeping looked.
    read_cold: AtomicBool,
    /// Which records were written so lately that they are in memory.
    hot: Hot,
    /// Damaged places that are known.
    damages: Mutex<Damages>,
    /// What was appended. Stays empty in the broker's own logs.
    appended: Traffic,
    /// What fetches read.
    fetched: Traffic,
    /// The log is the broker's own. Constant.
    is_internal: bool,
}

impl Partition {
    /// A partition over a log that was just opened.
    pub(crate) fn new(
        opened: OpenedLog,
        settings: PartitionSettings,
        shard: ShardHandle,
        (gauge, read_only): (Arc<DiskGauge>, Option<ReadOnly>),
        replicator: Replicator,
    ) -> Arc<Partition> {
        // What the report says was added to the sums of the start.
        let OpenedLog { writer, flusher, reader, report: _ } = opened;
        let offsets = reader.offsets();
        let ends = (offsets.flushed, offsets.log_end);
        let ledger = Ledger::new(settings.durability, ends, replicator);
        let leads = AtomicBool::new(ledger.role() == Role::Leader);
        let tail = Arc::new(Tail::new(ledger.visible().high_watermark));
        let failure = OnceLock::new();
        let found = reader.failure();
        if let Some(found) = found.filter(|found| !matches!(found, LogFailure::ReadOnly)) {
            failure.get_or_init(|| PartitionFailed::from(&found));
        }
        let compactor = Mutex::new(writer.compactor());
        Arc::new(Partition {
            is_internal: settings.is_internal,
            topic_id: settings.log.topic_id,
            partition: settings.log.partition,
            settings: RwLock::new(Arc::new(settings)),
            shard,
            gauge,
            reader,
            flusher,
            preparer: writer.preparer(),
            preparing: AtomicBool::new(false),
            writer: Mutex::new(Some(writer)),
            ledger: Mutex::new(ledger),
            compactor,
            tail,
            leads,
            failure,
            read_only,
            closed: AtomicBool::new(false),
            last_append_ms: AtomicU64::new(0),
            interval_armed: AtomicBool::new(false),
            idle_armed: AtomicBool::new(false),
            interval_wanted: AtomicBool::new(false),
            complaints: Complaints::default(),
            read_cold: AtomicBool::new(false),
            hot: Hot::new(offsets.log_end),
            damages: Mutex::default(),
            appended: Traffic::default(),
            fetched: Traffic::default(),
        })
    }

    /// Topic id and partition number, as its directory is named.
    pub fn name(&self) -> String {
        format!("{}/{}", self.topic_id, self.partition)
    }

    /// The topic.
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// The partition number.
    pub fn partition_id(&self) -> PartitionId {
        self.partition
    }

    /// Settings in force.
    pub fn settings(&self) -> Arc<PartitionSettings> {
        self.settings.read().clone()
    }

    /// Why the partition refuses writes, if it does: its own reason, or its disk's.
    pub fn failure(&self) -> Option<&PartitionFailed> {
        self.failure.get().or_else(|| self.gauge.device().failure())
    }

    /// Why nothing can be written, when the data directory is only read.
    pub fn read_only(&self) -> Option<&ReadOnly> {
        self.read_only.as_ref()
    }

    /// What this node may do with the partition.
    pub fn role(&self) -> Role {
        if self.leads.load(SeqCst) { Role::Leader } else { Role::Follower }
    }

    /// What was appended since the partition was opened.
    pub fn appended(&self) -> &Traffic {
        &self.appended
    }

    /// What was given to fetches since then.
    pub fn fetched(&self) -> &Traffic {
        &self.fetched
    }

    /// The visible end and those who wait for it to move.
    pub fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("name", &self.name()).finish_non_exhaustive()
    }
}

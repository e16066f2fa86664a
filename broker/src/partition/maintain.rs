//! What is done to a partition besides appending: settings, trimming, compaction, and its end.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use riverrun_proto::Offset;
use riverrun_storage::{LogWriter, StorageError, Timestamp};
use tokio::sync::oneshot;

use super::{
    MaintainError, Partition, PartitionSettings,
    shard::{Act, Command},
};

impl Partition {
    /// Moves the log start up to `offset`, which may not be past the high watermark. Returns the log start.
    ///
    /// # Errors
    /// When another node leads, the offset is past the visible end, or storage refuses.
    pub async fn drop_before(self: &Arc<Self>, offset: Offset) -> Result<Offset, MaintainError> {
        self.check_leads()?;
        let high_watermark = self.tail.high_watermark();
        if offset > high_watermark {
            return Err(MaintainError::PastVisibleEnd { requested: offset, high_watermark });
        }
        let before = self.visible().log_start;
        let dropped = self.with_writer(move |writer, _| {
            writer.drop_before(offset).map(|dropped| dropped.log_start)
        });
        let log_start = dropped.await?;
        self.tell_of_log_start(before);
        Ok(log_start)
    }

    /// Wakes those who stand on the tail when records were removed since the log began at `before`.
    fn tell_of_log_start(&self, before: Offset) {
        if self.visible().log_start > before {
            self.tail.wake_all();
        }
    }

    /// Puts other settings in force.
    ///
    /// # Errors
    /// When storage refuses them; the old ones stay.
    pub async fn reconfigure(
        self: &Arc<Self>,
        settings: PartitionSettings,
    ) -> Result<(), MaintainError> {
        let log = settings.log.clone();
        self.with_writer(move |writer, _| writer.set_options(log)).await?;
        let durability = settings.durability;
        *self.settings.write() = Arc::new(settings);
        self.settle(|ledger| ledger.set_durability(durability));
        self.start_flush();
        Ok(())
    }

    /// True when retention may drop something, or compaction leave something out.
    pub fn is_trimmed(&self) -> bool {
        let settings = self.settings.read();
        let policy = settings.retention;
        policy.age_max.is_some() || policy.bytes_max.is_some() || settings.compaction.is_some()
    }

    /// Drops what retention does not keep, and seals an active segment that is too old, so that retention and compaction reach it also where
    /// nothing is appended any more. Returns bytes dropped.
    ///
    /// # Errors
    /// When storage refuses.
    pub async fn maintain(self: &Arc<Self>, now_ms: i64) -> Result<u64, MaintainError> {
        let policy = self.settings.read().retention;
        let before = self.visible().log_start;
        let dropped = self.with_writer(move |writer, _| {
            // First what makes room: a roll needs some.
            let dropped = writer.apply_retention(Timestamp(now_ms), &policy)?;
            writer.roll_if_old(Timestamp(now_ms))?;
            Ok(dropped.bytes)
        });
        let dropped = dropped.await;
        // Also where the roll was refused: what retention dropped is gone.
        self.tell_of_log_start(before);
        dropped
    }

    /// True when keys of this partition are compacted.
    pub fn has_compaction(&self) -> bool {
        self.settings.read().compaction.is_some()
    }

    /// Makes one compaction pass, if enough was written since the last one. Returns records left out, and
    /// whether another pass should follow.
    ///
    /// # Errors
    /// When storage refuses, or a damaged segment is in the way.
    pub async fn compact(self: &Arc<Self>, now_ms: i64) -> Result<(u64, bool), MaintainError> {
        let Some(options) = self.settings.read().compaction else { return Ok((0, false)) };
        self.check_changeable()?;
        let partition = self.clone();
        let pass = crate::blocking::run(move || {
            let now = Timestamp(now_ms);
            let mut compactor = partition.compactor.lock();
            if partition.is_closed() || !compactor.is_due(now, &options)? {
                return Ok((0, false));
            }
            let done = compactor.compact(now, &options)?;
            Ok((done.record_count, done.has_more))
        });
        pass.await.unwrap_or(Err(MaintainError::Closed))
    }

    /// Refuses further appends, finishes those that wait, flushes, and gives the log up with a clean mark.
    /// Those who wait for records are woken. Closing twice is harmless.
    ///
    /// # Errors
    /// When the log had stopped or the disk refuses; the next start then recovers.
    pub async fn close(self: &Arc<Self>) -> Result<(), MaintainError> {
        if self.closed.swap(true, SeqCst) {
            return Ok(());
        }
        let (sender, closed) = oneshot::channel();
        let is_read_only = self.read_only.is_some();
        let act: Act = Box::new(move |writer, _| {
            let given_up = writer.take().map_or(Err(MaintainError::Closed), |writer| {
                if is_read_only { Ok(()) } else { writer.close().map_err(MaintainError::from) }
            });
            drop(sender.send(given_up));
        });
        let sent = self.shard.commands.push(Command::Act(self.clone(), act));
        let result = match sent {
            Ok(()) => closed.await.unwrap_or(Err(MaintainError::Closed)),
            Err(_) => Err(MaintainError::Closed),
        };
        self.tail.wake_all();
        result
    }

    /// True once the partition was asked to close.
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Refuses when nothing can be written.
    fn check_changeable(&self) -> Result<(), MaintainError> {
        self.read_only.as_ref().map_or(Ok(()), |read_only| Err(read_only.clone().into()))
    }

    /// Runs `work` with the writer on the shard's thread.
    async fn with_writer<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut LogWriter, Timestamp) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, MaintainError> {
        self.check_changeable()?;
        let (sender, done) = oneshot::channel();
        let act: Act = Box::new(move |writer, now| {
            let result = writer.as_mut().map_or(Err(MaintainError::Closed), |writer| {
                work(writer, now).map_err(MaintainError::from)
            });
            drop(sender.send(result));
        });
        if self.shard.commands.push(Command::Act(self.clone(), act)).is_err() {
            return Err(MaintainError::Closed);
        }
        done.await.unwrap_or(Err(MaintainError::Closed))
    }
}

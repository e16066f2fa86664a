//! The writing side of a partition: appends, flushes, and the receipts they end in.

use std::{
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use riverrun_proto::Offset;
use riverrun_storage::{
    AppendError as LogAppendError, Appended, LogFailure, StorageError, Timestamp,
    failpoint::{Place, passes},
    planted::{Bug, planted},
};

use super::Durability;
use super::{
    Append, AppendError, AppendReceipt, AppendTicket, Completer, NotLeader, Partition,
    PartitionFailed, ReadOnly, Role, WaitFor, Waiting,
    ledger::{AppendFacts, Ledger, Needs},
    shard::{Act, Command, Flush},
};

/// What callers may ask for.
impl Partition {
    /// Refuses when a batch sent now would be refused.
    ///
    /// # Errors
    /// Closed, failed, led by another node, or no room on the disk.
    pub fn check_writable(&self) -> Result<(), AppendError> {
        if let Some(failure) = self.failure() {
            return Err(failure.clone().into());
        }
        if let Some(read_only) = &self.read_only {
            return Err(read_only.clone().into());
        }
        self.check_leads()?;
        if self.closed.load(SeqCst) {
            return Err(AppendError::Closed);
        }
        if !planted(Bug::AckRefused) {
            self.check_room()?;
        }
        Ok(())
    }

    /// Refuses records when the disk is full, and nothing of the broker's own.
    fn check_room(&self) -> Result<(), AppendError> {
        if !self.settings.read().is_internal {
            self.gauge.check()?;
        }
        Ok(())
    }

    /// Sends a batch on its way; batches sent one after another are appended in that order. Waits while
    /// the queue is full. The answer, good or bad, comes by the completer.
    pub async fn append(self: &Arc<Self>, append: Append) {
        if let Err(error) = self.check_writable() {
            return append.completer.complete(Err(error));
        }
        match self.shard.slots.acquire().await {
            Ok(slot) => slot.forget(),
            Err(_) => return append.completer.complete(Err(AppendError::Closed)),
        }
        let queued_at = self.shard.clock.elapsed();
        if let Err(Command::Append(_, append, _)) =
            self.shard.commands.push(Command::Append(self.clone(), append, queued_at))
        {
            append.completer.complete(Err(AppendError::Closed));
        }
    }

    /// Appends a batch and waits for its receipt.
    ///
    /// # Errors
    /// Why it was not appended, or that nobody can say.
    pub async fn append_and_wait(
        self: &Arc<Self>,
        batch: riverrun_proto::RecordBatch,
        wait: WaitFor,
    ) -> Result<AppendReceipt, AppendError> {
        let (completer, ticket): (Completer, AppendTicket) = Completer::ticket();
        self.append(Append { batch, wait, completer, share: Default::default() }).await;
        ticket.wait().await
    }

    /// Waits until everything below `end_offset` came as far as `level`, or the topic's durability when
    /// that is stronger. Returns the level reached.
    ///
    /// # Errors
    /// When the partition failed meanwhile, or its log does not reach so far: it is another one.
    pub async fn wait_durable(
        self: &Arc<Self>,
        end_offset: Offset,
        level: Durability,
    ) -> Result<Durability, AppendError> {
        let log_end = self.reader.offsets().log_end;
        if end_offset > log_end {
            let reason = format!("the log ends at {log_end}, the batch at {end_offset}");
            return Err(AppendError::Indeterminate { reason: reason.into() });
        }
        let (completer, ticket) = Completer::ticket();
        let appended = Appended { base_offset: end_offset, end_offset, duplicate: true };
        self.enter(appended, 0, WaitFor::AtLeast(level), (completer, None));
        self.start_flush();
        ticket.wait().await.map(|receipt| receipt.reached)
    }
}

/// What the shard's thread does.
impl Partition {
    /// Appends one batch and enters it in the ledger.
    pub(super) fn write(
        &self,
        (append, queued_at): (Append, Duration),
        now: Timestamp,
        elapsed: Duration,
    ) {
        let Append { batch, wait, completer, share } = append;
        if let Err(error) = self.check_leads() {
            return completer.complete(Err(error.into()));
        }
        if let Some(failure) = self.gauge.device().failure() {
            return completer.complete(Err(failure.clone().into()));
        }
        if planted(Bug::AckRefused) && self.check_room().is_err() {
            let base_offset = self.reader.offsets().log_end;
            let end_offset = Offset(base_offset.0 + u64::from(batch.header().record_count));
            let (reached, duplicate) = (Durability::Fsync, false);
            let receipt = AppendReceipt { base_offset, end_offset, reached, duplicate };
            return completer.complete(Ok(receipt));
        }
        self.last_append_ms.store(whole_ms(elapsed), SeqCst);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut writer = self.writer.lock();
            writer.as_mut().map(|writer| writer.append(&batch, now))
        }));
        let bytes = batch.as_bytes().len() as u64;
        drop((batch, share));
        match outcome {
            Ok(Some(Ok(appended))) => {
                self.enter(appended, bytes, wait, (completer, Some(queued_at)))
            }
            Ok(Some(Err(error))) => {
                let error = self.refusal(error, bytes);
                completer.complete(Err(error));
            }
            Ok(None) => completer.complete(Err(self.closed_or_failed())),
            Err(_) => {
                self.fail(PartitionFailed::because("the writer panicked; the log says more"));
                let reason = "the writer panicked".into();
                completer.complete(Err(AppendError::Indeterminate { reason }));
            }
        }
    }

    /// Runs `act` with the writer. A panic stops the partition.
    pub(super) fn act(&self, act: Act, now: Timestamp) {
        let done = catch_unwind(AssertUnwindSafe(|| act(&mut self.writer.lock(), now)));
        if done.is_err() {
            self.fail(PartitionFailed::because("the writer panicked; the log says more"));
        }
    }

    /// Has the next segment made ready when the active one fills up and there is room for it.
    pub(super) fn start_preparation(self: &Arc<Self>) {
        if !self.preparer.needs_preparation() || self.gauge.check().is_err() {
            return;
        }
        if !self.preparing.swap(true, SeqCst) {
            // When the thread has ended, a roll makes its file itself.
            drop(self.shard.preparations.push(self.clone()));
        }
    }

    /// Makes the next segment ready. On the preparing thread: it syncs files and directories.
    pub(super) fn prepare(&self, now: Timestamp) {
        // Nothing is filled with zeros ahead: no gain was measured (decision 0005).
        let prepare = AssertUnwindSafe(|| self.preparer.prepare(now, 0));
        match catch_unwind(prepare) {
            Ok(Ok(())) => self.preparing.store(false, SeqCst),
            // The roll tries again, and says so to the producer if it has to.
            Ok(Err(error)) => {
                tracing::warn!(partition = %self.name(), %error, "next segment not made ready");
                self.preparing.store(false, SeqCst);
            }
            Err(_) => tracing::error!(partition = %self.name(), "making a segment ready panicked"),
        }
    }

    /// Starts a flush if one is wanted and none is on its way.
    pub(super) fn start_flush(self: &Arc<Self>) {
        let begin = self.ledger.lock().begin_flush();
        if begin && self.shard.flushes.push(Flush::Log(self.clone())).is_err() {
            self.fail(PartitionFailed::because("the flush threads have ended"));
        }
    }

    /// The time after which a background flush is due, when one is to be timed from now.
    pub(super) fn arm_interval(&self) -> Option<Duration> {
        let settings = self.settings.read();
        let timed =
            settings.durability == Durability::Interval || self.interval_wanted.load(SeqCst);
        let arm = timed && self.ledger.lock().is_dirty() && !self.interval_armed.swap(true, SeqCst);
        arm.then_some(settings.flush_interval)
    }

    /// True, once, when the partition is to be looked at after a while without appends.
    pub(super) fn arm_idle(&self) -> bool {
        !self.idle_armed.swap(true, SeqCst)
    }

    /// Flushes what was appended: its flush interval is over.
    pub(super) fn interval_is_over(self: &Arc<Self>) {
        self.interval_wanted.store(false, SeqCst);
        self.interval_armed.store(false, SeqCst);
        self.ledger.lock().want_flush();
        self.start_flush();
    }

    /// Monotonic time of the last append, and whether something is not flushed.
    pub(super) fn activity(&self) -> (Duration, bool) {
        let ledger = self.ledger.lock();
        let dirty = ledger.is_dirty() && !ledger.has_failed();
        (Duration::from_millis(self.last_append_ms.load(SeqCst)), dirty)
    }

    /// Flushes the mark: nothing was appended for a while and everything is flushed.
    pub(super) fn is_idle(self: &Arc<Self>) {
        self.idle_armed.store(false, SeqCst);
        // When the flush threads have ended, the close wrote the mark.
        drop(self.shard.flushes.push(Flush::Mark(self.clone())));
    }

    fn enter(
        &self,
        appended: Appended,
        bytes: u64,
        wait: WaitFor,
        (completer, queued_at): (Completer, Option<Duration>),
    ) {
        let Appended { base_offset, end_offset, duplicate } = appended;
        let mut ledger = self.ledger.lock();
        if ledger.has_failed() {
            drop(ledger);
            return completer.complete(Err(self.indeterminate()));
        }
        let (needed, needs) = match wait {
            WaitFor::Written => (Durability::Os, Needs::Append),
            WaitFor::AtLeast(level) => match level.max(ledger.durability()) {
                Durability::Fsync => (Durability::Fsync, Needs::CommitAndFlush),
                level @ (Durability::Os | Durability::Interval) => (level, Needs::Commit),
            },
        };
        let bytes = if duplicate { 0 } else { bytes };
        if !duplicate && !self.is_internal {
            self.appended.count(end_offset.since(base_offset), bytes);
        }
        let waiting = Waiting { completer, base_offset, end_offset, duplicate, queued_at };
        let facts = AppendFacts { end_offset, bytes, needs };
        let ready = ledger.appended(facts, Some(waiting));
        let (visible, flushed) = (ledger.visible(), ledger.flushed());
        let orphaned = ledger.orphaned();
        drop(ledger);
        if needed == Durability::Interval {
            self.interval_wanted.store(true, SeqCst);
        }
        self.note_hot(end_offset, bytes);
        self.tail.publish(visible.high_watermark, visible.bytes);
        self.resolve(ready, flushed);
        orphaned.into_iter().for_each(Waiting::orphan);
    }

    /// Refuses unless this node may append.
    pub(super) fn check_leads(&self) -> Result<(), NotLeader> {
        match self.role() {
            Role::Leader => Ok(()),
            Role::Follower => Err(NotLeader),
        }
    }

    fn refusal(&self, error: LogAppendError, bytes: u64) -> AppendError {
        match error {
            LogAppendError::BatchTooLarge { len, max } => {
                AppendError::TooLarge { bytes: len, limit: max }
            }
            LogAppendError::DiskFull(failure) => {
                tracing::warn!(partition = %self.name(), bytes, %failure, "no room for a batch");
                AppendError::DiskFull(self.gauge.state())
            }
            LogAppendError::Io(failure) => {
                tracing::warn!(partition = %self.name(), bytes, %failure, "no room made for a batch");
                if failure.source.kind() == ErrorKind::ReadOnlyFilesystem {
                    // Mounted anew after the start, so it is not known as `read_only`.
                    let dir = failure.path.parent().unwrap_or(&failure.path).into();
                    let cause = failure.to_string().into();
                    return ReadOnly::Directory { dir, cause }.into();
                }
                AppendError::Io { reason: failure.to_string().into() }
            }
            LogAppendError::OutOfOrderSequence { producer_id, expected, got } => {
                AppendError::OutOfOrderSequence { producer_id, expected, found: got }
            }
            LogAppendError::Fenced { producer_id, got, current } => {
                AppendError::ProducerFenced { producer_id, current, found: got }
            }
            LogAppendError::UnknownProducer { producer_id, sequence } => {
                AppendError::UnknownProducer { producer_id, sequence }
            }
            LogAppendError::InvalidProducer { producer_id, epoch, sequence } => {
                AppendError::InvalidProducer { producer_id, epoch, sequence }
            }
            LogAppendError::OffsetsExhausted { log_end } => {
                AppendError::OffsetsExhausted { log_end }
            }
            LogAppendError::Failed(failure) => {
                let known = self.failure.get().is_some();
                self.fail_of_log(&failure);
                // The batch that met the failure first may be half written; later ones are surely not.
                if known { self.closed_or_failed() } else { self.indeterminate() }
            }
        }
    }
}

/// What the flush threads do.
impl Partition {
    /// Flushes, enters it in the ledger, shows what became visible and gives the receipts.
    pub(super) fn flush(self: &Arc<Self>) {
        let began = self.shard.clock.elapsed();
        let flushed = match catch_unwind(AssertUnwindSafe(|| self.flusher.flush())) {
            Ok(Ok(flushed)) => flushed,
            Ok(Err(error)) => return self.fail_of_flush(&error),
            Err(_) => {
                self.fail(PartitionFailed::because("the flusher panicked; the log says more"));
                return;
            }
        };
        let took = self.shard.clock.elapsed().saturating_sub(began);
        self.shard.meter.flush_duration.observe_time(took);
        self.settle(|ledger| {
            let records = flushed.0.saturating_sub(ledger.flushed().0);
            if records > 0 && !self.is_internal {
                self.shard.meter.group_commit_records.observe(records);
            }
            ledger.flushed_to(flushed)
        });
        self.start_flush();
    }

    /// Stops when the file with unflushed records was removed by somebody: a flush would tell so, and where none is
    /// asked for it may be long in coming.
    pub(super) fn check_file(&self) {
        if self.failure.get().is_some() || self.is_closed() {
            return;
        }
        if let Err(error) = self.flusher.check_file() {
            self.fail_of_flush(&error);
        }
    }

    /// Gives receipts; what is flushed is below `flushed`.
    fn resolve(&self, waiting: impl IntoIterator<Item = Waiting>, flushed: Offset) {
        let mut waiting = waiting.into_iter().peekable();
        if waiting.peek().is_none() {
            return;
        }
        let now = self.shard.clock.elapsed();
        for waiting in waiting {
            if let Some(queued_at) = waiting.queued_at.filter(|_| !self.is_internal) {
                let took = now.saturating_sub(queued_at);
                self.shard.meter.append_duration.observe_time(took);
            }
            waiting.resolve(flushed);
        }
    }

    /// Makes `change` in the ledger, shows what became visible and gives the receipts. Who waits on a node that
    /// does not lead any more is told that nobody here can say.
    pub(super) fn settle(&self, change: impl FnOnce(&mut Ledger<Waiting>) -> Vec<Waiting>) {
        let mut ledger = self.ledger.lock();
        let resolved = change(&mut ledger);
        let (visible, flushed) = (ledger.visible(), ledger.flushed());
        let orphaned = ledger.orphaned();
        self.leads.store(ledger.role() == Role::Leader, SeqCst);
        drop(ledger);
        self.tail.publish(visible.high_watermark, visible.bytes);
        self.resolve(resolved, flushed);
        orphaned.into_iter().for_each(Waiting::orphan);
    }

    /// Flushes the mark page.
    pub(super) fn flush_mark(&self) {
        if self.failure.get().is_some() || self.closed.load(SeqCst) {
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| self.flusher.sync_mark())) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail_of_flush(&error),
            Err(_) => {
                self.fail(PartitionFailed::because("the flusher panicked; the log says more"));
            }
        }
    }

    /// Stops the partition because its log did.
    fn fail_of_log(&self, failure: &LogFailure) {
        if self.fail(PartitionFailed::from(failure)) && failure.is_of_disk() {
            self.gauge.device().note_stopped(&failure.to_string());
        }
    }

    /// Stops the partition because a flush failed.
    fn fail_of_flush(&self, error: &StorageError) {
        match error {
            StorageError::Failed(failure) => self.fail_of_log(failure),
            StorageError::Io(_)
            | StorageError::Missing { .. }
            | StorageError::Foreign { .. }
            | StorageError::Version { .. }
            | StorageError::Option { .. }
            | StorageError::OutOfRange { .. } => {
                self.fail(PartitionFailed::because(error.to_string()));
            }
        }
    }

    /// Stops the partition for writing: those who wait are told, readers are woken. True when it had not stopped
    /// before.
    fn fail(&self, failure: PartitionFailed) -> bool {
        let reason = failure.reason.clone();
        let is_first = self.failure.set(failure).is_ok();
        if is_first {
            tracing::error!(partition = %self.name(), %reason, "partition stopped");
        }
        let lost = self.ledger.lock().fail();
        for waiting in lost {
            waiting.completer.complete(Err(self.indeterminate()));
        }
        self.tail.wake_all();
        is_first
    }

    fn indeterminate(&self) -> AppendError {
        let reason = self.failure.get().map_or("".into(), |failure| failure.reason.clone());
        AppendError::Indeterminate { reason }
    }

    fn closed_or_failed(&self) -> AppendError {
        self.failure.get().map_or(AppendError::Closed, |failure| failure.clone().into())
    }
}

impl Waiting {
    fn resolve(self, flushed: Offset) {
        let Waiting { completer, base_offset, end_offset, duplicate, queued_at: _ } = self;
        let reached = if end_offset <= flushed { Durability::Fsync } else { Durability::Os };
        passes(Place::BeforeAck);
        completer.complete(Ok(AppendReceipt { base_offset, end_offset, reached, duplicate }));
        passes(Place::AfterAck);
    }

    fn orphan(self) {
        let reason = "this node ceased to lead the partition".into();
        self.completer.complete(Err(AppendError::Indeterminate { reason }));
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
